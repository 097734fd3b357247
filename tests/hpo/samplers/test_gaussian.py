"""The Gaussian process sees values that can be compared, what diverged and what runs, and at most MOST trials."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from hpo.samplers import gaussian
from hpo.samplers.gaussian import GaussianSampler
from hpo.samplers.problem import Problem
from hpo.search.searchers import Gp
from hpo.search.states import End
from hpo.search.study import Study
from hpo.space.tree import leaves
from search_spaces.domains import Float

PROBLEM = Problem(leaves({"x": Float(0.0, 1.0), "y": Float(1e-4, 1e-1, log=True)}))


def study_of(trials: list[tuple[dict[int, float], End | None]]) -> Study:
    """Trials with their reports and their end (None: it runs)."""
    study = Study(PROBLEM, 0, Gp(startup=3))
    for number, (values, end) in enumerate(trials):
        study.add(number, {"x": number / len(trials), "y": 10 ** (-4 + 3 * number / len(trials))})
        for step, value in values.items():
            study.report(number, step, value)
        if end is not None:
            study.finish(number, end, values.get(9000) if end == "complete" else None)
    return study


def seen(study: Study, monkeypatch: pytest.MonkeyPatch) -> list[FrozenTrial]:
    """The trials that the process is given for the next draw."""
    given: list[FrozenTrial] = []

    def asked(self: GaussianSampler, trials: list[FrozenTrial]) -> dict[str, Any]:
        given.extend(trials)
        return {"x": 0.5, "y": 0.01}

    monkeypatch.setattr(GaussianSampler, "_asked", asked)
    study.draw(99)
    return given


def test_it_models_the_highest_milestone_that_enough_trials_have_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    low = [({1000: 0.1 * index}, "pruned") for index in range(5)]
    middle = [({1000: 0.6, 3000: 0.7 + index / 100}, "pruned") for index in range(3)]
    top = [({1000: 0.6, 3000: 0.8, 9000: 0.9}, "complete")]
    values = [trial.value for trial in seen(study_of([*low, *middle[:2], *top]), monkeypatch)]
    assert values == [0.7, 0.71, 0.8], "two parameters: three trials are enough at 3,000 examples"
    values = [trial.value for trial in seen(study_of([*low, *middle[:1], *top]), monkeypatch)]
    assert values == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.6])


def test_what_diverged_violates_a_constraint_and_has_the_worst_value(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = seen(study_of([*[({1000: 0.5 + index / 10}, "pruned") for index in range(4)],
                            ({1000: float("nan")}, "diverged"), ({}, "failed")]), monkeypatch)
    assert [(trial.value, trial.constraints) for trial in trials] == [
        *[(0.5 + index / 10, {"finite": 0.0}) for index in range(4)], (0.5, {"finite": 1.0})]


def test_running_trials_count_by_their_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[Any] = [({}, None)] * (gaussian.PENDING + 3)
    trials = seen(study_of([*[({1000: 0.5}, "pruned")] * 4, *running]), monkeypatch)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4 + [TrialState.RUNNING] * gaussian.PENDING
    total = 4 + len(running)
    assert [trial.params["x"] for trial in trials[4:]] == [
        number / total for number in range(total - gaussian.PENDING, total)]


def test_it_sees_the_best_half_and_the_latest_half(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 3 * gaussian.MOST
    trials = seen(study_of([({1000: 1 - index / count}, "pruned") for index in range(count)]), monkeypatch)
    half = gaussian.MOST // 2
    assert [trial.params["x"] for trial in trials] == [i / count for i in (*range(half), *range(count - half, count))]


def test_it_draws_near_the_optimum_of_a_smooth_problem() -> None:
    study = Study(PROBLEM, 0, Gp(startup=3))
    distances = []
    for number in range(16):
        drawn = study.draw(number)
        study.add(number, drawn.params)
        distance = abs(drawn.params["x"] - 0.3) + abs(drawn.params["y"] - 0.02)
        study.report(number, 1000, -distance)
        study.finish(number, "pruned")
        distances.append(distance)
    assert min(distances[8:]) < 0.05
    assert sum(distances[11:]) / 5 < sum(distances[:3]) / 3
