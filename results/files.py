"""Whole files or none: the only place that touches a file system.

On a local disk (and NFS) a file is written under a temporary name in its own directory, synced, and renamed; then the
directory is synced. A reader sees all of it or nothing, and what `write` has returned for survives the power cord. On
an object store the same is one PUT. Names that begin with a dot are temporaries and never listed.
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

from pyarrow import fs

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What may name a sweep, a key or an ensemble: no separator and no leading dot, so that no name leaves its folder."""


class StoreError(ValueError):
    """The store cannot do what was asked; the message says why and what would work."""


def safe_name(name: str, what: str) -> str:
    """The name itself, if it may be one."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise StoreError(
            f"{what} `{name}` is no name: expected letters, digits, `.`, `_` and `-`, a letter or digit first, "
            "at most 128 in all."
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
            reason += "; free some space, nothing that was acknowledged is lost"
        raise StoreError(f"Cannot {action} `{path}`: {reason}.") from error


@dataclass(frozen=True)
class Folder:
    """A folder of a file system, and the operations on it that the store needs."""

    filesystem: fs.FileSystem
    path: str

    @property
    def local(self) -> bool:
        """Whether this is a folder of the local machine (NFS included), where renaming and syncing are ours to do."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def child(self, name: str) -> Folder:
        """The folder of that name within this one."""
        return Folder(self.filesystem, f"{self.path}/{name}")

    def exists(self, name: str = "") -> bool:
        """Whether there is a file or folder of that name, or this folder itself."""
        return bool(self._info(name).type != fs.FileType.NotFound)

    def names(self) -> list[str]:
        """Files here, sorted; none if there is no such folder."""
        if self.local:  # five times as fast as asking for sizes and times too
            try:
                with os.scandir(self.path) as entries:
                    return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file())
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(info.base_name for info in self._children() if info.type == fs.FileType.File)

    def folders(self) -> list[str]:
        """Folders here, sorted."""
        return sorted(info.base_name for info in self._children() if info.type == fs.FileType.Directory)

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError if it has gone."""
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            content: bytes = stream.read()
        return content

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        """Write a whole file and make it durable. `new`: FileExistsError if it is there already (of two writers at the
        same instant one gets it; an object store can only look before it writes)."""
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
        """Delete a file; nothing happens if it has gone."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(f"{self.path}/{name}")

    def age(self, name: str, now: float) -> float:
        """Seconds since the file was written."""
        modified = self._info(name).mtime
        return now - modified.timestamp() if modified is not None else 0.0

    def make(self) -> None:
        """Create this folder, with those above it, and make it durable; nothing happens if it is there."""
        if not self.local:
            self.filesystem.create_dir(self.path, recursive=True)
        elif not os.path.isdir(self.path):
            os.makedirs(self.path, exist_ok=True)
            _sync_directory(os.path.dirname(self.path))

    def remove(self) -> None:
        """Delete this folder with all that is in it. It disappears at once, by a rename, and is emptied then."""
        if not self.local:
            self.filesystem.delete_dir(self.path)
            return
        parent, name = os.path.split(self.path)
        if os.path.islink(self.path):
            os.unlink(self.path)
            return
        grave = os.path.join(parent, f".{name}.{secrets.token_hex(4)}.removed")
        os.rename(self.path, grave)
        shutil.rmtree(grave)

    def sweep_temporaries(self, now: float, older: float) -> None:
        """Delete temporaries that a killed writer left `older` seconds ago or earlier."""
        if not self.local or not os.path.isdir(self.path):
            return
        for entry in os.scandir(self.path):
            with suppress(FileNotFoundError):
                if entry.name.startswith(".") and entry.name.endswith(".tmp") and now - entry.stat().st_mtime > older:
                    os.unlink(entry.path)

    def _info(self, name: str) -> fs.FileInfo:
        return self.filesystem.get_file_info(f"{self.path}/{name}" if name else self.path)

    def _children(self) -> list[fs.FileInfo]:
        found = self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return [info for info in found if not info.base_name.startswith(".")]


def locate(uri: str | Path, filesystem: fs.FileSystem | None = None) -> Folder:
    """The folder that a local path or a URI (`s3://bucket/runs`) names; `filesystem` makes `uri` a path in it."""
    if filesystem is not None:
        return Folder(filesystem, str(uri).rstrip("/"))
    if "://" not in str(uri):
        return Folder(fs.LocalFileSystem(), str(Path(uri).expanduser().absolute()))
    try:
        found, path = fs.FileSystem.from_uri(str(uri))
    except (ValueError, OSError) as error:
        raise StoreError(f"Store `{uri}` is neither a path nor a known URI (file, s3, gs, hdfs): {error}.") from error
    return Folder(found, path.rstrip("/"))


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
