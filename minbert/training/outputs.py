"""Predictions for any texts as CSV or JSON lines, one line a row, in the order of the rows.

    csv     id,prediction,probability_0,probability_1,...     for classes
            id,prediction                                     for scores
    jsonl   {"id": "7", "prediction": 3, "probabilities": [0.01, ...]}

Numbers have the digits that give the same float32 again.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minbert.data.inputs import SUFFIXES
from minbert.disk import sync

Values = NDArray[np.float64]
"""Predicted classes or scores [R]."""


def check_out(path: Path, *, overwrite: bool = False) -> None:
    """Check that predictions may be written to a file. Raises ValueError."""
    if path.is_dir():
        raise ValueError(f"`--out` must be a file for the predictions of one file; {path} is a folder.")
    if path.exists() and not overwrite:
        raise ValueError(f"`--out` {path} exists; name another file, or add --overwrite.")


def format_of(path: Path | None, *, as_json: bool = False) -> str:
    """The format of an output: `jsonl` on request or by the suffix of the file, else `csv`."""
    by_suffix = path is not None and SUFFIXES.get(path.suffix.lower()) == "jsonl"
    return "jsonl" if as_json or by_suffix else "csv"


def text_of(ids: Sequence[str], values: Values, probabilities: NDArray[np.floating[Any]] | None, format: str) -> str:
    """Predictions as text in one of FORMATS: values [R], and for classes their probabilities [R, C].

    Raises ValueError for a value that is not finite.
    """
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ValueError(f"The prediction for row {ids[wrong[0]]} is not finite: the weights have diverged.")
    return FORMATS[format](list(_rows(ids, values, probabilities)))


def _rows(
    ids: Sequence[str], values: Values, probabilities: NDArray[np.floating[Any]] | None
) -> Iterator[dict[str, Any]]:
    for row, name in enumerate(ids):
        if probabilities is None:
            yield {"id": name, "prediction": _short(values[row])}
        else:
            chances = [_short(chance) for chance in probabilities[row]]
            yield {"id": name, "prediction": int(values[row]), "probabilities": chances}


def _short(value: float) -> float:
    """The number with the fewest digits that is the same in float32."""
    return float(str(np.float32(value)))


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = len(rows[0].get("probabilities", ()))
    writer.writerow(["id", "prediction", *(f"probability_{number}" for number in range(classes))])
    writer.writerows([row["id"], row["prediction"], *row.get("probabilities", ())] for row in rows)
    return text.getvalue()


def _json_lines(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


FORMATS: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {"csv": _csv, "jsonl": _json_lines}
"""Formats of an output by name."""


def write(text: str, path: Path) -> None:
    """Write a file, whole or not at all. Raises ValueError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            temporary = Path(folder, "new")
            temporary.write_text(text, encoding="utf-8")
            sync(temporary)
            temporary.replace(path)
    except OSError as error:
        raise ValueError(f"`--out`: cannot write {error.filename or path}: {error.strerror}.") from error
