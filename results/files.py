"""Files and folders of a store, wherever it lies: one interface, `Folder`, with one class for each kind of place.

A file becomes visible whole or not at all, and once `write` has returned it survives a power failure. With `new`
exactly one of several simultaneous writers of a name succeeds.

    Disk      local disk or NFS: temporary file in the same directory, fsync, rename or link, fsync of the directory
    Bucket    object store (`results.objects`): one PUT, with a condition if the object must be new

Names that begin with a dot are temporary files, which are never listed. Only these two modules touch a file system.

NFS differs from a local disk in three ways. A client may list a folder from its memory for up to a minute: `refresh`
ends this. A call whose answer was lost is sent again, and then fails although it has succeeded: `write` looks whether
its own file is there. Errors of a full disk come at fsync or close: both are waited for.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

import pyarrow as pa

Answer = TypeVar("Answer")

LEFT = re.compile(r"\..*\.(tmp|removed)")
"""Pattern for names of temporary files, and of folders that are being removed."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""Pattern for names of sweeps, keys and ensembles: no separator and no leading dot, so no name leaves its folder."""


class StoreError(ValueError):
    """An error of the store; the message says why a request failed and what would work."""


def safe_name(name: str, what: str) -> str:
    """The name itself. Raises StoreError if `NAME` does not match it; `what` says in the message what it names."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise StoreError(
            f"{what} `{name}` is not allowed: expected at most 128 letters, digits, `.`, `_` and `-`, "
            "a letter or digit first."
        )
    return name


@contextmanager
def explained(action: str, path: object) -> Iterator[None]:
    """Turn an OSError into a StoreError that names the path and the system's reason."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            reason += "; free some space, no acknowledged row is lost"
        raise StoreError(f"Cannot {action} `{path}`: {reason}.") from error


@dataclass(frozen=True)
class Folder(ABC):
    """A folder of a store, with the operations that the store needs."""

    path: str
    """Absolute path on this machine, or URI: the folder's identity, and its name in messages."""

    def child(self, name: str) -> Self:
        """The folder `name` inside this folder."""
        return replace(self, path=f"{self.path}/{name}")

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether a file `name` exists here."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the files here, sorted; empty if the folder does not exist."""

    @abstractmethod
    def folders(self) -> list[str]:
        """Names of the folders here, sorted; empty if this folder does not exist."""

    @abstractmethod
    def refresh(self) -> None:
        """Let the next `names` show every file that was complete before this call, on any machine.

        A reader does without: what it misses, it sees a minute later. Whoever decides by a listing calls this first.
        """

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError if the file does not exist."""

    @abstractmethod
    def open(self, name: str) -> pa.NativeFile:
        """A file to read parts of; a context manager. Raises FileNotFoundError if the file does not exist."""

    @abstractmethod
    def map(self, function: Callable[[str], Answer], names: Iterable[str]) -> Iterator[Answer]:
        """`function` of each name, in order: one after the other on a disk, several at a time where each call waits for
        a network. `names` may be a generator that looks at earlier answers; then it should only save work by this."""

    @abstractmethod
    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Write a whole file and make it durable.

        With `new` an existing file raises FileExistsError; exactly one of several simultaneous writers succeeds.
        """

    @abstractmethod
    def upload(self, name: str, source: Path) -> None:
        """Copy a file of this machine here, whole and durable."""

    @abstractmethod
    def download(self, name: str, target: Path) -> None:
        """Copy a file to this machine. Raises FileNotFoundError if the file does not exist."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Delete a file; a missing file is no error."""

    @abstractmethod
    def changed(self, name: str) -> float:
        """When a file was last changed, in seconds since 1970 by the clock of `clock`. Raises FileNotFoundError if the
        file does not exist."""

    @abstractmethod
    def touch(self, name: str, *, past: bool = False) -> None:
        """Let a file count as changed now; with `past`, where that is possible, as changed very long ago. Raises
        FileNotFoundError if the file does not exist."""

    @abstractmethod
    def clock(self) -> float:
        """The time in seconds since 1970, by the clock that stamps the files here; by this machine's clock if nothing
        can be written here."""

    def age(self, name: str, now: float) -> float:
        """Seconds from the file's last change to `now`; 0 if the file does not exist."""
        try:
            return now - self.changed(name)
        except FileNotFoundError:
            return 0.0

    @abstractmethod
    def make(self) -> None:
        """Create this folder with its parents and make it durable; an existing folder is no error."""

    @abstractmethod
    def remove(self) -> None:
        """Delete this folder with its content; its name is free once this has returned."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes that a file, or a folder with all in it, takes; 0 if it does not exist."""

    @abstractmethod
    def discard(self, name: str) -> None:
        """Delete a file, or a folder with all in it; a missing one is no error."""

    @abstractmethod
    def temporaries(self, now: float, older: float) -> list[str]:
        """Names of the temporary files, and of half removed folders, that a killed process left more than `older`
        seconds ago."""


