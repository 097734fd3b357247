"""Error messages for SQL: they name the nearest table or column instead of all of them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

TABLE = re.compile(r'Table with name "?([^"]+?)"? does not exist')
COLUMN = re.compile(r'(?:Referenced column|column named|Column) "([^"]+)"')
"""Patterns for the unknown name in a message of DuckDB (1.4 to 2.0)."""

PLACE = re.compile(r"^LINE \d+:.*\n.*\^.*", re.MULTILINE)
"""Pattern for the line of the statement, with the mark below the mistake, in such a message."""

SOURCES = re.compile(r"\b(?:from|join)\s+((?:(?!\bjoin\b)[\w\s,])+)", re.IGNORECASE)
"""Pattern for the tables, with their aliases, after a FROM or JOIN."""

MOST = 5
"""Largest number of names that a message suggests."""


def message(problem: str, statement: str, tables: Collection[str], columns: Mapping[str, Sequence[str]]) -> str:
    """The error message for a statement: DuckDB's `problem`, with our nearest names instead of its own guess.

    `tables` are the tables that a statement may use; `columns` are those of the tables loaded for this statement.
    """
    if unknown := TABLE.search(problem):
        near = nearest(unknown[1], tables, 1)
        guess = f" Did you mean `{near[0]}`?" if near else ""
        return f"There is no table `{unknown[1]}`.{guess} Tables: {', '.join(tables)}."
    sources = [name for name in _sources(statement) if name in columns] or list(columns)
    if sources and "not" in problem and (unknown := COLUMN.search(problem)):
        names = list(dict.fromkeys(name for table in sources for name in columns[table]))
        near = nearest(unknown[1], names, MOST)
        guess = f" Nearest: {', '.join(near)}." if near else f" A text needs quotes: '{unknown[1]}'."
        describe = " or ".join(f"DESCRIBE {table}" for table in sources)
        place = f"\n{mark[0]}" if (mark := PLACE.search(problem)) else ""
        return f"There is no column `{unknown[1]}` in {', '.join(sources)}.{guess} All columns: {describe}.{place}"
    return f"{problem}\nTables: {', '.join(tables)}. Columns of one: DESCRIBE {next(iter(tables))}."


def nearest(name: str, names: Iterable[str], most: int) -> list[str]:
    """At most `most` names near to `name`: first those with `name` as one of their parts, then similar spellings."""
    by_lower = {candidate.lower(): candidate for candidate in names}
    word = name.lower()
    containing = [candidate for lower, candidate in by_lower.items() if word in re.split(r"[^a-z0-9_]+", lower)]
    similar = [by_lower[lower] for lower in difflib.get_close_matches(word, by_lower, most)]
    return list(dict.fromkeys([*containing, *similar]))[:most]


def _sources(statement: str) -> list[str]:
    """The tables that a statement reads: the first word of each item after a FROM or JOIN."""
    items = [item.split() for clause in SOURCES.findall(statement) for item in clause.split(",")]
    return [words[0].lower() for words in items if words]
