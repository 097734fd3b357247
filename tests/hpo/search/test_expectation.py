"""Expected examples, compared with real sweeps: several workers at once, trials of different speed, random scores."""

from __future__ import annotations

import functools
import math
import random
from typing import Any

import pytest

from hpo.search.expectation import expected_examples
from hpo.search.schedulers import EXEMPT, SCHEDULERS, Asha, NoStopping, Scheduler
from hpo.search.searchers import Changes, Random
from hpo.search.states import Start
from hpo.search.sweep import Sweep
from hpo.space.space import Space
from tests.hpo.simulation import MILESTONES, Cluster, new_sweep, optimum

ENTRIES = pytest.mark.parametrize("scheduler", [entry() for entry in SCHEDULERS.values()], ids=SCHEDULERS)


def used(trials: int, workers: int, agreement: float, seed: int, exempt: tuple[int, ...] = EXEMPT) -> int:
    """Examples that one sweep used whose scores at two rungs have the correlation `agreement`."""
    parts: dict[str, Any] = {"searcher": Random(), "scheduler": Asha(), "complete": dict, "exempt": exempt}
    parts["start"] = [{}] * (trials - 1)  # given, because draws would take most of the time
    sweep = Sweep(Space({}), seed=seed, trials=trials, milestones=MILESTONES, workers=workers, **parts)

    def score(start: Start, step: int) -> float:
        quality = random.Random(f"{seed}/{start.trial}").gauss()
        noise = random.Random(f"{seed}/{start.trial}/{step}").gauss()
        return math.sqrt(agreement) * quality + math.sqrt(1 - agreement) * noise

    Cluster(sweep, score, seed=seed, costs=lambda start, step: {}).run()
    assert sweep.finished
    return sum(max(record.values) for record in sweep.records.values())


@functools.cache
def mean_used(trials: int, workers: int, agreement: float, exempt: tuple[int, ...] = EXEMPT) -> float:
    """Mean over the sweeps of 2,400 trials."""
    sweeps = 2_400 // trials
    return sum(used(trials, workers, agreement, seed, exempt) for seed in range(sweeps)) / sweeps


@pytest.mark.parametrize("agreement", [0.3, 0.6])
@pytest.mark.parametrize("workers", [2, 64])
@pytest.mark.parametrize("trials", [24, 100])
def test_expected_examples_are_those_of_real_sweeps(trials: int, workers: int, agreement: float) -> None:
    real = mean_used(trials, workers, agreement)
    assert expected_examples(Asha(), trials, MILESTONES, EXEMPT) == pytest.approx(real, rel=0.1)


def used_by_changes(seed: int) -> int:
    """Examples that a sweep with the searcher `changes` used: scores follow from configurations, and noise at each
    rung."""
    sweep = new_sweep(trials=24, workers=2, seed=seed, searcher=Changes())

    def score(start: Start, step: int) -> float:
        noise = random.Random(f"{seed}/{start.trial}/{step}").gauss()
        return math.sqrt(0.4) * 8 * optimum(start.config) + math.sqrt(0.6) * noise

    Cluster(sweep, score, seed=seed, costs=lambda start, step: {}).run()
    return sum(max(record.values) for record in sweep.records.values())


@pytest.mark.slow
def test_expected_examples_are_those_of_sweeps_with_a_searcher_that_learns() -> None:
    real = sum(map(used_by_changes, range(100))) / 100
    assert expected_examples(Asha(), 24, MILESTONES, EXEMPT) == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("trials", [24, 100])
def test_scores_that_agree_fully_make_a_sweep_dearer(trials: int) -> None:
    real = mean_used(trials, 2, 1.0)
    assert expected_examples(Asha(), trials, MILESTONES, EXEMPT, agreement=1.0) == pytest.approx(real, rel=0.1)
    assert 0.75 < expected_examples(Asha(), trials, MILESTONES, EXEMPT) / real < 0.9


def test_exempt_trials_are_counted_in_full() -> None:
    exempt = (0, 1, 2)
    real = mean_used(24, 8, 0.6, exempt)
    assert expected_examples(Asha(), 24, MILESTONES, exempt) == pytest.approx(real, rel=0.1)
    assert expected_examples(Asha(), 3, MILESTONES, exempt) == 3 * MILESTONES[-1]


def test_without_agreement_the_chances_of_each_arrival_give_the_closed_form() -> None:
    """The k-th of n arrivals goes on with probability ceil(k / eta) / k: three trials, one rung, of two examples."""
    for eta, chances in ((2, 1 + 1 / 2 + 2 / 3), (3, 1 + 1 / 2 + 1 / 3)):
        found = expected_examples(Asha(eta), 3, (2_000, 10_000), (), agreement=0.0)
        assert found == pytest.approx(3 * 2_000 + chances * 8_000, rel=0.01)


def test_few_trials_cost_far_more_than_an_equal_share_at_each_rung() -> None:
    """One trial in eta to the power of the rung reaches each milestone if there are many trials."""
    first, second, third, last = MILESTONES
    share = first + (second - first) / 3 + (third - second) / 9 + (last - third) / 27
    assert 2.0 < expected_examples(Asha(), 24, MILESTONES, EXEMPT) / (24 * share) < 2.3
    assert 1.0 < expected_examples(Asha(), 10_000, MILESTONES, EXEMPT) / (10_000 * share) < 1.1


@ENTRIES
def test_expected_examples_lie_between_the_first_milestone_and_the_full_budget(scheduler: Scheduler) -> None:
    for trials in (1, 2, 8):
        expected = expected_examples(scheduler, trials, (100, 300, 900), EXEMPT)
        assert 100 * trials < expected <= 900 * trials
        assert expected == expected_examples(scheduler, trials, (100, 300, 900), EXEMPT), "no chance"


def test_without_early_stopping_every_trial_uses_its_budget() -> None:
    assert expected_examples(NoStopping(), 8, (100, 300, 900), EXEMPT) == 7_200
