"""Milestones: the rows of each report, their share of a trial's time, and how early the first milestone may lie."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import pytest

from minbert.data.tokens import Data
from minbert.training.draws import Draws
from minbert.training.milestones import (
    EVALUATION_SHARE,
    FORWARD_SHARE,
    JUDGED_STEPS,
    LEAST_ROWS,
    costs,
    evaluation_shares,
    examples_to_judge,
    report_rows,
    rows_of_steps,
    spread,
)
from minbert.training.model import MultitaskModel
from tests.minbert.configs import configure

REAL = {"sst": 550, "qqp": 2000, "sts": 431}
"""`search` rows of the real data."""

Case = tuple[dict[str, int], tuple[int, ...]]


def cases() -> Iterator[Case]:
    """Sizes of tasks, with milestones that grow geometrically, evenly, or at random."""
    for budget in (64, 2_700, 5_400, 8_000, 9_000, 20_000, 54_000, 2_000_000):
        yield REAL, tuple(sorted({max(1, budget // 9), max(1, budget // 3), budget}))
        yield REAL, tuple(budget * part // 3 for part in (1, 2, 3))
        yield REAL, (budget,)
    source = random.Random(0)
    for _ in range(300):
        sizes = {f"task{task}": source.choice([7, 150, 200, 900, 5_000]) for task in range(source.randint(1, 4))}
        count, budget = source.randint(1, 8), 10 ** source.randint(2, 6)
        yield sizes, tuple(sorted(source.sample(range(1, budget + 1), count)))


CASES = list(cases())


def minimum(sizes: Mapping[str, int]) -> dict[str, int]:
    return {task: min(size, LEAST_ROWS) for task, size in sizes.items()}


def totals(rows: Sequence[Mapping[str, int]]) -> list[int]:
    return [sum(counts.values()) for counts in rows]


def test_rows_grow_from_a_minimum_to_all() -> None:
    for sizes, milestones in CASES:
        rows = report_rows(sizes, milestones)
        assert len(rows) == len(milestones), (sizes, milestones)
        assert rows[-1] == sizes, (sizes, milestones)
        for before, after in zip((minimum(sizes), *rows), rows, strict=False):
            assert list(after) == list(sizes)
            assert all(before[task] <= after[task] <= sizes[task] for task in sizes), (sizes, milestones)


def test_no_trial_spends_more_than_its_share_unless_a_minimum_asks_for_it() -> None:
    """The share of a full trial is above the limit only where the report below the last has the fewest rows."""
    for sizes, milestones in CASES:
        chosen = report_rows(sizes, milestones)
        rows, least = totals(chosen), sum(minimum(sizes).values())
        deciding = [*rows[:-1], rows[-2] if len(rows) > 1 else least]
        for count, share in zip(deciding, evaluation_shares(milestones, chosen), strict=True):
            assert share <= EVALUATION_SHARE + 1e-12 or count == least, (sizes, milestones)


def test_one_more_row_in_any_report_would_break_a_limit() -> None:
    """Brute force: with one more row in a report below the last, and no fewer in later ones, some share is too high."""
    for sizes, milestones in CASES:
        rows = totals(report_rows(sizes, milestones))
        for index, count in enumerate(rows[:-1]):
            if count < sum(sizes.values()):
                wanted = [*rows[:index], *(max(later, count + 1) for later in rows[index:])]
                shares = evaluation_shares(milestones, [{"all": more} for more in wanted])
                assert max(shares[index:]) > EVALUATION_SHARE, (sizes, milestones)


def test_the_shares_of_the_real_data() -> None:
    """Rows of a report, and the share of a trial that ends there, with rungs at a ninth and a third of the budget."""
    expected = {
        5_400: ([600, 600, 2981], [0.25, 0.18, 0.21]),
        20_000: ([1176, 2353, 2981], [0.15, 0.15, 0.10]),
        54_000: ([2981, 2981, 2981], [0.14, 0.10, 0.05]),
    }
    for budget, (rows, shares) in expected.items():
        milestones = (budget // 9, budget // 3, budget)
        chosen = report_rows(REAL, milestones)
        assert totals(chosen) == rows
        assert [round(share, 2) for share in evaluation_shares(milestones, chosen)] == shares


def test_costs_count_every_report_so_far() -> None:
    rows = [{"sst": 3, "qqp": 3}, {"sst": 3, "qqp": 9}]
    assert costs((10, 30), rows) == pytest.approx([10 + 6 * FORWARD_SHARE, 30 + 18 * FORWARD_SHARE])


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_spread_evenly_and_small_tasks_are_filled_first(seed: int) -> None:
    source = random.Random(seed)
    sizes = {f"task{task}": source.randint(1, 50) for task in range(source.randint(1, 5))}
    before = dict.fromkeys(sizes, 0)
    for rows in range(sum(sizes.values()) + 3):
        chosen = spread(rows, sizes)
        assert sum(chosen.values()) == min(rows, sum(sizes.values()))
        unfilled = [count for task, count in chosen.items() if count < sizes[task]]
        assert not unfilled or max(chosen.values()) - min(unfilled) <= 1
        assert all(before[task] <= chosen[task] <= sizes[task] for task in sizes)
        before = chosen


CONFIGS = {
    "summed": [],
    "accumulation": ["optimizer/accumulation=3", "batch_size/sst=4"],
    "epochs": ["mixing/multiplier=1"],
    "round robin": ["mixing/kind=round_robin"],
    "alpha": ["mixing/kind=alpha", "optimizer/accumulation=2"],
    "annealed": ["mixing/kind=annealed", "mixing/epochs=3"],
    "one after the other": ["mixing/kind=sequential"],
    "one": ["mixing/kind=single", "mixing/task=sts"],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_rows_of_steps_are_those_that_a_trial_draws(name: str, data: Data) -> None:
    config, budget, seed = configure(*CONFIGS[name]), 200, 5
    draws = Draws(config, data, seed, MultitaskModel(config, data.base, data.tasks, seed))
    position = draws.start()
    for steps in range(12):
        assert rows_of_steps(config, data.sizes("train"), budget, steps, seed) == position.consumed
        progress = min(1.0, position.examples / budget)
        _, position = draws.take(position, progress, config.optimizer.accumulation)


@pytest.mark.parametrize(
    ("settings", "examples"),
    [
        ([], 6_400),  # 16 + 32 + 16 rows a step; a warm-up takes at most 0.05 of the budget of 20,000, 1,000
        (["optimizer/schedule/warmup_share=0.2"], 8_000),
        (["optimizer/schedule/warmup_share=0.2", "optimizer/schedule/warmup_steps=55"], 7_040),  # 55 steps of 64 rows
        (["optimizer/schedule/kind=constant", "batch_size/qqp=16"], 4_800),
        (["optimizer/accumulation=2"], 12_800),
        (["mixing/kind=single", "mixing/task=sst"], 2_000),
    ],
)
def test_a_trial_can_be_judged_after_100_steps_and_twice_its_warm_up(settings: list[str], examples: int) -> None:
    assert JUDGED_STEPS == 100
    sizes = {"sst": 8544, "qqp": 76113, "sts": 6040}
    config = configure("mixing/kind=summed", "batch_size/sst=16", "batch_size/qqp=32", "batch_size/sts=16", *settings)
    assert examples_to_judge(config, sizes, 20_000) == examples
