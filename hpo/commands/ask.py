"""Query the store: `hpo top`, `hpo show`, `hpo importance`, `hpo query`.

They print what `results.views`, `hpo.driver.importance` and `results.query` return.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
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

    from results.objectives import Objective
    from results.store import SweepFolder


def top(
    sweep: SweepArgument,
    number: Annotated[
        int | None, typer.Option("-n", help="Number of trials to show. Default: 10; with --pareto all.", min=1)
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="SQL", help="Condition on the trials, such as: adapter/rank > 8"),
    ] = None,
    pareto: Annotated[
        bool,
        typer.Option("--pareto", help="Show the complete trials that no other one beats in all objectives."),
    ] = False,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            metavar="NAMES",
            help="Objectives of --pareto, such as overall,-seconds. Default: those of the sweep.",
        ),
    ] = None,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Show the best trials of a sweep, ranked by furthest rung, then by the score on `search` there.

    Repeats of a configuration stand in its row: their number with it, and the mean of all.

    With --pareto: the trials at full budget of which none is at least as good in every objective and better in one, by
    the first objective. Each counts with its own run, so noise may decide.

    Example: hpo top quickstart-1 -n 5 --where "overall > 0.6 and adapter/rank > 8"

    Example: hpo top quickstart-1 --pareto --objective overall,-trainable_parameters,-seconds
    """
    from hpo.display import tables
    from hpo.display.trials import (
        ALIKE,
        RANKED,
        UNBEATEN,
        cost_rows,
        objective_rows,
        score_rows,
        show_parameters,
        trial_records,
    )
    from results import views
    from results.sql import QueryError

    folder = open_sweep(store, sweep)
    objectives = _compared(folder, objective) if pareto else ()
    if objective is not None and not pareto:
        raise InputError("--objective names the objectives of --pareto; give both, or none of them.")
    with warned(folder):
        try:
            if pareto:
                rows = trial_records(views.pareto(folder, objectives, where))[:number]
            else:
                rows = trial_records(views.top(folder, number or 10, where))
        except QueryError as error:
            raise InputError(f"{name_hints(where or '', list(views.trials_frame(folder)))}{error}") from error
    out = console()
    if json or not rows:
        tables.show(rows, out, json=json, empty="no trial has a score, or none fulfils --where")
        return
    tasks = list(folder.tasks)
    if pareto:
        tables.show(objective_rows(rows, objectives), out, title=f"{UNBEATEN} of {sweep}")
        out.print()
    tables.show(score_rows(rows, tasks), out, title="their scores" if pareto else f"best trials of {sweep} ({RANKED})")
    if any(row["like_best"] for row in rows[1:]):
        out.print(ALIKE, style="dim")
    out.print()
    tables.show(cost_rows(rows, tasks), out, title="cost of each trial (s/1k: seconds per 1,000 training examples)")
    out.print()
    show_parameters(rows, out)


def _compared(folder: SweepFolder, text: str | None) -> tuple[Objective, ...]:
    """The objectives of --pareto, several: those of the text, or else of the sweep."""
    from hpo.launch.record import record_of
    from results.objectives import accepted, objectives_from

    tasks = list(folder.tasks)
    objectives = objectives_from(record_of(folder).objectives if text is None else text, tasks)
    if len(objectives) == 1:
        owner = f"the sweep {folder.name} has" if text is None else "--objective names"
        raise InputError(
            f"--pareto compares several objectives, and {owner} one, `{objectives[0]}`. Give some of: "
            f"{', '.join(accepted(tasks))}; such as --objective overall,-trainable_parameters"
        )
    return objectives


NAME = re.compile(r"""'[^']*'|[A-Za-z_][\w.-]*(?:/+[A-Za-z_][\w.-]*)+""")
"""A text literal of SQL, which is skipped, or a word that looks like the path of a parameter."""


def name_hints(statement: str, columns: Collection[str]) -> str:
    """Explain the unknown parameters of a failed SQL statement, one line each.

    A name counts as an unknown parameter if it looks like a path and is neither a column of `trials` nor a quotient of
    two columns. Its line says how the parameter is called, or that no trial drew it, and which parameters were drawn.
    """
    from results.names import path_of

    drawn = [name for name in columns if "/" in name]
    lines = []
    for name in dict.fromkeys(NAME.findall(statement)):
        if name.startswith("'") or name in columns or all(part in columns for part in name.split("/")):
            continue
        path = path_of(name)
        cause = f"it is called `{path}`" if path in columns else "no trial drew it"
        lines.append(f"`{name}`: {cause}; drawn parameters: {', '.join(drawn) or 'none'} (quotes are not needed)\n")
    return "".join(lines)


