"""The answer of a sweep: the configuration to use, decided on `search`. The best of many noisy scores is no answer: it
was picked for its luck too.

Model. y_k is the mean of the n_k runs of configuration k at full budget; k = 0 is the default.

    y_0 = T + e_0,          e_0 ~ N(0, v_0) with v_0 = s^2 / n_0 + mean(r_k^2) / 2
    y_k = T + d_k + e_k,    e_k ~ N(0, v_k) with v_k = s^2 / n_k + r_k^2 / 2,    d_k ~ N(m, t^2) with m <= 0

T is the default's true score, with a flat prior; d_k is what configuration k truly gains. s is the noise of one run
(`results.noise`), r_k the standard error of the difference y_k - y_0 on finitely many rows of `search`, which no repeat
lowers; half of its square is taken to be the default's own, which all differences share. Mean m and spread t of the
gains come from the sweep's own complete trials (empirical Bayes): every pair of a grid counts as much as it explains
their scores. Given m and t, with a_0 = 1 / v_0, a_k = 1 / (t^2 + v_k), A = sum of a:

    T   has mean (a_0 y_0 + sum a_k (y_k - m)) / A and variance 1 / A
    d_k has mean m + w (y_k - T - m) with w = t^2 a_k, and variance t^2 (1 - w) + w^2 / A

Winner's curse: all gains have one prior, so the highest of many is shrunk as every other one, and the more the less the
scores spread beyond noise (Efron 2011, "Tweedie's formula and selection bias"). Because m <= 0, gains are shrunk
towards the default or below it: where most complete trials beat it, that speaks for an unlucky default as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

erf = np.frompyfunc(math.erf, 1, 1)
"""`math.erf` of an array, as objects; that of scipy takes half a second to load."""
SURE = 0.75
"""Least probability of being better than the default with which a configuration is the answer."""
SPREADS = tuple(0.001 * 2 ** (step / 2) for step in range(13))
"""Grid of t, in units of `overall`: 0.001 to 0.064."""
MEANS = (0.0, -0.01, -0.03)
"""Grid of m, in units of `overall`. With 0 alone, a probability of 0.82 was right in 55 to 67 % of simulated sweeps
whose draws lose 0.01 on average; a finer grid down to -0.04 found no more and shrank real gains further."""
REACH = 0.05
"""Configurations whose mean is further below the default's teach nothing about m and t: a long tail of bad draws, which
no normal prior describes, would let the near ones be shrunk too little."""


@dataclass(frozen=True)
class Challenger:
    """A configuration other than the default, by its runs at full budget."""

    trial: int
    """The trial of the search that drew it."""
    values: tuple[float, ...]
    """`overall` on `search` of every run at full budget, its own first."""
    sampling: float = 0.0
    """Standard error r of its difference from the default that comes from the finite number of rows of `search`. The
    seeds of its runs are not in it."""

    @property
    def runs(self) -> int:
        """Number n of its runs."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean y over its runs."""
        return sum(self.values) / len(self.values)


@dataclass(frozen=True)
class Challengers:
    """Several challengers as arrays [K]."""

    mean: NDArray[np.float64]
    runs: NDArray[np.float64]
    sampling: NDArray[np.float64]

    @classmethod
    def of(cls, challengers: Iterable[Challenger]) -> Challengers:
        """The arrays of these challengers."""
        rows = [(one.mean, one.runs, one.sampling) for one in challengers]
        mean, runs, sampling = np.array(rows, np.float64).reshape(-1, 3).T
        return cls(mean, runs, sampling)

    def near(self, least: float) -> Challengers:
        """Those with a mean of at least `least`."""
        chosen = self.mean >= least
        return Challengers(self.mean[chosen], self.runs[chosen], self.sampling[chosen])


@dataclass(frozen=True)
class Judged:
    """A configuration compared with the default."""

    trial: int
    """The trial of the search that drew it."""
    runs: int
    """Number of its runs at full budget."""
    mean: float
    """Mean of their `overall` on `search`."""
    gain: float
    """Its mean minus the default's, shrunk: the expected true difference."""
    probability: float
    """Probability that it is truly better than the default."""


