"""Warm start: which trials of another sweep count, what a new one takes from them, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.launch.plan import Plan, complete_for
from hpo.launch.prepare import prepare
from hpo.launch.record import MismatchError, WarmStart
from hpo.launch.relaunch import plan_again
from hpo.launch.request import LaunchError
from hpo.launch.warm import BEST, best
from hpo.space.tree import Leaf
from results.store import Store, SweepFolder
from search_spaces.domains import Float, Kind, Node, OneOf
from tests.hpo.conftest import FAKES, launch, written

OTHER: dict[str, Node] = {
    "adapter": Kind(none={}, lora={"rank": OneOf(2, 4, 8, weights=(1, 1, 1))}),
    "dropout": {"hidden": Float(0.0, 0.3)},
    "optimizer": {"head_lr": Float(1e-4, 1e-2, log=True)},
}
SPACE: dict[str, Node] = {
    "adapter": Kind(none={}, lora={"rank": OneOf(4, 8, 16, weights=(4, 1, 3))}),
    "optimizer": {"head_lr": Float(3e-4, 3e-3, log=True), "encoder_lr": Float(1e-5, 1e-3, log=True)},
}
Trial = tuple[Mapping[str, Any], str, Mapping[int, float]]
"""Settings, state, and overall scores by milestone."""


def settings(rank: int | None, head_lr: float = 1e-3, hidden: float = 0.1) -> dict[str, Any]:
    adapter = {"kind": "none"} if rank is None else {"kind": "lora", "rank": rank}
    return {"adapter": adapter, "optimizer": {"head_lr": head_lr}, "dropout": {"hidden": hidden}}


def store_sweep(store: Path, trials: Sequence[Trial], name: str = "mine", **changes: Any) -> SweepFolder:
    """A sweep over OTHER with these trials."""
    plan = prepare(launch(store, name=name, space=OTHER, **changes))
    complete = complete_for(plan.declared(), plan.record.base.traits)
    folder = Store(store).create(name, written(plan).to_json())
    writer = folder.writer()
    for number, (nested, state, values) in enumerate(trials):
        config = plan.space.apply(nested, complete)
        row: dict[str, Any] = {"trial": number, "attempt": 0}
        writer.append("trials", {**row, "event": "start", "origin": "sampler", "config": json.dumps(config), "seed": 0,
                                 "params": json.dumps(plan.space.parameters(config, complete))})  # fmt: skip
        for step, overall in values.items():
            writer.append("reports", {**row, "step": step, "examples": step, "overall": overall,
                                      "diverged": math.isnan(overall), "verdict": "continue"})  # fmt: skip
        if state != "running":
            writer.append("trials", {**row, "event": "end", "state": state})
    writer.close()
    return Store(store).open(name)


ENDED: list[Trial] = [
    (settings(None), "complete", {100: 0.2, 900: 0.50}),
    (settings(8, 2e-3), "complete", {100: 0.1, 900: 0.60}),
    (settings(2, 5e-3), "complete", {100: 0.3, 900: 0.55}),
    (settings(4), "pruned", {100: 0.9}),
    (settings(4), "running", {100: 0.9, 900: 0.9}),
    (settings(4), "failed", {100: 0.9, 900: 0.9}),
    (settings(4), "diverged", {100: 0.9, 900: math.nan}),
]


def leaf(plan: Plan, name: str) -> Leaf:
    return next(each for each in plan.space.whole if each.name == name)


def warm_plan(store: Path, *names: str, **changes: Any) -> Plan:
    return prepare(launch(store, space=SPACE, warm_start=names or ("mine",), **changes))


def test_the_best_are_those_at_full_budget_or_else_at_the_furthest_rung(tmp_path: Path) -> None:
    assert [ranked.trial for ranked in best(store_sweep(tmp_path, ENDED))] == [1, 2, 0]
    pruned: list[Trial] = [(settings(4), "pruned", {100: 0.1 * number}) for number in range(6)]
    further: list[Trial] = [(settings(4), "pruned", {100: 0.0, 300: value}) for value in (0.1, 0.2)]
    assert [ranked.trial for ranked in best(store_sweep(tmp_path, pruned, "rung"))] == [5, 4, 3, 2]
    assert [ranked.trial for ranked in best(store_sweep(tmp_path, [*pruned, *further], "rungs"))] == [7, 6]
    complete: list[Trial] = [(settings(4), "complete", {900: 0.1 * number}) for number in range(6)]
    assert len(best(store_sweep(tmp_path, complete, "full"))) == BEST


def test_a_launch_takes_parents_and_centres_and_says_what_it_left_out(tmp_path: Path) -> None:
    store_sweep(tmp_path, ENDED)
    plan = warm_plan(tmp_path)
    # dropout/hidden is not in the space; of trial 2 neither rank 2 nor the rate 5e-3.
    (note,) = [note for note in plan.preview.notes if "warm start" in note]
    assert note == "warm start from mine: 3 configurations, 3 parameters left out that this space does not have"
    (source,) = plan.record.warm_start
    assert (source.sweep, list(source.trials)) == ("mine", [1, 2, 0])
    assert [config["adapter"]["kind"] for config in source.configs] == ["lora", "lora", "none"]
    assert source == WarmStart.of("mine", source.trials, source.configs)

    cold = prepare(launch(tmp_path, space=SPACE))
    assert leaf(plan, "optimizer/head_lr").domain.prior == 2e-3 != leaf(cold, "optimizer/head_lr").domain.prior  # type: ignore[union-attr]
    rank, kind = leaf(plan, "adapter.lora/rank").domain, leaf(plan, "adapter/kind").domain
    assert isinstance(rank, OneOf)
    assert isinstance(kind, OneOf)
    assert rank.weights == pytest.approx((0.5 * 4 / 7, 0.5, 0.5 * 3 / 7)), "the others keep their proportions"
    assert kind.weights == pytest.approx((0.5, 0.5))
    assert plan.record.space_hash != cold.record.space_hash, "a resume compares the moved priors"

    warm = plan.sweep(workers=1).study.problem.warm
    assert [each["adapter/kind"] for each in warm] == ["lora", "none"], "without its rank and rate trial 2 is trial 1"
    assert [each.get("adapter.lora/rank") for each in warm] == [8, None]
    assert [each["optimizer/head_lr"] for each in warm] == [2e-3, 1e-3]


def test_a_resume_does_not_need_the_other_sweep_and_draws_the_same(tmp_path: Path) -> None:
    store_sweep(tmp_path, ENDED)
    plan = warm_plan(tmp_path)
    record = written(plan)
    Store(tmp_path).remove("mine")
    for trials in (8, 20):
        again = plan_again(plan.store, record, trials, FAKES)
        assert again.record.warm_start == record.warm_start
        first, second = plan.sweep(workers=8), again.sweep(workers=8)
        assert [first.next() for _ in range(8)] == [second.next() for _ in range(8)]
    (source,) = record.warm_start
    forged = replace(record, warm_start=[replace(source, configs=source.configs[:1])])
    with pytest.raises(MismatchError, match=r"another warm start from mine \(SHA-256\)"):
        plan_again(plan.store, forged, 8, FAKES)


def test_of_several_sweeps_all_give_parents_and_the_best_trial_the_centres(tmp_path: Path) -> None:
    store_sweep(tmp_path, [(settings(8, 5e-4), "complete", {900: 0.7})], "first")
    store_sweep(tmp_path, [(settings(16 // 2, 2e-3), "complete", {900: 0.8})], "second")
    store_sweep(tmp_path, [(settings(4, 1.5e-3), "pruned", {100: 0.9})], "third")
    plan = warm_plan(tmp_path, "first", "second", "third")
    assert [source.sweep for source in plan.record.warm_start] == ["first", "second", "third"]
    assert leaf(plan, "optimizer/head_lr").domain.prior == 2e-3  # type: ignore[union-attr]
    assert [each["optimizer/head_lr"] for each in plan.sweep(workers=1).study.problem.warm] == [5e-4, 2e-3, 1.5e-3]


def test_a_pin_holds_against_a_warm_start(tmp_path: Path) -> None:
    store_sweep(tmp_path, ENDED)
    plan = warm_plan(tmp_path, settings=("adapter/kind=none",))
    sweep = plan.sweep(workers=8)
    assert {start.config["adapter"]["kind"] for _ in range(8) if (start := sweep.next())} == {"none"}
    assert "adapter/kind" not in {name for each in sweep.study.problem.warm for name in each}


def test_random_draws_take_centres_alone_and_say_so(tmp_path: Path) -> None:
    store_sweep(tmp_path, ENDED)
    plan = warm_plan(tmp_path, searcher="random")
    assert any(note.endswith("; `random` takes centres of its priors alone") for note in plan.preview.notes)
    assert leaf(plan, "optimizer/head_lr").domain.prior == 2e-3  # type: ignore[union-attr]


@pytest.mark.parametrize("searcher", ["grid", "tpe"])
def test_a_searcher_that_cannot_use_other_sweeps_is_refused(tmp_path: Path, searcher: str) -> None:
    store_sweep(tmp_path, ENDED)
    with pytest.raises(LaunchError, match=rf"`{searcher}` has neither .* one of: changes, gp, nsga2, random\."):
        warm_plan(tmp_path, searcher=searcher)


def test_sweeps_that_cannot_help_are_refused(tmp_path: Path) -> None:
    store_sweep(tmp_path, ENDED)
    with pytest.raises(ValueError, match="No sweep `min` in .* Did you mean `mine`?"):
        warm_plan(tmp_path, "min")
    with pytest.raises(LaunchError, match="`warm_start` must name each sweep once, found 'mine' more than once"):
        warm_plan(tmp_path, "mine", "mine")
    store_sweep(tmp_path, ENDED[4:], "young")
    with pytest.raises(LaunchError, match="no trial of 'young' has ended with a score yet"):
        warm_plan(tmp_path, "mine", "young")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {"name": "other", "sha256": "1"}}, "its base is other, here it is tiny. Expected"),
        ({"base": {"sha256": "1"}}, "its weights of tiny are others. Expected"),
        ({"data": {"fingerprint": "0123456789"}}, r"its data are others \(fingerprint 01234567, here \w{8}\)\."),
    ],
)  # fmt: skip
def test_what_makes_trials_incomparable_is_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = store_sweep(tmp_path, ENDED)
    content = json.loads((folder.path / "sweep.json").read_text())
    for group, values in changes.items():
        content[group] |= values
    (folder.path / "sweep.json").write_text(json.dumps(content))
    with pytest.raises(LaunchError, match=f"trials of 'mine' cannot be compared with those of this sweep: {message}"):
        warm_plan(tmp_path)


def test_other_tasks_are_named(tmp_path: Path) -> None:
    store_sweep(tmp_path, ENDED, tasks="sst")
    with pytest.raises(LaunchError, match="its tasks are sst, here they are sst,qqp,sts. Expected"):
        warm_plan(tmp_path)