def show(
    sweep: SweepArgument,
    trial: TrialArgument,
    command: Annotated[
        bool, typer.Option("--command", help="Print the command that trains it again without a search instead.")
    ] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Show everything about one trial: configuration, reports, repeats, attempts, traceback of its error; then the
    sweep's answer against the default.

    On one CPU thread the command of --command gives the scores of the trial, bit by bit; it trains a trial that was
    stopped early on to the full budget.

    Example: hpo show quickstart-1 3
    """
    from hpo.display.answer import to_json
    from hpo.display.summary import show_answer
    from hpo.driver.answer import of_sweep
    from hpo.driver.jury import scoring
    from hpo.driver.ledger import Ledger
    from results import views
    from results.fold import fold

    folder = open_sweep(store, sweep)
    if command:
        from hpo.driver.retraining import train_command

        with warned(folder):
            sys.stdout.write(f"{train_command(folder, trial)}\n")
        return
    with warned(folder):
        found = fold(folder)
        facts = views.show(folder, trial, scoring(folder), found)
        decision = of_sweep(folder, Ledger.of(folder, found))
    if json:
        print_json({**facts, "answer": None if decision is None else to_json(decision)})
        return
    print_trial(facts, console(), list(folder.tasks))
    if decision is not None:
        console().print()
        show_answer(decision, console())


SECTIONS = ("config", "params", "attempts", "reports", "error", "held", "runs")
"""Facts of a trial that have a section of their own."""


def print_trial(facts: Mapping[str, Any], out: Console, tasks: Sequence[str]) -> None:
    """Print the single values, the configuration, the reports and the attempts as tables, then the traceback
    unchanged."""
    from hpo.display import tables
    from hpo.display.trials import cost_facts, event_rows, report_row, run_row
    from hpo.display.units import score
    from hpo.space.tree import flatten
    from minbert.migrations import migrate
    from results.costs import COUNTS, EXAMPLES, RATES

    elsewhere = {*SECTIONS, *COUNTS, *RATES, *(EXAMPLES + task for task in tasks), *facts["params"]}
    single = {name: value for name, value in facts.items() if name not in elsewhere and value not in (None, "")}
    single |= {name: score(single[name]) for name in ("overall", *tasks) if name in single}
    single |= {f"{name} (held out)": score(value) for name, value in (facts["held"] or {}).items()}
    single |= cost_facts(facts, tasks)
    tables.show_facts(single, out)
    stored = flatten(migrate(facts["config"], tasks))
    config = [{"parameter": path, "value": tables.cell(value)} for path, value in stored.items()]
    repeated = facts["runs"] if len(facts["runs"]) > 1 else []
    for title, rows in (
        ("configuration", config),
        ("runs of this configuration", [run_row(run) for run in repeated]),
        ("reports", [report_row(report) for report in facts["reports"]]),
        ("attempts", event_rows(facts["attempts"])),
    ):
        if title.startswith("runs") and not rows:
            continue
        out.print()
        tables.show(rows, out, title=title, empty=f"no {title}")
    if facts["error"]:
        out.print("\nerror", style="bold")
        out.print(str(facts["error"]).rstrip(), soft_wrap=True)


def importance(
    sweep: SweepArgument,
    method: Annotated[
        str, typer.Option("--method", help="Method: ped-anova, or fanova, which needs scikit-learn.")
    ] = "ped-anova",
    task: Annotated[
        str | None, typer.Option("--task", help="One task, or overall. Default: overall and every task.")
    ] = None,
    rung: Annotated[
        int | None,
        typer.Option("--rung", metavar="EXAMPLES", help="Milestone of the scores. Default: see above.", min=1),
    ] = None,
    number: Annotated[int, typer.Option("-n", help="Number of parameters to show.", min=1)] = 20,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Show which parameters matter, for the overall score and for each task.

    Trials are compared at one rung, the highest below which no trial was stopped. At least 20 trials are needed.

    Example: hpo importance quickstart-1 --task sst
    """
    from hpo.display import tables
    from hpo.display.importance import importance_notes, importance_rows, importance_title
    from hpo.driver.importance import importance_of

    folder = open_sweep(store, sweep)
    with warned(folder):
        result = importance_of(folder, method=method, task=task, rung=rung)
    if json:
        print_json(asdict(result))
        return
    out, rows = console(), importance_rows(result, number)
    tables.show(rows, out, title=importance_title(result, sweep), empty="no parameter can be assessed")
    for note in importance_notes(result, len(rows)):
        out.print(note, style="dim")


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="A SELECT statement over the tables of all sweeps.")],
    sweep: Annotated[str | None, typer.Option("--sweep", help="Read this sweep only.")] = None,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Query the store in SQL (DuckDB, read-only).

    Tables: trials, reports, examples, predictions and more. `trials` has a column for each parameter (adapter/rank). It
    holds repeats too; WHERE replicate = 0 leaves them out.

    Example: hpo query "SELECT sweep, trial, overall, adapter/rank FROM trials ORDER BY overall DESC LIMIT 5"
    """
    from hpo.display import tables
    from results.query import query as run_query
    from results.sql import LimitError, QueryError

    source = open_store(store) if sweep is None else open_sweep(store, sweep)
    with warned(source):
        try:
            frame = run_query(source, sql)
        except LimitError as error:
            raise InputError(f"{error}{' --sweep reads one sweep only.' * (sweep is None)}") from error
        except QueryError as error:
            columns = list(run_query(source, "SELECT * FROM trials LIMIT 0").columns)
            raise InputError(f"{name_hints(sql, columns)}{error}") from error
    out, rows, columns = console(), tables.records(frame), list(frame.columns)
    if json or len(tables.blocks(rows, columns, out.width)) == 1:
        tables.show(rows, out, json=json, columns=columns, empty="no rows")
    else:
        rows = [{name: tables.shortened(value) for name, value in row.items()} for row in rows]
        tables.show_blocks(rows, out, columns=columns, title="rows, in several tables")
        out.print(f"texts longer than {tables.LONG} characters are cut; --json prints them whole", style="dim")


COMMANDS: Mapping[str, Callable[..., Any]] = {"top": top, "show": show, "importance": importance, "query": query}
