"""Predictions of a trial or an ensemble as arrays, and as rows of the store; labels in the same order.

A trial predicts in parts, one file of table `predictions` for each, under the key `<trial>-<attempt>-<part>`:

    held   the rows of split `held` on which headlines are estimated
    dev    all other rows of the dev files
    test   the test files

Earlier versions wrote one file for all parts, `<trial>-<attempt>`. If there are several attempts, the latest counts.
N rows, C classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from results.files import StoreError
from results.schemas import find
from results.scoring import Vector
from results.store import SweepFolder

LABELLED = ("search", "held")
"""Splits of the dev file with labels; together they are the full dev set."""


@dataclass(frozen=True)
class Prediction:
    """Predictions for rows of one task."""

    rows: NDArray[np.int64]
    """[N], positions of the rows in the file; ascending if they were read from the store."""
    values: Vector
    """[N], predicted classes or scores."""
    probabilities: Vector | None = None
    """[N, C], probabilities of the classes; None for a regression, or if only the classes are known."""

    def at(self, rows: NDArray[np.int64]) -> Prediction | None:
        """The predictions for exactly these rows (ascending); None if some are missing or not finite."""
        places = np.searchsorted(self.rows, rows)
        if len(rows) and (places[-1] >= len(self.rows) or not np.array_equal(self.rows[places], rows)):
            return None
        values = self.values[places]
        if not np.isfinite(values).all():
            return None
        return Prediction(rows, values, None if self.probabilities is None else self.probabilities[places])


Member = Mapping[str, Prediction]
"""Predictions of one member of an ensemble, by task."""


HELD, DEV, TEST = PARTS = ("held", "dev", "test")
"""Parts in which a trial predicts."""
KEY = re.compile(rf"(\d+)-(\d+)(?:-({'|'.join(PARTS)}))?")


def key(trial: int, attempt: int, part: str) -> str:
    """The key under which a part of a trial's predictions is stored."""
    return f"{trial}-{attempt}-{part}"


def has(folder: SweepFolder, trial: int, attempt: int, part: str) -> bool:
    """Whether a trial's attempt has predicted a part, and the file can be read."""
    return folder.has("predictions", key(trial, attempt, part)) or folder.has("predictions", f"{trial}-{attempt}")


def predicted(folder: SweepFolder, part: str | None = None) -> dict[int, int]:
    """Trials with predictions, of a part if it is named -> their latest attempt with them."""
    matches = [match for name in folder.keys("predictions") if (match := KEY.fullmatch(name))]
    latest: dict[int, int] = {}
    for match in matches:
        if part is None or match[3] in (None, part):
            trial, attempt = int(match[1]), int(match[2])
            latest[trial] = max(attempt, latest.get(trial, 0))
    return dict(sorted(latest.items()))


def whole(folder: SweepFolder) -> set[int]:
    """Trials that need no weights: their latest attempt with predictions has predicted all parts. No file is opened."""
    keys = set(folder.keys("predictions"))
    return {
        trial
        for trial, attempt in predicted(folder).items()
        if f"{trial}-{attempt}" in keys or all(key(trial, attempt, part) in keys for part in PARTS)
    }


def member(
    folder: SweepFolder, trial: int, splits: Collection[str], parts: Collection[str] = PARTS
) -> dict[str, Prediction]:
    """A trial's predictions by task on some splits, which must be of the same file, as rows are positions in a file.

    Only files of `parts` are read. Raises StoreError if the trial has no predictions.
    """
    attempts = predicted(folder)
    if trial not in attempts:
        trials = ", ".join(map(str, attempts)) or "none"
        raise StoreError(f"Trial {trial} of `{folder.name}` has no predictions. Trials with predictions: {trials}.")
    attempt = attempts[trial]
    keys = [f"{trial}-{attempt}", *(key(trial, attempt, part) for part in parts)]
    table = folder.read("predictions", keys=keys)
    table = table.filter(pc.is_in(table["split"], value_set=pa.array(list(splits), pa.string())))
    return {
        task: from_table(table.filter(pc.equal(table["task"], task)))
        for task in sorted(pc.unique(table["task"]).to_pylist())
    }


