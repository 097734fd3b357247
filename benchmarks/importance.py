"""Importance: the choices behind `hpo importance`, in simulated sweeps whose deciding parameter is known.

    python -m benchmarks.importance

Ten parameters, eight numbers and two choices; one decides the score, with noise in units of its spread. The first table
says how often PED-ANOVA puts it first, by the share of the trials that counts as the best. The second compares trials
at two rungs, of which a third passed the first: the share of the parameter that decides the scores of the second rung.
The third gives the largest share of ten parameters when none has an effect.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from benchmarks.common import markdown, mean
from hpo.search.importance import NEEDED, TOP
from hpo.search.study import quiet_study

DOMAINS: Mapping[str, BaseDistribution] = {
    **{f"number {place}": FloatDistribution(0.0, 1.0) for place in range(8)},
    **{f"choice {place}": CategoricalDistribution(["a", "b", "c"]) for place in range(2)},
}
OPTUNAS = 0.1
"""Share of the best trials in Optuna's default."""
LEAST = 5
"""Fewest best trials."""
RESPONSES = {
    "the same parameter": (1.0, 1.0),
    "half this parameter, half another": (0.5, 1.0),
    "mostly another": (0.2, 1.0),
}
"""What decides at the first rung -> weight of number 0 there and at the second rung; the rest is number 1's."""
TRIALS, PASSED = 100, 34


def draws(count: int, generator: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {name: float(generator.random()) if name[0] == "n" else "abc"[generator.integers(3)] for name in DOMAINS}
        for _ in range(count)
    ]


def shares(params: Sequence[dict[str, Any]], scores: NDArray[np.float64], best: float) -> dict[str, float]:
    """Importance of each parameter, as shares; `best` is the share of the trials that counts as the best."""
    study = quiet_study(optuna.storages.InMemoryStorage())
    study.add_trials([create_trial(params=each, distributions=dict(DOMAINS), value=0.0) for each in params])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=max(best, LEAST / len(params)))
        found = evaluator.evaluate(study, target=lambda trial: -float(scores[trial.number]))
    total = sum(found.values()) or 1.0
    return {name: value / total for name, value in found.items()}


def effect(params: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    if name.startswith("number"):
        return np.array([-((each[name] - 0.7) ** 2) for each in params])
    return np.array([0.3 * (each[name] == "a") for each in params])


def found_first(name: str, count: int, noise: float, best: float, seeds: int) -> float:
    """How often the deciding parameter `name` comes first among `count` trials."""
    hits = []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        params = draws(count, generator)
        scores = effect(params, name)
        scores = scores + noise * scores.std() * generator.normal(size=count)
        found = shares(params, scores, best)
        hits.append(max(found, key=lambda each: found[each]) == name)
    return mean(hits)


def at_two_rungs(early: float, late: float, seeds: int) -> list[float]:
    """Mean share of number 0: at the first rung among all trials, at the second among those that passed, and at the
    second among all, as if none had been stopped."""
    rows = []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        params = draws(TRIALS, generator)
        own, other = (effect(params, f"number {place}") / 0.09 for place in (0, 1))
        choice = effect(params, "choice 0") / 0.6
        first = early * own + (1 - early) * other + choice + 0.3 * generator.normal(size=TRIALS)
        second = late * own + (1 - late) * other + choice + 0.3 * generator.normal(size=TRIALS)
        passed = np.argsort(-first)[:PASSED]
        survivors = shares([params[place] for place in passed], second[passed], TOP)
        every = (shares(params, first, TOP), survivors, shares(params, second, TOP))
        rows.append([found["number 0"] for found in every])
    return [float(value) for value in np.mean(rows, axis=0)]


def largest_by_chance(count: int, seeds: int) -> float:
    """Mean of the largest share where scores are random."""
    largest = []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        largest.append(max(shares(draws(count, generator), generator.normal(size=count), TOP).values()))
    return mean(largest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    options = parser.parse_args()
    lines = []
    for noise, count in itertools.product((0.0, 0.5, 1.0), (10, NEEDED, 50)):
        cells = [
            f"{found_first(name, count, noise, best, options.seeds):.2f}"
            for name in ("number 0", "choice 0")
            for best in (TOP, OPTUNAS)
        ]
        lines.append([f"{noise:g}", str(count), *cells])
    print(markdown(("noise", "trials", *(f"{kind}, best {best:.0%}" for kind in ("number", "choice")
                                         for best in (TOP, OPTUNAS))), lines))  # fmt: skip
    lines = [
        [name, *(f"{share:.2f}" for share in at_two_rungs(early, late, options.seeds))]
        for name, (early, late) in RESPONSES.items()
    ]
    columns = ("decides at the first rung", "first rung, all", "second rung, passed", "second rung, all")
    print("\n" + markdown(columns, lines))
    lines = [[str(count), f"{largest_by_chance(count, options.seeds):.2f}"] for count in (NEEDED, 50, 100)]
    print("\n" + markdown(("trials", "largest share by chance"), lines))


if __name__ == "__main__":
    main()
