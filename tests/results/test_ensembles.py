"""Ensemble methods: properties of every method, and forward selection compared with the plain way and brute force."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from results.blending import COMBINATIONS, blend
from results.ensembles import METHODS, Problem, check, choose, forward, greedy, greedy_bagged, greedy_per_task
from results.growth import Joint
from results.predictions import Prediction
from results.scoring import Vector
from results.stacking import _moments, fitted, stacked
from tests.results.samples import SCORING

ROWS = np.arange(30)


def problem(
    seed: int, count: int = 5, classes: int = 3, without: Sequence[int] = (), kind: type = np.float64
) -> Problem:
    """Candidates of some skill for a class and a score; those in `without` have no probabilities."""
    generator = np.random.default_rng(seed)
    truth = {"colour": generator.integers(0, classes, 30).astype(float), "length": generator.uniform(0, 5, 30)}
    members = []
    for place in range(count):
        chances = generator.dirichlet(np.ones(classes), 30) + 0.5 * np.eye(classes)[truth["colour"].astype(int)]
        chances = (chances / chances.sum(axis=1, keepdims=True)).astype(kind).astype(float)
        colour = Prediction(ROWS, chances.argmax(axis=1).astype(float), None if place in without else chances)
        scores = (truth["length"] + generator.normal(0, 2, 30)).astype(np.float32).astype(float)
        members.append({"colour": colour, "length": Prediction(ROWS, scores)})
    return Problem(members, truth, SCORING)


def value(given: Problem, picks: Sequence[int], tasks: Sequence[str] = ("colour", "length")) -> float:
    """Score of the average of these members, blended from scratch."""
    weights = np.bincount(picks, minlength=len(given.members)).astype(float)
    return replace(given, labels={task: given.labels[task] for task in tasks}).value(
        dict.fromkeys(tasks, weights), "average"
    )


def plain(given: Problem, size: int, among: Sequence[int], tasks: Sequence[str] = ("colour", "length")) -> list[int]:
    """Forward selection from a sorted start, every ensemble blended and scored from scratch."""
    order = sorted(among, key=lambda place: -value(given, [place], tasks))
    starts = [order[:number] for number in range(1, max(1, size // 2) + 1)][: len(order)]
    picks = max(starts, key=lambda start: value(given, start, tasks))
    best = picks
    while len(picks) < size:
        picks = max(([*picks, place] for place in among), key=lambda grown: value(given, grown, tasks))
        best = max(best, picks, key=lambda chosen: value(given, chosen, tasks))
    return best


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("without", [(), (1, 3), tuple(range(5))], ids=["all", "some", "none"])
def test_every_method(name: str, without: Sequence[int]) -> None:
    given = problem(1, without=without)
    for size in (1, 2, 3, 50):
        weights = choose(given, name, size)
        assert weights.keys() == given.labels.keys()
        assert all((own >= 0).all() and own.sum() == pytest.approx(1) for own in weights.values())
        assert 1 <= np.count_nonzero(np.sum(list(weights.values()), axis=0)) <= size
        again = choose(Problem(given.members, given.labels, SCORING), name, size)
        assert all(np.array_equal(own, again[task]) for task, own in weights.items())
        if size == 1 and name not in ("stack", "greedy-bagged", "greedy-per-task"):
            assert weights["colour"].argmax() == given.order[0], "the best single candidate"
    assert METHODS[name].combination in COMBINATIONS


def test_a_wrong_method_or_size_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown ensemble method `best`. Expected one of: auto, top-k, average"):
        check("best", 3)
    with pytest.raises(ValueError, match="`size` of an ensemble must be at least 1; found 0"):
        check("greedy", 0)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("without", [(), (1, 3), tuple(range(6))], ids=["all", "some", "none"])
@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_forward_selection_equals_the_plain_way(classes: int, without: Sequence[int], kind: type) -> None:
    """Also for half precision, whose leads are kept in single precision, and for ties of certain members."""
    for seed in range(2):
        given = problem(seed, 6, classes, without, kind)
        joint = Joint(given.growths, SCORING)
        for size in (1, 5, 12):
            assert forward(joint, size) == plain(given, size, range(6)), (seed, size)
        assert forward(joint, 6, np.array([1, 2, 5])) == plain(given, 6, [1, 2, 5])
        for task, growth in given.growths.items():
            assert forward(growth, 5) == plain(given, 5, range(6), [task])


def test_growing_scores_equal_those_of_blends() -> None:
    """Also where a sum is constant, where members cancel each other, and for a metric without running sums."""
    given = problem(0, 4)
    scores = given.members[0]["length"].values
    extreme = [np.full(30, 2.0), -scores, scores, np.zeros(30)]
    members = [
        {**member, "length": Prediction(ROWS, values)} for member, values in zip(given.members, extreme, strict=True)
    ]
    other = replace(SCORING, metrics={"colour": "other", "length": "other"}, score=_share_within_one)
    for scoring in (SCORING, other):
        sample = Problem(members, given.labels, scoring)
        joint = Joint(sample.growths, scoring)
        picks: list[int] = []
        for pick in (0, 2, 1, 3, 3):
            assert joint.values() == pytest.approx([value(sample, [*picks, place]) for place in range(4)], abs=1e-12)
            joint.add(pick)
            picks.append(pick)


def _share_within_one(metric: str, predictions: Vector, labels: Vector) -> float:
    return float(np.mean(np.abs(predictions - labels) <= 1))


@pytest.mark.parametrize("seed", range(4))
def test_greedy_never_ends_below_the_best_member_and_the_first_pair_is_the_best(seed: int) -> None:
    given = problem(seed)
    best_single = value(given, given.order[:1])
    chosen = forward(Joint(given.growths, SCORING), 2)
    best_pair = max(value(given, [given.order[0], second]) for second in range(5))
    assert value(given, chosen) == max(best_single, best_pair)
    optimum = max(value(given, pair) for n in (1, 2) for pair in itertools.combinations_with_replacement(range(5), n))
    assert best_single <= value(given, chosen) <= optimum
    for size in range(3, 9):
        assert value(given, forward(Joint(given.growths, SCORING), size)) >= best_single
        for task in given.labels:
            alone = max(value(given, [place], [task]) for place in range(5))
            picks = np.repeat(np.arange(5), greedy_per_task(given, size)[task].astype(int))
            assert value(given, list(picks), [task]) >= alone


def test_bags_pick_from_random_halves_and_count_together() -> None:
    given = problem(3, 8)
    counts = greedy_bagged(given, 3)["colour"]
    assert 20 <= counts.sum() <= 60
    assert np.count_nonzero(counts) > np.count_nonzero(greedy(given, 3)["colour"]), "halves lack the best candidates"


def test_top_k_takes_the_best_each_once() -> None:
    given = problem(3)
    alone = [given.score({task: p.values for task, p in member.items()}) for member in given.members]
    best = np.argsort([-own for own in alone], kind="stable")[:3]
    for name in ("top-k", "average"):
        assert np.flatnonzero(choose(given, name, 3)["colour"]).tolist() == sorted(best)


def test_the_earlier_of_equal_members_is_taken() -> None:
    given = problem(4, count=1)
    equal = Problem(list(given.members) * 3, given.labels, SCORING)
    for name in ("top-k", "average", "greedy", "greedy-per-task"):
        assert choose(equal, name, 1)["colour"].tolist() == [1, 0, 0], name
    assert choose(equal, "greedy", 4)["colour"].tolist() == [1, 0, 0], "the shorter of equal prefixes"


def test_a_method_that_takes_too_many_members_chooses_again_among_the_heaviest() -> None:
    given = problem(2, 8)
    free = choose(given, "stack", 8)
    heaviest = np.argsort(-np.sum(list(free.values()), axis=0))[:2]
    limited = choose(given, "stack", 2)
    assert set(np.flatnonzero(np.sum(list(limited.values()), axis=0))) <= set(heaviest)
    few = choose(given.of(sorted(heaviest)), "stack", 2)
    assert [limited[task][sorted(heaviest)] for task in few] == [pytest.approx(own) for own in few.values()]


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e6])
def test_stacking_equals_a_general_optimiser(strength: float) -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(size=60)
    features = 0.4 * target + generator.normal(size=(4, 60))
    features[3] *= -1  # a member that must get no weight
    scale = strength * np.mean(np.sum(features**2, axis=1))

    def error(weights: Vector) -> float:
        return float(np.sum((target - weights @ features) ** 2) + scale * np.sum((weights - 1 / 4) ** 2))

    found = fitted(_moments(features, target), strength)
    best = minimize(error, np.full(4, 0.25), bounds=[(0, None)] * 4, tol=1e-14)
    assert found == pytest.approx(best.x, abs=1e-4)
    if strength == 1e6:
        assert found == pytest.approx(np.full(4, 0.25), abs=1e-4), "the plain average"


def test_stacking_prefers_the_better_member_and_averages_equal_ones() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 3, 400)
    features = np.stack([generator.dirichlet(np.ones(3), 400) + skill * np.eye(3)[truth] for skill in (2.0, 0.0, 2.0)])
    features /= features.sum(axis=2, keepdims=True)
    weights = stacked(features, np.eye(3)[truth])
    assert weights[1] < 0.15
    assert weights[0] == pytest.approx(weights[2], abs=0.15)
    assert stacked(np.zeros((3, 50)), generator.normal(size=50)) == pytest.approx(np.full(3, 1 / 3))


def test_stacked_weights_of_classes_blend_as_they_were_fitted() -> None:
    given = problem(5)
    weights = choose(given, "stack", 5)
    mixed = sum(w * m["colour"].probabilities for w, m in zip(weights["colour"], given.members, strict=True))
    values = blend(given.members, weights, "average", SCORING.kinds)["colour"]
    assert np.array_equal(values, np.argmax(mixed, axis=1))
