"""Tables at the edge: rows of plain values become a rich table for people or JSON for programs.

Queries and views return data; this file alone knows how it is printed. JSON is strict: NaN and infinities are null.
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
"""What stands for a value that is not there."""
GAP = 2
"""Characters between two columns."""
FOLD = 24
"""The most characters of a column of `show_blocks` after the first."""
NUMERIC = re.compile(r"[-+]?[\d.,]*\d(e[-+]?\d+)?[kMG]?|-")
"""Text that is read as a number, or stands for a missing one."""


def plain(value: Any) -> Any:
    """A value as strict JSON: numpy scalars unwrapped, times as ISO text, what is missing or not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
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
        return [plain(one) for one in value]
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


def rich_table(rows: Sequence[Row], columns: Sequence[str] | None = None, fold: int | None = None) -> Table:
    """Rows as a table: numbers to the right, all columns of all rows unless some are named. `fold`: the most characters
    of a column after the first; longer text goes on in the next line."""
    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    table = empty_table()
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    for name, *values in zip(names, *cells, strict=True):
        numeric = all(NUMERIC.fullmatch(value) for value in values)
        most = fold if name != names[0] else None
        justify: JustifyMethod = "right" if numeric else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", no_wrap=numeric, max_width=most)
    for line in cells:
        table.add_row(*map(Text, line))
    return table


def blocks(rows: Sequence[Row], columns: Sequence[str], width: int) -> list[list[str]]:
    """The columns in groups that fit into `width` characters: each begins with the first column."""
    first, *others = columns
    start = _width(rows, first)
    if start + sum(GAP + _width(rows, name) for name in others) <= width:
        return [list(columns)]
    groups = [[first]]
    used = start
    for name in others:
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
    """A table with many columns as tables below each other that fit the console, each beginning with the first column.
    A row stands only where one of the columns has something for it. Where one table holds all, nothing is folded."""
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
    """The look of all tables: a rule below the header, two spaces between columns, no other lines."""
    return Table(
        box=box.SIMPLE_HEAD if header else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0) if header else (0, 2, 0, 0),
        show_header=header,
    )


def show_facts(facts: Row, console: Console, title: str | None = None) -> None:
    """Names and values below each other."""
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
    """Print rows in the form asked for."""
    if json:
        console.file.write(f"{to_json(rows)}\n")
    elif rows:
        show_title(title, console)
        console.print(rich_table(rows, columns))
    else:
        console.print(empty, style="dim")
