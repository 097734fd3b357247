"""Pins hold in every trial that has the parameter, are refused if none has it, and are noted if only some have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.launch.plan import complete_for
from hpo.launch.prepare import prepare
from hpo.space.build import build
from hpo.space.pins import read_pins
from hpo.space.space import Space
from hpo.space.tree import compose, expand
from minbert.config import Config
from minbert.tasks import choose_tasks
from search_spaces.domains import Float, Kind, Node, OneOf, PerTask, SpaceError
from tests.hpo.cli import hpo, refused
from tests.hpo.conftest import launch
from tests.hpo.simulation import SPACE, complete
from tests.minbert.configs import configure

TASKS = ("sst", "qqp", "sts")
LEGAL = complete_for(choose_tasks(TASKS))


def strict(config: dict[str, Any]) -> dict[str, Any]:
    """`complete` as minbert's configuration defines it."""
    return Config.from_dict(config, choose_tasks(TASKS)).to_dict()


def pinned_space(source: Any, *pins: str) -> Space:
    """A space over the three tasks under `--set` settings."""
    return build(source, TASKS, pins).space


def drawn_names(pins: dict[str, Any]) -> dict[str, str]:
    """Name -> domain, for the parameters of the simulated space that are drawn under the pins."""
    rows = Space(expand(SPACE, TASKS), pins).describe()
    return {row["name"]: row["domain"] for row in rows if row["type"] != "fixed"}


def value(config: dict[str, Any], path: str) -> Any:
    for key in path.split("/"):
        config = config[key]
    return config


def test_a_pinned_kind_leaves_one_branch_and_a_pinned_leaf_no_domain() -> None:
    names = drawn_names({"adapter": {"kind": "lora"}})
    assert "adapter.lora/rank" in names
    assert not {"adapter/kind", "adapter.none//optimizer/encoder_lr"} & names.keys()
    names = drawn_names({"adapter": {"rank": 8}, "optimizer": {"encoder_lr": 1e-4}})
    assert "adapter/kind" in names
    assert not any("rank" in name or "encoder_lr" in name for name in names)
    assert "adapter.lora/rank" not in drawn_names({"adapter": {"kind": "dora", "rank": 4}})


def test_a_pin_inside_a_composite_choice_changes_every_choice() -> None:
    space = Space(expand(SPACE, TASKS), {"batch_size": {"sst": 16}}).leaves
    domain = next(leaf.domain for leaf in space if leaf.path == "batch_size")
    assert isinstance(domain, OneOf)
    assert domain.values == ({"sst": 16, "qqp": 32, "sts": 2}, {"sst": 16, "qqp": 32, "sts": 16})
    whole = Space(expand(SPACE, TASKS), {"batch_size": {"sst": 1, "qqp": 1, "sts": 1}}).leaves
    assert next(leaf for leaf in whole if leaf.path == "batch_size").constant


def test_pins_hold_in_given_configurations_that_have_the_parameter() -> None:
    tree = expand(SPACE, TASKS)
    assert Space(tree, {"adapter": {"rank": 4}}).apply({}, complete) == complete({})
    lora = Space(tree, {"adapter": {"rank": 4, "kind": "lora"}}).apply({}, complete)
    assert lora == complete({"adapter": {"kind": "lora", "rank": 4}})
    start = {"adapter": {"kind": "lora", "rank": 2}, "x": 0.25}
    assert Space(tree, {"adapter": {"kind": "none"}, "steps": 9}).apply(start, complete) == complete(
        {"adapter": {"kind": "none"}, "x": 0.25, "steps": 9}
    )


ALONE = [
    "encoding/sst/pooling=mean",
    "taper/sts/weight=0.2",
    "encoding/sts/kind=bi encoding/sts/head/kind=cosine",
    "encoding/qqp/kind=bi encoding/sts/kind=bi shared_head/kind=linear",
    "adapter/kind=lora adapter/rank=4 adapter/layers/kind=top adapter/layers/count=2",
    "regularizer/sst/kind=smart regularizer/sst/weight=3 optimizer/encoder_lr=0.0005",
    "mixing/balance/kind=uncertainty mixing/combine/kind=pcgrad",
    "stages/mlm/kind=mlm stages/mlm/epochs=2 batch_size/sst=8",
]


