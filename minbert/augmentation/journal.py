"""Journal file of finished batches, one JSON line each, which survives an interruption at any instant.

The first line holds the settings that the batches depend on. A line counts once its line end is on the disk; the next
reader cuts off a half-written line. A lock keeps two processes from writing one journal.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any


class JournalError(ValueError):
    """A journal that cannot be opened or continued."""


class Journal:
    """An open journal: `records` holds the batches finished earlier, `append` adds more."""

    def __init__(self, path: Path, settings: dict[str, Any], *, resume: bool) -> None:
        """Open or create a journal.

        Raises JournalError where it is in use, unwritable, damaged, of other settings, or unfinished without `resume`.
        """
        self.path = path
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise JournalError(f"{path} cannot be written: {error.strerror}.") from error
        try:
            self._lock()
            lines = self._read()
            self.records: list[dict[str, Any]] = lines[1:]
            if not self.records:  # no batch is finished, so the journal begins anew with the new settings
                self._file.truncate(0)
                self.append(settings)
            elif not resume:
                raise JournalError(
                    f"{path} belongs to an unfinished run; add --resume to continue, or delete it to begin anew."
                )
            else:
                _check_settings(path, lines[0], settings)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def append(self, record: dict[str, Any]) -> None:
        """Add a finished batch; it is on the disk when this returns."""
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Delete the journal, once the output is written."""
        self.path.unlink(missing_ok=True)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(f"{self.path} is in use by another process.") from error
        except OSError:
            return  # a file system without locks

    def _read(self) -> list[dict[str, Any]]:
        """Read the complete lines and cut off the rest."""
        self._file.seek(0)
        content = self._file.read()
        complete = content[: content.rfind(b"\n") + 1]
        self._file.truncate(len(complete))
        try:
            records = [json.loads(line) for line in complete.splitlines()]
        except ValueError as error:
            raise JournalError(f"{self.path} is damaged: {error}. Delete it to begin anew.") from error
        if not all(isinstance(record, dict) for record in records):
            raise JournalError(f"{self.path} is not a journal. Delete it to begin anew.")
        return records


def _check_settings(path: Path, stored: dict[str, Any], settings: dict[str, Any]) -> None:
    """Check that a journal was begun with the same settings. Raises JournalError."""
    current = json.loads(json.dumps(settings))  # as the stored ones: JSON turns tuples into lists
    for name in (*stored, *current):
        if stored.get(name) != current.get(name):
            raise JournalError(
                f"{path} was begun with {name} = {stored.get(name)}, found {current.get(name)}. "
                "Give the same options as before, or delete the journal to begin anew."
            )
