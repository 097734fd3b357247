"""Data files of a run's tasks: read, checked and split.

A file is tab-separated text with a header. Columns are found by name, and extra ones are ignored. One line is one row.
A row that cannot be read is left out. Such and other odd rows get a note with their line (`minbert.data.problems`).
A file with a wrong header, a label out of range, no rows or another encoding, or a folder in its place, is an error
before any compute.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minbert.data.problems import (
    Problem,
    field_count_fault,
    id_problems,
    label_problems,
    part_problems,
    text_problems,
    whole_files_first,
)
from minbert.tasks import Task, run_tasks

SAMPLE = Path(__file__).parent.parent / "sample"
"""Folder of the sample corpus, which is part of the package."""

FORMAT_VERSION = 1
"""Part of every fingerprint; raise it when the same bytes give other rows."""


class DataError(ValueError):
    """A data folder or file that cannot be used."""


@dataclass(frozen=True)
class Rows:
    """The usable rows of one file."""

    ids: list[str]
    """Id of each row; they need not be unique."""
    texts: list[tuple[str, ...]]
    """Texts of each row, one for each text column of the task."""
    labels: NDArray[np.float64]
    """Labels [R]; NaN for a row without one."""


@dataclass(frozen=True)
class Corpus:
    """Files of a run's tasks, read, checked and split."""

    folder: Path
    fingerprint: str
    """SHA-256 of the bytes of the tasks' files, the tasks' declarations and FORMAT_VERSION."""
    tasks: dict[str, Task]
    problems: tuple[Problem, ...]
    """Notes on the files: those on whole files first, then those on rows."""
    rows: dict[tuple[str, str], Rows]
    """Rows by (task, file); a file is train, dev or test."""
    parts: dict[tuple[str, str], NDArray[np.int32]]
    """Row numbers by (task, split).

    The splits are train, test, and search, held and dev of the dev file; the split dev holds its unlabelled rows.
    """

    def size(self, task: str, split: str) -> int:
        """Number of rows of a split; `dev` means the whole dev file."""
        if split == "dev":
            return len(self.rows[task, "dev"].ids)
        return len(self.parts.get((task, split), ()))

    def examples(self) -> Iterator[tuple[str, str, int, str, float | None, int]]:
        """(task, split, row number, id, label, place in the split) of every row of the dev and test files, whose rows
        are predicted."""
        for (task, split), numbers in self.parts.items():
            if split == "train":
                continue
            rows = self.rows[task, file_of(split)]
            for place, row in enumerate(numbers.tolist()):
                label = rows.labels[row]
                yield task, split, row, rows.ids[row], None if np.isnan(label) else float(label), place


def file_of(split: str) -> str:
    """The file that holds the rows of a split: train, dev or test."""
    return split if split in ("train", "test") else "dev"


def data_folder(folder: str | Path | None, tasks: Mapping[str, Task]) -> Path:
    """The folder, or that of the sample corpus for None. Raises DataError where train or dev files are missing."""
    path = SAMPLE if folder is None else Path(folder)
    needed = [task.files[file] for task in tasks.values() for file in ("train", "dev")]
    try:
        if not path.is_dir():
            fault = "is a file" if path.exists() else "does not exist"
            raise DataError(f"`data` must be a folder, found {path}, which {fault}.")
        present = {entry.name for entry in path.iterdir()}
    except OSError as error:
        raise DataError(f"`data` folder {path} cannot be read: {error.strerror}.") from error
    for name in needed:
        if name not in present:
            what = "`data` folder" if folder is not None else "no `data` folder is given, and the sample corpus"
            raise DataError(f"{what} {path} lacks {name}. Expected there: {', '.join(needed)}.")
        _check_file(path / name)
    return path


def _check_file(path: Path) -> None:
    """Check that a data file's name belongs to a file. Raises DataError."""
    if not path.is_file():
        actual = "a folder" if path.is_dir() else "neither a file nor a link to one"
        raise DataError(f"{path} must be a file of tab-separated text with a header; it is {actual}.")


def fingerprint(folder: Path, tasks: Mapping[str, Task]) -> str:
    """SHA-256 of everything that decides the rows read from a folder for these tasks. Raises DataError."""
    digest = hashlib.sha256(f"{FORMAT_VERSION}{sorted(tasks.items())}".encode())
    for task in tasks.values():
        for file in task.files.values():
            path = folder / file
            if path.is_file():
                try:
                    with path.open("rb") as stream:
                        digest.update(file.encode() + hashlib.file_digest(stream, "sha256").digest())
                except OSError as error:
                    raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def read_corpus(folder: str | Path | None = None, tasks: Mapping[str, Task] | None = None) -> Corpus:
    """Read, check and split the tasks' files in a data folder. Raises DataError.

    `folder` None is the sample corpus; `tasks` None the default tasks. Files of other tasks are ignored.
    """
    chosen = run_tasks(tasks)
    path = data_folder(folder, chosen)
    rows: dict[tuple[str, str], Rows] = {}
    parts: dict[tuple[str, str], NDArray[np.int32]] = {}
    problems: list[Problem] = []
    for name, task in chosen.items():
        for file, file_name in task.files.items():
            if not (path / file_name).exists():
                continue  # only test files may be absent
            _check_file(path / file_name)
            rows[name, file], file_problems = read_file(path / file_name, task, labelled=file != "test")
            problems += file_problems
        split_rows = _parts(task, rows)
        problems += part_problems(path, task, split_rows)
        parts |= {(name, split): numbers for split, numbers in split_rows.items()}
    return Corpus(path, fingerprint(path, chosen), chosen, tuple(whole_files_first(problems)), rows, parts)


