"""Cross-validation of ensemble methods: out-of-fold predictions, optimism, and the choice by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from results import crossvalidation
from results.crossvalidation import FOLDS, SINGLE, Plan, best, compare, plans
from results.ensembles import METHODS, Problem, choose
from results.predictions import Prediction
from tests.results.samples import SCORING
from tests.results.test_ensembles import problem


def guesses(count: int, rows: int = 300, seed: int = 0) -> Problem:
    """Candidates that guess: nothing can be learnt from them."""
    generator = np.random.default_rng(seed)
    labels = {"colour": generator.integers(0, 2, rows).astype(float)}
    members = [{"colour": Prediction(np.arange(rows), generator.integers(0, 2, rows).astype(float))}
               for _ in range(count)]  # fmt: skip
    return Problem(members, labels, SCORING)


def test_what_is_tried() -> None:
    assert plans("greedy", 7) == [SINGLE, Plan("greedy", 7)]
    assert plans("top-k", 1) == [SINGLE]
    every = plans("auto", 7)
    assert every[0] == SINGLE
    assert {plan.size for plan in every[1:]} == {3, 5, 7}
    assert {plan.method for plan in every[1:]} == METHODS.keys()
    assert plans("auto", 1) == [SINGLE]


def test_of_many_guesses_the_best_is_worth_a_guess() -> None:
    """On the rows that chose them they look far better: the optimism."""
    tried = compare(guesses(40), plans("auto", 5))
    for one in tried:
        assert one.value == pytest.approx(0.5, abs=0.08), one.plan
        assert one.optimism > 0.02, one.plan
    assert tried[0].members == 1
    assert (tried[0].gain.value, tried[0].gain.low, tried[0].gain.high) == (0.0, 0.0, 0.0)


def test_every_row_is_predicted_by_what_the_other_parts_chose() -> None:
    given = problem(0, 6)
    plan = Plan("greedy", 4)
    values = []
    for repeat in range(crossvalidation.REPEATS):
        predicted = {task: np.full(len(truth), np.nan) for task, truth in given.labels.items()}
        part = np.random.default_rng([crossvalidation.SEED, repeat]).permutation(30) % FOLDS
        for fold in range(FOLDS):
            rows, others = np.flatnonzero(part == fold), np.flatnonzero(part != fold)
            members = [{task: _at(prediction, others) for task, prediction in m.items()} for m in given.members]
            labels = {task: truth[others] for task, truth in given.labels.items()}
            weights = choose(Problem(members, labels, SCORING), *plan)
            chances = sum(w * m["colour"].probabilities for w, m in zip(weights["colour"], given.members, strict=True))
            scores = sum(w * m["length"].values for w, m in zip(weights["length"], given.members, strict=True))
            predicted["colour"][rows] = chances[rows].argmax(axis=1)
            predicted["length"][rows] = scores[rows]
        values.append(given.score(predicted))
    _, tried = compare(given, [SINGLE, plan])
    assert tried.value == pytest.approx(np.mean(values), abs=1e-12)
    assert tried.value + tried.optimism == pytest.approx(given.value(choose(given, *plan), "average"))


def _at(prediction: Prediction, rows: NDArray[np.intp]) -> Prediction:
    chances = prediction.probabilities
    return Prediction(rows, prediction.values[rows], None if chances is None else chances[rows])


def test_diverse_candidates_of_equal_skill_are_combined() -> None:
    tried = compare(problem(1, 8), plans("auto", 5))
    chosen = best(tried)
    assert chosen.value == max(one.value for one in tried)
    assert chosen.members > 1
    assert chosen.gain.value == pytest.approx(chosen.value - tried[0].value)


def test_of_equal_methods_the_one_with_fewer_members_is_best() -> None:
    first = compare(problem(2, 3), [SINGLE])[0]
    equal = replace(first, plan=Plan("average", 3), members=3)
    assert best([equal, first]) == first
