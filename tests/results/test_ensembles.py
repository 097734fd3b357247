"""Ensemble methods: properties of every method, and each compared with brute force on small cases."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from results.ensembles import COMBINATIONS, ENSEMBLES, Greedy, Judge, TopK, blend, majority_vote, mean_score
from results.predictions import Prediction
from results.scoring import Vector
from tests.results.samples import SCORING

KINDS = {"colour": "classification", "length": "regression"}
ROWS = np.arange(30)


def problem(seed: int, count: int = 5, probabilities: bool = True) -> tuple[list[dict[str, Prediction]], Judge]:
    generator = np.random.default_rng(seed)
    truth = {"colour": generator.integers(0, 3, 30).astype(float), "length": generator.uniform(0, 5, 30)}
    members = []
    for _ in range(count):
        chances = generator.dirichlet(np.ones(3), 30) + 0.5 * np.eye(3)[truth["colour"].astype(int)]
        chances /= chances.sum(axis=1, keepdims=True)
        colour = Prediction(ROWS, chances.argmax(axis=1).astype(float), chances if probabilities else None)
        members.append({"colour": colour, "length": Prediction(ROWS, truth["length"] + generator.normal(0, 2, 30))})

    def judge(values: Mapping[str, Vector]) -> float:
        return SCORING.overall(SCORING.scores(values, truth))

    return members, judge


def test_majority_vote_and_its_ties() -> None:
    values = np.array([[0.0, 2, 2, 1], [0, 1, 1, 0], [1, 1, 0, 2]])
    ones = np.ones(3)
    assert majority_vote(values, ones).tolist() == [0, 1, 0, 0], "a tie goes to the smaller label"
    assert majority_vote(values, np.array([3.0, 1, 1])).tolist() == [0, 2, 2, 1], "weights count"
    sure = np.zeros((3, 4, 3))
    sure[np.arange(3)[:, None], np.arange(4), values.astype(int)] = [[0.4], [0.5], [0.9]]
    assert majority_vote(values, ones, sure).tolist() == [0, 1, 0, 2], "or to the more probable label"
    even = np.full((3, 4, 3), 1 / 3)
    assert majority_vote(values, ones, even).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("seed", range(5))
def test_majority_vote_equals_counting(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 4, (5, 50)).astype(float)
    counted = [min(set(column), key=lambda label: (-list(column).count(label), label)) for column in values.T]
    assert majority_vote(values, np.ones(5)).tolist() == counted


def test_mean_score() -> None:
    assert mean_score(np.array([[0.0, 4], [3, 1]]), np.array([1.0, 2])).tolist() == [2, 2]


def test_probabilities_are_averaged() -> None:
    sure, unsure = np.array([[0.9, 0.1]]), np.array([[0.4, 0.6]])
    members = [{"colour": Prediction(ROWS[:1], p.argmax(axis=1).astype(float), p)} for p in (sure, unsure)]
    assert blend(members, (0, 1), "average", KINDS)["colour"].tolist() == [0]
    assert blend(members, (0, 1, 1, 1, 1, 1), "average", KINDS)["colour"].tolist() == [1]


@pytest.mark.parametrize("name", ENSEMBLES)
@pytest.mark.parametrize("probabilities", [True, False])
def test_every_method(name: str, probabilities: bool) -> None:
    members, judge = problem(1, probabilities=probabilities)
    alone = [judge(blend(members, (index,), "vote", KINDS)) for index in range(len(members))]
    technique = ENSEMBLES[name]
    for size in (1, 3, 50):
        chosen = technique(size).select(members, judge, KINDS)
        assert 1 <= len(chosen) <= size
        assert chosen[0] == int(np.argmax(alone)), "the best single member comes first"
        assert chosen == technique(size).select(members, judge, KINDS)
        assert technique.combination in COMBINATIONS
    assert technique(3).select([], judge, KINDS) == ()
    with pytest.raises(ValueError, match="`size` of an ensemble must be at least 1; found 0"):
        technique(0)


@pytest.mark.parametrize("seed", range(6))
def test_greedy_takes_the_best_step_and_never_ends_below_the_best_member(seed: int) -> None:
    members, judge = problem(seed)

    def value(chosen: tuple[int, ...]) -> float:
        return judge(blend(members, chosen, "average", KINDS))

    best_single = max(value((index,)) for index in range(len(members)))
    first = Greedy(1).select(members, judge, KINDS)
    assert value(first) == best_single
    best_pair = max(value((first[0], second)) for second in range(len(members)))
    chosen = Greedy(2).select(members, judge, KINDS)
    assert value(chosen) == max(best_single, best_pair)
    values = [value(Greedy(size).select(members, judge, KINDS)) for size in range(1, 7)]
    assert values == sorted(values)
    optimum = max(value(pair) for n in (1, 2) for pair in itertools.combinations_with_replacement(range(5), n))
    assert best_single <= value(chosen) <= optimum


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("without", [(), (1, 3), tuple(range(5))], ids=["all", "some", "none"])
def test_sums_that_grow_choose_as_ensembles_blended_from_scratch(seed: int, without: tuple[int, ...]) -> None:
    """Members in `without` have no probabilities."""
    members, judge = problem(seed)
    bare, _ = problem(seed, probabilities=False)
    mixed = [bare[index] if index in without else member for index, member in enumerate(members)]
    chosen: tuple[int, ...] = ()
    best, best_value = chosen, -np.inf
    for _ in range(12):
        grown = [(*chosen, index) for index in range(len(mixed))]
        values = [judge(blend(mixed, selection, "average", KINDS)) for selection in grown]
        chosen = grown[int(np.argmax(values))]
        if max(values) > best_value:
            best, best_value = chosen, max(values)
    assert Greedy(12).select(mixed, judge, KINDS) == best


def test_top_k_takes_the_best_each_once() -> None:
    members, judge = problem(3)
    alone = [judge(blend(members, (index,), "vote", KINDS)) for index in range(len(members))]
    assert TopK(3).select(members, judge, KINDS) == tuple(np.argsort([-value for value in alone], kind="stable")[:3])


def test_the_earlier_of_equal_members_is_taken() -> None:
    members, judge = problem(4, count=1)
    for name, technique in ENSEMBLES.items():
        assert technique(4).select(members * 3, judge, KINDS)[0] == 0, name
    assert Greedy(4).select(members * 3, judge, KINDS) == (0,), "the shorter of equal prefixes"
