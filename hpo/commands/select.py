"""Choose among the kept trials and use them: `hpo ensemble`, `hpo predict`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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

if TYPE_CHECKING:
    from results.store import SweepFolder


def ensemble(
    sweep: SweepArgument,
    method: Annotated[str, typer.Option("--method", help="greedy (Caruana 2004) or top-k (vote and mean).")] = "greedy",
    size: Annotated[int, typer.Option("--size", min=1, help="Members at most; one may count several times.")] = 5,
    name: Annotated[str | None, typer.Option("--name", help="Name to save it under; METHOD-SIZE if left out.")] = None,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Choose an ensemble on `search`, estimate it on `held`, beside the best single trial, and save it.

    Example: hpo ensemble quickstart-1 --method greedy --size 5 --name best
    """
    from hpo.display.ensemble import choose
    from hpo.display.summary import show_ensemble

    folder = open_sweep(store, sweep)
    with warned(folder):
        _finalise(folder)
        with busy("choosing members and estimating their score"):
            record = choose(folder, method=method, size=size, name=name)
    if json:
        print_json(record)
    else:
        show_ensemble(record, console())


def predict(
    sweep: SweepArgument,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the files; made if it is not there.")],
    trial: Annotated[int | None, typer.Option("--trial", min=0, help="A trial whose weights are kept.")] = None,
    ensemble: Annotated[str | None, typer.Option("--ensemble", metavar="NAME", help="A saved ensemble.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over files that are there.")] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Write predictions for the dev and test files of every task, in the class leaderboard format.

    Example: hpo predict quickstart-1 --ensemble greedy-5 --out predictions
    """
    from hpo.exports.leaderboard import check_out, of_ensemble, of_trial, write
    from results.selection import load

    if (trial is None) == (ensemble is None):
        raise InputError("give either --trial N or --ensemble NAME")
    folder = open_sweep(store, sweep)
    check_out(folder, out, overwrite)
    with warned(folder):
        if trial is not None:
            _finalise(folder, [trial])
            paths = write(folder, of_trial(folder, trial), out, f"trial {trial}")
        else:
            assert ensemble is not None
            _finalise(folder, [int(member["trial"]) for member in load(folder, ensemble)["members"]])
            paths = write(folder, of_ensemble(folder, ensemble), out, f"ensemble {ensemble}")
    if json:
        print_json({"files": paths})
    else:
        for path in paths:
            console().print(str(path), soft_wrap=True)


def _finalise(folder: SweepFolder, trials: Iterable[int] | None = None) -> None:
    """A kept trial that has not predicted yet, as after a stop, or whose predictions are damaged, does so now."""
    from hpo.driver.finalise import finalise_here

    finalise_here(folder, trials, tell)


COMMANDS: Mapping[str, Callable[..., Any]] = {"ensemble": ensemble, "predict": predict}
