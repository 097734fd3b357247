"""A list of finished pieces of work in a file, one JSON line each, that survives an interruption at any instant.

The first line holds the settings that the work depends on. A line counts once its line end is on the disk; what a
kill left half-written is cut off by the next reader. A lock keeps two processes from writing one journal.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any


class JournalError(ValueError):
    """A journal that cannot be continued."""


class Journal:
    """An open journal: what was finished before, and a place for more."""

    def __init__(self, path: Path, settings: dict[str, Any], *, resume: bool) -> None:
        """Open or begin a journal. Raises JournalError where it is there and must not, is another's or in use."""
        self.path = path
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error.strerror}.") from error
        try:
            self._lock()
            self.records: list[dict[str, Any]] = self._read()
            begun_with, self.records = self.records[:1], self.records[1:]
            if not self.records:  # nothing was finished: whatever it was begun with, it begins anew
                self._file.truncate(0)
                self.append(settings)
            elif not resume:
                raise JournalError(
                    f"{path} is of an unfinished run; add --resume to go on, or delete it to begin anew."
                )
            else:
                _agree(path, begun_with[0], settings)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def append(self, record: dict[str, Any]) -> None:
        """Add a piece of work; it is durable when this returns."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def remove(self) -> None:
        """The work is done and stands elsewhere."""
        self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(f"{self.path} is in use by another process.") from error
        except OSError:
            return  # a file system that has no locks: then it goes without

    def _read(self) -> list[dict[str, Any]]:
        """The complete lines; whatever follows them is cut off."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(whole))
        try:
            records = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise JournalError(f"{self.path} is damaged: {error}. Delete it to begin anew.") from error
        if not all(isinstance(record, dict) for record in records):
            raise JournalError(f"{self.path} is no journal. Delete it to begin anew.")
        return records


def _agree(path: Path, stored: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise where a journal was begun with other settings."""
    # Through JSON, as the stored ones: tuples become lists.
    wanted = json.loads(json.dumps(settings))
    for name in (*stored, *wanted):
        if stored.get(name) != wanted.get(name):
            raise JournalError(
                f"{path} was begun with {name} = {stored.get(name)}, found {wanted.get(name)}. "
                "Give the same options as before, or delete it to begin anew."
            )
