"""A space serves any choice of tasks: only the parts that concern absent tasks are left out."""

from __future__ import annotations

import pytest

import search_spaces
from hpo.space.source import load_space
from hpo.space.space import Space
from hpo.space.tasks import alone, restrict
from hpo.space.tree import expand, leaves
from minbert.config import Config
from minbert.tasks import TASKS, choose_tasks
from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask, SpaceError

ABSENT = ("qqp", "sts")


def test_absent_tasks_are_left_out_of_keys_composite_choices_lists_and_choices() -> None:
    space: dict[str, Node] = {
        "encoding": {"sst": OneOf("a", "b"), "qqp": Kind(x={}, y={"z": Int(1, 3)})},
        "taper": {"sts": Float(0, 1)},
        "batch_size": OneOf({"sst": 3, "qqp": 32, "sts": 2}, {"sst": 3, "qqp": 16}, {"sst": 8, "sts": 2}),
        "named": OneOf(labels={"small": {"sst": 1, "qqp": 1}, "large": {"sst": 2, "qqp": 2}}),
        "mixing": Kind(
            sequential={"order": OneOf(["sst", "qqp", "sts"], ["sts", "sst", "qqp"], ["qqp", "sts"])},
            single={"task": OneOf("sst", "sts")},
            other={"task": OneOf("qqp")},
            owner={"/taper/qqp": Float(0, 1), "alpha": Float(0, 1)},
        ),
        "rate": PerTask(Float(0, 1), qqp=Float(0, 2), sst=Float(0, 3)),
        "list": OneOf(("query", "value"), ("key",)),
        "plain": Int(1, 9),
    }
    remaining, left_out = restrict(space, ABSENT)
    assert remaining == {
        "encoding": {"sst": OneOf("a", "b")},
        "batch_size": OneOf({"sst": 3}, {"sst": 8}),
        "named": OneOf(labels={"small": {"sst": 1}, "large": {"sst": 2}}),
        "mixing": Kind(
            sequential={"order": OneOf(["sst"])}, single={"task": OneOf("sst")}, owner={"alpha": Float(0, 1)}
        ),
        "rate": PerTask(Float(0, 1), sst=Float(0, 3)),
        "list": OneOf(("query", "value"), ("key",)),
        "plain": Int(1, 9),
    }
    assert left_out == (
        "batch_size: qqp, sts", "encoding/qqp", "mixing.other", "mixing.owner//taper/qqp",
        "mixing.sequential/order: qqp, sts", "mixing.single/task: sts", "named: qqp", "rate/qqp", "taper",
    )  # fmt: skip
    expand(remaining, ("sst",))


def test_a_parameter_that_can_only_be_an_absent_task_is_refused() -> None:
    with pytest.raises(SpaceError, match=r"task: each of its choices \(qqp \| sts\) is a task that this"):
        restrict({"task": OneOf("qqp", "sts")}, ABSENT)
    with pytest.raises(SpaceError, match="mixing.single/task: each of its choices"):
        restrict({"mixing": Kind(single={"task": OneOf("qqp")})}, ABSENT)


def test_a_misspelt_task_stays_and_the_check_reports_it() -> None:
    space = {"rate": PerTask(Float(0, 1), qpq=Float(0, 2))}
    assert restrict(space, ABSENT) == (space, ())
    with pytest.raises(SpaceError, match="PerTask names an unknown task `qpq`"):
        expand(restrict(space, ABSENT)[0], ("sst",))


@pytest.mark.parametrize("name", search_spaces.names())
@pytest.mark.parametrize("tasks", [("cfimdb",), ("sts",), ("sst", "qqp", "sts"), tuple(TASKS)], ids="+".join)
def test_every_space_fits_every_choice_of_tasks(name: str, tasks: tuple[str, ...]) -> None:
    absent = TASKS.keys() - set(tasks)
    remaining, left_out = restrict(load_space(name), absent)
    space = leaves(expand(remaining, tasks))
    assert space
    for leaf in space:
        assert not absent & set(leaf.path.split("/")), leaf
    assert bool(left_out) == (remaining != load_space(name))
    if len(tasks) > 2:
        assert not any("sst" in part or "qqp" in part or "sts" in part for part in left_out)
    Space(expand(remaining, tasks)).check(lambda config: Config.from_dict(config, choose_tasks(tasks)).to_dict())


@pytest.mark.parametrize("name", ["full", "heads"])
def test_a_task_keeps_its_domains_that_lie_in_branches_of_another_task(name: str) -> None:
    remaining, _ = restrict(load_space(name), ("sst", "qqp", "cfimdb"))
    varied = {leaf.path for leaf in leaves(expand(remaining, ("sts",))) if not leaf.constant}
    assert {"encoding/sts/kind", "encoding/sts/head/kind", "encoding/sts/pooling"} <= varied
    assert "shared_head/kind" not in varied


def test_one_task_leaves_nothing_to_mix() -> None:
    space: dict[str, Node] = {
        "mixing": Kind(summed={"/optimizer/encoder_lr": Float(0, 1), "multiplier": Int(0, 3)}, round_robin={}),
        "adapter": Kind(none={"/mixing/combine": Kind(sum={}, pcgrad={})}, lora={"rank": Int(1, 3)}),
        "other": {"mixing": Float(0, 1)},
        "taper": {"sst": Float(0, 1)},
    }
    remaining, left_out = alone(space)
    assert remaining == {
        "/optimizer/encoder_lr": Float(0, 1),
        "adapter": Kind(none={}, lora={"rank": Int(1, 3)}),
        "other": {"mixing": Float(0, 1)},
        "taper": {"sst": Float(0, 1)},
    }
    assert left_out == ("adapter.none//mixing/combine", "mixing")
    assert alone({"batch_size": Int(1, 3)}) == ({"batch_size": Int(1, 3)}, ())


@pytest.mark.parametrize("name", search_spaces.names())
def test_no_space_asks_one_task_how_to_mix(name: str) -> None:
    remaining, _ = alone(restrict(load_space(name), TASKS.keys() - {"sst"})[0])
    space = leaves(expand(remaining, ("sst",)))
    assert not any(leaf.path.startswith("mixing/") for leaf in space)
    assert any(not leaf.constant for leaf in space)
