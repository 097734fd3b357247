"""What a sweep has found: `hpo best`, `hpo compare`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from hpo.commands.common import (
    JsonOption,
    StoreOption,
    SweepArgument,
    console,
    open_store,
    open_sweep,
    print_json,
    warned,
)
from hpo.display.messages import busy, warn


def best(
    sweep: SweepArgument,
    config: Annotated[bool, typer.Option("--config", help="Print its complete configuration as JSON instead.")] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Show the best trial of a sweep: its answer once it has ended, until then the trial with the highest rank.

    Example: hpo best quickstart-1 --config > best.json, then: hpo run full --start best.json
    """
    from hpo.display import tables
    from hpo.display.answer import sentences, to_json
    from hpo.display.trials import score_rows, show_parameters, trial_records
    from hpo.driver.answer import best_trial, of_sweep
    from hpo.driver.retraining import config_of
    from results import views

    folder = open_sweep(store, sweep)
    with warned(folder), busy("deciding the answer"):
        if config:
            print_json(config_of(folder, best_trial(folder)))
            return
        decision = of_sweep(folder)
        trial = best_trial(folder, decision)
        rows = trial_records(views.top(folder, n=1, where=f"trial = {trial}"))
    if json:
        print_json({**rows[0], "answer": None if decision is None else to_json(decision)})
        return
    out = console()
    tables.show(score_rows(rows, list(folder.tasks)), out, title=f"best trial of {sweep}")
    out.print()
    show_parameters(rows, out)
    if decision is not None:
        out.print()
        for line in sentences(decision):
            out.print(line, soft_wrap=True)


def compare(
    sweeps: Annotated[list[str], typer.Argument(metavar="SWEEP SWEEP ...", help="Names of two or more sweeps.")],
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Compare sweeps with the first one: best score for equal examples, best configurations on `held`, what differs.

    Sweeps need equal base, data and tasks; others are left out. An interval says how a difference varies with other
    examples of the same kind, not with other seeds: more runs of each configuration speak for those.

    Example: hpo compare quickstart-1 quickstart-2
    """
    from hpo.display import compared, tables
    from hpo.driver.compare import compare as compare_sweeps

    stored = open_store(store)
    folders = [stored.open(name) for name in sweeps]
    try:
        with busy("comparing"):
            found = compare_sweeps(folders)
    finally:
        warn([warning for folder in folders for warning in folder.warnings])
    if json:
        print_json(compared.to_json(found))
        return
    out = console()
    tables.show(compared.side_rows(found), out, title="best configurations (overall: mean of their runs on search)")
    out.print()
    title = "best overall on search at full budget, after as many examples of all trials"
    tables.show(compared.course_rows(found), out, title=title)
    out.print()
    tables.show(compared.setting_rows(found), out, title="settings that differ", empty="the best have equal settings")
    out.print()
    for pair in found.pairs:
        out.print(compared.sentence(found, pair), soft_wrap=True)
    for name, reason in found.left_out.items():
        out.print(f"left out: {name}: {reason}", style="yellow", soft_wrap=True)


COMMANDS: Mapping[str, Callable[..., Any]] = {"best": best, "compare": compare}
