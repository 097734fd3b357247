"""The errors worth reading: rows of `search` that a trial or the ensemble predicts worst, with their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.launch.record import SweepRecord
from hpo.report.quality import Predictor, wrongness

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 60
"""Largest number of rows of each task."""
LEAST = 1.0
"""Least distance of a score that counts as an error, in standard deviations of all distances."""
LONG = 400
"""Largest number of characters of a text."""

Texts = Mapping[str, Sequence[tuple[str, ...]]]
"""Task -> the texts of each row of its dev file."""


def texts_of(record: SweepRecord) -> tuple[Texts, str]:
    """The dev texts of the sweep's tasks, and why some are missing (empty if none is).

    They are read from the sweep's data folder, and only if its fingerprint is still the recorded one.
    """
    from minbert.data.files import DataError, data_folder, fingerprint, read_file
    from minbert.tasks import TASKS

    tasks = {name: TASKS[name] for name in record.tasks if name in TASKS}
    if tasks.keys() != record.tasks.keys():
        return {}, "The tasks were declared in Python, so their texts are not known here."
    try:
        folder: Path = data_folder(record.data.folder, tasks)
        if fingerprint(folder, tasks) != record.data.fingerprint:
            return {}, f"The data in {record.data.place} has changed since the sweep began, so texts are left out."
        return {name: read_file(folder / task.files["dev"], task, labelled=True)[0].texts
                for name, task in tasks.items()}, ""  # fmt: skip
    except DataError as error:
        return {}, f"Texts are left out: {error}"


def error_rows(record: SweepRecord, predictors: Sequence[Predictor], texts: Texts) -> list[dict[str, Any]]:
    """One row for each error, the worst of each task first: task, text, label, what each predictor says, id."""
    rows: list[dict[str, Any]] = []
    for task in record.tasks:
        tables = {each.name: each.parts["search"][task] for each in predictors if task in each.parts.get("search", {})}
        if not tables:
            continue
        worst: dict[int, float] = {}
        cells: dict[int, dict[str, Any]] = {}
        ids: dict[int, str] = {}
        for name, table in tables.items():
            distances: NDArray[np.float64] = wrongness(table, record.tasks[task])
            for entry, distance in zip(table.to_dict("records"), distances.tolist(), strict=True):
                row = int(entry["row"])
                worst[row] = max(worst.get(row, 0.0), distance)
                cells.setdefault(row, {"task": task, "label": f"{entry['label']:g}"})[name] = _said(entry)
                ids[row] = str(entry["id"])
        least = LEAST if record.tasks[task].kind == "regression" else 0.0
        chosen = sorted((row for row, distance in worst.items() if distance > least), key=lambda row: -worst[row])
        for row in chosen[:MOST]:
            known = texts.get(task, ())
            parts = known[row] if row < len(known) else ()
            named = {"text": " / ".join(map(_cut, parts))} if parts else {}
            rows.append({"task": task, **named, **cells[row], "id": ids[row]})
    return rows


def _said(entry: Mapping[str, Any]) -> str:
    """A prediction, with the probability of a class: `3 (0.62)`."""
    chance = entry.get("chance")
    if chance is None:
        return f"{entry['prediction']:.2f}"
    return f"{entry['prediction']:.0f}" + (f" ({chance:.2f})" if chance == chance else "")


def _cut(value: str) -> str:
    return value if len(value) <= LONG else f"{value[:LONG]} ..."
