"""One read-only SQL statement over tables in memory (DuckDB).

The database is empty, in memory, and cut off before the statement is seen: no files, no network, no extensions, no
Python variables, no way to change a setting. Only one SELECT, WITH, DESCRIBE or SHOW is taken.
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
    "python_enable_replacements": "false",  # a name is a table given here, never a variable of the calling code
    "temp_directory": "''",  # nothing is spilled to the disk
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "lock_configuration": "true",  # last: the settings above stay as they are
}
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
QUOTED = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")


class QueryError(StoreError):
    """A statement that was refused or that failed; the message names the nearest table or column."""


def run(statement: str, tables: Mapping[str, Callable[[], pa.Table | pd.DataFrame]]) -> pd.DataFrame:
    """The answer as a frame. Only tables that the statement names are loaded."""
    with duckdb.connect(":memory:") as database:
        words = {word.lower() for word in re.findall(r"\w+", statement)}
        every = bool(words & {"describe", "show"})
        loaded = {name: _arrow(load()) for name, load in tables.items() if every or name in words}
        statement = _quoted(statement, loaded)  # before it is parsed: `mixing/order` holds a word of SQL
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
    """Why the statement is not run; None if it may be."""
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
    """The statement with column names such as `adapter/rank` quoted, where they stand outside of quotes."""
    odd = {name for table in tables.values() for name in table.column_names if not re.fullmatch(r"\w+", name)}
    if not odd:
        return statement
    names = "|".join(re.escape(name) for name in sorted(odd, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w/])(?:{names})(?![\w./])")  # a dot before it: `t.adapter/rank`
    pieces = QUOTED.split(statement)  # quoted pieces at odd places
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
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # a parameter with numbers and words among its choices
            columns[name] = pa.array([None if pd.isna(value) else str(value) for value in values], pa.string())
        if pa.types.is_null(columns[name].type):
            columns[name] = columns[name].cast(pa.string())
    return pa.table(columns)
