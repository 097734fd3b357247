"""Read-only SQL: runs one statement over tables in memory (DuckDB).

The database is in memory and holds only these tables. Before it runs the statement, it is cut off from files, network,
extensions and Python variables, and its settings are locked. A statement must be one SELECT, WITH, DESCRIBE or SHOW.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import duckdb
import pandas as pd
import pyarrow as pa

from results import mistakes
from results.files import StoreError

ALLOWED = ("SELECT", "WITH", "DESCRIBE", "SHOW")
SETTINGS = {
    "python_enable_replacements": "false",  # a name never stands for a variable of the calling code
    "temp_directory": "''",  # no spilling to the disk
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "lock_configuration": "true",  # last, so that the settings above cannot be changed
}
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")


class QueryError(StoreError):
    """An SQL statement was refused or failed; the message names the nearest table or column."""


def run(statement: str, tables: Mapping[str, Callable[[], pa.Table | pd.DataFrame]]) -> pd.DataFrame:
    """Run a statement; returns its answer. `tables` are loaded only if the statement names them.

    Raises QueryError.
    """
    with duckdb.connect(":memory:") as database:
        words = {word.lower() for word in re.findall(r"\w+", statement)}
        every = bool(words & {"describe", "show"})
        loaded = {name: _arrow(load()) for name, load in tables.items() if every or name in words}
        statement = _quoted(statement, loaded)  # before parsing: `mixing/order` contains an SQL keyword
        problem = _refusal(statement)
        for name, table in loaded.items():
            database.register(name, table)
        for setting, value in SETTINGS.items():
            database.execute(f"SET {setting} = {value}")
        try:
            if problem is None:
                answer: pd.DataFrame = database.execute(statement).df()
                return answer
        except duckdb.Error as error:
            problem = str(error)
    columns = {name: table.column_names for name, table in loaded.items()}
    raise QueryError(mistakes.message(problem, statement, list(tables), columns))


def _refusal(statement: str) -> str | None:
    """The reason why a statement is refused; None if it may run."""
    try:
        parsed = duckdb.extract_statements(statement)
    except duckdb.Error as error:
        return str(error)
    if len(parsed) != 1:
        return f"Expected one statement; found {len(parsed)}."
    words = COMMENT.sub(" ", statement).split(maxsplit=1)
    first = re.match(r"\(*(\w*)", words[0] if words else "")
    word = first[1].upper() if first else ""
    if parsed[0].type != duckdb.StatementType.SELECT or word not in ALLOWED:
        return f"Queries only read: expected {', '.join(ALLOWED[:-1])} or {ALLOWED[-1]}; found `{word or statement}`."
    return None


def _quoted(statement: str, tables: Mapping[str, pa.Table]) -> str:
    """The statement with quotes around column names such as `adapter/rank`, except inside existing quotes."""
    unusual = {name for table in tables.values() for name in table.column_names if not re.fullmatch(r"\w+", name)}
    if not unusual:
        return statement
    names = "|".join(re.escape(name) for name in sorted(unusual, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w/])(?:{names})(?![\w./])")  # a dot may come before: `t.adapter/rank`
    pieces = QUOTED.split(statement)  # every second piece is quoted
    return "".join(
        piece if place % 2 else pattern.sub(lambda match: f'"{match[0]}"', piece) for place, piece in enumerate(pieces)
    )


def _arrow(table: pa.Table | pd.DataFrame) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    columns = {}
    for name in table.columns:
        values = table[name]
        try:
            columns[name] = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # a parameter whose choices are numbers and texts
            columns[name] = pa.array([None if pd.isna(value) else str(value) for value in values], pa.string())
        if pa.types.is_null(columns[name].type):
            columns[name] = columns[name].cast(pa.string())
    return pa.table(columns)
