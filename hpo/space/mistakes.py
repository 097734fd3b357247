"""Mistakes of a search space, raised as one error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search_spaces.domains import SpaceError

MOST = 20
"""Mistakes that an error lists; further ones are only counted."""


def refuse(mistakes: Sequence[str]) -> None:
    """Raise SpaceError with all mistakes, one per line; do nothing if there are none."""
    if not mistakes:
        return
    if len(mistakes) == 1:
        raise SpaceError(mistakes[0])
    lines = [f"{len(mistakes)} mistakes:"]
    lines += [f"  {number}. {mistake}" for number, mistake in enumerate(mistakes[:MOST], start=1)]
    if len(mistakes) > MOST:
        lines.append(f"  and {len(mistakes) - MOST} more")
    raise SpaceError("\n".join(lines))


def objection(attempt: Callable[[], object]) -> ValueError | None:
    """The ValueError that a call raises; None if it raises none."""
    try:
        attempt()
    except ValueError as error:
        return error
    return None
