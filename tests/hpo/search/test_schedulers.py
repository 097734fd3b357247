"""Schedulers: integer milestones, the stopping rule against a brute-force count, and what holds for every entry."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from typing import Any

import pytest

from hpo.search.judges import Judge, RungRow, bracket_of, bracket_shares
from hpo.search.records import to_record
from hpo.search.schedulers import (
    SCHEDULERS,
    Asha,
    Hyperband,
    Median,
    NoStopping,
    Scheduler,
    scheduler_from,
)

ENTRIES = pytest.mark.parametrize("scheduler", [entry() for entry in SCHEDULERS.values()], ids=SCHEDULERS)


def goes_on(judge: Judge, value: float, *, trial: int = 1, step: int = 1) -> bool:
    return judge.report(trial, step, value).action == "continue"


@pytest.mark.parametrize(
    ("scheduler", "budget", "expected"),
    [
        (Asha(grace=1_000), 27_000, (1_000, 3_000, 9_000, 27_000)),
        (Asha(grace=500), 27_000, (1_000, 3_000, 9_000, 27_000)),
        (Asha(grace=9_000), 27_000, (9_000, 27_000)),
        (Asha(grace=1), 243, (1, 3, 9, 27, 81, 243)),
        (Asha(grace=100), 24_300, (100, 300, 900, 2_700, 8_100, 24_300)),
        (Asha(grace=1), 10, (1, 3, 10)),
        (Asha(4, 1000), 1000, (1000,)),
        (Asha(2, 1), 5, (1, 2, 5)),
    ],
)
def test_a_grace_alone_decides_the_first_milestone(scheduler: Asha, budget: int, expected: tuple[int, ...]) -> None:
    assert scheduler.milestones(budget) == expected
    assert scheduler.milestones(budget, least=budget, step=budget) == expected


@pytest.mark.parametrize(
    ("budget", "eta", "least", "step", "expected"),
    [
        (27_000, 3, 1_000, 1, (1_000, 3_000, 9_000, 27_000)),
        (27_000, 3, 1_001, 1, (3_000, 9_000, 27_000)),
        (27_000, 3, 3_001, 1, (3_000, 9_000, 27_000)),  # a ninth wins
        (54_000, 3, 6_400, 64, (6_000, 18_000, 54_000)),  # 100 steps of 64
        (20_000, 3, 6_400, 64, (2_222, 6_666, 20_000)),
        (1_000_000, 3, 6_400, 64, (12_345, 37_037, 111_111, 333_333, 1_000_000)),
        (27_000, 2, 3_001, 1, (1_687, 3_375, 6_750, 13_500, 27_000)),  # an eighth is more than a ninth
        (27_000, 4, 3_001, 1, (1_687, 6_750, 27_000)),
        (27_000, 9, 3_001, 1, (3_000, 27_000)),
        (27_000, 100, 3_001, 1, (270, 27_000)),
        (600, 3, 6_400, 64, (66, 200, 600)),
        (192, 3, 6_400, 64, (64, 192)),  # no report before the first step
        (64, 3, 6_400, 64, (64,)),
        (10, 3, 10, 1, (1, 3, 10)),
        (5, 2, 5, 1, (1, 2, 5)),
        (1, 3, 1, 1, (1,)),
    ],
)
def test_the_first_rung_is_the_lowest_that_trains_enough_but_at_most_a_ninth(
    budget: int, eta: int, least: int, step: int, expected: tuple[int, ...]
) -> None:
    assert Asha(eta).milestones(budget, least, step) == expected


def test_no_first_rung_lies_above_a_ninth_of_the_budget() -> None:
    rng = random.Random(0)
    for _ in range(2_000):
        budget, eta, least = rng.randrange(9, 10**6), rng.randrange(2, 12), rng.randrange(1, 10**6)
        steps = Asha(eta).milestones(budget, least)
        powers = [budget // eta**k for k in range(25) if budget // eta**k]
        assert list(steps) == powers[: len(steps)][::-1], "none is left out between the first and the budget"
        allowed = [power for power in powers if power <= budget // 9]
        if not allowed:
            assert steps == tuple(reversed(powers)), "every rung that there can be"
        else:
            assert steps[0] == min([power for power in allowed if power >= least], default=max(allowed))


@pytest.mark.parametrize(
    ("scheduler", "budget", "message"),
    [
        (Asha(), 0, "`budget` must be an integer of at least 1, not 0"),
        (Asha(), 10.0, "`budget` must be an integer"),
        (Asha(grace=11), 10, "`grace` must be an integer from 1 to the budget of 10, not 11"),
    ],
)
def test_milestones_that_make_no_sense_are_refused(scheduler: Asha, budget: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scheduler.milestones(budget)


def place(arrivals: list[float], eta: int) -> tuple[int, int, int]:
    """Rank of the last arrival, number of arrivals, number of places, counted from all arrivals (NaN: diverged)."""
    order = [-math.inf if math.isnan(value) else value for value in arrivals]
    ranked = sorted(range(len(order)), key=lambda arrival: (-order[arrival], arrival))
    return ranked.index(len(order) - 1) + 1, len(order), math.ceil(len(order) / eta)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_every_decision_of_asha_is_the_rank_among_all_arrivals(eta: int) -> None:
    rng = random.Random(eta)
    for _ in range(100):
        judge = Asha(eta).build((1, 9), exempt={0})
        raced: list[float] = []
        for _ in range(rng.randrange(1, 30)):
            value = rng.choice([math.nan, *(rng.randrange(6) / 5 for _ in range(5))])
            cutoff = judge.rows()[0].cutoff
            if rng.random() < 0.2:
                assert goes_on(judge, value, trial=0) is not math.isnan(value)
                assert judge.rows()[0].cutoff == cutoff, "an exempt trial takes no place"
                continue
            verdict = judge.report(1, 1, value)
            raced.append(value)
            rank, n, places = place(raced, eta)
            if math.isnan(value):
                assert (verdict.action, verdict.state) == ("stop", "diverged")
                continue
            assert (verdict.action == "continue") is (rank <= places)
            assert verdict.state == (None if rank <= places else "pruned")
            assert (verdict.action == "continue") is (cutoff is None or value > cutoff), "the cutoff shown was true"
            best = "the best goes on" if places == 1 else f"the best {places} go on"
            assert verdict.reason == f"{value:.4f} at the rung of 1 examples is rank {rank} of {n}; {best}"


@pytest.mark.parametrize("seed", range(5))
def test_a_score_that_most_trials_share_is_no_ticket(seed: int) -> None:
    """75 of 100 trials share one score here, as untrained models do that give the majority's answer. 37 of 300 are
    better, so they go on; of the others some go on by chance before a better one has come. Were ties to pass, 262 of
    300 would go on."""
    rng = random.Random(seed)
    values = [0.5] * 225 + [0.6 + 0.1 * rng.random() for _ in range(37)] + [0.3 + 0.1 * rng.random() for _ in range(38)]
    rng.shuffle(values)
    judge = Asha().build((1, 3))
    decisions = [(value, goes_on(judge, value)) for value in values]
    assert 37 <= sum(went for _, went in decisions) <= 45
    assert all(went is (value > 0.5) for value, went in decisions[30:])


def test_of_equal_values_the_earlier_ranks_better() -> None:
    judge = Asha().build((1, 3))
    assert [goes_on(judge, 0.5) for _ in range(9)] == [True] + [False] * 8
    assert judge.rows()[0].cutoff == 0.5
    assert goes_on(judge, 0.5001) is True


def test_diverged_values_count_as_arrivals_but_never_as_a_cutoff() -> None:
    judge = Asha().build((1, 3))
    assert goes_on(judge, math.nan) is False
    assert judge.rows()[0].cutoff is None
    assert goes_on(judge, 0.1) is True
    assert goes_on(judge, math.nan) is False
    assert judge.rows()[0].cutoff is None
    assert goes_on(judge, 0.05) is True, "two of four go on"
    assert judge.rows()[0] == RungRow(1, reports=4, stopped=0, cutoff=0.05, best=0.1, diverged=2)


def test_an_exempt_trial_goes_on_takes_no_place_and_is_shown() -> None:
    judge = Asha().build((1, 3), exempt=(0,))
    verdict = judge.report(0, 1, 0.9)
    assert verdict.action == "continue"
    assert verdict.reason == "0.9000 at 1 examples; trial 0 is exempt and runs to the end"
    assert judge.rows()[0] == RungRow(1, reports=1, stopped=0, cutoff=None, best=0.9, exempt=1)
    verdict = judge.report(1, 1, 0.1)
    assert verdict.reason == "0.1000 at the rung of 1 examples is rank 1 of 1; the best goes on"
    assert goes_on(judge, 0.05, trial=0) is True, "however low"
    assert judge.report(0, 3, 0.2).state == "complete"
    assert judge.rows()[0] == RungRow(1, reports=3, stopped=0, cutoff=0.1, best=0.9, exempt=2)


def test_an_exempt_trial_that_diverges_ends_uncounted() -> None:
    judge = Asha().build((1, 3), exempt=(0,))
    assert judge.report(0, 1, math.nan).state == "diverged"
    assert judge.rows()[0] == RungRow(1, reports=1, stopped=0, cutoff=None, best=None, diverged=1, exempt=1)
    assert judge.report(1, 1, 0.5).reason.endswith("is rank 1 of 1; the best goes on")


def test_nothing_is_cut_off_at_the_full_budget() -> None:
    judge = Asha().build((1, 3))
    for trial in (1, 2):
        assert judge.report(trial, 3, 0.5).state == "complete"
    assert judge.rows()[1] == RungRow(3, reports=2, stopped=0, cutoff=None, best=0.5)


# Median --------------------------------------------------------------------------------------------------------------


def arrivals(rng: random.Random, trials: int, steps: tuple[int, ...]) -> list[tuple[int, int]]:
    """Reports (trial, milestone) in a random order that keeps each trial's milestones ascending."""
    order = [trial for trial in range(trials) for _ in steps]
    rng.shuffle(order)
    seen = dict.fromkeys(range(trials), 0)
    reports = []
    for trial in order:
        reports.append((trial, steps[seen[trial]]))
        seen[trial] += 1
    return reports


