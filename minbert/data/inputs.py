"""Texts to be predicted, from any file: a table with named columns, JSON lines, or lines of text.

    table   a header, then rows; tab, comma, semicolon or | between fields. With tabs a line is a row, as in the class's
            files; otherwise a quoted field may go over several lines (RFC 4180).
    jsonl   one JSON object a line
    text    one row a line; for a pair of texts a tab between the two

Every row is predicted, so a row that cannot be read is an error, which names file, line and column.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from minbert.data.files import DataError, Rows, fields_of, lines_of
from minbert.data.problems import field_count_fault
from minbert.fields import unknown
from minbert.tasks import Task

ID = "id"
"""Column that names the rows, where the file has one."""

DELIMITERS = ("\t", ",", ";", "|")
"""Delimiters of tables; the first with which the header has the needed columns counts."""

SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".txt": "text"}
"""Suffix of a file -> its format; any other is a table."""

Line = tuple[int, str]
"""Number of a line, from 1, and its text."""


def read_inputs(
    file: Path | TextIO, task: Task, *, columns: Sequence[str] | None = None, format: str | None = None
) -> Rows:
    """Rows of a file or of a text stream, without labels, in their order.

    `columns` name the file's text columns in the order of the task's; None: they are named as the task's. `format` is
    a key of FORMATS; None: by the file's suffix, for a stream text. Rows without a column `id` get their numbers, from
    1, as ids. Raises DataError.
    """
    wanted = task.columns if columns is None else tuple(columns)
    if len(wanted) != len(task.columns):
        raise DataError(
            f"`columns` must name {len(task.columns)} columns for task {task.name}, one for each of "
            f"{', '.join(task.columns)}; found {', '.join(wanted) or 'none'}."
        )
    if format is not None and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    name, lines = _lines(file)
    kind = format or (SUFFIXES.get(file.suffix.lower(), "table") if isinstance(file, Path) else "text")
    found = list(FORMATS[kind](name, lines, wanted))
    if not found:
        raise DataError(f"{name} has no rows to predict.")
    ids = [str(number) if key is None else key for number, (key, _) in enumerate(found, start=1)]
    return Rows(ids, [texts for _, texts in found], np.full(len(found), np.nan))


def _lines(file: Path | TextIO) -> tuple[str, list[Line]]:
    """Name of a file or stream for messages, and its lines. Raises DataError."""
    if isinstance(file, Path):
        name, lines = str(file), lines_of(file)
    else:
        name, lines = "standard input", [line.rstrip("\r") for line in file.read().split("\n")]
        for number, line in enumerate(lines, start=1):
            _check_text(name, number, line)
    if lines and not lines[-1]:
        lines.pop()  # after the last line's end
    return name, list(enumerate(lines, start=1))


def _check_text(name: str, line: int, text: str) -> None:
    """Raise DataError for a text that UTF-8 does not have: bytes of another encoding, half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{name}:{line}: not UTF-8 (at character {error.start + 1}).") from error


Row = tuple[str | None, tuple[str, ...]]
"""Id of a row, None where it has none, and its texts."""


def _table(name: str, lines: list[Line], columns: Sequence[str]) -> Iterator[Row]:
    if not lines:
        raise DataError(f"{name} is empty; expected a header with {', '.join(columns)}.")
    delimiter, header = _header(name, lines[0][1], columns)
    places = [header.index(column) for column in columns]
    key = header.index(ID) if ID in header else None
    for fields in _records(name, lines[1:], delimiter, len(header)):
        yield None if key is None else fields[key].strip(), tuple(fields[place].strip() for place in places)


def _header(name: str, line: str, columns: Sequence[str]) -> tuple[str, list[str]]:
    """Delimiter of a table, and the columns of its header."""
    found = {delimiter: next(csv.reader([line], delimiter=delimiter), []) for delimiter in DELIMITERS}
    for delimiter, header in found.items():
        names = [column.strip() for column in header]
        if set(columns) <= set(names):
            return delimiter, names
    header = max(found.values(), key=len)
    missing = [column for column in columns if column not in header]
    raise DataError(
        f"{name}:1: the header lacks the column {', '.join(missing)}; found {', '.join(header)}. "
        "Name the columns with `columns`, or the file's format."
    )


def _records(name: str, lines: list[Line], delimiter: str, expected: int) -> Iterator[list[str]]:
    """Fields of every row of a table; empty lines are skipped."""
    rows = _tabbed(lines) if delimiter == "\t" else _quoted(name, lines, delimiter)
    for number, line, fields in rows:
        if len(fields) != expected:
            raise DataError(f"{name}:{number}: {field_count_fault(line, fields, expected)}.")
        yield fields


def _tabbed(lines: list[Line]) -> Iterator[tuple[int, str, list[str]]]:
    """(number, line, fields) of every line that is not empty."""
    yield from ((number, line, fields_of(line)) for number, line in lines if line)


def _quoted(name: str, lines: list[Line], delimiter: str) -> Iterator[tuple[int, str, list[str]]]:
    """(number of its first line, nothing, fields) of every row, which may go over several lines."""
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=delimiter, strict=True)
    while True:
        number = lines[0][0] + reader.line_num if lines else 0
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{name}:{number}: not a row with {delimiter!r} between fields: {error}.") from error
        if fields is None:
            return
        if fields:
            yield number, "", fields


def _json_lines(name: str, lines: list[Line], columns: Sequence[str]) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise DataError(f"{name}:{number}: not JSON: {error}.") from error
        if not isinstance(values, dict):
            raise DataError(f"{name}:{number}: expected a JSON object, found {line.strip()[:40]}.")
        for column in columns:
            if not isinstance(values.get(column), str):
                found = f"found {values[column]!r}" if column in values else f"found only {', '.join(values)}"
                raise DataError(f"{name}:{number}: column `{column}` must be a text; {found}.")
            _check_text(name, number, values[column])
        yield str(values[ID]) if ID in values else None, tuple(values[column] for column in columns)


def _text(name: str, lines: list[Line], columns: Sequence[str]) -> Iterator[Row]:
    for number, line in lines:
        texts = line.split("\t") if len(columns) > 1 else [line]
        if len(texts) != len(columns):
            raise DataError(
                f"{name}:{number}: expected {len(columns)} texts with a tab between ({', '.join(columns)}), "
                f"found {len(texts)}."
            )
        yield None, tuple(texts)


FORMATS: dict[str, Callable[[str, list[Line], Sequence[str]], Iterator[Row]]] = {
    "table": _table, "jsonl": _json_lines, "text": _text
}  # fmt: skip
"""Formats by name."""
