"""Stacking: weights of a linear combination of predictions (Wolpert 1992), none negative (Breiman 1996).

    minimise  sum_n (y_n - sum_m w_m x_mn)^2 + strength (G / M) sum_m (w_m - 1/M)^2,   w >= 0

x are class probabilities against one-hot labels, or centred scores. The penalty draws the weights to their mean: a
strength of infinity is the plain average. G / M is the mean square of a member, so strengths mean the same everywhere.
The strength is chosen by the squared error on FOLDS parts of the rows, each predicted from the others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from results.scoring import Vector

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 5


class Moments(NamedTuple):
    """Sums over rows from which squared errors of any weights follow."""

    inner: Vector
    """[M, M], products of the members."""
    cross: Vector
    """[M], products with the target."""
    square: float
    """Sum of squares of the target."""

    def less(self, other: Moments) -> Moments:
        """The sums without other rows."""
        return Moments(self.inner - other.inner, self.cross - other.cross, self.square - other.square)

    def error(self, weights: Vector) -> float:
        """Sum of squared errors."""
        return float(weights @ self.inner @ weights - 2 * weights @ self.cross + self.square)


def stacked(features: Vector, target: Vector) -> Vector:
    """Weights [M] with a sum of 1, for features [M, N] or [M, N, C] and a target [N] or [N, C]."""
    if features.ndim == 2:
        features, target = features - features.mean(axis=1, keepdims=True), target - target.mean()
    rows = np.arange(features.shape[1])
    parts = [_moments(features[:, rows % FOLDS == fold], target[rows % FOLDS == fold]) for fold in range(FOLDS)]
    whole = Moments(*(sum(sums[1:], start=sums[0]) for sums in zip(*parts, strict=True)))
    errors = [sum(part.error(fitted(whole.less(part), strength)) for part in parts) for strength in STRENGTHS]
    weights = fitted(whole, STRENGTHS[int(np.argmin(errors))])
    equal = np.full(len(weights), 1 / len(weights))
    return weights / weights.sum() if weights.sum() > 0 else equal


def fitted(moments: Moments, strength: float) -> Vector:
    """The weights [M] that minimise the penalised error."""
    from scipy.linalg import solve_triangular  # scipy takes long to import, and most commands do not fit
    from scipy.optimize import nnls

    many = len(moments.cross)
    penalty = strength * float(np.trace(moments.inner)) / many + np.finfo(np.float64).tiny
    factor = np.linalg.cholesky(moments.inner + penalty * np.eye(many))  # L L' = G + penalty
    return np.asarray(nnls(factor.T, solve_triangular(factor, moments.cross + penalty / many, lower=True))[0])


def _moments(features: Vector, target: Vector) -> Moments:
    flat, truth = features.reshape(len(features), -1).astype(np.float64), target.reshape(-1)
    return Moments(flat @ flat.T, flat @ truth, float(truth @ truth))
