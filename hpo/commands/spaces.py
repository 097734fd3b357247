"""`hpo spaces`: the search spaces, the question that each asks, the parameters that it varies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.commands.common import JsonOption, console
from hpo.display.units import plural

if TYPE_CHECKING:
    from hpo.space.build import Built
    from minbert.tasks import Task

Tasks = Annotated[
    str | None, typer.Option("--tasks", metavar="NAMES", help="Tasks of the sweep. Default: sst,qqp,sts.")
]


def spaces(
    name: Annotated[
        str | None, typer.Argument(metavar="[SPACE]", help="Name of a search space, or a .py file to check.")
    ] = None,
    tasks: Tasks = None,
    json: JsonOption = False,
) -> None:
    """List the search spaces, or the parameters of one with their priors over the packaged encoder.

    A space of your own (a .py file) is checked as well.

    All its mistakes are listed at once, exit code 2. `hpo run SPACE --dry-run` also checks it against data and encoder.

    Example: hpo spaces full
    """
    if name is None:
        _list_spaces(json)
    else:
        _list_parameters(name, tasks, json)


def _list_spaces(json: bool) -> None:
    import search_spaces
    from hpo.display import tables

    rows = [{"space": name, "asks": _question(name, search_spaces.describe(name))} for name in search_spaces.names()]
    tables.show(rows, console(), json=json)
    if not json:
        console().print("\nParameters of a space: hpo spaces NAME. Check your own: hpo spaces my_space.py", style="dim")


def _list_parameters(name: str, tasks: str | None, json: bool) -> None:
    import search_spaces
    from hpo.display import tables
    from hpo.launch.plan import complete_for
    from hpo.space.build import build
    from minbert.tasks import choose_tasks

    chosen = choose_tasks(tasks)
    built, complete = build(name, list(chosen)), complete_for(chosen)
    notes = [] if name in search_spaces.names() else _check(built, chosen)  # packaged spaces are tested
    tables.show(parameter_rows(built.space.resolved(complete).describe()), console(), json=json)
    if json:
        return
    for note in (*built.notes, *notes):
        console().print(f"note: {note}", style="yellow")
    number = plural(built.space.varied, "parameter")
    console().print(f"\n{number} over the tasks {', '.join(chosen)}, no mistake found", style="dim")


def _check(built: Built, tasks: Mapping[str, Task]) -> list[str]:
    """Check a space against the default configuration: notes on legal but unusual values. Raises SpaceError with all
    its mistakes."""
    from hpo.launch.plan import complete_for
    from hpo.launch.prepare import unusual_values

    notes = unusual_values(built.check(complete_for(tasks), list(tasks)), tasks)
    if not built.space.varied:
        notes.append("the space varies nothing: `hpo run` accepts it with --trials 1 only")
    return notes


def parameter_rows(described: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows of `Space.describe` under the column names that people see."""
    return [{"parameter": row["path"], "domain": row["domain"], "only where": row["when"]} for row in described]


def _question(name: str, text: str) -> str:
    """First paragraph of a space's docstring, without the leading name."""
    return text.split("\n\n")[0].replace("\n", " ").removeprefix(f"{name}:").strip()


COMMANDS: Mapping[str, Callable[..., Any]] = {"spaces": spaces}
