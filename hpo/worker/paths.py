"""Names of what lies in a sweep's folder beside the store's tables. `sweep` is the folder `<store>/<sweep>`, on a disk
or in an object store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from results.files import Folder

CHOSEN = "chosen.json"
"""File with the trials that a launch chose at its end, which predict."""
STOP = "stop-request"
"""File that asks the driver to stop: `hpo stop` creates it, the driver deletes it."""


def checkpoints_folder(sweep: Folder) -> Folder:
    """Folder with a folder of checkpoints for each trial."""
    return sweep.child("checkpoints")


def checkpoint_folder(sweep: Folder, trial: int) -> Folder:
    """Folder with the checkpoints of all attempts of a trial."""
    return checkpoints_folder(sweep).child(str(trial))


def log_folder(sweep: Folder) -> Folder:
    """Folder with the log of each trial."""
    return sweep.child("logs")


def log_name(trial: int) -> str:
    """Name of the file with the output and log of all attempts of a trial."""
    return f"{trial}.log"


def quarantine_folder(sweep: Folder) -> Folder:
    """Folder with the places that got no more trials, a file for each change."""
    return sweep.child("quarantines")


def stage_folder(sweep: Folder) -> Folder:
    """Folder with the progress of each trial in its stages before training."""
    return sweep.child("stages")


def stage_name(trial: int) -> str:
    """Name of the file with a trial's progress."""
    return f"{trial}.json"
