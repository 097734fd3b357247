"""`hpo spaces`: which search spaces there are, what each asks, what it varies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from hpo.commands.common import JsonOption, console


def spaces(
    name: Annotated[str | None, typer.Argument(metavar="[SPACE]", help="A name or a .py file.")] = None,
    json: JsonOption = False,
) -> None:
    """List the search spaces, or the parameters of one.

    Example: hpo spaces full
    """
    if name is None:
        _all(json)
    else:
        _one(name, json)


def _all(json: bool) -> None:
    import search_spaces
    from hpo.display import tables

    rows = [{"space": one, "asks": _question(one, search_spaces.describe(one))} for one in search_spaces.names()]
    tables.show(rows, console(), json=json)
    if not json:
        console().print("\nParameters of one: hpo spaces NAME. Your own: hpo run my_space.py", style="dim")


def _one(name: str, json: bool) -> None:
    from hpo.display import tables
    from hpo.space.check import describe
    from hpo.space.source import load_space
    from hpo.space.tree import expand
    from minbert.tasks import DEFAULT_TASKS

    tables.show(parameter_rows(describe(expand(load_space(name), list(DEFAULT_TASKS)))), console(), json=json)


def parameter_rows(described: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """What `hpo.space.check.describe` says of each parameter, in the words of the help."""
    return [{"parameter": row["path"], "domain": row["domain"], "only where": row["when"]} for row in described]


def _question(name: str, text: str) -> str:
    """The first paragraph of a space's docstring, without its name in front."""
    return text.split("\n\n")[0].replace("\n", " ").removeprefix(f"{name}:").strip()


COMMANDS: Mapping[str, Callable[..., Any]] = {"spaces": spaces}
