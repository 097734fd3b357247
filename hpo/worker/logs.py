"""A log file per trial: everything its process prints or logs while the trial runs on it.

Standard output and error are redirected at the level of file descriptors, so that what C libraries print, and the
last words of a crashing process, are there too. One trial runs in a process at a time; the descriptors go back when
it leaves.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from pathlib import Path


class TrialLog:
    """`open` starts the redirection, `close` ends it; both may be called again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: tuple[int, int] | None = None
        self._handler: logging.Handler | None = None
        self._level = logging.NOTSET

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _flush()
        target = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._saved = (os.dup(1), os.dup(2))
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)
        faulthandler.enable(2)
        # A stream of its own on descriptor 2: Ray may have wrapped or replaced sys.stderr.
        self._handler = logging.StreamHandler(os.fdopen(os.dup(2), "w", buffering=1))
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.INFO)
        root.addHandler(self._handler)

    def close(self) -> None:
        if self._saved is None or self._handler is None:
            return
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._level)
        self._handler.close()
        if isinstance(self._handler, logging.StreamHandler):
            self._handler.stream.close()
        _flush()
        for descriptor, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)
        self._saved = self._handler = None


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
