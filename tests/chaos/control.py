"""Files by which the test commands its drivers and workers, and in which these note what they do.

They lie in a folder that all hosts share and that no fault touches; the environment variable `CHAOS` names it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = "CHAOS"
SLOW = "slow"
"""File with the seconds that every fsync takes longer."""
NAN = "nan"
"""Beginning of the names of files that give trials NaN weights: `nan-3` waits for a trial, `nan-3-of-17` has one."""
BROKEN = "broken-"
"""Beginning of the name of the file of a host whose device is in an error state."""
CLOCK = "clock-"
"""Beginning of the name of the file of a host whose clock has jumped; it holds the seconds by which it is wrong."""


def folder() -> Path:
    return Path(os.environ[FOLDER])


def note(name: str, **values: Any) -> None:
    """Append a line to the notes `name`. What was noted survives the death of the process."""
    with (folder() / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps(values) + "\n")


def notes(name: str) -> list[dict[str, Any]]:
    """The lines of the notes `name`; a line that a killed process left half written is skipped."""
    path = folder() / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def slow_down_fsync() -> None:
    """Make every later fsync of this process wait as long as the file `SLOW` says."""
    genuine: Callable[[int], None] = os.fsync

    def fsync(descriptor: int) -> None:
        path = folder() / SLOW
        time.sleep(float(path.read_text() or 0) if path.exists() else 0.0)
        genuine(descriptor)

    os.fsync = fsync  # type: ignore[assignment]


def follow_clock() -> None:
    """Let this process tell the time of its host's clock, as the files `CLOCK` say. The clock that stamps files and the
    one that measures durations do not jump."""
    genuine, path = time.time, folder() / f"{CLOCK}{socket.gethostname()}"

    def now() -> float:
        with suppress(OSError, ValueError):
            return genuine() + float(path.read_text())
        return genuine()

    setattr(time, "time", now)  # noqa: B010


def poisoned(trial: int) -> bool:
    """Whether this trial trains with NaN weights: it has a file, or takes one that waits."""
    if any(folder().glob(f"{NAN}-*-of-{trial}")):
        return True
    for path in sorted(folder().glob(f"{NAN}-*")):
        if "-of-" not in path.name:
            with suppress(FileNotFoundError):  # another trial was faster
                path.rename(path.with_name(f"{path.name}-of-{trial}"))
                return True
    return False


def poisoned_trials() -> set[int]:
    """The trials that trained with NaN weights."""
    return {int(path.name.rpartition("-")[2]) for path in folder().glob(f"{NAN}-*-of-*")}
