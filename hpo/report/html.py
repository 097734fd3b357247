"""Pieces of HTML. Whatever comes from the store passes through `text`, so no name, sentence or traceback is markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.display.tables import MISSING, NUMERIC, cell

if TYPE_CHECKING:
    import plotly.graph_objects as go


def text(value: Any) -> str:
    """A value as text of a page."""
    return html.escape(str(value))


def prose(value: Any) -> str:
    """A sentence as text of a page; words in backticks are set as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", text(value))


def paragraph(value: Any, kind: str = "") -> str:
    """A paragraph; `kind` is its class in the style sheet."""
    return f"<p{_class(kind)}>{prose(value)}</p>"


def heading(value: Any) -> str:
    """A heading inside a section."""
    return f"<h4>{prose(value)}</h4>"


def table(rows: Sequence[Mapping[str, Any]], caption: str = "", kind: str = "") -> str:
    """Rows as a table, numbers aligned to the right; nothing without rows. `kind` is its class; cells of the kind
    `texts` are shown unchanged."""
    if not rows:
        return ""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[cell(row.get(name)) for name in names] for row in rows]
    numeric = [all(NUMERIC.fullmatch(row[place]) for row in cells) for place in range(len(names))]
    shown = text if kind == "texts" else prose
    head = _row("th", list(map(prose, names)), numeric)
    body = "".join(_row("td", list(map(shown, row)), numeric) for row in cells)
    title = f"<caption>{prose(caption)}</caption>" if caption else ""
    return scrolled(f"<table{_class(kind)}>{title}<thead>{head}</thead><tbody>{body}</tbody></table>", caption)


def _row(tag: str, cells: Sequence[str], numeric: Sequence[bool]) -> str:
    """A row of HTML cells."""
    kinds = [_class("number") if number else "" for number in numeric]
    return f"<tr>{''.join(f'<{tag}{kind}>{cell}</{tag}>' for kind, cell in zip(kinds, cells, strict=True))}</tr>"


def _class(kind: str) -> str:
    return f' class="{text(kind)}"' if kind else ""


def filtered(key: str, rows: Sequence[Mapping[str, Any]], column: str) -> str:
    """Rows as a table with a choice among the values of a column, and a field for words that a row must contain."""
    place = list(rows[0]).index(column)
    values = dict.fromkeys(str(row[column]) for row in rows)
    options = "".join(f"<option>{text(value)}</option>" for value in values)
    return (
        f'<div class="filter" id="{text(key)}"><form role="search" aria-label="filter the table">'
        f'<label>{text(column)} <select data-column="{place}"><option value="">all</option>{options}</select></label>'
        '<label>words <input type="search" autocomplete="off"></label>'
        f'<output aria-live="polite">{len(rows)} rows</output></form>{table(rows, kind="texts")}</div>'
    )


def scrolled(content: str, label: str) -> str:
    """Content that may be wider than the page: it scrolls by itself, also with the keyboard."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{text(label or "table")}">{content}</div>'


def facts(values: Mapping[str, Any]) -> str:
    """Names and values as a list; missing values are left out."""
    items = "".join(
        f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in values.items() if value not in (None, MISSING)
    )
    return f"<dl>{items}</dl>"


def tiles(values: Mapping[str, Any]) -> str:
    """A few figures in large type, each above its name."""
    each = "".join(f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for name, value in values.items())
    return f'<div class="tiles">{each}</div>'


def code(value: str) -> str:
    """A text in lines of its own, unchanged."""
    return f'<pre tabindex="0">{text(value)}</pre>'


def folded(summary: str, content: str) -> str:
    """Content that a reader opens."""
    return f"<details><summary>{prose(summary)}</summary>{content}</details>"


def plot(key: str, title: str, made: go.Figure, note: str = "", least: int = 0) -> str:
    """The place of a figure, with its data, a title and a note. `least`: smallest width in pixels; a narrower page
    scrolls it."""
    height = int(made.layout.height)
    width = f";min-width:{least}px" if least else ""
    described = f"{title}. {note}" if note else title
    named = f'id="{text(key)}" role="img" aria-label="{text(described)}"'
    box = f'<div class="plot" {named} style="height:{height}px{width}"></div>'
    data = f'<script type="application/json" data-plot="{text(key)}">{script_json(made.to_json())}</script>'
    caption = f"<figcaption><b>{prose(title)}</b> {prose(note)}</figcaption>"
    return f"<figure>{caption}{scrolled(box, title) if least else box}{data}</figure>"


def pairs(figures: Iterable[str]) -> str:
    """Figures side by side where the page is wide enough."""
    return f'<div class="pairs">{"".join(figures)}</div>'


def script_json(content: str) -> str:
    """JSON as the content of a script element, which no text inside can end."""
    return content.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def identifier(*parts: Any) -> str:
    """An id of an element, made of these parts."""
    return re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(map(str, parts))).strip("-")