@pytest.mark.parametrize("settings", ALONE)
def test_a_pin_outside_the_space_means_the_same_as_without_a_search(settings: str) -> None:
    """`python -m minbert train --set ...` merges settings into the default configuration."""
    pins = settings.split()
    expected = configure(*pins).to_dict()
    space = pinned_space({"dropout": {"hidden": Float(0.0, 0.3)}}, *pins)
    assert space.apply({}, LEGAL) == expected
    for config in space.check(LEGAL, TASKS):
        assert config | {"dropout": None} == expected | {"dropout": None}
    assert space.partly(LEGAL) == []


CASES: list[tuple[str, dict[str, Node], str, str, str]] = [
    # the space draws the kind, and gives the parameter to one of the three branches that have it
    ("drawn", {"adapter": Kind(none={}, lora={"rank": OneOf(2, 3)}, dora={}, pal={})}, "adapter/rank=8",
     "adapter/kind", "lora dora pal"),
    ("drawn, never varied", {"adapter": Kind(none={}, frozen={}, lora={})}, "adapter/rank=8", "adapter/kind", "lora"),
    ("drawn for each task", {"taper": PerTask(Kind(constant={}, inverse={"weight": Float(0.1, 1.0)}))},
     "taper/sts/weight=0.2", "taper/sts/kind", "constant inverse"),
    ("nested", {"mixing": Kind(summed={"combine": Kind(sum={}, pcgrad={})}, round_robin={})},
     "mixing/balance/kind=uncertainty", "mixing/kind", "summed"),
    ("given by absolute path", {"adapter": Kind(none={"/optimizer/encoder_lr": Float(1e-5, 1e-4)}, lora={})},
     "optimizer/encoder_lr=0.0002", "adapter/kind", "none lora"),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "pin", "kind", "having"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_a_pin_holds_in_every_branch_that_has_the_parameter(
    tree: dict[str, Node], pin: str, kind: str, having: str
) -> None:
    space = pinned_space(tree, pin)
    [(path, pinned)] = space.pins.items()
    branches = {value(config, kind): config for config in [space.apply({}, LEGAL), *space.branches(LEGAL)]}
    assert set(having.split()) <= branches.keys()
    for name, config in branches.items():
        if name in having.split():
            assert value(config, path) == pinned
        else:
            assert config == space.apply(config, strict) == LEGAL(config), "untouched"
            with pytest.raises(KeyError):
                value(config, path)


def test_a_pin_of_a_kind_that_the_space_does_not_know_has_its_own_parameters() -> None:
    tree = {"adapter": Kind(none={}, lora={"rank": OneOf(1, 2)}), "mixing": Kind(round_robin={}, summed={})}
    space = pinned_space(tree, "adapter/kind=pal", "adapter/rank=4")
    assert {config["adapter"]["rank"] for config in space.check(strict)} == {4}
    drawn = compose(space.leaves, lambda leaf: leaf.first())[0]
    assert space.apply(drawn, strict)["adapter"]["kind"] == "pal"


@pytest.mark.parametrize(
    ("space", "pins", "match"),
    [
        ("heads", ("encoding/qqp/kind=cross", "shared_head/kind=linear"), "`shared_head/kind` linear reads both"),
        ("mixing", ("mixing/kind=alpha", "mixing/combine/kind=pcgrad"), "`mixing/combine` where .* is alpha"),
        ("mixing", ("batch_size/cfimdb=8",), "Unknown task `cfimdb` in `batch_size`. This run has"),
        ("mixing", ("adapter/rank=4",), "`adapter/rank` where `adapter/kind` is none: .* kind as well: .*kind=lora"),
        ("adapters", ("adapter/kind=none", "adapter/rank=4"), "`adapter/rank` where `adapter/kind` is none: it bel"),
        ("mixing", ("adapter/knd=lora",), r"`adapter/knd`\. Did you mean `adapter/kind`\?"),
        ("mixing", ("adapter/rnk=8",), r"`adapter/rnk` .* Did you mean `adapter/rank`, which belongs to lora, dora"),
        ("mixing", ("adapter/kind=lorra",), r"Unknown adapter `lorra`\. Did you mean `lora`"),
        ("adapters", ("adapter/rank=9999",), "`adapter/rank` must be an integer from 1 to 1024, found 9999"),
        ("quickstart", ("dropout/hidden=NaN",), "`dropout/hidden` must be a number from 0.0 to 0.9, found nan"),
        ("mixing", ("encoder_lr=0.001",), "The parameter `encoder_lr` is `optimizer/encoder_lr`"),
        ("mixing", ("taper/weight=0.2",), "Unknown task `weight` in `taper`"),
    ],
)  # fmt: skip
def test_a_pin_that_no_trial_can_have_is_refused(space: str, pins: tuple[str, ...], match: str) -> None:
    with pytest.raises(SpaceError, match=f"^Pinned values: .*{match}"):
        pinned_space(space, *pins).check(LEGAL, TASKS)


def test_every_wrong_pin_is_reported_with_the_mistakes_of_the_space() -> None:
    pins = ("adapter/kind=lorra", "dropout/hidden=3", "xx=1", "dropout/head=0.2")
    with pytest.raises(SpaceError) as error:
        pinned_space({"dropout": {"attention": OneOf(0.1, 7)}}, *pins).check(LEGAL, TASKS)
    heading, *lines = str(error.value).splitlines()
    assert heading == "4 mistakes:"
    for line, part in zip(lines, ("lorra", "dropout/hidden", "`xx`", "dropout/attention = 7"), strict=True):
        assert part in line


def test_a_name_with_branches_is_answered_with_the_path() -> None:
    with pytest.raises(SpaceError, match=r"names its branch.* Write --set adapter/rank=8, .* --set adapter/kind=lora"):
        read_pins(["adapter.lora/rank=8"])
    with pytest.raises(SpaceError, match=r"slashes join .* Write --set optimizer/encoder_lr=1e-4\."):
        read_pins(["optimizer.encoder_lr=1e-4"])
    with pytest.raises(SpaceError, match=r"--set optimizer/encoder_lr=1e-4, .* --set adapter/kind=lora"):
        read_pins(["adapter.lora//optimizer/encoder_lr=1e-4"])
    assert read_pins(["dropout/hidden=0.2"]) == {"dropout": {"hidden": 0.2}}


def test_a_pin_that_some_branches_have_is_noted_with_these_branches() -> None:
    def notes(space: Any, *pins: str) -> list[str]:
        return pinned_space(space, *pins).partly(LEGAL)

    where = "mixing/combine/kind=pcgrad applies where mixing/kind = summed: 1 of 6 branches"
    assert notes("mixing", "mixing/combine/kind=pcgrad") == [where]
    assert notes("mixing", "mixing/kind=summed", "mixing/combine/kind=pcgrad") == []
    assert notes("mixing", "batch_size/sst=4", "dropout/hidden=0.2") == []
    [line] = notes("heads", "shared_head/kind=linear")
    assert line.endswith("encoding/qqp/kind = bi and encoding/sts/head/kind = linear: 1 of 8 branches")
    [line] = notes("heads", "shared_head/kind=linear", "encoding/qqp/kind=bi")
    assert "encoding/qqp/kind" not in line, "a note does not name pinned kinds"
    assert line.endswith("where encoding/sts/head/kind = linear: 1 of 4 branches")
    [line] = notes({"adapter": Kind(none={}, lora={}, dora={})}, "adapter/rank=4")
    assert line == "adapter/rank=4 applies where adapter/kind = lora or adapter/kind = dora: 2 of 3 branches"
    assert notes({"adapter": Kind(lora={}, dora={"rank": OneOf(1, 2)})}, "adapter/rank=4") == []


def test_a_dry_run_prints_the_note(tmp_path: Path) -> None:
    common = ("run", "mixing", "--dry-run", "--base", "tiny", "--budget", "192", "--grace", "192")
    done = hpo(*common, "--set", "mixing/combine/kind=gse", store=tmp_path / "runs")
    assert "note: mixing/combine/kind=gse applies where mixing/kind = summed: 1 of 5 branches" in done.stdout
    message = refused(hpo(*common, "--tasks", "sst", "--set", "batch_size/qqp=8", store=tmp_path / "runs"))
    assert "Unknown task `qqp` in `batch_size`. This run has the tasks sst; leave the setting out, or name" in message


def test_a_plan_holds_pins_outside_the_space_in_all_its_trials(tmp_path: Path) -> None:
    plan = prepare(launch(tmp_path, settings=("encoding/sst/pooling=mean", "taper/sts/weight=0.2")))
    assert plan.space.pinned == {"encoding": {"sst": {"pooling": "mean"}}, "taper": {"sts": {"weight": 0.2}}}
    sweep = plan.sweep(workers=3)
    for _ in range(3):
        start = sweep.next()
        assert start is not None
        assert start.config["encoding"]["sst"] == configure().to_dict()["encoding"]["sst"] | {"pooling": "mean"}
        assert start.config["taper"]["sts"]["weight"] == 0.2