@pytest.mark.parametrize("startup", [1, 3, 5])
def test_every_decision_of_median_is_a_count_over_all_reports(startup: int) -> None:
    rng, steps = random.Random(startup), (1, 3, 9, 27)
    stopped = 0
    for _ in range(100):
        judge = Median(startup).build(steps, exempt={0})
        values: dict[int, list[float]] = {}
        ended: set[int] = set()
        for trial, step in arrivals(rng, 12, steps):
            if trial in ended:
                continue
            value = math.nan if rng.random() < 0.05 else rng.randrange(6) / 5
            # A trial's values up to its k-th milestone; a trial that diverged there counts as the lowest value.
            place = steps.index(step)
            others = [given[: place + 1] for other, given in values.items() if other != 0 and len(given) > place]
            means = [-math.inf if math.isnan(given[-1]) else statistics.fmean(given) for given in others]
            values.setdefault(trial, []).append(value)
            verdict = judge.report(trial, step, value)
            if math.isnan(value):
                assert verdict.state == "diverged"
            elif step == steps[-1]:
                assert verdict.state == "complete"
            elif trial == 0 or len(means) < startup:
                assert verdict.action == "continue"
            else:
                assert (verdict.action == "continue") is (max(values[trial]) >= statistics.median(means))
            if verdict.action == "stop":
                ended.add(trial)
                stopped += verdict.state == "pruned"
    assert stopped > 100


