"""Reasons for a launch to stop before its sweep is done: a signal, a stop request in the store, the time limit.

First reason (Ctrl-C, SIGTERM, `hpo stop`, `--time`): no new trials start, running ones write a checkpoint and pause,
and every result is recorded. Second signal: stop now, without waiting for running trials. Third signal: exit at once,
without any clean-up; Ray's processes notice within two seconds.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

from hpo.worker.paths import STOP

if TYPE_CHECKING:
    from results.files import Folder

LOOK = 0.5
"""Seconds between two checks for that file."""
ROOM = 30.0
"""Seconds of `--time` that are reserved for checkpoints; at most a tenth of it."""
PATIENCE = 120.0
"""Seconds that a stop waits for trials to pause, unless the launch says otherwise: a hung trial cannot delay it for
ever."""
RESUMABLE = 3
"""Exit code of a launch that stopped and can be resumed."""


class StopNow(KeyboardInterrupt):
    """Stop without waiting for running trials. Not an Exception, so that no handler on the way takes it for a
    failure."""


def request_stop(sweep: Folder) -> None:
    """Ask the driver of the sweep in this folder to stop, as Ctrl-C does. The driver may run on another machine."""
    sweep.write(STOP, b"")


class Halt:
    """Watches for the first reason to stop a launch."""

    def __init__(
        self, sweep: Folder, seconds: float | None, *, since: float = math.inf, started: float | None = None
    ) -> None:
        """`seconds`: time limit, counted from `started` (by `time.monotonic`; None: now). `since`: modification time of
        this generation's own file; an older stop request was meant for an earlier driver, and is deleted."""
        self._sweep = sweep
        with suppress(FileNotFoundError):
            if sweep.changed(STOP) < since:
                sweep.delete(STOP)
        began = time.monotonic() if started is None else started
        self._deadline = None if seconds is None else began + seconds - min(ROOM, seconds / 10)
        self._next_look = 0.0
        self._signals = 0
        self._reason: str | None = None

    @property
    def reason(self) -> str | None:
        """Why to stop; None: continue. Cheap enough for every turn of a loop."""
        if self._reason is None:
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline:
                self._reason = "the time is up"
            elif now >= self._next_look:
                self._next_look = now + LOOK
                with suppress(OSError):  # a store that does not answer now is asked again
                    if self._sweep.exists(STOP):
                        self._sweep.delete(STOP)
                        self._reason = "stop was requested"
        return self._reason

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Handle Ctrl-C and SIGTERM inside this context. Enter it after `ray.init`, which installs its own handlers."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; the calling program keeps its own
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
            raise StopNow
        else:
            os._exit(RESUMABLE)
