"""Files and folders of a store: atomic writes. Only this module touches a file system.

On a local disk (and NFS) `write` writes a temporary file in the same directory, syncs it, renames it, and syncs the
directory. Readers see the whole file or no file, and once `write` has returned, the file survives a power failure. On
an object store one PUT does the same. Names that begin with a dot are temporary files, which are never listed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

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
class Folder:
    """A folder on a local disk or in an object store, with the operations that the store needs."""

    filesystem: fs.FileSystem
    path: str

    @property
    def local(self) -> bool:
        """Whether the folder is on this machine (NFS included), where files can be renamed and synced."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def child(self, name: str) -> Folder:
        """The folder `name` inside this folder."""
        return Folder(self.filesystem, f"{self.path}/{name}")

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder `name` exists here; without a name, whether this folder exists."""
        return bool(self._info(name).type != fs.FileType.NotFound)

    def names(self) -> list[str]:
        """Names of the files here, sorted; empty if the folder does not exist."""
        if self.local:  # five times as fast as pyarrow, which also asks for sizes and times
            try:
                with os.scandir(self.path) as entries:
                    return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(info.base_name for info in self._children() if info.type == fs.FileType.File)

    def folders(self) -> list[str]:
        """Names of the folders here, sorted; empty if this folder does not exist."""
        return sorted(info.base_name for info in self._children() if info.type == fs.FileType.Directory)

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError if the file does not exist."""
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            content: bytes = stream.read()
        return content

    def open(self, name: str) -> pa.NativeFile:
        """A file to read parts of; a context manager. Raises FileNotFoundError if the file does not exist."""
        return self.filesystem.open_input_file(f"{self.path}/{name}")

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Write a whole file and make it durable.

        With `new` an existing file raises FileExistsError. On a local disk exactly one of two simultaneous writers
        succeeds; an object store can only check before it writes.
        """
        if not self.local:
            if new and self.exists(name):
                raise FileExistsError(errno.EEXIST, "File exists", f"{self.path}/{name}")
            with self.filesystem.open_output_stream(f"{self.path}/{name}") as stream:
                stream.write(content)
            return
        target = os.path.join(self.path, name)
        temporary = os.path.join(self.path, f".{name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            _write_synced(temporary, content)
            if new:
                os.link(temporary, target)
            else:
                os.replace(temporary, target)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_directory(self.path)

    def delete(self, name: str) -> None:
        """Delete a file; a missing file is no error."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(f"{self.path}/{name}")

    def age(self, name: str, now: float) -> float:
        """Seconds from the file's last change to `now`; 0 if the file system does not tell the time of the change."""
        modified = self._info(name).mtime
        return now - modified.timestamp() if modified is not None else 0.0

    def make(self) -> None:
        """Create this folder with its parents and make it durable; an existing folder is no error."""
        if not self.local:
            self.filesystem.create_dir(self.path, recursive=True)
        elif not os.path.isdir(self.path):
            os.makedirs(self.path, exist_ok=True)
            _sync_directory(os.path.dirname(self.path))

    def remove(self) -> None:
        """Delete this folder with its content. On a local disk a rename hides the folder first, then it is emptied.

        A symbolic link is removed without its target.
        """
        if not self.local:
            self.filesystem.delete_dir(self.path)
            return
        parent, name = os.path.split(self.path)
        if os.path.islink(self.path):
            os.unlink(self.path)
            return
        hidden = os.path.join(parent, f".{name}.{secrets.token_hex(4)}.removed")
        os.rename(self.path, hidden)
        shutil.rmtree(hidden)

    def delete_temporaries(self, now: float, older: float) -> None:
        """Delete the temporary files that a killed writer left more than `older` seconds ago."""
        if not self.local or not os.path.isdir(self.path):
            return
        for entry in os.scandir(self.path):
            with suppress(FileNotFoundError):
                if entry.name.startswith(".") and entry.name.endswith(".tmp") and now - entry.stat().st_mtime > older:
                    os.unlink(entry.path)

    def _info(self, name: str) -> fs.FileInfo:
        return self.filesystem.get_file_info(f"{self.path}/{name}" if name else self.path)

    def _children(self) -> list[fs.FileInfo]:
        infos = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return [info for info in infos if not info.base_name.startswith(".")]


def locate(uri: str | Path, filesystem: fs.FileSystem | None = None) -> Folder:
    """The folder at a local path or a URI (`s3://bucket/runs`). With `filesystem`, `uri` is a path inside that one."""
    if filesystem is not None:
        return Folder(filesystem, str(uri).rstrip("/"))
    if "://" not in str(uri):
        return Folder(fs.LocalFileSystem(), str(Path(uri).expanduser().absolute()))
    try:
        located, path = fs.FileSystem.from_uri(str(uri))
    except (ValueError, OSError) as error:
        raise StoreError(f"Store `{uri}` is neither a path nor a known URI (file, s3, gs, hdfs): {error}.") from error
    return Folder(located, path.rstrip("/"))


def _write_synced(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