@dataclass(frozen=True)
class Disk(Folder):
    """A folder on a local disk or on NFS."""

    def exists(self, name: str) -> bool:
        try:
            os.stat(self._at(name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def names(self) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def folders(self) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
        except FileNotFoundError:
            return []

    def refresh(self) -> None:
        # An NFS client forgets what it knows of a directory as soon as it changes the directory itself and learns from
        # the answer that others have changed it too. On a local disk this costs some microseconds.
        probe = self._at(f".{secrets.token_hex(8)}.tmp")
        with suppress(FileNotFoundError):
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.unlink(probe)

    def read(self, name: str) -> bytes:
        with open(self._at(name), "rb", buffering=0) as file:
            return file.read()

    def open(self, name: str) -> pa.NativeFile:
        return pa.OSFile(self._at(name))

    def map(self, function: Callable[[str], Answer], names: Iterable[str]) -> Iterator[Answer]:
        return map(function, names)

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        target, temporary = self._at(name), self._at(_temporary(name))
        try:
            _write_synced(temporary, content)
            if new:
                _link(temporary, target)
            else:
                os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync(self.path)

    def upload(self, name: str, source: Path) -> None:
        target, temporary = self._at(name), self._at(_temporary(name))
        try:
            shutil.copyfile(source, temporary)
            _sync(temporary)
            os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync(self.path)

    def download(self, name: str, target: Path) -> None:
        shutil.copyfile(self._at(name), target)

    def delete(self, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._at(name))

    def changed(self, name: str) -> float:
        return os.stat(self._at(name)).st_mtime

    def touch(self, name: str, *, past: bool = False) -> None:
        os.utime(self._at(name), (0.0, 0.0) if past else None)

    def clock(self) -> float:
        try:
            with tempfile.TemporaryFile(dir=self.path) as probe:
                return os.fstat(probe.fileno()).st_mtime
        except OSError:
            return time.time()

    def make(self) -> None:
        missing, path = [], self.path
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):  # each name must survive a power failure, not only the last
            with suppress(FileExistsError):
                os.mkdir(folder)
            _sync(os.path.dirname(folder))

    def remove(self) -> None:
        """Delete the folder: a rename hides it first, then it is emptied. A symbolic link goes without its target."""
        parent, name = os.path.split(self.path)
        if os.path.islink(self.path):
            os.unlink(self.path)
            return
        hidden = os.path.join(parent, f".{name}.{secrets.token_hex(4)}.removed")
        os.rename(self.path, hidden)
        shutil.rmtree(hidden)

    def size(self, name: str) -> int:
        return _bytes_on_disk(self._at(name))

    def discard(self, name: str) -> None:
        path = self._at(name)
        if os.path.isdir(path) and not os.path.islink(path):
            self.child(name).remove()
        else:
            self.delete(name)

    def temporaries(self, now: float, older: float) -> list[str]:
        try:
            with os.scandir(self.path) as entries:
                names = [entry.name for entry in entries if LEFT.fullmatch(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in names if self.age(name, now) > older)

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"


def _temporary(name: str) -> str:
    return f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"


def _bytes_on_disk(path: str) -> int:
    """Bytes on the disk; holes of sparse files take none."""
    try:
        own = os.lstat(path).st_blocks * 512
        if os.path.islink(path) or not os.path.isdir(path):
            return own
        return own + sum(_bytes_on_disk(os.path.join(path, inner)) for inner in os.listdir(path))
    except FileNotFoundError:
        return 0


def _link(temporary: str, target: str) -> None:
    """Give a file a second name, which must not exist. An NFS server whose first answer was lost says that it exists;
    then the file has both names."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        if os.stat(temporary).st_nlink < 2:
            raise


def _write_synced(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: str) -> None:
    """Flush a file's content, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
