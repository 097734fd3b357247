"""Log file of a trial: everything that its process prints or logs while the trial runs.

Standard output and standard error are redirected at the level of file descriptors, so the file also holds the output of
C libraries and the traceback of a crashing process. A process runs one trial at a time; after the trial its descriptors
are restored.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
from pathlib import Path


class TrialLog:
    """Redirection of a process's output to a file: `open` starts it, `close` ends it. It can be opened again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved: tuple[int, int] | None = None
        self._handler: logging.Handler | None = None
        self._level = logging.NOTSET

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _flush()
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._saved = (os.dup(1), os.dup(2))
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
        faulthandler.enable(2)
        # The handler gets a new stream on descriptor 2, because Ray may have wrapped or replaced sys.stderr.
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
