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
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

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
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    if isinstance(value, dict | list):
        return json_module.dumps(value, ensure_ascii=False)
    return " ".join(str(value).split())


def rich_table(rows: Sequence[Row], title: str | None = None, columns: Sequence[str] | None = None) -> Table:
    """Rows as a table: numbers to the right, all columns of all rows unless some are named."""
    names = list(columns or dict.fromkeys(name for row in rows for name in row))
    table = empty_table(title)
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    for name, *values in zip(names, *cells, strict=True):
        numeric = all(NUMERIC.fullmatch(value) for value in values)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for line in cells:
        table.add_row(*map(Text, line))
    return table


def empty_table(title: str | None, *, header: bool = True) -> Table:
    """The look of all tables: a rule below the header, two spaces between columns, no other lines."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if header else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0) if header else (0, 2, 0, 0),
        show_header=header,
    )


def show_facts(facts: Row, console: Console, title: str | None = None) -> None:
    """Names and values below each other."""
    table = empty_table(title, header=False)
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
        console.print(rich_table(rows, title, columns))
    else:
        console.print(empty, style="dim")
