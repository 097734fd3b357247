"""Caches on disk: where they lie, how much they may take, which entries are in use, and which go first.

    <cache>/<key>/                tokenised data      held by index.json      `minbert.data.tokens`
    <cache>/stages/<key>/         results of stages   held by done.json       `minbert.stages.cache`
    <cache>/features/<key>/       features            held by values          `minbert.training.feature_cache`
    <cache>/checkpoints/<key>/    from object stores  held by done.json       `hpo.worker.checkpoints`

All of them can be computed, or downloaded, again. A process that opens an entry holds it until its own end by a shared
lock (`flock`) on one of the entry's files, whose modification time says when the entry was opened last. Eviction takes
the exclusive lock first: it leaves what a process uses, on NFS also one of another machine, unless the mount keeps
locks local.

Whoever adds to a cache shrinks all of them to their limit (`trim`), and whoever opens the data, as every worker does.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minbert.disk import age, bytes_on_disk, parse_size, remove

HOLDERS = {
    "tokenised data": "*/index.json",
    "stages": "stages/*/done.json",
    "features": "features/*/values",
    "checkpoints": "checkpoints/*/done.json",
}
"""Kind of entries -> pattern of the files that hold them, below the folder of caches."""
UNFINISHED = "unfinished stages"
"""Kind of the files `<cache>/stages/<key>.partial`, which the stage's lock file holds while it is computed."""

MOST_HELD = 64
"""Entries that a process holds at most, the ones opened last: each takes a file descriptor. A trial uses some ten."""
SHARE = 0.25
"""Part of their disk that the caches may take, unless MINBERT_CACHE_SIZE says how much."""
NEW = 60.0
"""Seconds for which `trim` leaves an entry: whoever has written it may not hold it yet."""
ABANDONED = 3600.0
"""Seconds without a change after which a temporary file of a cache is taken for that of a dead process."""

_held: dict[tuple[int, int], int] = {}
"""(Device, inode) of each file that this process holds -> its descriptor, the one used last at the end."""


def cache_folder() -> Path:
    """Folder of all caches: the variable MINBERT_CACHE, or `minbert` in the user's cache folder."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minbert"
    return Path(os.environ.get("MINBERT_CACHE") or fallback)


def largest(folder: Path) -> int:
    """Bytes that the caches in this folder may take. Raises ValueError if MINBERT_CACHE_SIZE is no size, and OSError
    for a folder that does not exist."""
    given = os.environ.get("MINBERT_CACHE_SIZE")
    try:
        return parse_size(given) if given else int(SHARE * shutil.disk_usage(folder).total)
    except ValueError as error:
        raise ValueError(f"`MINBERT_CACHE_SIZE` is wrong: {error}.") from error


def hold(file: Path) -> None:
    """Hold the entry that this file belongs to, and note that it is used now. Where the file does not exist, or the
    folder cannot be written or locked, nothing happens."""
    with contextlib.suppress(OSError):
        descriptor = os.open(file, os.O_RDONLY)
        facts = os.fstat(descriptor)
        if (held := _held.pop((facts.st_dev, facts.st_ino), None)) is not None:
            os.close(descriptor)
            descriptor = held
        _held[facts.st_dev, facts.st_ino] = descriptor
        if len(_held) > MOST_HELD:
            os.close(_held.pop(next(iter(_held))))
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.utime(file)


@dataclass(frozen=True)
class Cached:
    """An entry of a cache."""

    kind: str
    path: Path
    holder: Path
    """The file that processes lock while they use the entry."""
    size: int
    """Bytes on the disk."""
    used: float
    """When it was opened last, in seconds since 1970."""


def entries(folder: Path) -> list[Cached]:
    """All entries, least recently used first."""
    files = [(kind, file.parent, file) for kind, pattern in HOLDERS.items() for file in folder.glob(pattern)]
    files += [(UNFINISHED, file, file.with_suffix(".lock")) for file in folder.glob("stages/*.partial")]
    found = []
    for kind, path, holder in files:
        if not path.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):  # evicted by another process since the folder was listed
                used = (path if kind == UNFINISHED else holder).stat().st_mtime
                found.append(Cached(kind, path, holder, bytes_on_disk(path), used))
    return sorted(found, key=lambda entry: entry.used)


def trim(folder: Path) -> bool:
    """Shrink the caches to their limit, as far as processes do not use them; returns whether they are within it.

    Where the folder cannot be read or written, nothing happens. Of several processes at once one does the work. Raises
    ValueError as `largest` does.
    """
    with contextlib.suppress(OSError), _alone(folder):
        limit = largest(folder)
        taken = sum(entry.size for entry in entries(folder))
        if taken > limit:
            gone = evict(folder, limit, before=time.time() - NEW)
            return taken - sum(entry.size for entry in gone) <= limit
    return True


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder. Raises BlockingIOError if another process has it; without locks nothing is held."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # NFS locks no folder: several processes may evict more than they need to
            pass
        yield
    finally:
        os.close(descriptor)


def evict(folder: Path, limit: int, *, dry_run: bool = False, before: float = math.inf) -> list[Cached]:
    """Delete the entries that were used least recently, until the others take at most `limit` bytes. Entries in use
    stay, and those opened since `before`, in seconds since 1970. Returns those deleted; with `dry_run` nothing is
    deleted."""
    cached, evicted = entries(folder), []
    total = sum(entry.size for entry in cached)
    for entry in cached:
        if total <= limit or entry.used >= before:
            break
        if _evict(entry, dry_run):
            evicted.append(entry)
            total -= entry.size
    return evicted


def leftovers(folder: Path, now: float) -> list[Path]:
    """Temporary files and folders of dead processes. `now`: seconds since 1970."""
    hidden = [path for part in (".", "stages", "features", "checkpoints") for path in (folder / part).glob(".*")]
    return [path for path in hidden if age(path, now) > ABANDONED]


def _evict(entry: Cached, dry_run: bool) -> bool:
    """Delete an entry unless a process holds it. A rename comes first, so that readers see a whole entry or none."""
    try:
        descriptor = os.open(entry.holder, os.O_RDWR | (os.O_CREAT if entry.kind == UNFINISHED else 0))
    except FileNotFoundError:
        return False  # another process has evicted it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not dry_run:
            hidden = entry.path.with_name(f".{entry.path.name}.{secrets.token_hex(4)}.evicted")
            entry.path.rename(hidden)
            remove(hidden)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
