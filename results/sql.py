"""Read-only SQL: runs one statement over tables in memory (DuckDB).

The database is in memory and holds only these tables. Before it runs the statement, it is cut off from files, network,
extensions and Python variables, and its settings are locked. A statement must be one SELECT, WITH, DESCRIBE or SHOW.
Its time is bounded, the reading of the tables included, and so are the bytes of the tables, of its work and of its
answer.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from results import mistakes, parameters
from results.allowance import Allowance, TooLateError, TooMuchError
from results.files import StoreError
from results.parameters import Wanted

MEMORY = 2 * 2**30
"""Most bytes that a statement may take for the rows of its tables, again for joins, sorts and groups, and again for its
answer. Texts that a function makes on the way are not counted."""
PART = 16 * 2**20
"""Bytes of an answer that are read, about, before its size is checked."""
VECTORS = 500
"""Most vectors of DuckDB, 2,048 rows each, that are read at a time."""
GROWTH = 8
"""Factor by which the next part of an answer may have more vectors than the last one: later rows may be wider."""
SAMPLE = 32
"""Objects of Python that are measured in a column of a part, about."""
SECONDS = 60.0
"""Longest time of a statement in seconds."""

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


class LimitError(QueryError):
    """An SQL statement needs too much memory or time."""


Loader = Callable[[Wanted], pa.Table | pd.DataFrame]
"""Loads a table, of columns that take time only those that are wanted."""


def run(statement: str, tables: Mapping[str, Loader], allowance: Allowance | None = None) -> pd.DataFrame:
    """Run a statement; returns its answer. Only tables and columns that the statement may read are loaded.

    `allowance`: what the loaders may read, and the time for all. Raises QueryError.
    """
    allowance = allowance or Allowance(MEMORY, SECONDS)
    try:
        return _run(statement, tables, allowance)
    except TooMuchError:
        advice = "Name the columns that it needs instead of `*`, or ask fewer sweeps."
        raise LimitError(f"The statement reads more than {MEMORY / 2**30:g} GiB of rows. {advice}") from None
    except (TooLateError, duckdb.InterruptException):
        raise LimitError(f"The statement took longer than {SECONDS:g} s and was stopped.") from None
    except (duckdb.OutOfMemoryException, MemoryError):
        needs = f"The statement needs more than {MEMORY / 2**30:g} GiB of memory."
        raise LimitError(f"{needs} Let it return fewer rows.") from None


def _run(statement: str, tables: Mapping[str, Loader], allowance: Allowance) -> pd.DataFrame:
    with duckdb.connect(":memory:") as database:

        def wanted(names: Collection[str]) -> Collection[str]:
            uses = _uses(database, _quoted(statement, names))
            if every or uses is None or uses.names is None:
                return names
            return [name for name in names if name.lower() in uses.names]

        words = {word.lower() for word in re.findall(r"\w+", statement)}
        every = bool(words & {"describe", "show", "summarize"})
        uses = _uses(database, statement)
        read = words if uses is None else uses.tables
        loaded = {name: _arrow(load(wanted)) for name, load in tables.items() if every or name in read}
        unusual = [name for table in loaded.values() for name in table.column_names]
        statement = _quoted(statement, unusual)  # before parsing: `mixing/order` contains an SQL keyword
        problem = _refusal(statement)
        for name, table in loaded.items():
            database.register(name, table)
        for setting, value in {"memory_limit": f"'{MEMORY}B'", **SETTINGS}.items():
            database.execute(f"SET {setting} = {value}")
        try:
            if problem is None:
                with _stopped(database, allowance.seconds()):
                    return _answer(database, statement)
        except (duckdb.InterruptException, duckdb.OutOfMemoryException):
            raise
        except duckdb.Error as error:
            problem = str(error)
    try:
        columns = {name: _arrow(tables[name](parameters.every)).column_names for name in loaded}
    except (TooMuchError, TooLateError):
        columns = {name: table.column_names for name, table in loaded.items()}
    raise QueryError(mistakes.message(problem, statement, list(tables), columns))


@contextmanager
def _stopped(database: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    """Interrupt within this context what the database does, once the time is over, until the context ends."""
    ended = threading.Event()

    def interrupt() -> None:
        wait = seconds
        while not ended.wait(wait):
            database.interrupt()  # again and again: between two calls of ours it does nothing
            wait = 0.1

    clock = threading.Thread(target=interrupt, daemon=True)
    clock.start()
    try:
        yield
    finally:
        ended.set()
        clock.join()


def _answer(database: duckdb.DuckDBPyConnection, statement: str) -> pd.DataFrame:
    """The answer of a statement. Raises MemoryError for one that would take more than MEMORY while it is put together
    from its parts, which takes twice its size."""
    database.execute(statement)
    parts = [database.fetch_df_chunk(1)]
    vectors, total = 1, 0
    while len(parts[-1]):
        size = _size(parts[-1])
        total += size
        if 2 * total > MEMORY:
            raise MemoryError
        vectors = max(1, min(VECTORS, GROWTH * vectors, vectors * PART // max(size, 1)))
        parts.append(database.fetch_df_chunk(vectors))
    if len(parts) <= 2:
        return parts[0]
    # A part without any text of a column has type `object` there.
    return pd.concat(parts[:-1], ignore_index=True).infer_objects()


def _size(part: pd.DataFrame) -> int:
    """Bytes of a part of an answer, those of Python's objects in it by a sample."""
    total = float(part.memory_usage().sum())
    for place, kind in enumerate(part.dtypes):
        if kind.kind == "O" and not isinstance(kind, pd.StringDtype):
            values = part.iloc[:, place].to_numpy()
            sample = values[:: -(-len(values) // SAMPLE)]
            total += len(values) * sum(map(_size_of, sample)) / len(sample)
    return int(total)


def _size_of(value: object) -> int:
    """Bytes of an object of Python with all in it."""
    inner: list[object] = []
    if isinstance(value, dict):
        inner = [*value, *value.values()]
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        inner = list(value)
    return sys.getsizeof(value) + sum(map(_size_of, inner))


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


class Uses(NamedTuple):
    """What a statement may read."""

    tables: set[str]
    """Names of tables, in lower case."""
    names: set[str] | None
    """Every name in it, in lower case. None: it may read columns that it does not name (`*`, a position, a natural
    join, a whole row)."""


def _uses(database: duckdb.DuckDBPyConnection, statement: str) -> Uses | None:
    """What a statement may read; None if it is no SELECT or cannot be parsed."""
    text = database.execute("SELECT json_serialize_sql(?::VARCHAR)", [statement]).fetchall()[0][0]
    tree = json.loads(text)
    if tree["error"]:
        return None
    tables, names, sources, columns = (set[str]() for _ in range(4))
    open_ended = False
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            open_ended |= node.get("class") in OPEN_ENDED or node.get("ref_type") == "NATURAL"
            if node.get("type") in SOURCES:
                tables.add(str(node.get("table_name", "")).lower())
                sources.add(str(node.get("alias", "")).lower())
            if node.get("class") == "COLUMN_REF":
                columns.add(str(node["column_names"][-1]).lower())
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node
        elif isinstance(node, str):
            names.add(node.lower())
    return Uses(tables, None if open_ended or columns & (tables | sources) else names)


OPEN_ENDED = ("STAR", "POSITIONAL_REFERENCE")
"""Classes of expressions that name no column and may stand for any."""
SOURCES = ("BASE_TABLE", "SUBQUERY")
"""Types of what a statement reads from: the name of one, used as a column, stands for whole rows."""


def _quoted(statement: str, columns: Collection[str]) -> str:
    """The statement with quotes around column names such as `adapter/rank`, except inside existing quotes."""
    unusual = {name for name in columns if not re.fullmatch(r"\w+", name)}
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
