"""Log file of a trial: everything that its process prints or logs while the trial runs.

Standard output and standard error are redirected at the level of file descriptors, so the file also holds the output of
C libraries and the traceback of a crashing process. A process runs one trial at a time; after the trial its descriptors
are restored. In an object store the file is written as a whole every few seconds: what a killed process printed after
that is lost.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.cluster.processes import scratch
from hpo.worker.checkpoints import on_disk
from hpo.worker.paths import log_folder, log_name

if TYPE_CHECKING:
    from results.files import Folder

UPLOAD = 10.0
"""Seconds between two uploads of a log to an object store."""


class TrialLog:
    """Redirection of a process's output to a trial's log: `open` starts it, `close` ends it. It can be opened again."""

    def __init__(self, sweep: Folder, trial: int) -> None:
        self._folder, self._name = log_folder(sweep), log_name(trial)
        self._stack = ExitStack()
        """What `close` ends after the redirection."""
        self._saved: tuple[int, int] | None = None
        self._handler: logging.Handler | None = None
        self._level = logging.NOTSET

    def open(self) -> None:
        path = self._path()
        _flush()
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
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
        self._stack.close()

    def _path(self) -> Path:
        """The file on this machine. That of a log in an object store begins with what is there already."""
        self._folder.make()
        if (folder := on_disk(self._folder)) is not None:
            return folder / self._name
        path = self._stack.enter_context(scratch()) / self._name
        with suppress(FileNotFoundError):
            self._folder.download(self._name, path)
        uploads = _Uploads(self._folder, path)
        self._stack.callback(uploads.end)
        return path


class _Uploads:
    """Uploads a file again and again while it grows."""

    def __init__(self, folder: Folder, path: Path) -> None:
        self._folder, self._path = folder, path
        self._size = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hpo-log", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(UPLOAD):
            self._upload()

    def _upload(self) -> None:
        with suppress(OSError):  # a trial must not fail because its log cannot be stored
            content = self._path.read_bytes()
            if len(content) > self._size:
                self._folder.write(self._path.name, content)
                self._size = len(content)

    def end(self) -> None:
        """Stop, after a last upload."""
        self._end.set()
        self._thread.join()
        self._upload()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
