"""The answer: closed forms, and simulated sweeps in which its probability must hold."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from benchmarks.calibration import simulated
from hpo.search import answer
from hpo.search.answer import Answer, Challenger, Challengers, decide, fit, posteriors
from results.noise import SPREAD

SCORES = [Challenger(4, (0.72, 0.71, 0.715), 0.004), Challenger(7, (0.73,), 0.006), Challenger(9, (0.69, 0.70))]
DEFAULT = (0.70, 0.705)


ERROR = 0.009**2 / 2 + (0.004**2 + 0.006**2) / 3 / 2
"""Variance of the default's mean, with a noise of 0.009."""


def joint(
    default: tuple[float, ...], given: list[Challenger], noise: float, mean: float, spread: float
) -> tuple[Any, Any]:
    """Posterior mean and covariance of (T, d_1, ...), by conditioning a normal vector; T has a very wide prior."""
    size = len(given)
    prior = np.diag([1e4, *[spread**2] * size])
    centre = np.array([0.0, *[mean] * size])
    design = np.hstack([np.ones((size + 1, 1)), np.vstack([np.zeros((1, size)), np.eye(size)])])
    errors = [ERROR, *(noise**2 / len(one.values) + one.sampling**2 / 2 for one in given)]
    values = np.array([np.mean(default), *(one.mean for one in given)])
    gain = prior @ design.T @ np.linalg.inv(design @ prior @ design.T + np.diag(errors))
    return centre + gain @ (values - design @ centre), prior - gain @ design @ prior


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 0.01), (-0.02, 0.01), (-0.01, 0.05), (0.0, 0.001)])
def test_gains_are_those_of_a_conditioned_normal_vector(mean: float, spread: float) -> None:
    posterior = fit(float(np.mean(DEFAULT)), ERROR, Challengers.of(SCORES), 0.009, mean, spread)
    centre, covariance = joint(DEFAULT, SCORES, 0.009, mean, spread)
    assert posterior.level == pytest.approx(centre[0], abs=1e-5)
    means, deviations = posterior.gain(Challengers.of(SCORES))
    assert means == pytest.approx(centre[1:], abs=1e-5)
    assert deviations == pytest.approx(np.sqrt(np.diag(covariance)[1:]), abs=1e-5)


def test_evidence_is_the_density_of_the_differences_from_the_default() -> None:
    def density(mean: float, spread: float) -> float:
        size, noise = len(SCORES), 0.009
        own = [spread**2 + noise**2 / len(one.values) + one.sampling**2 / 2 for one in SCORES]
        covariance = np.diag(own) + ERROR * np.ones((size, size))
        rest = np.array([one.mean - np.mean(DEFAULT) - mean for one in SCORES])
        return float(-(np.linalg.slogdet(covariance)[1] + rest @ np.linalg.solve(covariance, rest)) / 2)

    pairs = [(mean, spread) for mean in (0.0, -0.03) for spread in (0.001, 0.01, 0.06)]
    found = [fit(float(np.mean(DEFAULT)), ERROR, Challengers.of(SCORES), 0.009, *pair).evidence for pair in pairs]
    expected = [density(*pair) for pair in pairs]
    assert np.diff(found) == pytest.approx(np.diff(expected))


