"""The checkpoints of a trial where the sweep's store lies.

On a disk training writes them there. In an object store it writes to a folder of this machine: each complete checkpoint
is uploaded before a report names it, and whoever continues or predicts from one downloads it first. `done.json` comes
last and goes first, so that a checkpoint which has it is whole.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.cluster.processes import scratch
from minbert import caches
from minbert.disk import remove
from minbert.training import checkpoints

if TYPE_CHECKING:
    from results.files import Folder


def on_disk(folder: Folder) -> Path | None:
    """The folder as a path of this machine; None: it lies in an object store."""
    from results.files import Disk

    return Path(folder.path) if isinstance(folder, Disk) else None


def complete(folder: Folder) -> list[str]:
    """Names of the complete checkpoints of a trial, oldest first: by step, then by attempt."""
    known = sorted((order, name) for name in folder.folders() if (order := checkpoints.order_of(name)))
    return [name for _, name in known if folder.child(name).exists(checkpoints.DONE)]


def delete(folder: Folder, name: str) -> None:
    """Delete a checkpoint, or the checkpoints of a trial; a reader sees each whole or not at all."""
    if on_disk(folder) is None:
        place = folder.child(name)
        for inner in (place, *map(place.child, place.folders())):
            inner.delete(checkpoints.DONE)
    folder.discard(name)


@contextmanager
def workplace(folder: Folder) -> Iterator[tuple[Path, Path | None, Callable[[Path], None]]]:
    """Where an attempt at a trial writes its checkpoints, the newest complete one there (None: there is none), and the
    function to call with each that it has completed."""
    path = on_disk(folder)
    if path is not None:
        yield path, checkpoints.newest(path), lambda checkpoint: None
        return
    with scratch() as place:
        known = complete(folder)
        newest = _download(folder.child(known[-1]), place / known[-1]) if known else None
        yield place, newest, lambda checkpoint: publish(folder, checkpoint)


def publish(folder: Folder, checkpoint: Path) -> None:
    """Upload a complete checkpoint, then delete those of the same or earlier attempts that it replaces."""
    place = folder.child(checkpoint.name)
    place.delete(checkpoints.DONE)
    for file in sorted(checkpoint.iterdir()):
        if file.name != checkpoints.DONE:
            place.upload(file.name, file)
    place.write(checkpoints.DONE, (checkpoint / checkpoints.DONE).read_bytes())
    for name in checkpoints.replaced(folder.folders(), by=checkpoint.name):
        delete(folder, name)


def local(folder: Folder, name: str) -> Path:
    """Path of a checkpoint to predict with: itself on a disk, from an object store its copy in this machine's cache,
    under a name of its own. Raises TrialCheckpointError if it is not complete."""
    path = on_disk(folder)
    if path is not None:
        return path / name
    place = folder.child(name)
    try:
        content = place.read(checkpoints.DONE)
    except FileNotFoundError:
        raise checkpoints.TrialCheckpointError(
            f"{place.path} is not a complete trial checkpoint: {checkpoints.DONE} is missing."
        ) from None
    key = hashlib.sha256(place.path.encode() + b"\n" + content).hexdigest()[:32]
    copy = caches.cache_folder() / "checkpoints" / key
    if not (copy / checkpoints.DONE).is_file():
        copy.parent.mkdir(parents=True, exist_ok=True)
        partial = _download(place, copy.with_name(f".{key}.{secrets.token_hex(4)}"), without=checkpoints.MOMENTS)
        try:
            partial.rename(copy)
        except OSError:  # another process was faster
            remove(partial)
        caches.trim(caches.cache_folder())
    caches.hold(copy / checkpoints.DONE)
    return copy


def _download(place: Folder, target: Path, without: str = "") -> Path:
    """Copy a checkpoint to a new folder of this machine, except the file `without`."""
    target.mkdir()
    for name in sorted(place.names(), key=checkpoints.DONE.__eq__):  # done.json last
        if name != without:
            place.download(name, target / name)
    return target
