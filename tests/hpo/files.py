"""Paths of a sweep's files on a disk, for tests that write or look at them."""

from __future__ import annotations

from pathlib import Path

from hpo.worker import paths
from results.places import locate


def checkpoint_folder(sweep: Path, trial: int) -> Path:
    """See `hpo.worker.paths.checkpoint_folder`."""
    return Path(paths.checkpoint_folder(locate(sweep), trial).path)


def stage_file(sweep: Path, trial: int) -> Path:
    """File with the progress of a trial in its stages."""
    return Path(paths.stage_folder(locate(sweep)).path) / paths.stage_name(trial)


def stop_file(sweep: Path) -> Path:
    """File that asks the driver to stop."""
    return sweep / paths.STOP
