"""What to say after a mistake in SQL: the nearest table or column, not all of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

TABLE = re.compile(r'Table with name "?([^"]+?)"? does not exist')
COLUMN = re.compile(r'(?:Referenced column|column named|Column) "([^"]+)"')
"""The name that DuckDB (1.4 to 2.0) does not know, in its message."""

PLACE = re.compile(r"^LINE \d+:.*\n.*\^.*", re.MULTILINE)
"""The line of the statement with a mark below the mistake."""

SOURCES = re.compile(r"\b(?:from|join)\s+((?:(?!\bjoin\b)[\w\s,])+)", re.IGNORECASE)
"""What follows a FROM or JOIN: tables with their aliases."""

MOST = 5
"""Names that are offered at most."""


def message(problem: str, statement: str, tables: Collection[str], columns: Mapping[str, Sequence[str]]) -> str:
    """DuckDB's message about a statement, with the nearest names in place of its own guess.

    `tables` are the names that a statement may use, `columns` those of the tables that were loaded for this one.
    """
    if unknown := TABLE.search(problem):
        near = nearest(unknown[1], tables, 1)
        guess = f" Did you mean `{near[0]}`?" if near else ""
        return f"There is no table `{unknown[1]}`.{guess} Tables: {', '.join(tables)}."
    used = [name for name in _sources(statement) if name in columns] or list(columns)
    if used and "not" in problem and (unknown := COLUMN.search(problem)):
        names = list(dict.fromkeys(name for table in used for name in columns[table]))
        near = nearest(unknown[1], names, MOST)
        guess = f" Nearest: {', '.join(near)}." if near else ""
        lists = " or ".join(f"DESCRIBE {table}" for table in used)
        place = f"\n{mark[0]}" if (mark := PLACE.search(problem)) else ""
        return f"There is no column `{unknown[1]}` in {', '.join(used)}.{guess} All columns: {lists}.{place}"
    return f"{problem}\nTables: {', '.join(tables)}. Columns of one: DESCRIBE {next(iter(tables))}."


def nearest(name: str, names: Iterable[str], most: int) -> list[str]:
    """The names most like a name: those that have it as a part, then those spelled much like it."""
    by_lower = {known.lower(): known for known in names}
    word = name.lower()
    whole = [known for lower, known in by_lower.items() if word in re.split(r"[^a-z0-9_]+", lower)]
    spelled = [by_lower[lower] for lower in difflib.get_close_matches(word, by_lower, most)]
    return list(dict.fromkeys([*whole, *spelled]))[:most]


def _sources(statement: str) -> list[str]:
    """The tables that a statement reads: the first word of each item of its FROMs and JOINs."""
    items = [item.split() for listed in SOURCES.findall(statement) for item in listed.split(",")]
    return [words[0].lower() for words in items if words]
