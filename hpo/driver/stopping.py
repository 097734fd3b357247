"""When a launch should stop before its sweep is done: a signal, a request left in the store, the time.

Once (Ctrl-C, SIGTERM, `hpo stop`, `--time`): no new trials, running ones write a checkpoint and pause, everything is
recorded. A second signal: now. A third: this instant, without a word to anybody (Ray's processes notice within two
seconds).
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

STOP_FILE = "stop-request"
"""In a sweep's folder: `hpo stop` leaves it, the driver takes it away."""
LOOK = 0.5
"""Seconds between two looks at that file."""
ROOM = 30.0
"""Seconds of `--time` that are left for checkpoints, at most a tenth of it."""
RESUMABLE = 3
"""Exit code of a launch that stopped and can be resumed."""


class Now(KeyboardInterrupt):
    """The second signal. Not an Exception, so that nothing on the way takes it for a failure."""


def request_stop(sweep: Path) -> None:
    """Ask the driver of the sweep in this folder, wherever it runs, to stop as after one Ctrl-C."""
    (sweep / STOP_FILE).touch()


class Halt:
    """Says why to stop, once there is a reason."""

    def __init__(
        self, sweep: Path, seconds: float | None, *, since: float = math.inf, started: float | None = None
    ) -> None:
        """`seconds` count from `started` (of `time.monotonic`, now if left out). Requests whose file is older than
        `since`, the modification time of this generation's own file, were meant for a driver that is gone."""
        self._file = sweep / STOP_FILE
        with suppress(FileNotFoundError):
            if self._file.stat().st_mtime < since:
                self._file.unlink()
        began = time.monotonic() if started is None else started
        self._deadline = None if seconds is None else began + seconds - min(ROOM, seconds / 10)
        self._next_look = 0.0
        self._signals = 0
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """None: go on. Cheap enough for every turn of a loop."""
        if self._reason is None:
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline:
                self._reason = "the time is up"
            elif now >= self._next_look:
                self._next_look = now + LOOK
                if self._file.exists():
                    self._file.unlink(missing_ok=True)
                    self._reason = "stop was requested"
        return self._reason

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM are ours inside. Enter it after `ray.init`, which installs handlers of its own."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals; the program around us keeps its own way
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals == 1:
            self._reason = f"{signal.Signals(number).name} arrived"
        elif self._signals == 2:
            raise Now
        else:
            os._exit(RESUMABLE)
