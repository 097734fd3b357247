"""Tables: rows of plain values printed as a rich table for people or as JSON for programs.

Queries and views return data; only this file decides how it is printed. JSON is strict: NaN and infinities are null.
"""

from __future__ import annotations

import datetime
import json as json_module
import math
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

MISSING = "-"
"""Text of a missing value."""
GAP = 2
"""Number of characters between two columns."""
FOLD = 24
"""Largest width in characters of a column of `show_blocks` after the first."""
LONG = 60
"""Largest number of characters of a text that `shortened` leaves as it is."""
NUMERIC = re.compile(r"[-+]?[\d.,]*\d(e[-+]?\d+)?[kMG]?|-")
"""Pattern of a cell that holds a number or is missing."""


def plain(value: Any) -> Any:
    """A value as strict JSON: numpy scalars unwrapped, times as ISO text, missing and non-finite values as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, datetime.datetime | datetime.date):
        return value.isoformat() if value == value else None  # NaT differs from itself
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return None if type(value).__name__ in ("NAType", "NaTType") else str(value)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain dictionaries."""
    return [plain(row) for row in frame.to_dict(orient="records")]


def to_json(value: Any) -> str:
    return json_module.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def cell(value: Any) -> str:
    """A value as one line of text; floats with four digits."""
    value = plain(value)
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    if isinstance(value, dict | list):
        return json_module.dumps(value, ensure_ascii=False)
    return " ".join(str(value).split())


def shortened(value: Any) -> Any:
    """A text of more than `LONG` characters cut there; any other value as it is."""
    return f"{value[:LONG]}..." if isinstance(value, str) and len(value) > LONG else value


def rich_table(rows: Sequence[Row], columns: Sequence[str] | None = None, fold: int | None = None) -> Table:
    """Rows as a rich table, numbers aligned to the right. `columns`: those to show; None: all. `fold`: largest width in
    characters of a column after the first; longer text continues on the next line."""
    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    table = empty_table()
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    for name, *values in zip(names, *cells, strict=True):
        numeric = all(NUMERIC.fullmatch(value) for value in values)
        max_width = fold if name != names[0] else None
        justify: JustifyMethod = "right" if numeric else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", no_wrap=numeric, max_width=max_width)
    for row_cells in cells:
        table.add_row(*map(Text, row_cells))
    return table


def blocks(rows: Sequence[Row], columns: Sequence[str], width: int) -> list[list[str]]:
    """Split columns into groups that fit into `width` characters. Each group begins with the first column."""
    first, *following = columns
    start = _width(rows, first)
    if start + sum(GAP + _width(rows, name) for name in following) <= width:
        return [list(columns)]
    groups = [[first]]
    used = start
    for name in following:
        needed = GAP + min(FOLD, _width(rows, name))
        if used + needed > width and len(groups[-1]) > 1:
            groups.append([first])
            used = start
        groups[-1].append(name)
        used += needed
    return groups


def _width(rows: Sequence[Row], name: str) -> int:
    return max(cell_len(text) for text in (name, *(cell(row.get(name)) for row in rows)))


def show_blocks(rows: Sequence[Row], console: Console, *, columns: Sequence[str], title: str) -> None:
    """Print a table with many columns as several tables that fit the console, each beginning with the first column. A
    table omits the rows that have no value in its columns. If one table fits, nothing is folded."""
    groups = blocks(rows, columns, console.width)
    for number, names in enumerate(groups):
        present = [row for row in rows if any(cell(row.get(name)) != MISSING for name in names[1:])]
        if number:
            console.print()
        show_title(f"{title} (continued)" if number else title, console)
        console.print(rich_table(present, names, FOLD if len(groups) > 1 else None))


def show_title(title: str | None, console: Console) -> None:
    if title:
        console.print(Text(title, style="bold"))


def empty_table(*, header: bool = True) -> Table:
    """An empty table in our style: a rule below the header, two spaces between columns, no other lines."""
    return Table(
        box=box.SIMPLE_HEAD if header else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0) if header else (0, 2, 0, 0),
        show_header=header,
    )


def show_facts(facts: Row, console: Console, title: str | None = None) -> None:
    """Print names and values, one pair a line."""
    show_title(title, console)
    table = empty_table(header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(name), Text(cell(value)))
    console.print(table)


def show(
    rows: Sequence[Row],
    console: Console,
    *,
    json: bool = False,
    title: str | None = None,
    columns: Sequence[str] | None = None,
    empty: str = "nothing found",
) -> None:
    """Print rows as JSON or as a table; `empty` is printed instead of a table without rows."""
    if json:
        console.file.write(f"{to_json(rows)}\n")
    elif rows:
        show_title(title, console)
        console.print(rich_table(rows, columns))
    else:
        console.print(empty, style="dim")
