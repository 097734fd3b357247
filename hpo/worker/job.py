"""What the driver tells its workers: the job, the same for all trials of a sweep, and assignments, each one attempt at
one trial.

Both travel as JSON text inside a Tune configuration, which Tune would otherwise flatten, copy and write down field by
field.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from hpo.cluster.resources import Resources

OUT_OF_MEMORY = "out of memory"
"""Reason of a failure that a worker survived."""


class Reported(Protocol):
    """The part of `minbert.training.train.Report` that a worker needs."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Job:
    """What is the same for every trial of a sweep."""

    folder: str
    """Absolute path of `<store>/<sweep>`."""
    milestones: tuple[int, ...]
    """Examples at which a trial reports, ascending; the last is the largest budget."""
    data: str | None = None
    """Folder of the corpus; None: the sample corpus inside the package."""
    tasks: tuple[str, ...] | None = None
    """Tasks of the sweep; None: the default ones."""
    base: str | None = None
    """Name of the base encoder; None: the packaged one."""
    base_sha256: str = ""
    """SHA-256 of the base weights that the sweep began with; empty: not compared."""
    fingerprint: str = ""
    """Fingerprint of the data that the sweep began with; empty: not compared."""
    search_sizes: Mapping[str, int] = field(default_factory=dict)
    """Examples per task that a report is scored on."""
    resources: Resources = Resources()
    """What trials get of the machines; a fraction of a GPU is also the share of its memory that a trial may take."""
    memory_limit: int | None = None
    """Bytes of data one worker may hold; None: no limit of ours."""
    pause_key: str = ""
    """Key in Ray's internal key-value store under which the driver asks for a pause."""
    trainer: str = "hpo.worker.trainer"
    """Module with `ready(job, folder)`, `train(job, assignment, should_pause)` and `predict(job, checkpoint)` (see
    `hpo.worker.trainer`); another one in tests."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        values = json.loads(text)
        tasks = values.get("tasks")
        return cls(
            **values
            | {
                "milestones": tuple(values["milestones"]),
                "tasks": None if tasks is None else tuple(tasks),
                "resources": Resources(**values["resources"]),
            }
        )

    def module(self) -> ModuleType:
        return importlib.import_module(self.trainer)

    def checkpoints(self, trial: int) -> Path:
        """Folder of a trial's checkpoints, of all its attempts."""
        return checkpoint_folder(Path(self.folder), trial)

    def log(self, trial: int) -> Path:
        return log_file(Path(self.folder), trial)


def checkpoint_folder(sweep: Path, trial: int) -> Path:
    return sweep / "checkpoints" / str(trial)


def log_file(sweep: Path, trial: int) -> Path:
    """What a trial printed and logged, all attempts in one file."""
    return sweep / "logs" / f"{trial}.log"


@dataclass(frozen=True)
class Assignment:
    """One attempt at one trial."""

    trial: int
    attempt: int
    config: Mapping[str, Any]
    """The complete nested configuration."""
    seed: int

    @property
    def id(self) -> str:
        return attempt_id(self.trial, self.attempt)


def attempt_id(trial: int, attempt: int) -> str:
    """`7-0`: an attempt's name everywhere; a lost trial is issued again under another one."""
    return f"{trial}-{attempt}"


def assignments_to_json(assignments: Sequence[Assignment]) -> str:
    return json.dumps([asdict(assignment) for assignment in assignments])


def assignments_from_json(text: str) -> list[Assignment]:
    return [Assignment(**values) for values in json.loads(text)]
