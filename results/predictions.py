"""Predictions of kept trials as arrays, row for row beside their labels.

One file holds one trial's predictions, under the key `<trial>-<attempt>`; of several attempts the latest counts.
N rows, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from results.files import StoreError
from results.scoring import Vector
from results.store import SweepFolder

LABELLED = ("search", "held")
"""The splits of the dev file that have labels; together they are the full dev set."""


@dataclass(frozen=True)
class Column:
    """Predictions for one task, ordered by row."""

    rows: NDArray[np.int64]
    """[N], position in the file."""
    values: Vector
    """[N], class or score."""
    probabilities: Vector | None
    """[N, C], or None for a regression."""


Member = Mapping[str, Column]
"""One trial's predictions by task."""


def key(trial: int, attempt: int) -> str:
    """The key under which a trial's predictions are stored."""
    return f"{trial}-{attempt}"


def predicted(folder: SweepFolder) -> dict[int, int]:
    """Trials that have predictions, with the latest attempt that has."""
    pairs = [match for name in folder.keys("predictions") if (match := re.fullmatch(r"(\d+)-(\d+)", name))]
    latest: dict[int, int] = {}
    for match in pairs:
        trial, attempt = int(match[1]), int(match[2])
        latest[trial] = max(attempt, latest.get(trial, 0))
    return dict(sorted(latest.items()))


def member(folder: SweepFolder, trial: int, splits: Collection[str]) -> dict[str, Column]:
    """A trial's predictions on the given splits; of one file if the splits share it."""
    attempts = predicted(folder)
    if trial not in attempts:
        kept = ", ".join(map(str, attempts)) or "none"
        raise StoreError(f"Trial {trial} of `{folder.name}` has no predictions. Trials that have: {kept}.")
    table = folder.read("predictions", keys=[key(trial, attempts[trial])])
    table = table.filter(pc.is_in(table["split"], value_set=pa.array(list(splits), pa.string())))
    return {
        task: _column(table.filter(pc.equal(table["task"], task)))
        for task in sorted(pc.unique(table["task"]).to_pylist())
    }


def labels(folder: SweepFolder, splits: Collection[str]) -> dict[str, tuple[NDArray[np.int64], Vector]]:
    """Rows [N] and labels [N] of each task on the given splits, ordered by row."""
    table = folder.read("examples")
    chosen = pc.is_in(table["split"], value_set=pa.array(list(splits), pa.string()))
    table = table.filter(pc.and_(chosen, pc.is_valid(table["label"])))
    found = {}
    for task in pc.unique(table["task"]).to_pylist():
        rows = table.filter(pc.equal(table["task"], task)).sort_by("row")
        found[task] = (rows["row"].to_numpy(), rows["label"].to_numpy())
    return found


def aligned(columns: Member, wanted: Mapping[str, NDArray[np.int64]]) -> dict[str, Column] | None:
    """The predictions for exactly the wanted rows of each task; None if some are missing or not finite."""
    result = {}
    for task, rows in wanted.items():
        column = columns.get(task)
        if column is None:
            return None
        places = np.searchsorted(column.rows, rows)
        if len(rows) and (places[-1] >= len(column.rows) or not np.array_equal(column.rows[places], rows)):
            return None
        values = column.values[places]
        if not np.isfinite(values).all():
            return None
        result[task] = Column(rows, values, None if column.probabilities is None else column.probabilities[places])
    return result


def _column(table: pa.Table) -> Column:
    table = table.sort_by("row")
    probabilities = None
    if table.num_rows and table["probabilities"].null_count == 0:
        flat = pc.list_flatten(table["probabilities"]).to_numpy().astype(np.float64)
        probabilities = flat.reshape(table.num_rows, -1)
    return Column(table["row"].to_numpy(), table["value"].to_numpy(), probabilities)
