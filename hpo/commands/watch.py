"""Watch and control sweeps: `hpo list`, `hpo status`, `hpo stop`, `hpo logs`, `hpo rm`. None of them needs Ray."""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Callable, Iterator, Mapping
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
)
from hpo.display.messages import tell, warn
from hpo.display.units import plural

if TYPE_CHECKING:
    from results.files import Folder
    from results.store import SweepFolder

REFRESH = 1.0
"""Seconds between two reads of the store by `--watch`, and between two checks whether a log file has appeared."""
LOG_REFRESH = 0.25
"""Seconds between two reads of a log file by `--follow`."""


def list_sweeps(store: StoreOption = "runs", json: JsonOption = False) -> None:
    """List the sweeps of a store.

    States: searching, finalising, done; stopped (in order) or interrupted (its driver died): both can be resumed.

    Example: hpo list --store runs
    """
    from hpo.display import tables
    from hpo.display.status import overview

    stored = open_store(store)
    rows = []
    for folder in stored.readable():
        try:
            rows.append(overview(folder))
        except ValueError as error:  # one unreadable sweep must not hide the others
            stored.warnings.append(f"{folder.folder.path} is skipped: {error}")
        stored.warnings += folder.warnings
    warn(stored.warnings)
    rows.sort(key=lambda row: str(row["created"]))
    empty = f"no sweeps in {store}; start one with: hpo run quickstart --store {store}"
    tables.show(rows, console(), json=json, empty=empty)


def status(
    sweep: SweepArgument,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing the sweep until no driver works on it.")
    ] = False,
    store: StoreOption = "runs",
    json: JsonOption = False,
) -> None:
    """Show the progress of a sweep: examples used, trials, the best trials, rungs.

    Trials are ranked by furthest rung, then by score. Time counts from the last run, resume or extend.

    Example: hpo status quickstart-1 --watch
    """
    from hpo.display import live
    from hpo.display.status import follow, read

    folder = open_sweep(store, sweep)
    if watch:
        warn(follow(folder, REFRESH))
        return
    snapshot = read(folder)
    warn(folder.warnings)
    out = console()
    if json:
        print_json(asdict(snapshot))
    else:
        width = min(out.width, live.WIDE)
        out.print(live.picture(snapshot, width), width=width)


def stop(sweep: SweepArgument, store: StoreOption = "runs") -> None:
    """Stop a running sweep. Its running trials write a checkpoint, and `hpo resume` continues it.

    Example: hpo stop quickstart-1
    """
    from hpo.driver.generations import active
    from hpo.driver.stopping import request_stop

    folder = open_sweep(store, sweep)
    driver = active(folder.folder)
    if driver is None:
        raise InputError(f"sweep {sweep!r} is not running. Resume it with: hpo resume {sweep}")
    request_stop(folder.folder)
    tell(f"asked process {driver.pid} on {driver.host} to stop; see: hpo status {sweep} --watch")


def logs(
    sweep: SweepArgument,
    trial: TrialArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing what is added to the log.")] = False,
    store: StoreOption = "runs",
) -> None:
    """Print the log of a trial: what its process printed and logged.

    Example: hpo logs quickstart-1 3 -f
    """
    from hpo.driver.generations import total_trials
    from hpo.launch.record import record_of
    from hpo.worker.paths import log_folder, log_name

    folder = open_sweep(store, sweep)
    place, name = log_folder(folder.folder), log_name(trial)
    there = place.exists(name)
    started = trial in folder.read("trials")["trial"].to_pylist()  # a repeat has a number above the trials'
    total = total_trials(record_of(folder).trials, folder.folder)
    if not there and not started and trial >= total:
        raise InputError(f"sweep {sweep!r} has no trial {trial}: it has {total} in all. {_trials_so_far(folder)}")
    if not there and not follow:
        path = f"{place.path}/{name}"
        raise InputError(f"trial {trial} of sweep {sweep!r} has no log: {path} is missing. {_trials_so_far(folder)}")
    try:
        for text in tail(place, name, follow):
            sys.stdout.write(text)
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def tail(folder: Folder, name: str, follow: bool) -> Iterator[str]:
    """Yield the content of a log file; with `follow` also what is added to it, without end."""
    while follow and not folder.exists(name):
        time.sleep(REFRESH)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    place = 0
    while True:
        with folder.open(name) as file:
            file.seek(place)
            content = file.read()
        place += len(content)
        if text := decoder.decode(content):
            yield text
        elif not follow:
            return
        else:
            time.sleep(LOG_REFRESH)


def _trials_so_far(folder: SweepFolder) -> str:
    """`Its trials are 0 to 11.`"""
    trials = sorted(set(folder.read("trials").column("trial").to_pylist()))
    return f"Its trials are {trials[0]} to {trials[-1]}." if trials else "No trial has started yet."


def rm(
    sweep: SweepArgument,
    trial: Annotated[
        int | None, typer.Option("--trial", min=0, help="Delete only this trial's weights and predictions.")
    ] = None,
    store: StoreOption = "runs",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: JsonOption = False,
) -> None:
    """Delete a sweep with its results, checkpoints, logs and ensembles; or what one trial has on the disk.

    With --trial its scores and its place in the ranking stay, its weights and predictions go: it can neither predict
    nor be a member of an ensemble any more.

    Example: hpo rm quickstart-1 --yes
    """
    from hpo.driver.generations import active

    if trial is not None:
        _remove_trial(open_sweep(store, sweep), trial, yes, json)
        return
    stored = open_store(store)
    folder = stored.open(sweep)
    if driver := active(folder.folder):
        raise InputError(
            f"sweep {sweep!r} is running (process {driver.pid} on {driver.host}). Stop it first: hpo stop {sweep}"
        )
    if not yes and not typer.confirm(f"Delete {folder.folder.path} and everything in it?", err=True):
        tell("nothing was deleted")
        return
    stored.remove(sweep)
    if json:
        print_json({"sweep": sweep, "deleted": folder.folder.path})
    else:
        tell(f"deleted {folder.folder.path}")


def _remove_trial(folder: SweepFolder, trial: int, yes: bool, json: bool) -> None:
    from hpo.driver.removal import check_removable, remove_trial

    check_removable(folder, trial)
    question = f"Delete the weights and predictions of trial {trial} of {folder.name}?"
    if not yes and not typer.confirm(question, err=True):
        tell("nothing was deleted")
        return
    removed = remove_trial(folder, trial)
    if json:
        print_json({"sweep": folder.name, "trial": trial, **removed._asdict()})
        return
    weights = "its weights" if removed.weights else "no weights, as none were kept,"
    tell(f"trial {trial} of {folder.name}: deleted {weights} and {plural(removed.predictions, 'file')} of predictions")
    for name in removed.ensembles:
        tell(f"note: it is a member of the ensemble {name}, which cannot predict any more")
    if removed.waiting:
        others = ", ".join(map(str, removed.waiting))
        tell(f"note: it was among the chosen; hpo resume {folder.name} lets trials {others} predict in its place")


COMMANDS: Mapping[str, Callable[..., Any]] = {
    "list": list_sweeps,
    "status": status,
    "stop": stop,
    "logs": logs,
    "rm": rm,
}
