"""Ask the store: `hpo top`, `hpo show`, `hpo query`. Thin over `results.views` and `results.query`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.commands.common import (
    InputError,
    JsonOption,
    StoreOption,
    SweepArgument,
    TrialArgument,
    console,
    open_store,
    open_sweep,
    print_json,
    warned,
)

if TYPE_CHECKING:
    from rich.console import Console


def top(
    sweep: SweepArgument,
    number: Annotated[int, typer.Option("-n", help="How many trials.", min=1)] = 10,
    where: Annotated[
        str | None, typer.Option("--where", metavar="SQL", help="Only trials for which this holds: overall > 0.6")
    ] = None,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Show the best trials of a sweep by their latest search score.

    Example: hpo top quickstart-1 -n 5 --where "state = 'complete'"
    """
    from hpo.display import tables
    from hpo.display.ensemble import scoring
    from hpo.display.trials import cost_rows, parameter_rows, score_rows, trial_records
    from results import views
    from results.sql import QueryError

    folder = open_sweep(store, sweep)
    with warned(folder):
        try:
            rows = trial_records(views.top(folder, number, where, scoring(folder)))
        except QueryError as error:
            raise InputError(f"{_names(where or '', list(views.trials_frame(folder)))}{error}") from error
    out = console()
    if json or not rows:
        tables.show(rows, out, json=json, empty="no trial has a score, or none fits --where")
        return
    tasks = list(folder.tasks)
    tables.show(score_rows(rows, tasks), out, title=f"best trials of {sweep} (scores on `search`)")
    out.print()
    tables.show(cost_rows(rows, tasks), out, title="what they cost (s/1k: seconds per 1,000 training examples)")
    out.print()
    tables.show(parameter_rows(rows), out, title="their parameters", empty="no parameter was drawn")


NAME = re.compile(r"""'[^']*'|[A-Za-z_][\w.-]*(?:/+[A-Za-z_][\w.-]*)+""")
"""A text of SQL, which is passed over, or what looks like a parameter."""


def _names(where: str, columns: Sequence[str]) -> str:
    """How the parameters that a failed condition seems to mean are called in this sweep."""
    from hpo.space.tree import path_of

    drawn = [name for name in columns if "/" in name]
    lines = []
    for name in dict.fromkeys(NAME.findall(where)):
        if name.startswith("'") or name in columns:
            continue
        same = [one for one in drawn if path_of(one) == path_of(name)]
        known = f"it is called {' or '.join(same)} here" if same else "this sweep did not draw it"
        lines.append(f"`{name}`: {known}; drawn are {', '.join(drawn) or 'none'} (quotes are not needed)\n")
    return "".join(lines)


def show(sweep: SweepArgument, trial: TrialArgument, store: StoreOption = "runs", json: JsonOption = False) -> None:
    """Show everything about one trial: configuration, reports, attempts, a worker's traceback.

    Example: hpo show quickstart-1 3
    """
    from hpo.display.ensemble import scoring
    from results import views

    folder = open_sweep(store, sweep)
    with warned(folder):
        facts = views.show(folder, trial, scoring(folder))
    if json:
        print_json(facts)
    else:
        print_trial(facts, console(), list(folder.tasks))


APART = ("config", "params", "attempts", "reports", "error", "held")
"""Facts of a trial that are shown by themselves."""


def print_trial(facts: Mapping[str, Any], out: Console, tasks: Sequence[str]) -> None:
    """Single values, configuration and reports each as a table, the traceback as it came."""
    from hpo.display import tables
    from hpo.display.trials import cost_facts, event_row, report_row
    from hpo.space.tasks import of_tasks
    from hpo.space.tree import flatten
    from minbert.tasks import TASKS
    from results.costs import COUNTS, EXAMPLES, RATES

    apart = {*APART, *COUNTS, *RATES, *(EXAMPLES + task for task in tasks), *facts["params"]}
    single = {name: value for name, value in facts.items() if name not in apart and value not in (None, "")}
    single |= {f"{name} (held out)": value for name, value in (facts["held"] or {}).items()}
    single |= cost_facts(facts, tasks)
    tables.show_facts(single, out)
    own = of_tasks(flatten(facts["config"]), TASKS.keys() - set(tasks))
    config = [{"parameter": path, "value": tables.cell(value)} for path, value in own.items()]
    for title, rows in (
        ("configuration", config),
        ("reports", [report_row(one) for one in facts["reports"]]),
        ("attempts", [event_row(one) for one in facts["attempts"]]),
    ):
        out.print()
        tables.show(rows, out, title=title, empty=f"no {title}")
    if facts["error"]:
        out.print("\nerror", style="bold")
        out.print(str(facts["error"]).rstrip(), soft_wrap=True)


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over the tables of all sweeps in the store.")],
    sweep: Annotated[str | None, typer.Option("--sweep", help="Only this sweep.")] = None,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Ask in SQL (DuckDB, read-only): tables trials, reports, examples, predictions and more.

    Example: hpo query "SELECT sweep, trial, max(overall) FROM reports GROUP BY ALL ORDER BY 3 DESC LIMIT 5"
    """
    from hpo.display import tables
    from results.query import query as ask

    source = open_store(store) if sweep is None else open_sweep(store, sweep)
    with warned(source):
        frame = ask(source, sql)
    tables.show(tables.records(frame), console(), json=json, columns=list(frame.columns), empty="no rows")


COMMANDS: Mapping[str, Callable[..., Any]] = {"top": top, "show": show, "query": query}
