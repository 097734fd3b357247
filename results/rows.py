"""Rows of the store as dicts, and as Arrow tables: checked against a schema, and read back."""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from results.files import StoreError
from results.schemas import COUNTS, EXACT, SCORES, WORDS, find


def to_table(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as an Arrow table with the schema of table `name`; an absent column, or None, becomes null.

    Map columns and JSON columns take dicts. Raises StoreError for an unknown column or a value of the wrong type.
    """
    checked = [_checked(name, row) for row in rows]
    columns = []
    for column in _columns(name).values():
        values = [row[column.name] for row in checked]
        try:
            columns.append(pa.array(values, column.kind))
        except UNFIT:
            value = next(value for value in values if not _fits(value, column.kind))
            raise _misfit(name, column, value) from None
    return pa.Table.from_arrays(columns, schema=find(name).schema)


def fitting(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row that `to_table` will take later: its values are checked and copied now. Raises StoreError as `to_table`
    does. A table of one row would take eight times as long."""
    checked, columns = _checked(name, row), _columns(name)
    return {key: value if value is None else _held(name, columns[key], value) for key, value in checked.items()}


UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)
"""What Arrow raises for a value that does not fit a column."""
PLAIN = {pa.int64(): int, EXACT: float, pa.string(): str, pa.bool_(): bool, SCORES: float, COUNTS: int, WORDS: str}
"""Type of a column -> the type of Python whose values it holds as they are; of a map or list, that of its parts."""


class Column(NamedTuple):
    """What the check of a row reads of a column; Arrow would make new objects for it each time."""

    name: str
    kind: pa.DataType
    required: bool
    map: bool
    part: type | None
    """See `PLAIN`."""
    plain: Callable[[Any, type | None], bool]
    """Whether a value is plain, by the type of its parts."""


@functools.cache
def _columns(name: str) -> dict[str, Column]:
    """The columns of a table by name, in order."""
    return {
        field.name: Column(
            field.name,
            field.type,
            not field.nullable,
            pa.types.is_map(field.type),
            PLAIN.get(field.type),
            _plainness(field.type),
        )
        for field in find(name).schema
    }


def _plainness(kind: pa.DataType) -> Callable[[Any, type | None], bool]:
    return _plain_map if pa.types.is_map(kind) else _plain_list if pa.types.is_list(kind) else _plain


def _plain(value: Any, part: type | None) -> bool:
    """Whether Arrow takes a value as it is. It may refuse text that is not ASCII, and large integers."""
    if type(value) is not part:
        return False
    if isinstance(value, str):
        return value.isascii()
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _plain_list(value: Any, part: type | None) -> bool:
    return type(value) is list and all(_plain(each, part) for each in value)


def _plain_map(value: Any, part: type | None) -> bool:
    return type(value) is list and all(
        type(pair) is tuple and len(pair) == 2 and _plain(pair[0], str) and _plain(pair[1], part) for pair in value
    )


def _held(name: str, column: Column, value: Any) -> Any:
    """The value as the column holds it. Raises StoreError if it does not fit. Arrow is asked where that is not obvious:
    it takes 30 to 80 us."""
    if column.plain(value, column.part):
        return list(value) if isinstance(value, list) else value
    try:
        return pa.array([value], column.kind)[0].as_py()
    except UNFIT:
        raise _misfit(name, column, value) from None


def _misfit(name: str, column: Column, value: Any) -> StoreError:
    return StoreError(
        f"Column `{column.name}` of table `{name}` takes {column.kind}; found {value!r} ({type(value).__name__})."
    )


def _checked(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    columns = _columns(name)
    for unknown in row.keys() - columns.keys():
        near = difflib.get_close_matches(unknown, columns, 1)
        hint = f" Did you mean `{near[0]}`?" if near else f" Expected some of: {', '.join(columns)}."
        raise StoreError(f"Unknown column `{unknown}` of table `{name}`.{hint}")
    return {key: _value(name, column, row.get(key)) for key, column in columns.items()}


def _value(name: str, column: Column, value: Any) -> Any:
    if value is None and column.required:
        raise StoreError(f"Column `{column.name}` of table `{name}` must be given; found nothing.")
    if isinstance(value, dict | Mapping):
        return list(value.items()) if column.map else json.dumps(dict(value))
    return value


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except UNFIT:
        return False
    return True


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as dicts; map columns become dicts too."""
    maps = [field.name for field in table.schema if pa.types.is_map(field.type)]
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in maps:
            if row[name] is not None:
                row[name] = dict(row[name])
    return rows