def test_median_compares_the_best_value_with_the_mean_of_the_others() -> None:
    judge = Median(startup=2).build((1, 3, 9))
    assert [goes_on(judge, value, trial=trial) for trial, value in enumerate((0.2, 0.4))] == [True, True]
    assert judge.rows()[0].cutoff == pytest.approx(0.3)
    assert [goes_on(judge, value, step=3, trial=trial) for trial, value in enumerate((0.6, 0.8))] == [True, True]
    assert goes_on(judge, 0.45, trial=2)
    verdict = judge.report(2, 3, 0.1)  # the others' means up to there are 0.4 and 0.6
    assert verdict.state == "pruned"
    assert verdict.reason == "best value 0.4500 up to 3 examples; the median of the others is 0.5000"
    assert judge.rows()[1].stopped == 1
    assert goes_on(judge, 0.55, trial=3)
    assert goes_on(judge, 0.1, trial=3, step=3), "its best value counts; the means are 0.4, 0.6 and 0.275"


def test_equal_values_go_on_and_divergence_lowers_the_median() -> None:
    judge = Median(startup=1).build((1, 3))
    assert [goes_on(judge, 0.5, trial=trial) for trial in range(4)] == [True] * 4
    assert not goes_on(judge, 0.49, trial=4)
    for trial in range(5, 10):
        assert goes_on(judge, math.nan, trial=trial) is False
    assert judge.rows()[0].cutoff is None, "half of the ten diverged"
    assert goes_on(judge, 0.1, trial=10)


