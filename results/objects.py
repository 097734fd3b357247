"""Object stores: a folder is a prefix of keys, a file is an object, and one PUT makes it visible whole and durable.

Whether an object must be new is decided by the store itself, in a conditional PUT (`If-None-Match: *`). Each such PUT
carries a mark of its own. A PUT whose answer was lost is sent again; if the object is then there already, the mark says
whether it is ours. So a repeated request neither writes twice nor takes its own object for that of a rival. A PUT that
may overwrite can be repeated as it is: the same name gets the same bytes.

An object store lists what is there, not what it remembers, so `refresh` has nothing to do.

Access follows the environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION and
AWS_ENDPOINT_URL, or the role of the machine. Files such as ~/.aws/credentials are not read.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, PermissionDeniedError, UnauthenticatedError

from results.files import Answer, Folder

if TYPE_CHECKING:
    from obstore import ListResult, ObjectMeta
    from obstore.store import ObjectStore

TIMEOUT = 30.0
"""Seconds that one request may take; then it is sent again."""
PATIENCE = 60.0
"""Seconds after which a request that fails (5xx answers, broken connections) is not sent again."""
ATTEMPTS = 4
"""Number of times that a conditional PUT is sent. The client does not repeat one whose connection broke."""
PAUSE = 0.2
"""Seconds before it is sent again; doubled each time."""
CHUNK = 16 << 20
"""Bytes of a download that are in memory at a time."""
PARALLEL = 32
"""Number of requests at a time: each waits some ten milliseconds for the network."""
MARK = "writer"
"""Name of the attribute of an object that holds the mark of the conditional PUT that created it."""


def connect(bucket: str) -> ObjectStore:
    """A client for a bucket in S3, or behind the endpoint that AWS_ENDPOINT_URL names."""
    from obstore.store import S3Store

    endpoint = os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT") or ""
    return S3Store(
        bucket,
        client_options={"timeout": timedelta(seconds=TIMEOUT), "allow_http": endpoint.startswith("http://")},
        retry_config={"retry_timeout": timedelta(seconds=PATIENCE)},
    )


@dataclass(frozen=True)
class Bucket(Folder):
    """A prefix of keys in an object store."""

    store: ObjectStore
    root: str
    """URI of the bucket, with which the folder's path begins."""

    @property
    def prefix(self) -> str:
        """The keys of the folder's objects begin with it and a slash; empty for the bucket itself."""
        return self.path[len(self.root) + 1 :]

    def exists(self, name: str) -> bool:
        with self._named(name):
            try:
                obstore.head(self.store, self._key(name))
            except FileNotFoundError:
                return False
        return True

    def names(self) -> list[str]:
        return self._sorted(str(entry["path"]) for entry in self._listed()["objects"])

    def folders(self) -> list[str]:
        return self._sorted(str(prefix) for prefix in self._listed()["common_prefixes"])

    def refresh(self) -> None:
        """Nothing: a listing shows every object whose PUT was answered before."""

    def read(self, name: str) -> bytes:
        with self._named(name):
            return bytes(obstore.get(self.store, self._key(name)).bytes())

    def open(self, name: str) -> pa.NativeFile:
        with self._named(name):
            return pa.PythonFile(_Ranges(self.store, self._key(name)), mode="r")

    def map(self, function: Callable[[str], Answer], names: Iterable[str]) -> Iterator[Answer]:
        known = list(names)
        if not known:
            return
        with ThreadPoolExecutor(min(PARALLEL, len(known)), thread_name_prefix="store-objects") as pool:
            yield from pool.map(function, known)

    def write(self, name: str, content: bytes, *, new: bool = False) -> None:
        with self._named(name):
            if new:
                self._create(name, content)
            else:
                obstore.put(self.store, self._key(name), content, use_multipart=False)

    def upload(self, name: str, source: Path) -> None:
        with self._named(name):
            obstore.put(self.store, self._key(name), source)  # in parts where it is large

    def download(self, name: str, target: Path) -> None:
        with self._named(name), target.open("wb") as file:
            for chunk in obstore.get(self.store, self._key(name)).stream(CHUNK):
                file.write(chunk)

    def delete(self, name: str) -> None:
        with self._named(name), suppress(FileNotFoundError):
            obstore.delete(self.store, self._key(name))

    def changed(self, name: str) -> float:
        with self._named(name):
            return obstore.head(self.store, self._key(name))["last_modified"].timestamp()

    def touch(self, name: str, *, past: bool = False) -> None:
        """Write the object again: a store alone says when an object was written, so `past` changes nothing."""
        if not past:
            self.write(name, self.read(name))

    def clock(self) -> float:
        probe = f".{secrets.token_hex(8)}.tmp"
        try:
            self.write(probe, b"")
            now = self.changed(probe)
            self.delete(probe)
        except OSError:
            return time.time()
        return now

    def make(self) -> None:
        """Nothing: a folder is there as soon as an object is in it."""

    def remove(self) -> None:
        """Delete the objects: those in inner folders first. If this is interrupted, it can be repeated: the files that
        say what the folder is are still there."""
        with self._named(""):
            keys = [str(entry["path"]) for page in obstore.list(self.store, self.prefix) for entry in page]
            depth = self.prefix.count("/") + 1
            inner = [key for key in keys if key.count("/") > depth]
            obstore.delete(self.store, inner)
            obstore.delete(self.store, sorted(set(keys) - set(inner)))

    def size(self, name: str) -> int:
        with self._named(name):
            below = [entry for page in obstore.list(self.store, self._key(name)) for entry in page]
            try:
                own = int(obstore.head(self.store, self._key(name))["size"])
            except FileNotFoundError:
                own = 0
        return own + sum(int(entry["size"]) for entry in below)

    def discard(self, name: str) -> None:
        self.delete(name)
        self.child(name).remove()

    def temporaries(self, now: float, older: float) -> list[str]:
        """None: an interrupted PUT leaves nothing behind."""
        return []

    def _create(self, name: str, content: bytes) -> None:
        mark = secrets.token_hex(16)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                key = self._key(name)
                obstore.put(self.store, key, content, mode="create", attributes={MARK: mark}, use_multipart=False)
                return
            except AlreadyExistsError:
                owner = self._mark(name)
                if owner == mark:
                    return  # an earlier request has succeeded, but its answer was lost
                if owner is not None or attempt == ATTEMPTS:
                    raise FileExistsError(errno.EEXIST, "File exists", f"{self.path}/{name}") from None
            except GenericError:
                if attempt == ATTEMPTS:
                    raise
            time.sleep(PAUSE * 2 ** (attempt - 1))

    def _mark(self, name: str) -> str | None:
        """The mark of an object; None if there is no object: the store refused because of a rival that then failed."""
        try:
            return obstore.get(self.store, self._key(name)).attributes.get(MARK, "")
        except FileNotFoundError:
            return None

    def _listed(self) -> ListResult[Sequence[ObjectMeta]]:
        with self._named(""):
            return obstore.list_with_delimiter(self.store, self.prefix or None)

    def _sorted(self, keys: Iterable[str]) -> list[str]:
        """The last parts of keys. The object that some tools create for a folder has the folder's own key."""
        names = (key.rpartition("/")[2] for key in keys if key != self.prefix)
        return sorted(name for name in names if not name.startswith("."))

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}".lstrip("/")

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Turn the client's errors into an OSError that names the object."""
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError) as error:
            reason = f"permission denied; check the AWS_... variables ({_first(error)})"
            raise PermissionError(errno.EACCES, reason, f"{self.path}/{name}") from error
        except BaseError as error:
            raise OSError(errno.EIO, _first(error), f"{self.path}/{name}") from error


class _Ranges(io.RawIOBase):
    """An object as a file: each reading is one request for the bytes of that range."""

    def __init__(self, store: ObjectStore, key: str) -> None:
        self._store, self._key, self._place = store, key, 0
        self._size = int(obstore.head(store, key)["size"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1, /) -> bytes:
        end = self._size if size < 0 else min(self._place + size, self._size)
        if end <= self._place:
            return b""
        content = bytes(obstore.get_range(self._store, self._key, start=self._place, end=end))
        self._place += len(content)
        return content


def _first(error: BaseError) -> str:
    """The first line of a message of the client, which goes on with its source code."""
    return str(error).partition("\n")[0].removeprefix("Generic S3 error: ")