def test_one_pair_of_the_grid_gives_the_textbook_shrinkage(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a default known exactly: gain = t^2 / (t^2 + s^2 / n) x difference."""
    monkeypatch.setattr(answer, "MEANS", (0.0,))
    monkeypatch.setattr(answer, "SPREADS", (0.01,))
    one = Challenger(3, (0.72,) * 4)
    gain, chance = posteriors([0.7] * 10**6, [one], 0.02)[3]
    assert gain == pytest.approx(0.02 / 2, rel=1e-3)
    assert chance == pytest.approx(NormalDist().cdf(0.01 / math.sqrt(0.0001 / 2)), rel=1e-3)


def test_more_runs_and_fewer_errors_make_surer() -> None:
    once, thrice = Challenger(3, (0.72,)), Challenger(3, (0.72,) * 3)

    def chance(one: Challenger, runs: int = 1) -> float:
        return posteriors([0.7] * runs, [one], SPREAD)[3][1]

    assert chance(once) < chance(thrice) < chance(thrice, runs=3)
    assert chance(replace(thrice, sampling=0.01)) < chance(thrice)


def test_a_far_challenger_teaches_nothing_about_the_near_ones() -> None:
    far = Challenger(9, (0.4,))
    assert posteriors(DEFAULT, [*SCORES[:2], far], SPREAD)[7] == posteriors(DEFAULT, SCORES[:2], SPREAD)[7]
    assert posteriors(DEFAULT, [*SCORES[:2], far], SPREAD)[9][1] < 0.01


def test_the_answer_names_the_leader_and_how_sure_it_is() -> None:
    sure = decide((0.70, 0.70, 0.70), [Challenger(2, (0.69,)), Challenger(5, (0.75, 0.75, 0.75))])
    assert (sure.trial, sure.default_runs) == (5, 3)
    assert sure.leader is not None
    assert (sure.leader.trial, sure.leader.runs, sure.leader.mean) == (5, 3, pytest.approx(0.75))
    assert sure.leader.probability > 0.99
    assert 0 < sure.leader.gain < 0.05
    unsure = decide((0.70,), [Challenger(2, (0.69,)), Challenger(5, (0.703,))])
    assert unsure.trial == 0
    assert unsure.leader is not None
    assert (unsure.leader.trial, unsure.leader.probability < answer.SURE) == (5, True)


def test_without_anything_to_compare() -> None:
    assert decide((), []) == Answer(None, SPREAD, None, 0, ())
    assert decide((0.7,), []).trial == 0
    alone = decide((), [Challenger(2, (0.6, 0.7)), Challenger(4, (0.66,))])
    assert (alone.trial, alone.default) == (4, None)
    assert alone.leader is not None
    assert math.isnan(alone.leader.probability)


@pytest.mark.parametrize(("mean", "spread"), [(-0.01, 0.01), (0.0, 0.01), (-0.02, 0.02), (0.0, 0.02)])
@pytest.mark.parametrize("repeats", [False, True])
def test_probabilities_of_a_half_and_of_nine_tenths_hold(mean: float, spread: float, repeats: bool) -> None:
    """Where draws are no worse than the default on average, it is more often right than it says: gains are shrunk
    towards the default or below it."""
    sure, named = [], []
    for seed in range(250):
        found, gains = simulated(seed, mean, spread, repeats=repeats)
        assert found.leader is not None
        if found.leader.probability >= 0.9:
            sure.append(gains[found.leader.trial] > 0)
        if found.trial:
            named.append((found.leader.probability, gains[found.trial] > 0))
    if sure:
        assert sum(sure) / len(sure) > 0.9 - 2.5 * math.sqrt(0.09 / len(sure))
    said, right = (sum(values) / len(named) for values in zip(*named, strict=True))
    assert right > said - 2.5 * math.sqrt(0.15 / len(named))


@pytest.mark.parametrize("repeats", [False, True])
def test_where_nothing_beats_the_default_it_is_the_answer(repeats: bool) -> None:
    found = [simulated(seed, 0.0, 0.015, never=True, repeats=repeats) for seed in range(250)]
    wrong = [gains[each.trial] for each, gains in found if each.trial]
    assert len(wrong) / len(found) < 0.15
    assert sum(wrong) / len(found) > -0.001


@pytest.mark.parametrize("repeats", [False, True])
def test_large_gains_are_found(repeats: bool) -> None:
    found = [simulated(seed, 0.0, 0.03, repeats=repeats) for seed in range(100)]
    worth = [(max(gains.values()), gains[each.trial] if each.trial else 0.0) for each, gains in found]
    assert sum(gain for _, gain in worth) > 0.8 * sum(max(best, 0.0) for best, _ in worth)
