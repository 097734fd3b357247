"""Mixings: properties of every entry, and closed forms for what each draws and which rows it takes."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minbert.config import Config
from minbert.data.batches import permutation, training_rows
from minbert.data.tokens import Data
from minbert.fields import ConfigError, Run, dump, load
from minbert.tasks import choose_tasks
from minbert.techniques.mixings import MIXINGS, Mix, TaskOrder, annealed_alpha, epoch_steps, probabilities
from minbert.training import checkpoints
from minbert.training.train import State, train
from tests.minbert.configs import configure

TASKS = choose_tasks("sst,qqp,sts")
SIZES = {"sst": 8544, "qqp": 76113, "sts": 6040}
BATCHES = {"sst": 16, "qqp": 32, "sts": 16}
MIX = Mix(SIZES, 7, BATCHES)


def mixing(kind: str, **values: Any) -> Any:
    """A mixing of the three tasks; fields that `values` leaves out have their defaults."""
    return load(MIXINGS[kind], values, run=Run(TASKS))


def assert_shares(order: TaskOrder, steps: int, progress: float, expected: dict[str, float]) -> None:
    """Drawn shares lie within four standard errors of the probabilities."""
    counts = Counter(order.tasks(step, progress)[0] for step in range(steps))
    for task, p in expected.items():
        assert abs(counts[task] / steps - p) <= 4 * math.sqrt(p * (1 - p) / steps), task


# Every entry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MIXINGS)
def test_mixings_name_known_tasks_and_depend_on_seed_step_and_progress_alone(kind: str) -> None:
    first, second = (mixing(kind).build(MIX) for _ in range(2))
    drawn = [first.tasks(step, step / 200) for step in range(200)]
    assert all(set(names) <= set(SIZES) and names and len(set(names)) == len(names) for names in drawn)
    assert drawn == [second.tasks(step, step / 200) for step in range(200)]
    assert [second.tasks(150, 0.75)] == [drawn[150]]
    assert first.tasks(200, 1.0)  # the last report may ask at the very end of the budget


@pytest.mark.parametrize("kind", MIXINGS)
def test_mean_batches_are_those_of_the_draws(kind: str) -> None:
    small, budget = {"sst": 2, "qqp": 8, "sts": 2}, 20_000
    chosen = mixing(kind)
    order, counts, used, draws = chosen.build(Mix(SIZES, 7, small)), Counter[str](), 0, 0
    while used < budget:
        names = order.tasks(draws, used / budget)
        counts.update(names)
        used += sum(small[name] for name in names)
        draws += 1
    for name, expected in chosen.batches(Mix(SIZES, 7, small)).items():
        assert counts[name] / draws == pytest.approx(expected, abs=0.04), name


@pytest.mark.parametrize("kind", MIXINGS)
def test_every_mixing_says_how_gradients_are_combined_and_losses_balanced(kind: str) -> None:
    default = mixing(kind)
    assert default.combine.kind == "sum" and default.balance.kind == "none"
    assert ("combine" in dump(default)) == (kind == "summed")


@pytest.mark.parametrize("kind", MIXINGS)
def test_orders_have_no_state(kind: str) -> None:
    """Frozen, and asking in another order gives the same answers: a resumed trial continues exactly."""
    order = mixing(kind).build(MIX)
    with pytest.raises(dataclasses.FrozenInstanceError):
        order.seed = 1
    forward = [order.tasks(step, 0.3) for step in range(50)]
    assert [order.tasks(step, 0.3) for step in reversed(range(50))] == forward[::-1]


@pytest.mark.parametrize("kind", MIXINGS)
def test_by_default_a_batch_begins_where_the_last_one_ended(kind: str) -> None:
    assert mixing(kind).build(MIX).position("sst", 5, 123) == 123


@pytest.mark.parametrize("kind", MIXINGS)
def test_every_mixing_draws_the_tasks_of_its_run(kind: str) -> None:
    """Tasks of other names and order: no declared task appears."""
    declared = {"b": TASKS["qqp"], "a": TASKS["sts"]}
    order = load(MIXINGS[kind], {}, run=Run(declared)).build(Mix({"b": 60, "a": 90}, 0, {"b": 4, "a": 8}))
    drawn = [name for step in range(100) for name in order.tasks(step, step / 100)]
    assert drawn[0] == "b" or kind in ("alpha", "annealed")
    assert set(drawn) == ({"b"} if kind == "single" else {"a", "b"})


# Probabilities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 1.0, 3.0])
def test_probabilities_sum_to_one_and_follow_their_formula(alpha: float) -> None:
    upweight = {"sst": 4.0, "sts": 8.0, "unknown": 100.0}
    actual = probabilities(SIZES, alpha, upweight)
    powers = [(4.0 * 8544) ** alpha, 76113**alpha, (8.0 * 6040) ** alpha]
    assert actual.sum() == pytest.approx(1.0) and actual == pytest.approx(np.array(powers) / sum(powers))


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.0, [1 / 3] * 3), (1.0, [n / sum(SIZES.values()) for n in SIZES.values()])]
)
def test_probabilities_closed_forms(alpha: float, expected: list[float]) -> None:
    assert probabilities(SIZES, alpha) == pytest.approx(expected)
    root = np.sqrt(list(SIZES.values()))
    assert probabilities(SIZES, 0.5) == pytest.approx(root / root.sum())


def test_equal_sizes_after_upweighting_are_uniform() -> None:
    upweight = {"sst": 76113 / 8544, "sts": 76113 / 6040}
    assert probabilities(SIZES, 1.0, upweight) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("upweight", [{}, {"sst": 2.0, "sts": 8.0}])
def test_drawn_shares_agree_with_the_probabilities(upweight: dict[str, float]) -> None:
    order = mixing("alpha", alpha=0.5, upweight=upweight).build(MIX)
    expected = dict(zip(SIZES, probabilities(SIZES, 0.5, upweight), strict=True))
    assert_shares(order, 4000, 0.0, expected)


# Annealing -----------------------------------------------------------------------------------------------------------


def test_annealing_follows_the_papers_formula() -> None:
    epochs = 25
    for e in range(1, epochs + 1):  # the paper's count
        assert annealed_alpha(e - 1, 1.0, 0.2, epochs) == pytest.approx(1 - 0.8 * (e - 1) / (epochs - 1))
    assert annealed_alpha(0, 1.0, 0.2, 1) == 1.0


def test_annealing_by_progress_and_by_steps() -> None:
    by_progress = mixing("annealed", epochs=5).build(MIX)
    by_steps = mixing("annealed", epochs=5, steps_per_epoch=1800).build(MIX)
    for e in range(5):
        expected = probabilities(SIZES, 1.0 - 0.8 * e / 4)
        assert by_progress.probabilities(10**6, (e + 0.5) / 5) == pytest.approx(expected)
        for step in (1800 * e, 1800 * e + 1799):
            assert by_steps.probabilities(step, 0.0) == pytest.approx(expected)
    last = probabilities(SIZES, 0.2)
    assert by_progress.probabilities(0, 1.0) == pytest.approx(last)
    assert by_steps.probabilities(10**6, 0.0) == pytest.approx(last)  # the last epoch has no end


def test_annealed_draws_of_the_first_and_last_epoch() -> None:
    order = mixing("annealed", upweight={"sts": 4.0}).build(MIX)
    for progress, alpha in ((0.05, 1.0), (0.95, 0.2)):
        expected = dict(zip(SIZES, probabilities(SIZES, alpha, {"sts": 4.0}), strict=True))
        assert_shares(order, 3000, progress, expected)


# Round robin, one task, one after the other --------------------------------------------------------------------------


def test_round_robin_takes_turns() -> None:
    order = mixing("round_robin").build(MIX)
    assert [order.tasks(step, 0.0) for step in range(6)] == [("sst",), ("qqp",), ("sts",)] * 2


def test_single_trains_one_task_of_the_run() -> None:
    order = mixing("single", task="sts").build(MIX)
    assert {order.tasks(step, step / 100) for step in range(100)} == {("sts",)}
    assert mixing("single").task == "sst"
    with pytest.raises(ConfigError, match="Unknown task `sst` in `mixing/task`.*This run has the tasks sts; leave"):
        configure("mixing/kind=single", "mixing/task=sst", tasks=choose_tasks("sts"))
    with pytest.raises(ConfigError, match="Unknown task `stss` in `mixing/task`. Did you mean `sts`"):
        configure("mixing/kind=single", "mixing/task=stss")


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_sequential_shares_and_order(alpha: float) -> None:
    order = mixing("sequential", order=("sts", "qqp", "sst"), alpha=alpha).build(MIX)
    grid = np.linspace(0, 1, 20001)
    drawn = [order.tasks(0, progress)[0] for progress in grid]
    assert list(dict.fromkeys(drawn)) == ["sts", "qqp", "sst"]
    assert sum(first != second for first, second in pairwise(drawn)) == 2  # never back
    total = sum(size**alpha for size in SIZES.values())
    for task, count in Counter(drawn).items():
        assert count / len(grid) == pytest.approx(SIZES[task] ** alpha / total, abs=1e-3)


def test_an_order_may_be_partial_and_names_its_mistakes() -> None:
    order = configure("mixing/kind=sequential", "mixing/order=sts+qqp").mixing.order
    assert order == ("sts", "qqp", "sst")
    full = configure("mixing/kind=sequential", f"mixing/order={'+'.join(order)}")
    assert full == configure("mixing/kind=sequential", 'mixing/order=["sts", "qqp"]')
    assert Config.from_dict(full.to_dict(), TASKS) == full and full.to_dict()["mixing"]["order"] == list(order)
    for wrong in ('["sts", "sts"]', "[]", "7"):
        with pytest.raises(ConfigError, match="`mixing/order` must be a non-empty list of distinct names"):
            configure("mixing/kind=sequential", f"mixing/order={wrong}")
    with pytest.raises(ConfigError, match="Unknown task `qpq` in `mixing/order`. Did you mean `qqp`"):
        configure("mixing/kind=sequential", "mixing/order=sts+qpq")


# Summed: the papers' epochs ------------------------------------------------------------------------------------------


def rows_of(order: TaskOrder, task: str, size: int, batch: int, first: int, last: int) -> list[int]:
    """Rows that a task gives to draws first..last-1."""
    rows = np.arange(size, dtype=np.int32)
    starts = (order.position(task, step, step * batch) for step in range(first, last))
    return [row for start in starts for row in training_rows(rows, 5, task, start, batch)]


def test_iterations_per_epoch_are_those_of_the_papers() -> None:
    same = dict.fromkeys(SIZES, 8)
    assert epoch_steps(SIZES, same, 1) == 755  # `exploration`, 5.3.1: 755 iterations per epoch
    assert epoch_steps(SIZES, same, 3) == 3 * 755
    assert epoch_steps({"a": 3}, {"a": 8}, 2) == 1


@pytest.mark.parametrize(
    ("batches", "used"),
    [
        ((16, 16, 16), (0.71, 0.02, 1.0)),
        ((16, 32, 16), (0.71, 0.04, 1.0)),
        ((8, 32, 8), (0.71, 0.09, 1.0)),
        ((4, 32, 3), (0.94, 0.23, 1.0)),
        ((3, 32, 2), (1.0, 0.32, 0.94)),
    ],
)
def test_an_epoch_uses_the_shares_of_the_data_that_multi_extended_reports(
    batches: tuple[int, ...], used: tuple[float, ...]
) -> None:
    """Table 7: with the paper's sizes, whose QQP has 283,003 pairs (a share is rounded, or cut, to two digits)."""
    sizes = dict(zip(SIZES, (8544, 283_003, 6040), strict=True))
    steps = epoch_steps(sizes, dict(zip(SIZES, batches, strict=True)), 1)
    shares = [steps * batch / size for batch, size in zip(batches, sizes.values(), strict=True)]
    assert shares == pytest.approx(used, abs=0.01)


