"""Removal of what one trial has on the disk: its weights and its predictions.

Its rows stay, as the store's tables of events are append-only: ranks, rungs and a resume go by them. As when a launch
drops weights, a row says first that the trial has none, and only then they are deleted. So the removal needs the writer
of the sweep, and is refused while a driver has it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from hpo.cluster.processes import host
from hpo.driver import generations
from hpo.driver.finalise import is_done
from hpo.driver.ledger import Ledger
from hpo.driver.selection import still_needed
from hpo.driver.weights import Shelf
from hpo.launch.record import record_of
from hpo.search.states import CLOSED

if TYPE_CHECKING:
    from results.store import SweepFolder


class RemovalError(ValueError):
    """The trial's weights and predictions cannot be removed."""


class Removed(NamedTuple):
    """What a trial no longer has."""

    weights: bool
    predictions: int
    """Number of files of predictions."""
    ensembles: tuple[str, ...]
    """Saved ensembles of which it is a member: they cannot predict any more."""
    waiting: tuple[int, ...]
    """Trials that have to predict `held` in its place, as it was one of those that a finished sweep has chosen."""


def remove_trial(folder: SweepFolder, trial: int) -> Removed:
    """Delete the weights and predictions of a trial that has ended. Raises RemovalError for a trial that is unknown or
    has not ended, BusyError if a driver works on the sweep."""
    from results.predictions import KEY
    from results.selection import load, saved

    ledger = check_removable(folder, trial)
    had = trial in ledger.kept
    record = record_of(folder)
    done = is_done(folder, generations.total_trials(record.trials, folder.folder))
    members = {name: [int(member["trial"]) for member in load(folder, name)["members"]] for name in saved(folder)}
    if had:
        generation = generations.claim(folder.folder, launch=False)
        try:
            writer = folder.writer(generation.number)
            ledger = Ledger.of(folder)
            entry = ledger.trials[trial]
            row = {"trial": trial, "attempt": entry.attempt, "event": "end", "state": entry.state}
            row |= {"reason": entry.reason, "time": time.time(), "host": host(), "pid": os.getpid()}
            writer.append("trials", row)
            writer.barrier()
            writer.close()
            ledger.feed(row)
            shelf = Shelf(folder.folder, record.keep)
            shelf.tidy(ledger, [trial])
            if problems := shelf.tidied():
                raise RemovalError(f"the weights of trial {trial} could not be deleted: {'; '.join(problems)}.")
        finally:
            generation.end()
    keys = [key for key in folder.keys("predictions") if (match := KEY.fullmatch(key)) and int(match[1]) == trial]
    for key in keys:
        folder.remove_table("predictions", key)
    ensembles = tuple(name for name, trials in members.items() if trial in trials)
    needs = still_needed(folder, ledger) if done else None
    return Removed(had, len(keys), ensembles, () if needs is None else tuple(needs.waiting))


def check_removable(folder: SweepFolder, trial: int) -> Ledger:
    """The sweep's ledger. Raises RemovalError for a trial that is unknown or has not ended, BusyError if a driver works
    on the sweep."""
    generations.check_free(folder.folder)
    ledger = Ledger.of(folder)
    if trial not in ledger.trials:
        raise RemovalError(f"Sweep {folder.name!r} has no trial {trial}; it has {len(ledger.trials)}.")
    if ledger.trials[trial].state not in CLOSED:
        raise RemovalError(
            f"Trial {trial} of sweep {folder.name!r} has not ended: hpo resume {folder.name} continues it from its "
            "checkpoint."
        )
    return ledger
