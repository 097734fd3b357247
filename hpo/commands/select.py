"""Build ensembles of kept trials and write predictions: `hpo ensemble`, `hpo predict`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.commands.common import (
    InputError,
    JsonOption,
    StoreOption,
    SweepArgument,
    console,
    open_sweep,
    print_json,
    warned,
)
from hpo.display.messages import busy, tell
from hpo.driver.ledger import Ledger
from hpo.driver.selection import METHOD, SIZE, Choice, Needed, conclude, settle

if TYPE_CHECKING:
    from results.store import SweepFolder


def ensemble(
    sweep: SweepArgument,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="top-k, average, greedy, greedy-per-task, greedy-bagged, stack; or auto: the best of them, with its "
            "size, by cross-validation on `search`.",
        ),
    ] = METHOD,
    size: Annotated[int, typer.Option("--size", min=1, help="Members at most; auto tries fewer too.")] = SIZE,
    name: Annotated[str | None, typer.Option("--name", help="Name of the ensemble. Default: METHOD-SIZE.")] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Show every method by cross-validation on `search`, and an ensemble of the best configuration's seeds "
            "if it ran several times.",
        ),
    ] = False,
    full_dev: Annotated[
        bool, typer.Option("--full-dev", help="Estimate the score on the full dev set too, as papers do; takes longer.")
    ] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Choose an ensemble of kept trials on `search`, estimate its score on `held`, and save it.

    `search` and `held` are two parts of the dev files. `held` and the test files choose nothing. The best single trial
    is estimated beside the ensemble. Chosen trials that have not predicted `held` yet do so now.

    Example: hpo ensemble quickstart-1 --size 5 --compare
    """
    from hpo.display.summary import show_ensemble

    folder = open_sweep(store, sweep)
    with warned(folder):
        ledger = Ledger(folder.events())
        choice = Choice(method, size, full_dev, compare)
        with busy("choosing members and estimating their score"):
            chosen = settle(folder, ledger, lambda needs: _predict_here(folder, needs), choice)
            assert chosen is not None, "predictions in this process never stop early"
            record = conclude(folder, ledger, chosen.selection, name)
    if json:
        print_json(record)
    else:
        show_ensemble(record, console(), compare=compare)


def _predict_here(folder: SweepFolder, needs: Needed) -> Mapping[int, str]:
    """Make pending predictions in this process, and tell which trials cannot."""
    from hpo.driver.finalise import finalise_here

    problems = finalise_here(folder, needs.pending, tell)
    for problem in problems.values():
        tell(problem)
    return problems


def predict(
    sweep: SweepArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files; created if missing.")],
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="A trial whose weights are kept.")] = None,
    ensemble: Annotated[str | None, typer.Option("--ensemble", metavar="NAME", help="A saved ensemble.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Write predictions for the dev and test files of every task, in the class leaderboard format.

    Example: hpo predict quickstart-1 --ensemble greedy-5 --out predictions
    """
    from hpo.exports.leaderboard import check_out, of_ensemble, of_trial, write
    from results.selection import load

    if (trial is None) == (ensemble is None):
        raise InputError("give either --trial TRIAL or --ensemble NAME")
    folder = open_sweep(store, sweep)
    check_out(folder, out, overwrite)
    with warned(folder):
        if trial is not None:
            _predict(folder, [trial])
            paths = write(folder, of_trial(folder, trial), out, f"trial {trial}")
        else:
            assert ensemble is not None
            _predict(folder, [int(member["trial"]) for member in load(folder, ensemble)["members"]])
            paths = write(folder, of_ensemble(folder, ensemble), out, f"ensemble {ensemble}")
    if json:
        print_json({"files": paths})
    else:
        for path in paths:
            console().print(str(path), soft_wrap=True)


def _predict(folder: SweepFolder, trials: list[int]) -> None:
    """Let each of these trials predict what is missing of its dev and test files."""
    from hpo.driver.finalise import PredictError, asked, finalise_here
    from results.predictions import PARTS

    if problems := finalise_here(folder, asked(folder, Ledger(folder.events()), trials, PARTS), tell):
        raise PredictError("; ".join(problems.values()))


COMMANDS: Mapping[str, Callable[..., Any]] = {"ensemble": ensemble, "predict": predict}
