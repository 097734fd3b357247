"""Where a trial stands in its stages before training: a small file that its worker writes and displays read.

No row of the store: nothing is decided by it, and losing it loses nothing. A trial has one until its first optimiser
step; what a worker that died has left is looked at no more once the trial reports or ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

EVERY = 0.5
"""Seconds between two writes within a stage."""


class Stage(NamedTuple):
    """A stage of one trial."""

    kind: str
    """mlm, nli or mnrl."""
    done: int
    """Optimiser steps so far."""
    total: int
    """Steps in all; 0: another trial computes the same, this one waits for it."""

    def __str__(self) -> str:
        name = self.kind.upper()
        return f"{name} {self.done:,}/{self.total:,}" if self.total else f"waits for another's {name}"


class StageFile:
    """The file of one trial: called with every step of a stage, gone after `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told = ("", 0)
        self._next = 0.0

    def __call__(self, kind: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._told == (kind, total) and now < self._next:
            return
        self._told, self._next = (kind, total), now + EVERY
        part = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):  # a picture is not worth a trial
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps([kind, done, total]))
            os.replace(part, self._path)

    def close(self) -> None:
        """The stages are over, or the trial is."""
        if self._told[0]:
            self._told = ("", 0)
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)


def stage_file(sweep: Path, trial: int) -> Path:
    return sweep / "stages" / f"{trial}.json"


def stages_of(sweep: Path, trials: Iterable[int]) -> dict[int, Stage]:
    """The stages that these trials are in, as their workers last wrote them; trials without a file are left out."""
    found: dict[int, Stage] = {}
    for trial in trials:
        with contextlib.suppress(OSError, ValueError, TypeError):
            found[trial] = Stage(*json.loads(stage_file(sweep, trial).read_text()))
    return found
