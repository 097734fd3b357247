"""The response `fitted`: effects drawn from their posterior after the trials of a real sweep.

Each trial that ended gives one row: its parameters, and its last score less the default's at the same milestone. Rows
are linear in the effects: a choice other than the default has a coefficient of its own, a number at the distance v
from its default two, f(v) = a v - c v^2. The prior is the distribution of the response `good`, with half of its mean as
least deviation; a row's error has the deviation ERROR, since scores are noisy and early milestones show effects in
part. A response is one draw from the posterior, a normal distribution (Bayesian linear regression).

As in `good`, gains are then scaled until the gap is 0.01 to 0.04: some dozens of trials say much about harm and next
to nothing about small gains.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.responses import (
    CHOICES,
    GAP,
    RANGE,
    RANGES,
    SHRUNK,
    SPREAD,
    Choice,
    Effect,
    Key,
    Parabola,
    Plan,
    Response,
    key_of,
    mean_of,
    position,
    sparse,
)
from hpo.space.tree import Leaf
from search_spaces.domains import OneOf

ERROR = 0.02
"""Deviation of a row from what its effects say, in units of `overall`."""
TOP = 0.15
"""Deviation of the best value of a number from its default, a priori, in units of its (log) range."""
LEAST = 1e-3
"""Least curvature."""

Row = tuple[Mapping[str, Any], float]
"""Parameters by Optuna's names, and the score less the default's at the same milestone."""
Coefficient = tuple[Key, Any]
"""A parameter, and one of its choices or, of a number, the power of v."""


def read(source: str) -> list[Row]:
    """The rows of STORE/SWEEP. Raises ValueError without a score of trial 0."""
    from results.rows import to_rows
    from results.store import Store

    path = Path(source)
    folder = Store(str(path.parent)).open(path.name)
    scores: dict[int, dict[int, float]] = {}
    for row in to_rows(folder.read("reports")):
        if not row["diverged"]:
            scores.setdefault(row["trial"], {})[row["step"]] = row["overall"]
    default = scores.pop(0, {})
    if not default:
        raise ValueError(f"`fitted`: trial 0 of {source} has no score, so nothing can be compared with the default.")
    params = {row["trial"]: json.loads(row["params"]) for row in to_rows(folder.read("trials"))
              if row["event"] == "start"}  # fmt: skip
    rows = []
    for trial, values in scores.items():
        step = max(values)
        if step in default and params.get(trial):
            rows.append((params[trial], values[step] - default[step]))
    return rows


def fit(plan: Plan, rows: Iterable[Row], rng: random.Random) -> Response:
    """A response drawn from the posterior after these rows. Parameters that the space lacks are left out."""
    coefficients, means, deviations = prior(plan)
    place = {coefficient: index for index, coefficient in enumerate(coefficients)}
    known = list(rows)
    features = np.array([_features(plan, place, params) for params, _ in known]).reshape(len(known), len(place))
    values = np.array([value for _, value in known])
    precision = np.diag(deviations**-2) + features.T @ features / ERROR**2
    centre = np.linalg.solve(precision, means / deviations**2 + features.T @ values / ERROR**2)
    normal = np.array([rng.gauss(0, 1) for _ in coefficients])
    drawn = centre + np.linalg.solve(np.linalg.cholesky(precision).T, normal)
    effects = {key: _effect(plan, leaf, {what: drawn[place[key, what]] for k, what in coefficients if k == key})
               for key, leaf in plan.keyed.items()}  # fmt: skip
    return Response(plan, effects, sparse(effects, rng)).with_gap(rng.uniform(*GAP))


def prior(plan: Plan) -> tuple[list[Coefficient], np.ndarray, np.ndarray]:
    """All coefficients, with their prior means and standard deviations."""
    found: list[tuple[Coefficient, float, float]] = []
    for key, leaf in plan.keyed.items():
        default, domain = plan.defaults[leaf.name], leaf.domain
        if isinstance(domain, OneOf):
            for choice in domain.choices:
                mean = SHRUNK * mean_of(CHOICES, f"{leaf.path}={choice}", 0.0)
                if choice != default:
                    found.append(((key, choice), mean, max(SPREAD, abs(mean) / 2)))
        else:
            start = position(default, domain.low, domain.high, domain.log)
            curvature = mean_of(RANGES, leaf.path, RANGE) / max(start, 1 - start) ** 2
            found.append(((key, 1), 0.0, 2 * curvature * TOP))
            found.append(((key, 2), -curvature, curvature / 2))
    coefficients, means, deviations = zip(*found, strict=True)
    return list(coefficients), np.array(means), np.array(deviations)


def _features(plan: Plan, place: Mapping[Coefficient, int], params: Mapping[str, Any]) -> Sequence[float]:
    features = [0.0] * len(place)
    leaves = {leaf.name: leaf for leaf in plan.leaves}
    for name, value in params.items():
        leaf = leaves.get(name)
        if leaf is None or leaf.constant:
            continue
        key = key_of(leaf)
        if (key, 1) in place and not isinstance(leaf.domain, OneOf):
            distance = _position(leaf, value) - _position(leaf, plan.defaults[name])
            features[place[key, 1]], features[place[key, 2]] = distance, distance**2
        elif (key, value) in place:
            features[place[key, value]] = 1.0
    return features


def _position(leaf: Leaf, value: float) -> float:
    assert not isinstance(leaf.domain, OneOf)
    return position(value, leaf.domain.low, leaf.domain.high, leaf.domain.log)


def _effect(plan: Plan, leaf: Leaf, drawn: Mapping[Any, float]) -> Effect:
    domain, default = leaf.domain, plan.defaults[leaf.name]
    if isinstance(domain, OneOf):
        return Choice({choice: float(drawn.get(choice, 0.0)) for choice in domain.choices})
    start, curvature = _position(leaf, default), max(LEAST, -float(drawn[2]))
    best = min(1.0, max(0.0, start + float(drawn[1]) / (2 * curvature)))
    return Parabola(domain.low, domain.high, domain.log, start, best, curvature)
