"""Integer milestones, and the stopping rule against a brute-force count."""

from __future__ import annotations

import math
import random

import pytest

from hpo.search.schedulers import Rungs, milestones


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((27_000,), (1_000, 3_000, 9_000, 27_000)),
        ((243, 3, 1), (1, 3, 9, 27, 81, 243)),
        ((24_300, 3, 100), (100, 300, 900, 2_700, 8_100, 24_300)),
        ((10, 3, 1), (1, 3, 10)),
        ((1000, 4, 1000), (1000,)),
        ((1,), (1,)),
        ((5, 2), (1, 2, 5)),
    ],
)
def test_milestones_are_integers_from_the_top(arguments: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert milestones(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "`budget` must be an integer of at least 1, not 0"),
        ((10.0,), "`budget` must be an integer"),
        ((10, 1), "`eta` must be an integer of at least 2, not 1"),
        ((10, 3, 11), "`grace` must be an integer from 1 to the budget of 10, not 11"),
        ((10, 3, 0), "`grace` must be"),
    ],
)
def test_milestones_that_make_no_sense_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        milestones(*arguments)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_every_decision_equals_a_brute_force_count(eta: int) -> None:
    rng = random.Random(eta)
    for _ in range(100):
        rungs = Rungs((1, 9), eta)
        seen: list[float] = []
        for _ in range(rng.randrange(1, 30)):
            value = rng.choice([math.nan, math.inf, -math.inf, *(rng.randrange(6) / 5 for _ in range(9))])
            seen.append(value if math.isfinite(value) else -math.inf)
            better = sum(other > seen[-1] for other in seen)
            expected = math.isfinite(value) and better < math.ceil(len(seen) / eta)
            assert rungs.record(1, value) is expected


def test_ties_survive_and_so_does_the_first() -> None:
    rungs = Rungs((1, 3), 3)
    assert [rungs.record(1, 0.5) for _ in range(9)] == [True] * 9
    assert rungs.record(1, 0.4) is False


def test_diverged_values_count_as_arrivals_but_never_as_a_cutoff() -> None:
    rungs = Rungs((1, 3), 3)
    assert rungs.record(1, math.nan) is False
    assert rungs.cutoff(1) is None
    assert rungs.record(1, 0.1) is True
    assert rungs.record(1, math.nan) is False
    assert rungs.record(1, 0.05) is True, "two of four may stay"
    row = rungs.table()[0]
    assert (row.reports, row.stopped, row.diverged, row.cutoff, row.best) == (4, 0, 2, 0.05, 0.1)


def test_the_last_rung_stops_nobody_and_empty_rungs_have_no_numbers() -> None:
    rungs = Rungs((1, 3), 3)
    assert [rungs.record(3, value) for value in (0.9, 0.1, 0.2)] == [True] * 3
    first, last = rungs.table()
    assert (first.reports, first.cutoff, first.best) == (0, None, None)
    assert (last.reports, last.stopped, last.best) == (3, 0, 0.9)
