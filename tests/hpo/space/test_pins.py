"""Pins hold wherever their parameter exists, are refused where it never does, and say where it seldom does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.launch.prepare import prepare
from hpo.space.check import check, describe
from hpo.space.pins import apply_pins, partly, pin
from hpo.space.source import load_space
from hpo.space.tree import compose, expand, leaves
from minbert.config import Config
from minbert.tasks import choose_tasks
from search_spaces.domains import Float, Kind, OneOf
from tests.hpo.cli import hpo, refused
from tests.hpo.conftest import launch
from tests.hpo.simulation import SPACE, complete

TASKS = ("sst", "qqp", "sts")


def strict(config: dict[str, Any]) -> dict[str, Any]:
    """The product's own `complete`."""
    return Config.from_dict(config, choose_tasks(TASKS)).to_dict()



def pinned_names(pins: dict[str, Any]) -> dict[str, str]:
    rows = describe(expand(SPACE, TASKS), pins)
    return {row["name"]: row["domain"] for row in rows if row["type"] != "fixed"}


def test_a_pinned_kind_leaves_one_branch_and_a_pinned_leaf_no_domain() -> None:
    names = pinned_names({"adapter": {"kind": "lora"}})
    assert "adapter.lora/rank" in names
    assert not {"adapter/kind", "adapter.none//optimizer/encoder_lr"} & names.keys()
    names = pinned_names({"adapter": {"rank": 8}, "optimizer": {"encoder_lr": 1e-4}})
    assert "adapter/kind" in names
    assert not any("rank" in name or "encoder_lr" in name for name in names)
    assert "adapter.lora/rank" not in pinned_names({"adapter": {"kind": "dora", "rank": 4}})


def test_a_pin_inside_a_composite_choice_changes_every_choice() -> None:
    space = pin(leaves(expand(SPACE, TASKS)), {"batch_size": {"sst": 16}})
    domain = next(leaf.domain for leaf in space if leaf.path == "batch_size")
    assert isinstance(domain, OneOf)
    assert domain.values == ({"sst": 16, "qqp": 32, "sts": 2}, {"sst": 16, "qqp": 32, "sts": 16})
    whole = pin(leaves(expand(SPACE, TASKS)), {"batch_size": {"sst": 1, "qqp": 1, "sts": 1}})
    assert next(leaf for leaf in whole if leaf.path == "batch_size").constant


def test_pins_hold_in_given_configurations_that_have_the_parameter() -> None:
    space = leaves(expand(SPACE, TASKS))
    assert apply_pins({}, {"adapter": {"rank": 4}}, space, complete) == complete({})
    lora = apply_pins({}, {"adapter": {"rank": 4, "kind": "lora"}}, space, complete)
    assert lora == complete({"adapter": {"kind": "lora", "rank": 4}})
    given = {"adapter": {"kind": "lora", "rank": 2}, "x": 0.25}
    assert apply_pins(given, {"adapter": {"kind": "none"}, "steps": 9}, space, complete) == complete(
        {"adapter": {"kind": "none"}, "x": 0.25, "steps": 9})
    with pytest.raises(ValueError, match="Unknown parameter `xx`"):
        apply_pins({}, {"xx": 1}, space, complete)


def test_a_pin_whose_branches_are_pinned_away_is_left_to_the_configuration() -> None:
    """Of a kind that the space does not even know, its own `rank`; where nobody has one, the reason why."""
    space = {"adapter": Kind(none={}, lora={"rank": OneOf(1, 2)}), "mixing": Kind(round_robin={}, summed={})}
    tree = expand(space, TASKS)
    pal = {"adapter": {"kind": "pal", "rank": 4}}
    assert check(tree, strict, pal)
    drawn = compose(pin(leaves(tree), pal), lambda leaf: leaf.first())[0]
    assert drawn["adapter"] == {"kind": "pal", "rank": 4}
    assert apply_pins({}, pal, leaves(tree), strict)["adapter"]["rank"] == 4
    with pytest.raises(ValueError, match=r"Pinned values: .*`adapter/rank` where `adapter/kind` is none.*kind=lora\.$"):
        check(tree, strict, {"adapter": {"kind": "none", "rank": 4}})


@pytest.mark.parametrize(
    ("space", "settings", "match"),
    [
        ("heads", ("encoding/qqp/kind=cross", "shared_head/kind=linear"), "`shared_head/kind` linear reads both"),
        ("mixing", ("mixing/kind=alpha", "mixing/combine/kind=pcgrad"), "`mixing/combine` where .* is alpha"),
        ("mixing", ("batch_size/cfimdb=8",), "Unknown task `cfimdb` in `batch_size`. This run has"),
    ],
)  # fmt: skip
def test_a_pin_that_no_trial_can_have_is_refused(
    tmp_path: Path, space: str, settings: tuple[str, ...], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        prepare(launch(tmp_path, space=space, settings=settings))


def test_a_pin_that_some_branches_have_says_which() -> None:
    def said(space: Any, **pinned: Any) -> list[str]:
        return partly(leaves(expand(load_space(space), TASKS)), pinned)

    where = "mixing/combine/kind=pcgrad applies where mixing/kind = summed: 1 of 6 branches"
    assert said("mixing", mixing={"combine": {"kind": "pcgrad"}}) == [where]
    assert said("mixing", mixing={"kind": "summed", "combine": {"kind": "pcgrad"}}) == []
    assert said("mixing", batch_size={"sst": 4}, dropout={"hidden": 0.2}) == []
    [line] = said("heads", shared_head={"kind": "linear"})
    assert line.endswith("encoding/sts/kind = bi and encoding/sts/head/kind = linear: 1 of 8 branches")
    [line] = said("heads", shared_head={"kind": "linear"}, encoding={"sts": {"kind": "bi"}})
    assert "encoding/sts/kind" not in line, "what is pinned goes without saying"
    assert line.endswith(": 1 of 6 branches")
    branches = {"none": {"/x": Float(0, 1)}, "lora": {"/x": Float(1, 2)}}
    assert said({"adapter": Kind(**branches)}, x=0.5) == []
    [line] = said({"adapter": Kind(**branches, dora={})}, x=0.5)
    assert line == "x=0.5 applies where adapter/kind = none or adapter/kind = lora: 2 of 3 branches"


def test_the_command_line_says_it_too(tmp_path: Path) -> None:
    common = ("run", "mixing", "--dry-run", "--base", "tiny", "--budget", "192", "--grace", "192")
    done = hpo(*common, "--set", "mixing/combine/kind=gse", store=tmp_path / "runs")
    assert "note: mixing/combine/kind=gse applies where mixing/kind = summed: 1 of 6 branches" in done.stdout
    message = refused(hpo(*common, "--tasks", "sst", "--set", "batch_size/qqp=8", store=tmp_path / "runs"))
    assert "Unknown task `qqp` in `batch_size`. This run has the tasks sst; leave the setting out, or name" in message