def test_exempt_trials_are_neither_counted_nor_stopped_by_the_median() -> None:
    judge = Median(startup=1).build((1, 3), exempt=(0,))
    assert goes_on(judge, 0.9, trial=0)
    assert judge.rows()[0].cutoff is None
    assert goes_on(judge, 0.2, trial=1)
    assert judge.rows()[0].cutoff == 0.2
    assert goes_on(judge, 0.1, trial=0, step=1)


def test_median_reports_at_the_milestones_of_asha() -> None:
    assert Median().milestones(27_000, 40, 50) == Asha().milestones(27_000, 40, 50)
    assert Median(grace=500).milestones(27_000) == Asha(grace=500).milestones(27_000)


# Hyperband -----------------------------------------------------------------------------------------------------------


def test_each_bracket_of_hyperband_is_an_asha_of_its_own() -> None:
    rng, steps = random.Random(0), (1, 3, 9, 27)
    ends = list(itertools.accumulate(bracket_shares(len(steps), 3)))
    for _ in range(50):
        judge = Hyperband().build(steps, exempt={0})
        brackets = [Asha().build(steps[first:], exempt={0}) for first in range(len(steps))]
        ended: set[int] = set()
        for trial, step in arrivals(rng, 30, steps):
            if trial in ended:
                continue
            value = math.nan if rng.random() < 0.05 else rng.random()
            bracket, verdict = bracket_of(trial, ends), judge.report(trial, step, value)
            if step >= steps[bracket]:
                assert verdict == brackets[bracket].report(trial, step, value)
            else:
                assert verdict.action == ("stop" if math.isnan(value) else "continue")
            if verdict.action == "stop":
                ended.add(trial)
        rows = judge.rows()
        assert [row.step for row in rows] == list(steps)
        assert rows[-1].stopped == 0 and all(row.cutoff is None for row in rows)
        assert all(row.stopped <= row.reports for row in rows)


