"""PED-ANOVA for many scorings at once gives what Optuna's evaluator gives for each."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from hpo.search.pedanova import column, importances

DOMAINS: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-2, log=True),
    "share": FloatDistribution(0.0, 1.0),
    "stepped": FloatDistribution(0.0, 1.0, step=0.125),
    "rank": IntDistribution(1, 64, log=True),
    "size": IntDistribution(4, 400, step=4),
    "layers": IntDistribution(1, 3),
    "head": CategoricalDistribution(("a", "b", "c")),
    "flag": CategoricalDistribution((True, False)),
    "wide": CategoricalDistribution(tuple(range(12))),
    "rare": FloatDistribution(0.0, 1.0),
    "single": FloatDistribution(0.0, 1.0),
}
"""`rare`: a few trials have it; `single`: one has it."""


def drawn(count: int, source: random.Random) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=source.randrange(1000)))
    made = []
    for number in range(count):
        left = [name for name, every in (("rare", 7), ("single", count), ("head", 2)) if number % every]
        here = {name: domain for name, domain in DOMAINS.items() if name not in left}
        made.append(dict(study.ask(here).params))
    return made


@pytest.mark.parametrize(("count", "quantile"), [(20, 0.25), (97, 0.25), (60, 0.02), (300, 0.6)])
def test_each_scoring_has_the_importance_of_optunas_evaluator(count: int, quantile: float) -> None:
    source = random.Random(count)
    params = drawn(count, source)
    scorings = np.array([
        [-params[row]["share"] for row in range(count)],
        [float(params[row]["wide"] > 6) for row in range(count)],  # with ties: more than the quantile is best
        *([source.random() for _ in range(count)] for _ in range(3)),
    ])  # fmt: skip
    best = scorings >= -np.sort(-scorings, axis=1)[:, int(np.ceil(quantile * count)) - 1, None]
    having = {name: [row for row in range(count) if name in params[row]] for name in DOMAINS}
    columns = [column(DOMAINS[name], rows, [params[row][name] for row in rows]) for name, rows in having.items()]
    found = importances(columns, best)

    study = optuna.create_study()
    for each in params:
        study.add_trial(create_trial(params=each, distributions={name: DOMAINS[name] for name in each}, value=0.0))
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    for scores, ours in zip(scorings, found, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns that `target` is minimised, and of rare parameters
            theirs = evaluator.evaluate(study, target=lambda trial: -scores[trial.number])  # noqa: B023
        assert dict(zip(DOMAINS, ours, strict=True)) == pytest.approx(theirs, rel=1e-6, abs=1e-9)
    assert found[0, list(DOMAINS).index("share")] > found[2:].mean()


def test_a_scoring_that_takes_all_trials_as_best_has_no_importance() -> None:
    params = drawn(30, random.Random(0))
    columns = [column(DOMAINS["rate"], range(30), [each["rate"] for each in params])]
    assert importances(columns, np.ones((1, 30), dtype=bool)) == 0
