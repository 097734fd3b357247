"""Progress of a trial in its stages before training: a small file that the worker writes and displays read.

It is no row of the store, because no decision depends on it. The file exists until the trial's first optimiser step. A
dead worker may leave its file behind; displays ignore it once the trial has reported or ended.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from hpo.worker.paths import stage_folder, stage_name

if TYPE_CHECKING:
    from results.files import Folder

EVERY = 2.0
"""Seconds between two writes within a stage."""


class StageProgress(NamedTuple):
    """Progress of one trial in one stage."""

    kind: str
    """mlm, nli or mnrl."""
    done: int
    """Optimiser steps so far."""
    total: int
    """Optimiser steps of the stage; 0: the trial waits for another trial that computes the same stage."""

    def __str__(self) -> str:
        name = self.kind.upper()
        return f"{name} {self.done:,}/{self.total:,}" if self.total else f"waits for another's {name}"


class StageFile:
    """The progress file of one trial. A call with every step of a stage writes it, `close` removes it."""

    def __init__(self, sweep: Folder, trial: int) -> None:
        self._folder, self._name = stage_folder(sweep), stage_name(trial)
        self._written = ("", 0)  # kind and total of the last write
        self._next = 0.0

    def __call__(self, kind: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._written == (kind, total) and now < self._next:
            return
        self._written, self._next = (kind, total), now + EVERY
        with contextlib.suppress(OSError):  # a trial must not fail because its progress cannot be shown
            self._folder.make()
            self._folder.write(self._name, json.dumps([kind, done, total]).encode())

    def close(self) -> None:
        """Remove the file, at the end of the stages or of the trial."""
        if self._written[0]:
            self._written = ("", 0)
            with contextlib.suppress(OSError):
                self._folder.delete(self._name)


def stages_of(sweep: Folder, trials: Iterable[int]) -> dict[int, StageProgress]:
    """Trial -> progress in its stage, as its worker last wrote it; trials without a readable file are left out."""
    folder = stage_folder(sweep)
    stages: dict[int, StageProgress] = {}
    there = set(folder.names())
    for trial in (trial for trial in trials if stage_name(trial) in there):
        with contextlib.suppress(OSError, ValueError, TypeError):
            stages[trial] = StageProgress(*json.loads(folder.read(stage_name(trial))))
    return stages