def headline(folder: SweepFolder, trial: int) -> dict[str, Prediction]:
    """A trial's predictions by task on the rows of `held` on which headlines are estimated; empty without any."""
    return member(folder, trial, ("held",), (HELD,)) if trial in predicted(folder) else {}


def labels(
    folder: SweepFolder, splits: Collection[str], rows: Mapping[str, NDArray[np.int64]] | None = None
) -> dict[str, tuple[NDArray[np.int64], Vector]]:
    """Rows [N] and labels [N] of each task on some splits, ordered by row; with `rows` only of these."""
    table = folder.read("examples")
    in_splits = pc.is_in(table["split"], value_set=pa.array(list(splits), pa.string()))
    table = table.filter(pc.and_(in_splits, pc.is_valid(table["label"])))
    labelled = {}
    for task in pc.unique(table["task"]).to_pylist() if rows is None else rows:
        part = table.filter(pc.equal(table["task"], task)).sort_by("row")
        if rows is not None:
            part = part.filter(pc.is_in(part["row"], value_set=pa.array(rows[task], pa.int64())))
        labelled[task] = (part["row"].to_numpy(), part["label"].to_numpy())
    return labelled


def common_rows(members: Iterable[Member]) -> dict[str, NDArray[np.int64]]:
    """The rows of each task that every one of these members has predicted; tasks that all have."""
    rows: dict[str, NDArray[np.int64]] | None = None
    for member in members:
        own = {task: prediction.rows for task, prediction in member.items()}
        rows = own if rows is None else {
            task: np.intersect1d(numbers, own[task]) for task, numbers in rows.items() if task in own
        }  # fmt: skip
    return rows or {}


def aligned(member: Member, rows: Mapping[str, NDArray[np.int64]]) -> dict[str, Prediction] | None:
    """A member's predictions for exactly these rows of each task; None if some are missing or not finite."""
    parts = {task: member[task].at(numbers) if task in member else None for task, numbers in rows.items()}
    complete = {task: part for task, part in parts.items() if part is not None}
    return complete if len(complete) == len(parts) else None


def to_table(trial: int, attempt: int, parts: Iterable[tuple[str, str, Prediction]]) -> pa.Table:
    """Rows of table `predictions` from the (task, split, prediction) triples of one attempt."""
    schema = find("predictions").schema
    batches = []
    for task, split, prediction in parts:
        size = len(prediction.rows)
        columns = {
            "trial": pa.array([trial] * size, pa.int64()),
            "attempt": pa.array([attempt] * size, pa.int64()),
            "task": pa.array([task] * size),
            "split": pa.array([split] * size),
            "row": pa.array(prediction.rows, pa.int64()),
            "value": pa.array(prediction.values, pa.float64()),
            "probabilities": _lists(prediction.probabilities, size),
        }
        batches.append(pa.table(columns).cast(schema))
    return pa.concat_tables(batches) if batches else schema.empty_table()


def _lists(probabilities: Vector | None, size: int) -> pa.Array:
    """Probabilities [N, C] as a list column of N rows; nulls if there are none."""
    if probabilities is None:
        return pa.nulls(size, pa.list_(pa.float32()))
    rows, classes = probabilities.shape
    flat = pa.array(probabilities.reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(pa.array(range(0, rows * classes + 1, classes), pa.int32()), flat)


def from_table(table: pa.Table) -> Prediction:
    """The predictions of one task, rows ascending, from rows of table `predictions`."""
    table = table.sort_by("row")
    probabilities = None
    if table.num_rows and table["probabilities"].null_count == 0:
        flat = pc.list_flatten(table["probabilities"]).to_numpy().astype(np.float64)
        probabilities = flat.reshape(table.num_rows, -1)
    return Prediction(table["row"].to_numpy(), table["value"].to_numpy(), probabilities)