def test_three_times_the_iterations_repeat_the_small_tasks() -> None:
    """`exploration`, 4.5: SST about twice, STS exactly three times, QQP nothing but new rows."""
    mix = Mix(SIZES, 0, dict.fromkeys(SIZES, 8))
    order = mixing("summed", multiplier=3).build(mix)
    seen = {task: Counter(rows_of(order, task, SIZES[task], 8, 0, 3 * 755)) for task in SIZES}
    assert set(seen["sts"].values()) == {3} and len(seen["sts"]) == 6040
    assert set(seen["sst"].values()) == {2, 3}
    assert set(seen["qqp"].values()) == {1}


@pytest.mark.parametrize("multiplier", [1, 2, 3])
@pytest.mark.parametrize("sizes", [{"a": 10, "b": 37, "c": 9}, {"a": 2, "b": 50, "c": 64}])
def test_every_epoch_counts_rows_evenly_and_starts_afresh(multiplier: int, sizes: dict[str, int]) -> None:
    batches = {"a": 3, "b": 5, "c": 4}
    order = mixing("summed", multiplier=multiplier).build(Mix(sizes, 0, batches))
    steps = max(1, multiplier * min(sizes[task] // batches[task] for task in sizes))
    for task, size in sizes.items():
        used, passes = steps * batches[task], math.ceil(steps * batches[task] / size)
        for number in range(4):
            rows = rows_of(order, task, size, batches[task], number * steps, (number + 1) * steps)
            counts = [rows.count(row) for row in range(size)]
            assert max(counts) == math.ceil(used / size) and min(counts) == used // size
            fresh = permutation(size, 5, task, number * passes)
            assert rows[:size] == fresh[:used].tolist()


def test_without_a_multiplier_a_task_runs_through_all_its_rows() -> None:
    order = mixing("summed").build(Mix({"a": 10, "b": 37}, 0, {"a": 3, "b": 5}))
    assert sorted(rows_of(order, "b", 37, 5, 0, 37)) == sorted([*range(37)] * 5)


# In a trial ----------------------------------------------------------------------------------------------------------


CONFIGS = {
    "multiplier": ["mixing/multiplier=1"],
    "alpha": ["mixing/kind=alpha", "mixing/upweight/sts=4"],
    "annealed": ["mixing/kind=annealed", "mixing/steps_per_epoch=3"],
    "sequential": ["mixing/kind=sequential", "mixing/order=sts+sst", "mixing/alpha=0"],
    "single": ["mixing/kind=single", "mixing/task=qqp"],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_interrupted_equals_unbroken(name: str, data: Data, tmp_path: Path) -> None:
    config = configure(*CONFIGS[name])
    whole = list(train(config, data, State.fresh(3, (600,), tmp_path / "a")))[-1]
    polls = iter(range(10**9))
    list(train(config, data, State.fresh(3, (600,), tmp_path / "b"), lambda: next(polls) >= 4))
    newest = checkpoints.newest(tmp_path / "b")
    assert newest is not None
    continued = list(train(config, data, State.resume(newest, (600,), tmp_path / "b", 1)))[-1]
    first, second = (checkpoints.read_tensors(Path(report.checkpoint), "weights") for report in (whole, continued))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert whole.examples_per_task == continued.examples_per_task
    used = {task for task, count in whole.examples_per_task.items() if count}
    assert name != "single" or used == {"qqp"}
