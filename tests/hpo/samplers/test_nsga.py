"""NSGA-II: its population is the one that Optuna selects, a child is made of two parents, and sweeps are replayed."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers.nsgaii._elite_population_selection_strategy import NSGAIIElitePopulationSelectionStrategy

from hpo.samplers.history import FURTHER
from hpo.samplers.nsga import crossed, crowding, population
from hpo.samplers.problem import Problem
from hpo.search.schedulers import Asha, NoStopping, Scheduler
from hpo.search.searchers import Nsga2, Random
from hpo.search.study import Study
from hpo.search.sweep import Sweep
from hpo.space.tree import configuration, leaves
from results.objectives import objectives_from, undominated
from search_spaces.domains import Float
from tests.hpo.search.test_sweep_replay import follow
from tests.hpo.simulation import CURVES, TREE, Cluster, Faults, complete, cost, fingerprint, new_sweep, optimum, trained

FURTHER_GAINS = [objective.gain for objective in objectives_from("-seconds,-trainable_parameters", ())]
PROBLEM = Problem(leaves(TREE))
SCHEDULERS = pytest.mark.parametrize("scheduler", [NoStopping(), Asha()], ids=["none", "asha"])


@pytest.mark.parametrize("seed", range(12))
def test_the_population_is_the_one_that_optuna_selects(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.normal(size=(int(rng.integers(5, 60)), int(rng.integers(2, 4))))
    study = optuna.create_study(directions=["maximize"] * gains.shape[1])
    study.add_trials([optuna.trial.create_trial(values=row.tolist()) for row in gains])
    for size in (2, 5, 16):
        elite = NSGAIIElitePopulationSelectionStrategy(population_size=size)(study, study.get_trials())
        chosen, expected = population(gains, size), [trial.number for trial in elite]
        assert len(chosen) == len(expected) == min(size, len(gains))
        fronts = _fronts(gains)
        assert sorted(fronts[chosen]) == sorted(fronts[expected])
        for place in set(chosen) ^ set(expected):  # of the ends of a front, all infinitely far, either may be left out
            peers = gains[fronts == fronts[place]]
            assert (gains[place] == peers.min(axis=0)).any() or (gains[place] == peers.max(axis=0)).any()


def _fronts(gains: Any) -> Any:
    """The front of each trial, peeled off one after the other."""
    fronts, left, number = np.zeros(len(gains), dtype=int), np.arange(len(gains)), 0
    while len(left):
        first = undominated(gains[left])
        fronts[left[first]] = number
        left, number = left[~first], number + 1
    return fronts


def test_crowding_is_the_distance_of_the_neighbours() -> None:
    gains = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]])
    assert crowding(gains).tolist() == [math.inf, pytest.approx(0.4 + 0.5), pytest.approx(0.9 + 0.6), math.inf]
    assert crowding(np.ones((3, 2))).tolist() == [0.0] * 3, "equal trials are all crowded"


def test_the_population_is_ordered_by_front_and_then_by_crowding() -> None:
    gains = np.array([[2.0, 2.0], [9.0, 0.0], [5.0, 5.0], [0.0, 9.0], [6.0, 4.5], [1.0, 1.0]])
    assert population(gains, 6)[:2] == [1, 3]
    assert population(gains, 6)[2:4] == [2, 4] or population(gains, 6)[2:4] == [4, 2]
    assert population(gains, 6)[4:] == [0, 5]
    assert population(gains, 3) == population(gains, 6)[:3]


def test_a_child_takes_each_parameter_from_a_parent_that_has_it() -> None:
    source, study = random.Random(0), Study(PROBLEM, 0, Random())
    seen = set()
    for number in range(200):
        drawn = study.draw(2 * number), study.draw(2 * number + 1)
        assert drawn[0] is not None and drawn[1] is not None
        parents = drawn[0].params, drawn[1].params
        child = crossed(PROBLEM, parents, source)
        configuration(PROBLEM.leaves, child)  # raises where a parameter is missing
        for name, value in child.items():
            assert value in [parent[name] for parent in parents if name in parent]
            seen.add((name in parents[0]) + (name in parents[1]))
        mixed = [name for name in child if name in parents[0] and name in parents[1]]
        assert len(mixed) >= 6, "the parameters that both parents have are crossed"
    assert seen == {1, 2}


def several(searcher: Any, scheduler: Scheduler, **changes: Any) -> Sweep:
    return new_sweep(searcher=searcher, scheduler=scheduler, further=FURTHER_GAINS, **changes)


@SCHEDULERS
@pytest.mark.parametrize("seed", range(3))
def test_any_prefix_replayed_goes_on_as_the_unbroken_sweep(seed: int, scheduler: Scheduler) -> None:
    rng = random.Random(seed)
    searcher, trials = Nsga2(startup=3, population=6), 30
    whole = several(searcher, scheduler, trials=trials, seed=seed)
    rows = Cluster(whole, CURVES[seed % 3], Faults(fail=0.03, lose=0.1, pause=0.1, diverge=0.04), seed).run()
    assert whole.finished
    children = [trial.user_attrs.get(FURTHER) for trial in whole.study.trials() if trial.value is not None]
    assert len(children) > 3 and all(further and len(further) == 2 for further in children)
    for cut in (0, len(rows), *(rng.randrange(len(rows)) for _ in range(4))):
        again = several(searcher, scheduler, trials=trials, seed=seed)
        again.replay(rows[:cut])
        follow(again, rows[cut:])
        assert fingerprint(again) == fingerprint(whole)


def test_further_objectives_change_no_other_searcher_and_no_verdict() -> None:
    alone, beside = new_sweep(trials=20), new_sweep(trials=20, further=FURTHER_GAINS)
    Cluster(alone).run()
    Cluster(beside).run()
    one, two = fingerprint(alone), fingerprint(beside)
    for name in ("trials", "values", "states", "rungs", "ranking"):
        assert one[name] == two[name]


def test_only_complete_trials_have_children() -> None:
    """Stopped ones may have any parameters: the draws do not depend on them."""
    def drawn(steps: int) -> list[Any]:
        study = Study(PROBLEM, 0, Nsga2(startup=4))
        source = Study(PROBLEM, 0, Random())
        for number in range(16):
            first = source.draw(number)
            assert first is not None
            raced = number % 2
            study.add(number, {**first.params, "steps": steps} if raced else first.params)
            study.report(number, 1000, number / 16)
            study.finish(number, "pruned" if raced else "complete", None if raced else number / 16, (-1.0 * number,))
        return [study.draw(number) for number in range(16, 24)]

    assert drawn(1) == drawn(9)


def test_a_trial_that_lacks_the_value_of_an_objective_has_no_children() -> None:
    study, source = Study(PROBLEM, 0, Nsga2(startup=2, changes=1.0)), Study(PROBLEM, 0, Random())
    for number in range(12):
        first = source.draw(number)
        assert first is not None
        unknown = number >= 2
        study.add(number, {**first.params, "steps": 9 if unknown else 1})
        study.finish(number, "complete", 1.0 if unknown else 0.1, (math.nan if unknown else -1.0,))
    draws = [study.draw(number) for number in range(12, 40)]
    assert sum(draw is not None and draw.params["steps"] == 1 for draw in draws) > 20


WIDE = leaves({f"x{index}": Float(0.0, 1.0) for index in range(12)})


def reached(searcher: Any, seed: int) -> float:
    """The mean, over weights of two objectives, of the best weighed sum among 100 trials in 12 dimensions. The first
    objective is best with all numbers at 0.3, the second with all at 0.7."""
    study, gains = Study(Problem(WIDE), seed, searcher), []
    for number in range(100):
        draw = study.draw(number)
        assert draw is not None
        first, second = (-sum((x - best) ** 2 for x in draw.params.values()) for best in (0.3, 0.7))
        study.add(number, draw.params)
        study.finish(number, "complete", first, (second,))
        gains.append((first, second))
    return float(np.mean([max(w * a + (1 - w) * b for a, b in gains) for w in np.linspace(0, 1, 11)]))


def test_it_finds_a_better_front_than_random_draws() -> None:
    differences = [reached(Nsga2(), seed) - reached(Random(), seed) for seed in range(6)]
    assert min(differences) > 0.05


def test_the_simulation_weighs_its_objectives_against_each_other() -> None:
    """Otherwise the front would be one trial, and the tests above easy."""
    small, large = (complete({"adapter": {"kind": "lora", "rank": rank}, "x": 0.3}) for rank in (2, 16))
    assert optimum(large) > optimum(small) and trained(large) > trained(small)
    slow, fast = (complete({"x": x}) for x in (0.3, 1.0))
    assert optimum(slow) > optimum(fast) and cost(slow) > cost(fast)