@pytest.mark.parametrize("eta", [2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_brackets_get_the_shares_of_hyperband_in_every_run_of_trials(eta: int, count: int) -> None:
    shares = bracket_shares(count, eta)
    # Hyperband's n_s = (s_max + 1) / (s + 1) eta^s.
    expected = [count / (rungs + 1) * eta**rungs for rungs in range(count - 1, -1, -1)]
    assert shares == pytest.approx([n / sum(expected) for n in expected])
    ends = list(itertools.accumulate(shares))
    for begin in (0, 17, 1_000):
        drawn = [bracket_of(trial, ends) for trial in range(begin, begin + 100)]
        for bracket, share in enumerate(shares):
            assert drawn.count(bracket) / 100 == pytest.approx(share, abs=0.03)


# Every entry ---------------------------------------------------------------------------------------------------------


def test_a_sweep_without_early_stopping_reports_and_stops_nobody() -> None:
    judge = NoStopping().build((1, 3), exempt=(0,))
    assert [goes_on(judge, value, trial=trial) for trial, value in enumerate((0.9, 0.1, 0.5))] == [True] * 3
    assert goes_on(judge, math.nan) is False
    assert judge.rows() == [RungRow(1, 4, 0, None, 0.9, 1), RungRow(3, 0, 0, None, None)], "no trial is an exception"
    assert NoStopping().milestones(27_000, 40, 50) == Asha().milestones(27_000, 40, 50), "comparable step by step"


@ENTRIES
def test_full_budget_completes_and_divergence_ends_a_trial_under_every_scheduler(scheduler: Scheduler) -> None:
    steps = scheduler.milestones(27_000)
    judge = scheduler.build(steps)
    for value in (0.9, 0.1, 0.2):
        verdict = judge.report(1, steps[-1], value)
        assert (verdict.action, verdict.state) == ("stop", "complete")
        assert verdict.reason == "full budget of 27,000 examples"
    for step in steps:
        verdict = judge.report(1, step, math.nan)
        assert (verdict.action, verdict.state) == ("stop", "diverged")
    last = judge.rows()[-1]
    assert (last.reports, last.stopped, last.best, last.diverged) == (4, 0, 0.9, 1)
    assert [row.step for row in judge.rows()] == list(steps)


@ENTRIES
def test_milestones_ascend_to_the_budget_under_every_scheduler(scheduler: Scheduler) -> None:
    for budget in (1, 26, 27, 20_000):
        steps = scheduler.milestones(budget, step=min(3, budget))
        assert steps[-1] == budget
        assert list(steps) == sorted(set(steps))
        assert steps[0] >= min(3, budget)


@ENTRIES
def test_columns_are_fields_of_the_rows_and_an_empty_rung_has_no_values(scheduler: Scheduler) -> None:
    row = scheduler.build((1, 3)).rows()[0]
    assert {"reports", "best"} <= set(scheduler.columns)
    assert all(hasattr(row, name) for name in scheduler.columns)
    assert (row.reports, row.cutoff, row.best) == (0, None, None)


@ENTRIES
def test_a_scheduler_survives_its_record(scheduler: Scheduler) -> None:
    assert scheduler_from(to_record(scheduler)) == scheduler


def test_a_record_gives_its_settings() -> None:
    assert scheduler_from({"name": "asha", "eta": 4, "grace": 10}) == Asha(4, 10)
    assert to_record(Asha(4)) == {"name": "asha", "eta": 4, "grace": None}
    assert to_record(NoStopping()) == {"name": "none"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "ahsa"}, "Unknown scheduler `ahsa`. Did you mean `asha`. Expected one of: asha, hyperband, median, "
                           "none"),
        ({"name": "asha", "etaa": 3}, "Unknown setting of scheduler `asha`: `etaa`. Did you mean `eta`. "
                                      "Expected one of: eta, grace"),
        ({"name": "none", "eta": 3}, "The scheduler `none` has no setting `eta`, which belongs to asha, hyperband"),
        ({"name": "median", "startup": 0}, "`startup` must be an integer of at least 1, not 0"),
        ({"name": "median", "grace": 0}, "`grace` must be an integer of at least 1, not 0"),
        ({"name": "asha", "eta": 1}, "`eta` must be an integer of at least 2, not 1"),
        ({"name": "asha", "grace": "x"}, "`grace` must be an integer of at least 1, not 'x'"),
        ({"eta": 3}, "A scheduler must be a dictionary with `name`, not {'eta': 3}. Names: asha, hyperband, "
                     "median, none"),
        ("asha", "must be a dictionary with `name`, not 'asha'"),
    ],
)
def test_a_record_that_describes_no_scheduler_is_refused(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        scheduler_from(record)