@dataclass(frozen=True)
class Answer:
    """The answer of a sweep, with all complete configurations by which it was decided."""

    trial: int | None
    """The trial whose configuration is the answer; None: no trial has reached the full budget."""
    noise: float
    """Noise of one run."""
    default: float | None
    """The default's mean; None: it has no run at full budget."""
    default_runs: int
    judged: tuple[Judged, ...]
    """The other configurations, the highest gain first; without the default's score the highest mean first."""

    @property
    def leader(self) -> Judged | None:
        """The configuration with the highest gain, whether it is the answer or not."""
        return self.judged[0] if self.judged else None


def decide(default: Sequence[float], challengers: Sequence[Challenger], trial: int = 0) -> Answer:
    """The answer, from the scores of the default's runs and of each other configuration's.

    `trial`: number of the default's trial. Without a run of the default the highest mean is the answer, with a
    probability of NaN: there is nothing to compare it with.
    """
    from results.noise import pooled

    noise = pooled([default, *(challenger.values for challenger in challengers)])
    if not default:
        ranked = sorted(challengers, key=lambda one: (-one.mean, one.trial))
        judged = tuple(Judged(one.trial, len(one.values), one.mean, math.nan, math.nan) for one in ranked)
        return Answer(judged[0].trial if judged else None, noise, None, 0, judged)
    posterior = posteriors(default, challengers, noise)
    compared = [
        Judged(one.trial, len(one.values), one.mean, *posterior[one.trial]) for one in challengers
    ]
    judged = tuple(sorted(compared, key=lambda one: (-one.gain, one.trial)))
    better = judged and judged[0].probability >= SURE
    mean = sum(default) / len(default)
    return Answer(judged[0].trial if better else trial, noise, mean, len(default), judged)


def posteriors(
    default: Sequence[float], challengers: Sequence[Challenger], noise: float
) -> Mapping[int, tuple[float, float]]:
    """Trial -> expected gain over the default, and probability that the gain is positive."""
    centre, every = sum(default) / len(default), Challengers.of(challengers)
    near = every.near(centre - REACH)
    error = noise**2 / len(default) + float(np.sum(near.sampling**2)) / 2 / max(1, len(near.mean))
    fits = [fit(centre, error, near, noise, mean, spread) for mean in MEANS for spread in SPREADS]
    top = max(each.evidence for each in fits)
    weights = np.array([math.exp(each.evidence - top) for each in fits])
    weights /= weights.sum()
    gains, chances = np.zeros(len(challengers)), np.zeros(len(challengers))
    for weight, each in zip(weights, fits, strict=True):
        if weight > 0:  # of many scores, one pair of the grid explains nearly all
            mean, deviation = each.gain(every)
            gains += weight * mean
            chances += weight * (1 + np.asarray(erf(mean / deviation / math.sqrt(2)), np.float64)) / 2
    found = zip(gains.tolist(), chances.tolist(), strict=True)
    return {one.trial: pair for one, pair in zip(challengers, found, strict=True)}


@dataclass(frozen=True)
class Fit:
    """The posterior, given mean and spread of the gains; letters as in the head of this file."""

    mean: float
    """m."""
    spread: float
    """t."""
    noise: float
    """s."""
    evidence: float
    """Logarithm of the probability density of the scores, up to a constant."""
    level: float
    """Mean of T."""
    certainty: float
    """Precision A of T."""

    def gain(self, one: Challengers) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each d_k."""
        share = self.spread**2 * precision(one, self.spread, self.noise)
        mean = self.mean + share * (one.mean - self.level - self.mean)
        return mean, np.sqrt(self.spread**2 * (1 - share) + share**2 / self.certainty)


def fit(centre: float, error: float, near: Challengers, noise: float, mean: float, spread: float) -> Fit:
    """The posterior from the default's mean `centre`, of variance `error` (v_0), and from the challengers `near` it."""
    weights = np.append(1 / error, precision(near, spread, noise))
    values = np.append(centre, near.mean - mean)
    certainty = float(weights.sum())
    level = float(weights @ values) / certainty
    logs = float(np.log(weights).sum()) - math.log(certainty)
    evidence = (logs - float(weights @ (values - level) ** 2)) / 2
    return Fit(mean, spread, noise, evidence, level, certainty)


def precision(one: Challengers, spread: float, noise: float) -> NDArray[np.float64]:
    """a_k: the precision of each y_k given T."""
    found: NDArray[np.float64] = 1 / (spread**2 + noise**2 / one.runs + one.sampling**2 / 2)
    return found
