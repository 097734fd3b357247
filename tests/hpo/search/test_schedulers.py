"""Schedulers: integer milestones, the stopping rule against a brute-force count, and what holds for every entry."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from hpo.search.records import to_record
from hpo.search.schedulers import SCHEDULERS, Asha, Judge, NoStopping, RungRow, Scheduler, milestones, scheduler_from

ENTRIES = pytest.mark.parametrize("scheduler", [entry() for entry in SCHEDULERS.values()], ids=SCHEDULERS)


def continues(judge: Judge, step: int, value: float) -> bool:
    return judge.report(step, value).action == "continue"


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


def test_asha_s_first_rung_is_the_grace_or_a_27th_of_the_budget_but_never_below_a_step() -> None:
    assert Asha(grace=500).milestones(27_000, least=2_000) == (1_000, 3_000, 9_000, 27_000)
    assert Asha().milestones(27_000, least=2_000) == (3_000, 9_000, 27_000)
    assert Asha(eta=2).milestones(100, least=10) == (12, 25, 50, 100)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_every_decision_of_asha_equals_a_brute_force_count(eta: int) -> None:
    rng = random.Random(eta)
    for _ in range(100):
        judge = Asha(eta).build((1, 9))
        seen: list[float] = []
        for _ in range(rng.randrange(1, 30)):
            value = rng.choice([math.nan, *(rng.randrange(6) / 5 for _ in range(5))])
            seen.append(-math.inf if math.isnan(value) else value)
            better = sum(earlier > seen[-1] for earlier in seen)
            expected = not math.isnan(value) and better < math.ceil(len(seen) / eta)
            verdict = judge.report(1, value)
            assert (verdict.action == "continue") is expected
            cutoff = judge.rows()[0].cutoff
            if verdict.state == "pruned":
                assert cutoff is not None
                assert value < cutoff
                assert verdict.reason == f"{value:.4f} at the rung of 1 examples is below the cutoff of {cutoff:.4f}"


def test_ties_pass_and_so_does_the_first_value() -> None:
    judge = Asha().build((1, 3))
    assert [continues(judge, 1, 0.5) for _ in range(9)] == [True] * 9
    assert continues(judge, 1, 0.4) is False


def test_diverged_values_count_as_arrivals_but_never_as_a_cutoff() -> None:
    judge = Asha().build((1, 3))
    assert continues(judge, 1, math.nan) is False
    assert judge.rows()[0].cutoff is None
    assert continues(judge, 1, 0.1) is True
    assert continues(judge, 1, math.nan) is False
    assert continues(judge, 1, 0.05) is True, "two of four may pass"
    assert judge.rows()[0] == RungRow(1, reports=4, stopped=0, cutoff=0.05, best=0.1, diverged=2)


def test_a_sweep_without_early_stopping_reports_and_stops_nobody() -> None:
    judge = NoStopping().build((1, 3))
    assert [continues(judge, 1, value) for value in (0.9, 0.1, 0.5)] == [True] * 3
    assert continues(judge, 1, math.nan) is False
    assert judge.rows() == [RungRow(1, 4, 0, None, 0.9, 1), RungRow(3, 0, 0, None, None)]
    assert NoStopping().milestones(27_000, 40) == Asha().milestones(27_000, 40), "comparable step by step"


@ENTRIES
def test_full_budget_completes_and_divergence_ends_a_trial_under_every_scheduler(scheduler: Scheduler) -> None:
    steps = scheduler.milestones(27_000)
    judge = scheduler.build(steps)
    for value in (0.9, 0.1, 0.2):
        verdict = judge.report(steps[-1], value)
        assert (verdict.action, verdict.state) == ("stop", "complete")
        assert verdict.reason == "full budget of 27,000 examples"
    for step in steps:
        verdict = judge.report(step, math.nan)
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
def test_expected_examples_lie_between_the_first_milestone_and_the_full_budget(scheduler: Scheduler) -> None:
    steps = scheduler.milestones(900)
    assert 8 * steps[0] < scheduler.expected_examples(8, steps) <= 8 * 900


def test_expected_examples_are_what_the_rules_say() -> None:
    assert Asha(eta=3).expected_examples(8, (100, 300, 900)) == round(8 * (100 + 200 / 3 + 600 / 9))
    assert NoStopping().expected_examples(8, (100, 300, 900)) == 7_200


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
        ({"name": "ahsa"}, "Unknown scheduler `ahsa`. Did you mean `asha`. Expected one of: asha, none"),
        ({"name": "asha", "etaa": 3}, "Unknown setting of scheduler `asha`: `etaa`. Did you mean `eta`. "
                                      "Expected one of: eta, grace"),
        ({"name": "none", "eta": 3}, "The scheduler `none` has no setting `eta`, which belongs to asha"),
        ({"name": "asha", "eta": 1}, "`eta` must be an integer of at least 2, not 1"),
        ({"name": "asha", "grace": "x"}, "`grace` must be an integer of at least 1, not 'x'"),
        ({"eta": 3}, "A scheduler must be a dictionary with `name`, not {'eta': 3}. Names: asha, none"),
        ("asha", "must be a dictionary with `name`, not 'asha'"),
    ],
)
def test_a_record_that_describes_no_scheduler_is_refused(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{")):
        scheduler_from(record)
