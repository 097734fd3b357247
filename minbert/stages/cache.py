"""Cache of stage results on disk: each result has a key made of its inputs and is computed once.

    <cache>/stages/<key>/                 encoder.safetensors and done.json; the folder is complete or absent
    <cache>/stages/<key>.lock             held by the process that computes; the kernel frees it when that process dies
    <cache>/stages/<key>.partial          weights, optimiser moments and position of an unfinished computation

Every file is flushed to the disk before a rename gives it its name. The lock is `flock`: it holds between threads,
processes and, on NFS, hosts, unless the mount keeps locks local (`local_lock`, `nolock`). With local locks two hosts
may compute one key at once. That wastes work and does no harm: both results belong to that key, and a rename
shows a complete one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from minbert.caches import hold, trim
from minbert.data.files import DataError
from minbert.disk import sync

log = logging.getLogger("minbert")


@dataclass(frozen=True)
class Done:
    """Content of `done.json`: checksum, cost and inputs of a result."""

    sha256: str
    """SHA-256 of encoder.safetensors."""
    seconds: float
    """Seconds of compute of this stage."""
    examples: int
    """Rows that went through the loss."""
    seconds_before: float
    """Seconds of compute of the stages before it."""
    examples_before: int
    """Rows that went through the losses of the stages before it."""
    diverged: bool = False
    """Whether the stage stopped because its loss was no longer finite."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """Everything that the key is made of."""


@dataclass(frozen=True)
class Partial:
    """An unfinished computation of a stage."""

    tensors: dict[str, Tensor]
    """Weights and optimiser moments by name."""
    position: dict[str, Any]
    """Steps taken and cost so far, in JSON values."""


class DamagedError(ValueError):
    """A cached result that exists and cannot be used."""


@dataclass(frozen=True)
class CacheEntry:
    """Paths of one key's result, its lock and its unfinished computation."""

    folder: Path
    """`<cache>/stages`."""
    key: str
    """Key of the result, 64 hexadecimal digits."""

    @property
    def path(self) -> Path:
        return self.folder / self.key

    @property
    def partial(self) -> Path:
        return self.folder / f"{self.key}.partial"

    @property
    def _building(self) -> Path:
        """Temporary folder of the lock's holder on this host. Nobody else uses it, so the holder may delete it."""
        return self.folder / f".{self.key}.{platform.node()}"

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Try to take the lock without waiting; yields whether it was taken. Raises DataError where locking fails."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / f"{self.key}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError as error:  # a file system without locks
                raise self._unwritable(error) from error
            yield True
        finally:
            os.close(handle)

    def load(self) -> tuple[dict[str, Tensor], Done] | None:
        """Load the result and verify its checksum; None where there is none. Raises DamagedError."""
        hold(self.path / "done.json")
        try:
            done = Done(**json.loads((self.path / "done.json").read_text()))
            sha256 = _sha256(self.path / "encoder.safetensors")
            if sha256 != done.sha256:
                raise DamagedError(f"encoder.safetensors has SHA-256 {sha256}, done.json says {done.sha256}")
            return load_file(self.path / "encoder.safetensors"), done
        except FileNotFoundError as error:
            if self.path.exists():
                raise DamagedError(f"{Path(error.filename or error.args[0]).name} is missing") from error
            return None
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise error if isinstance(error, DamagedError) else DamagedError(str(error)) from error

    def load_or_discard(self) -> tuple[dict[str, Tensor], Done] | None:
        """Load the result as `load` does; delete a damaged one with a warning. Only for the lock's holder."""
        try:
            return self.load()
        except DamagedError as error:
            log.warning("The stage result %s is damaged and will be computed again: %s.", self.path, error)
            shutil.rmtree(self.path, ignore_errors=True)
            return None

    def publish(self, tensors: Mapping[str, Tensor], done: Done) -> Done:
        """Write a complete result and return `done` with the SHA-256 of the weights. Only for the lock's holder."""
        try:
            shutil.rmtree(self._building, ignore_errors=True)
            self._building.mkdir()
            save_file(_plain(tensors), self._building / "encoder.safetensors")
            done = Done(**{**asdict(done), "sha256": _sha256(self._building / "encoder.safetensors")})
            (self._building / "done.json").write_text(json.dumps(asdict(done), indent=1))
            for path in (self._building / "encoder.safetensors", self._building / "done.json", self._building):
                sync(path)
            shutil.rmtree(self.path, ignore_errors=True)  # only a host with local locks can have put one here
            self._building.rename(self.path)
            sync(self.folder)
            hold(self.path / "done.json")
            self.partial.unlink(missing_ok=True)
            trim(self.folder.parent)
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            shutil.rmtree(self._building, ignore_errors=True)
        return done

    def save_partial(self, partial: Partial) -> None:
        """Save an unfinished computation over the previous one; where that fails, log a warning and go on."""
        building = self._building.with_name(f"{self._building.name}.partial")
        try:
            save_file(_plain(partial.tensors), building, metadata={"position": json.dumps(partial.position)})
            sync(building)
            building.rename(self.partial)
            sync(self.folder)
        except (OSError, SafetensorError) as error:
            log.warning("The unfinished stage %s cannot be saved: %s.", self.partial, error)
            with contextlib.suppress(OSError):
                building.unlink(missing_ok=True)

    def load_partial(self) -> Partial | None:
        """Load the unfinished computation that the last holder saved; None where it is absent or damaged."""
        if not self.partial.exists():
            return None
        try:
            with safe_open(self.partial, framework="pt") as file:
                position = json.loads(file.metadata()["position"])
            return Partial(load_file(self.partial), position)
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            log.warning("The unfinished stage %s is damaged; the stage begins anew: %s.", self.partial, error)
            return None

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(f"`MINBERT_CACHE` {self.folder} cannot be written: {error.strerror or error}.")


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU without gradients, as safetensors stores them."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
