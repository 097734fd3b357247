"""Notes on odd rows and files of the data, each with its line.

    row left out   a line whose number of fields is not that of the header
    row kept       an id of an earlier row: ids only label the rows of a predictions file, which then holds it twice
                   a NUL byte: BERT's tokeniser drops it, so the text is read without it
                   an empty text: it is read as its special tokens alone, and a predictions file needs its row
                   no label: the row is predicted, and neither trained on nor scored
    whole file     one label in all rows; few rows in a split

An odd row is kept wherever it can be read. The same bytes always give the same rows, as the fingerprint promises, so a
resumed sweep has the rows that it began with.
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
"""A split with fewer rows gets a note: an accuracy on 50 rows has a standard error of up to 0.07."""

PURPOSES = {"train": "to learn the task from", "search": "to compare trials on", "held": "to estimate a score on"}
"""Purpose of the rows of a split."""


@dataclass(frozen=True)
class Problem:
    """A note on an odd row or on a whole file."""

    file: Path
    line: int | None
    """Line number; the header is line 1; None: the whole file."""
    reason: str
    """What is odd, and what becomes of the row."""

    def __str__(self) -> str:
        place = self.file.name if self.line is None else f"{self.file.name}:{self.line}"
        return f"{place}: {self.reason}"


def whole_files_first(problems: Sequence[Problem]) -> list[Problem]:
    """Notes on whole files, then notes on rows; each group keeps its order."""
    return sorted(problems, key=lambda problem: problem.line is not None)


def field_count_fault(line: str, fields: Sequence[str], expected: int) -> str:
    """Why a line has these fields and not the expected number; empty fields mean that csv could not read it."""
    if not fields:
        return f"a text is longer than {csv.field_size_limit():,} characters"
    count = f"{len(fields)} field{'' if len(fields) == 1 else 's'} instead of {expected}"
    try:
        next(csv.reader([line], delimiter="\t", strict=True))
    except csv.Error:
        return f"{count}, because a quote is not closed or stands undoubled in a quoted text"
    return count


def text_problems(file: Path, line: int, columns: Sequence[str], texts: Sequence[str]) -> list[Problem]:
    """Notes on NUL bytes and empty texts in a row."""
    problems = []
    for column, text in zip(columns, texts, strict=True):
        if "\0" in text:
            problems.append(Problem(file, line, f"`{column}` holds a NUL byte; row kept, and read without it"))
        if not text:
            problems.append(Problem(file, line, f"`{column}` is empty; row kept"))
    return problems


def id_problems(file: Path, lines: Sequence[int], ids: Sequence[str]) -> list[Problem]:
    """Notes on rows with the id of an earlier row, from the line and id of every row."""
    if len(set(ids)) == len(ids):
        return []
    first: dict[str, int] = {}
    return [
        Problem(file, line, f"`id` {identifier!r} is that of line {first[identifier]} too; row kept")
        for line, identifier in zip(lines, ids, strict=True)
        if first.setdefault(identifier, line) != line
    ]


def label_problems(file: Path, labels: NDArray[np.float64]) -> list[Problem]:
    """A note where all labels [R] of a file that are not NaN are equal."""
    present = labels[~np.isnan(labels)]
    if len(present) < 2 or present.min() != present.max():
        return []
    return [Problem(file, None, f"all {len(present):,} labels are {present[0]:g}, so they carry no information")]


def part_problems(folder: Path, task: Task, parts: Mapping[str, NDArray[np.int32]]) -> list[Problem]:
    """Notes on splits of a task with few rows; `parts` maps a split to its row numbers."""
    problems = []
    for split, purpose in PURPOSES.items():
        if (rows := len(parts[split])) < FEWEST:
            file = folder / task.files["train" if split == "train" else "dev"]
            reason = f"`{split}` has {rows} row{'' if rows == 1 else 's'} {purpose}, fewer than {FEWEST}"
            problems.append(Problem(file, None, reason))
    return problems
