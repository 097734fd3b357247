"""Paths of the plain files of a sweep, beside the store's tables. `sweep` is the folder `<store>/<sweep>`."""

from __future__ import annotations

from pathlib import Path


def checkpoint_folder(sweep: Path, trial: int) -> Path:
    """Folder with the checkpoints of all attempts of a trial."""
    return sweep / "checkpoints" / str(trial)


def log_file(sweep: Path, trial: int) -> Path:
    """File with the output and log of all attempts of a trial."""
    return sweep / "logs" / f"{trial}.log"


def stage_file(sweep: Path, trial: int) -> Path:
    """File with the progress of a trial in its stages before training."""
    return sweep / "stages" / f"{trial}.json"


def generation_folder(sweep: Path) -> Path:
    """Folder with a file for each run or resume of a driver."""
    return sweep / "generations"


def chosen_file(sweep: Path) -> Path:
    """File with the trials that a launch chose at its end, which predict."""
    return sweep / "chosen.json"


def stop_file(sweep: Path) -> Path:
    """File that asks the driver to stop: `hpo stop` creates it, the driver deletes it."""
    return sweep / "stop-request"