def stamp(path: Path) -> tuple[int, int]:
    """(modification time in ns, size in bytes) of a file; a change makes cached readers read it again.

    Raises DataError.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    return status.st_mtime_ns, status.st_size


def read_file(path: Path, task: Task, *, labelled: bool) -> tuple[Rows, list[Problem]]:
    """Read one file of a task: (rows, notes on them). A row without a label gets NaN. Raises DataError."""
    lines = lines_of(path)
    header = fields_of(lines[0])
    needed = ("id", *task.columns, *((task.label,) if labelled else ()))
    missing = [name for name in needed if name not in header]
    if missing:
        raise DataError(f"{path.name}:1: the header lacks {', '.join(missing)}; found {header}, tab-separated.")
    columns = [header.index(name) for name in needed]
    ids, texts, labels, numbers, problems = [], [], [], [], []
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        fields = fields_of(line)
        if len(fields) != len(header):
            problems.append(Problem(path, number, f"{field_count_fault(line, fields, len(header))}; row left out"))
            continue
        values = [fields[column].strip() for column in columns]
        label = _label(values[-1], task, path, number) if labelled else np.nan
        if labelled and np.isnan(label):
            problems.append(Problem(path, number, "no label; row neither trained on nor scored"))
        row = tuple(values[1 : 1 + len(task.columns)])
        if "" in row or "\0" in line:
            problems += text_problems(path, number, task.columns, row)
        ids.append(values[0])
        texts.append(row)
        labels.append(label)
        numbers.append(number)
    if not ids:
        raise DataError(f"{path.name} has no usable rows below its header.")
    problems += id_problems(path, numbers, ids)
    rows = Rows(ids, texts, np.array(labels))
    return rows, [*label_problems(path, rows.labels), *sorted(problems, key=lambda problem: problem.line or 0)]


def fields_of(line: str) -> list[str]:
    """Tab-separated fields of a line; empty where a text exceeds 131,072 characters, csv's limit."""
    try:
        return next(csv.reader([line], delimiter="\t"), [])
    except csv.Error:
        return []


def lines_of(path: Path) -> list[str]:
    """Lines of a UTF-8 file without line ends. Raises DataError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataError(f"{path.name}:{line}: not UTF-8 (byte {error.object[error.start]:#04x}).") from error
    # A carriage return inside a line becomes a space: csv would end the row there.
    return [line.rstrip("\r").replace("\r", " ") for line in text.split("\n")]


def _label(text: str, task: Task, path: Path, line: int) -> float:
    """The label in a field; NaN for an empty one. Raises DataError for one that the task does not allow."""
    if not text:
        return np.nan
    accepted = f"{'a whole number' if task.kind == 'classification' else 'a number'} from {task.low:g} to {task.high:g}"
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not task.low <= value <= task.high or (task.kind == "classification" and value != int(value)):
        raise DataError(f"{path.name}:{line}: `{task.label}` must be {accepted}, found {text!r}.")
    return value


def _parts(task: Task, rows: dict[tuple[str, str], Rows]) -> dict[str, NDArray[np.int32]]:
    """Row numbers of each split of a task. Raises DataError where train, search or held would be empty."""
    train = np.flatnonzero(~np.isnan(rows[task.name, "train"].labels))
    if not len(train):
        raise DataError(f"{task.files['train']} has no labelled rows.")
    dev = rows[task.name, "dev"]
    search, held = split_dev(dev, task.search_rows)
    parts = {"train": train, "search": search, "held": held, "dev": np.flatnonzero(np.isnan(dev.labels))}
    if (task.name, "test") in rows:
        parts["test"] = np.arange(len(rows[task.name, "test"].ids))
    if not len(search) or not len(held):
        raise DataError(
            f"{task.files['dev']} must have at least 2 labelled rows of different text, for search and for held."
        )
    return {split: numbers.astype(np.int32) for split, numbers in parts.items()}


def split_dev(dev: Rows, most: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the labelled dev rows by the SHA-256 of their text into (search, held), both in hash order.

    `search` takes half of the rows, at most `most` of them; rows with equal text go to one side.
    """
    labelled = np.flatnonzero(~np.isnan(dev.labels))
    digests = {row: hashlib.sha256("\t".join(dev.texts[row]).encode()).digest() for row in labelled.tolist()}
    order = sorted(digests, key=lambda row: (digests[row], row))
    cut = min(len(order) // 2, most or len(order))
    while 0 < cut < len(order) and digests[order[cut]] == digests[order[cut - 1]]:
        cut += 1
    return np.array(order[:cut], dtype=np.int64), np.array(order[cut:], dtype=np.int64)
