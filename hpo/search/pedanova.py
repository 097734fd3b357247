"""PED-ANOVA for many scorings of the same trials at once (Watanabe et al. 2023, arXiv 2304.10255).

The importance of a parameter is the Pearson divergence of its density among the best trials from its density among all
of them (algorithm 1). A parameter that only some trials have counts with the share of the best that have it
(arXiv 2601.20800, theorem 4.2). Densities are those of Optuna's `PedAnovaImportanceEvaluator`, which gives the same
numbers for one scoring: a parameter's values are counted on a grid, and a Parzen estimator with Scott's bandwidth and
a uniform prior smooths the counts. A hundred scorings take about as long as one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.special import ndtr

GRID = 50
"""Largest number of grid points of a number."""
PRIOR = 1.0
"""Weight of the uniform prior beside one of each observation."""
NARROWEST = 0.5 / 1.64
"""Smallest bandwidth, in grid steps: 90 % of a kernel lie within its own step."""
TINY = 1e-12
"""Added to each density: the divergence divides by it."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """The values of one parameter on its grid."""

    at: NDArray[np.int64]
    """[values] index of the grid point of each value."""
    rows: NDArray[np.int64]
    """[values] index of the trial of each value."""
    size: int
    """Number of grid points."""
    ordered: bool
    """Whether near grid points are near values: false for a choice."""


def column(domain: BaseDistribution, rows: Sequence[int], values: Sequence[Any]) -> Column:
    """The `values` of a parameter in the trials `rows`, on the grid of its domain."""
    if isinstance(domain, CategoricalDistribution):
        places = {choice: place for place, choice in enumerate(domain.choices)}
        return Column(np.array([places[value] for value in values]), np.array(rows), len(places), ordered=False)
    assert isinstance(domain, FloatDistribution | IntDistribution)
    low, high = float(domain.low), float(domain.high)
    size = GRID
    if domain.log and isinstance(domain, IntDistribution):
        size = min(math.ceil(math.log(high - low + 1) / math.log(2)) + 1, GRID)
    elif domain.step is not None:
        size = min(round((high - low) / domain.step) + 1, GRID)
    numbers = np.array(values, dtype=np.float64)
    if domain.log:
        low, high, numbers = math.log(low), math.log(high), np.log(numbers)
    at = np.ceil((numbers - low) / ((high - low) / (size - 1)) - 0.5).astype(np.int64)  # a tie goes to the lower point
    return Column(np.clip(at, 0, size - 1), np.array(rows), size, ordered=True)


def importances(columns: Sequence[Column], best: NDArray[np.bool_]) -> Array:
    """[scorings, columns] importance of each parameter, not normalised; `best` [scorings, trials] marks the best."""
    found = np.zeros((len(best), len(columns)))
    trials = best.shape[1]
    scoring, trial = best.nonzero()
    for index, each in enumerate(columns):
        if len(each.rows) < 2:
            continue  # as Optuna does: one value has no density
        place = np.full(trials, each.size)
        place[each.rows] = each.at
        width = each.size + 1
        cells = np.bincount(scoring * width + place[trial], minlength=len(best) * width)
        counts = cells.reshape(len(best), width)[:, :-1].astype(np.float64)
        observed = np.bincount(each.at, minlength=each.size)[None, :].astype(np.float64)
        density = _ordered if each.ordered else _choices
        some, everywhere = density(counts) + TINY, density(observed) + TINY
        divergence = ((some / everywhere - 1) ** 2 * everywhere).sum(1)
        share = counts.sum(1) / trials
        found[:, index] = share**2 / (len(each.rows) / trials) * divergence
    found[best.all(1)] = 0.0  # exactly: shares are fractions of the sum
    return found


def _choices(counts: Array) -> Array:
    """[scorings, choices] density of a choice. Each observed choice has a kernel that leaks to all choices."""
    total, size = counts.sum(1, keepdims=True), counts.shape[1]
    kernels = (counts > 0).sum(1, keepdims=True) + 1
    observed = (total * PRIOR / kernels + counts) / (1 + size * PRIOR / kernels)
    density: Array = (observed + PRIOR / size) / (total + PRIOR)
    return density


def _ordered(counts: Array) -> Array:
    """[scorings, points] density of a number: normal kernels on the grid, cut off at its ends."""
    total, size = counts.sum(1), counts.shape[1]
    points = np.arange(size)
    sigma = _bandwidth(counts)
    steps = np.arange(-size, size + 1)[None, :]  # from one grid point to another, and to the ends
    below = ndtr((steps[:, :-1] + 0.5) / sigma[:, None])  # mass below the upper edge of each step
    mass = np.diff(below, prepend=ndtr((steps[:, :1] - 0.5) / sigma[:, None]))
    inside = below[:, size - 1 - points + size] - below[:, size - 1 - points]  # mass on the grid of a kernel at a point
    kernels = mass[:, points[:, None] - points[None, :] + size]  # [scorings, point, kernel]
    observed = np.einsum("sxk,sk->sx", kernels, counts / inside)
    edges = ndtr((np.arange(size + 1) - size / 2) / size)
    prior = np.diff(edges) / (edges[-1] - edges[0])
    density: Array = (observed + PRIOR * prior) / (total[:, None] + PRIOR)
    return density


def _bandwidth(counts: Array) -> Array:
    """[scorings] bandwidth by Scott's rule (1992), in grid steps."""
    total, points = np.maximum(counts.sum(1), 1), np.arange(counts.shape[1])
    mean = counts @ points / total
    spread = np.sqrt((counts * (points[None, :] - mean[:, None]) ** 2).sum(1) / np.maximum(1, total - 1))
    summed = counts.cumsum(1)
    first = (summed >= np.maximum(1, total // 4)[:, None]).argmax(1)
    third = (summed > (total * 3 // 4)[:, None]).argmax(1)
    bandwidth: Array = np.maximum(1.059 * np.minimum((third - first) / 1.34, spread) * total**-0.2, NARROWEST)
    return bandwidth
