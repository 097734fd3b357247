"""What is odd in a data file, told with its line.

    left out     a line whose number of fields is not the header's
    kept, told   an id of an earlier row: ids only label the rows of a predictions file, which then names this one twice
                 a NUL byte: BERT's tokenizer drops it, so the text is read without it
                 an empty text: it is read as its special tokens alone, and a predictions file needs its row
                 no label: the row is predicted, and neither trained on nor scored
                 one label in all rows of a file; few rows in a part

An odd row is kept wherever it can be read. A fingerprint promises that the same bytes give the same rows, so a sweep
goes on with the rows it began with.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minbert.tasks import Task

FEWEST = 50
"""Fewest rows of a part that is not told: an accuracy on 50 rows has a standard error of up to 0.07."""

PURPOSES = {"train": "to learn the task from", "search": "to compare trials on", "held": "to estimate a score on"}
"""What the rows of a part are for."""


@dataclass(frozen=True)
class Problem:
    """A row that is left out or odd, or something odd about a whole file."""

    file: Path
    line: int | None
    """Line number, from 1, the header's; None: the whole file."""
    reason: str

    def __str__(self) -> str:
        place = self.file.name if self.line is None else f"{self.file.name}:{self.line}"
        return f"{place}: {self.reason}"


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Those of whole files first, each group in its given order."""
    return sorted(problems, key=lambda problem: problem.line is not None)


def misfit(line: str, fields: Sequence[str], expected: int) -> str:
    """Why a line that csv took apart into these fields does not have the expected number of them."""
    if not fields:
        return f"a text is longer than {csv.field_size_limit():,} characters"
    count = f"{len(fields)} field{'' if len(fields) == 1 else 's'} instead of {expected}"
    try:
        next(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error:
        return f"{count}, because a quote is not closed or stands undoubled in a quoted text"
    return count


def of_texts(file: Path, line: int, columns: Sequence[str], texts: Sequence[str]) -> list[Problem]:
    """NUL bytes in a row's texts, and empty ones."""
    problems = []
    for column, text in zip(columns, texts, strict=True):
        if "\0" in text:
            problems.append(Problem(file, line, f"`{column}` holds a NUL byte; row kept, and read without it"))
        if not text:
            problems.append(Problem(file, line, f"`{column}` is empty; row kept"))
    return problems


def of_ids(file: Path, lines: Sequence[int], ids: Sequence[str]) -> list[Problem]:
    """Rows with the id of an earlier row; each id stands in one of the lines."""
    if len(set(ids)) == len(ids):
        return []
    first: dict[str, int] = {}
    return [
        Problem(file, line, f"`id` {name!r} is that of line {first[name]} too; row kept")
        for line, name in zip(lines, ids, strict=True)
        if first.setdefault(name, line) != line
    ]


def of_labels(file: Path, labels: NDArray[np.float64]) -> list[Problem]:
    """Whether all labelled rows [R] of a file have one label."""
    known = labels[~np.isnan(labels)]
    if len(known) < 2 or known.min() != known.max():
        return []
    return [Problem(file, None, f"all {len(known):,} labels are {known[0]:g}, so nothing can be told apart")]


def of_parts(folder: Path, task: Task, parts: Mapping[str, NDArray[np.int32]]) -> list[Problem]:
    """Parts of a task's data that have few rows."""
    problems = []
    for part, purpose in PURPOSES.items():
        if (rows := len(parts[part])) < FEWEST:
            file = folder / task.files["train" if part == "train" else "dev"]
            reason = f"`{part}` has {rows} row{'' if rows == 1 else 's'} {purpose}, fewer than {FEWEST}"
            problems.append(Problem(file, None, reason))
    return problems
