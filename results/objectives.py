"""Objectives: by what trials are compared. With several of them no order is left, but a set that no trial beats.

    a dominates b:  g_k(a) >= g_k(b) in every objective k, and g_k(a) > g_k(b) in at least one

The Pareto set holds the trials that no other dominates. An objective is a column of the tables of trials, and its gain
g is the value there with the sign that makes larger gains better: a score is maximised, a cost minimised.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from results import costs

if TYPE_CHECKING:
    import pandas as pd

SCORE = "overall"
"""Column of the weighted mean of the tasks' scores."""
MINUS = "-"
"""Sign before an objective that is minimised."""
COSTS = ("seconds", *costs.COUNTS, *costs.RATES)
"""Columns of costs. seconds: training and evaluation together; for the others see `results.costs`."""


@dataclass(frozen=True)
class Objective:
    """One objective, written as its column, after a minus if it is minimised: `overall`, `-seconds`."""

    column: str
    minimised: bool = False

    def __str__(self) -> str:
        return f"{MINUS * self.minimised}{self.column}"

    def gain(self, report: Mapping[str, Any]) -> float:
        """The gain of a row of `reports`; NaN for what the row does not hold."""
        scores = report.get("scores") or {}
        named = {SCORE: report.get(SCORE), "seconds": report.get("seconds"), **costs.cost(report)}
        value = scores.get(self.column, named.get(self.column))
        return math.nan if value is None else -float(value) if self.minimised else float(value)


OVERALL = Objective(SCORE)


def accepted(tasks: Iterable[str]) -> list[str]:
    """Every objective of a sweep over these tasks, as it is written."""
    return [SCORE, *tasks, *(MINUS + name for name in COSTS)]


def objectives_from(names: str | Sequence[str], tasks: Collection[str]) -> tuple[Objective, ...]:
    """The objectives of a list of names, or of text such as `overall,-seconds`, in its order.

    Raises ValueError for an unknown name, a wrong sign, a repeated objective or an empty list.
    """
    listed = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    if not listed:
        raise ValueError(f"Objectives must be at least one of: {', '.join(accepted(tasks))}.")
    found = tuple(_objective(name, tasks) for name in listed)
    for place, objective in enumerate(found):
        if objective in found[:place]:
            raise ValueError(f"The objective `{objective}` is given twice in {','.join(listed)}. Name it once.")
    return found


def _objective(name: str, tasks: Collection[str]) -> Objective:
    known = accepted(tasks)
    if name in known:
        return Objective(name.removeprefix(MINUS), name.startswith(MINUS))
    column = name.removeprefix(MINUS)
    if column in COSTS:
        raise ValueError(f"The objective `{name}` is a cost, which is minimised: write `{MINUS}{column}`.")
    if column in known:
        raise ValueError(f"The objective `{name}` is a score, which is maximised: write `{column}`.")
    near = get_close_matches(name, known, 1)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    raise ValueError(f"Unknown objective `{name}`.{hint} Expected some of: {', '.join(known)}.")


def gains(frame: pd.DataFrame, objectives: Sequence[Objective]) -> NDArray[np.float64]:
    """Gains [n, K] of the trials of a table with a column for each objective; NaN for what is not known."""
    signs = np.array([-1.0 if objective.minimised else 1.0 for objective in objectives])
    columns = [frame[objective.column].to_numpy(dtype=float, na_value=np.nan) for objective in objectives]
    table: NDArray[np.float64] = np.stack(columns, axis=1) * signs
    return table


def undominated(gains: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of n trials no other one dominates, from their gains [n, K]. Equal trials do not dominate each other."""
    kept = np.zeros(len(gains), dtype=bool)
    front = np.empty_like(gains)
    size = 0
    # From the best by the first gain, then by the second, ...: what dominates a trial comes before it, and if it is
    # itself dominated, then by a trial of the front that also dominates this one.
    for place in np.lexsort(-gains.T[::-1]):
        better, gain = front[:size], gains[place]
        if not ((better >= gain).all(axis=1) & (better > gain).any(axis=1)).any():
            front[size], kept[place] = gain, True
            size += 1
    return kept
