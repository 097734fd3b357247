"""Sweeps in other tools: `hpo dashboard`, `hpo log`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hpo.commands.common import JsonOption, StoreOption, SweepArgument, open_sweep, print_json, serve, warned
from hpo.display.messages import busy, tell
from hpo.display.units import plural


def dashboard(
    sweep: SweepArgument,
    port: Annotated[int, typer.Option("--port", min=0, help="Port of the page. Default: a free one.")] = 0,
    store: StoreOption = "runs",
) -> None:
    """Serve optuna-dashboard on the sweep's Optuna study, on this machine alone, until Ctrl-C.

    It shows the sweep as it is now; start it again to see newer trials. It needs the package optuna-dashboard.

    Example: hpo dashboard quickstart-1
    """
    from hpo.driver.study import study_of
    from hpo.exports import dashboard as exported

    exported.check_installed()
    folder = open_sweep(store, sweep)
    with warned(folder), busy("rebuilding the study"):
        study = study_of(folder)
    running = exported.server(study, port)
    tell(f"http://{exported.HOST}:{running.server_port}/ shows {sweep}; Ctrl-C ends it")
    serve(running)


def log(
    sweep: SweepArgument,
    to: Annotated[str, typer.Option("--to", metavar="TRACKER", help="Tracker: tensorboard, wandb or mlflow.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the runs; created if missing.")],
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Write the trials and repeats of a sweep as runs of an experiment tracker.

    A run has the configuration, and scores and losses by milestone. Nothing is sent anywhere.
    `tensorboard --logdir DIR` and `mlflow ui --backend-store-uri sqlite:///DIR/mlflow.db` show them, `wandb sync` sends
    them.

    Example: hpo log quickstart-1 --to tensorboard --out tracked
    """
    from hpo.exports.trackers import write
    from hpo.search.states import REPEAT

    folder = open_sweep(store, sweep)
    with warned(folder), busy("writing the runs"):
        runs = write(folder, to, out)
    repeats = sum(run.origin == REPEAT for run in runs)
    if json:
        print_json({"directory": out, "tracker": to, "trials": len(runs) - repeats, "repeats": repeats})
        return
    tell(f"{plural(len(runs), 'run')} in {out}: {plural(len(runs) - repeats, 'trial')}, {plural(repeats, 'repeat')}")


COMMANDS: Mapping[str, Callable[..., Any]] = {"dashboard": dashboard, "log": log}
