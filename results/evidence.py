"""Evidence: the predictions that a report was scored from, as the store keeps them.

A row of table `evidence` holds one task's predictions of one report, and has the `seq` of that report. It holds no row
numbers. Its rows are the first n of the task's split `search`, in the order of column `place` of `examples`. As arrays:

    float16 [n]      two classes: the probability of class 1; class 1 is predicted where it is above 1/2
    float16 [n, C]   C classes: the probabilities; the first largest is predicted
    float32 [n]      a regression: the scores
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.files import StoreError
from results.schemas import find

EVIDENCE = "evidence"
"""Name of the table."""
Array = NDArray[np.floating[Any]]
Evidence = Mapping[str, Array]
"""Evidence of one report, by task."""
KEY = ("seq", "generation", "trial", "attempt", "step")
"""Columns that a row of evidence has in common with its report."""


def evidence_table(report: Mapping[str, Any], evidence: Evidence) -> pa.Table:
    """Rows of table `evidence` beside a row of `reports`. Raises StoreError for arrays of another type or shape."""
    schema = find(EVIDENCE).schema
    parts = []
    for task, values in evidence.items():
        columns = {name: pa.array([report[name]], pa.int64()) for name in KEY}
        parts.append(pa.table({**columns, "task": pa.array([task]), **_columns(task, values)}, schema=schema))
    return pa.concat_tables(parts)


def _columns(task: str, values: Array) -> dict[str, pa.Array]:
    number = pa.int64()
    if values.dtype == np.float32 and values.ndim == 1:
        nothing = pa.nulls(1, pa.list_(pa.float16()))
        return {"classes": pa.nulls(1, number), "probabilities": nothing, "scores": _list(values)}
    if values.dtype == np.float16 and values.ndim in (1, 2):
        classes = 2 if values.ndim == 1 else values.shape[1]
        nothing = pa.nulls(1, pa.list_(pa.float32()))
        return {"classes": pa.array([classes], number), "probabilities": _list(values), "scores": nothing}
    raise StoreError(
        f"Evidence of task `{task}` must be float16 [n] or [n, C], or float32 [n]; found {values.dtype} {values.shape}."
    )


def _list(values: Array) -> pa.Array:
    """The numbers as the one entry of a list column."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), pa.array(flat))


def arrays(rows: pa.Table) -> Iterator[tuple[dict[str, Any], Array]]:
    """Each row of evidence: its columns but for the numbers, and its array."""
    numbers = {name: rows[name].combine_chunks() for name in ("probabilities", "scores")}
    for place, row in enumerate(rows.drop_columns(list(numbers)).to_pylist()):
        classes = row["classes"]
        values = numbers["scores" if classes is None else "probabilities"][place].values.to_numpy()
        yield row, values if classes in (None, 2) else values.reshape(-1, classes)


def decoded(values: Array) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Predicted classes or scores [n], and the probabilities [n, C] of classes."""
    if values.dtype == np.float32:
        return values.astype(np.float64), None
    chances = values.astype(np.float64)
    if chances.ndim == 1:
        return (chances > 0.5).astype(np.float64), np.stack([1 - chances, chances], axis=1)
    return chances.argmax(axis=1).astype(np.float64), chances
