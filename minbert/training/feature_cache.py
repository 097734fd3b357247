"""Feature cache on disk: each row is computed once and shared by all processes of a node.

    <folder>/values    float32 [sum of n_i, D]; row i is the n_i lines from line n_0 + .. + n_(i-1) on; sparse file
    <folder>/crc       uint32 [R], the CRC-32 of each row's bytes; 0 for an absent row

Rows are written one by one, without locks: the folder's name identifies everything that decides the values, so all
writers of a row write the same bytes. A row's CRC is written after the row. A row whose CRC does not match (torn write,
kill -9, power cut) counts as absent and is computed again. Reads go through the page cache, which the processes share.

The cache never ends a trial, fills a disk or exceeds the limit of all caches (`minbert.caches`): if a row cannot be
written, one warning is logged and the row is computed at every request.
"""

from __future__ import annotations

import functools
import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from minbert.caches import hold, trim

log = logging.getLogger("minbert")

Compute = Callable[[list[int]], Mapping[int, NDArray[np.float32]]]
"""Function from the numbers of missing rows to their values [n_i, D] by row; it may return further rows."""

RESERVE = 2 << 30
"""Bytes that stay free on the disk for checkpoints and the store; features can be computed again."""
PART = 256 << 20
"""Bytes of features that a process writes between two looks at the limit of the caches."""


class CachedRows:
    """Cached rows: R rows, row i with n_i x D numbers."""

    def __init__(self, folder: Path | None, lengths: NDArray[np.int64], width: int, parent: Path | None = None) -> None:
        """`lengths` holds n_i [R], `width` is D.

        If `folder` is None, the rows go to unnamed files in `parent` that are deleted with this object.
        """
        self.starts = np.concatenate([[0], np.cumsum(lengths)])  # [R + 1]
        self.lengths, self.width = lengths, width
        self.location = str(folder or parent)
        self.caches = folder and folder.parents[1]
        """Folder of all caches; None for unnamed files."""
        self.unseen = PART
        """Bytes written since the last look at the limit of the caches; the first write looks."""
        self.single = bool((lengths == 1).all())
        self.intact = np.zeros(len(lengths), dtype=bool)
        """Whether this process has verified that a row is present and undamaged [R]."""
        self.files: tuple[IO[bytes], IO[bytes]] | None = None
        """Files of values and CRCs; None if nothing can be written."""
        self.table: NDArray[np.float32] = np.empty((0, width), dtype=np.float32)
        self.crcs: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)
        try:
            self.files = self._open(folder, parent)
        except OSError as error:
            _warn(self.location, str(error))

    def _open(self, folder: Path | None, parent: Path | None) -> tuple[IO[bytes], IO[bytes]]:
        sizes = (int(self.starts[-1]) * self.width * 4, len(self.lengths) * 4)
        with ExitStack() as stack:
            files = []
            for name, size in zip(("values", "crc"), sizes, strict=True):
                file = stack.enter_context(_unnamed(parent) if folder is None else _named(folder / name))
                if os.fstat(file.fileno()).st_size < size:
                    os.ftruncate(file.fileno(), size)
                files.append(file)
            if folder is not None:
                hold(folder / "values")
            if sizes[0]:  # as plain arrays: indexing a memmap is slow
                shape = (int(self.starts[-1]), self.width)
                self.table = np.memmap(files[0], np.float32, "r", shape=shape).view(np.ndarray)
                self.crcs = np.memmap(files[1], np.uint32, "r").view(np.ndarray)
            stack.pop_all()
        return files[0], files[1]

    def fetch(self, rows: NDArray[np.int64], compute: Compute) -> NDArray[np.float32]:
        """Values of the rows [sum of n_i, D] in the order of `rows`; missing rows are computed and written."""
        unverified = rows[~self.intact[rows]]
        unwritten = self._fill(sorted(set(unverified.tolist())), compute) if len(unverified) else {}
        if unwritten:
            parts = [unwritten[row] if row in unwritten else self.table[self._lines(row)] for row in rows.tolist()]
            return np.concatenate(parts)
        if self.single:
            return self.table[rows]
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        lines: NDArray[np.int64] = np.arange(ends[-1]) + np.repeat(self.starts[rows] - ends + lengths, lengths)
        return self.table[lines]

    def _lines(self, row: int) -> slice:
        return slice(int(self.starts[row]), int(self.starts[row + 1]))

    def _fill(self, rows: list[int], compute: Compute) -> dict[int, NDArray[np.float32]]:
        """Compute and write the missing ones of these rows; returns the rows that could not be written, with values."""
        missing = [row for row in rows if not self._present(row)]
        if not missing:
            return {}
        requested = set(missing)
        self._check_space()
        computed = compute(missing).items()
        return {row: values for row, values in computed if not self._write_row(row, values) and row in requested}

    def _present(self, row: int) -> bool:
        """Whether the file holds an undamaged row."""
        if self.files is None:
            return False
        crc = self.crcs[row]
        self.intact[row] = intact = bool(crc and _crc(self.table[self._lines(row)].data) == crc)
        return intact

    def _write_row(self, row: int, values: NDArray[np.float32]) -> bool:
        """Write a row, then its CRC; returns whether the file holds both."""
        assert values.shape == (self.lengths[row], self.width) and values.dtype == np.float32, (row, values.shape)
        if self.files is None:
            return False
        if not self.intact[row]:
            data = values.tobytes()
            try:
                _write(self.files[0], data, int(self.starts[row]) * self.width * 4)
                _write(self.files[1], np.uint32(_crc(data)).tobytes(), row * 4)
            except OSError as error:
                self._give_up(str(error))
                return False
            self.intact[row] = True
            self.unseen += len(data)
        return True

    def _check_space(self) -> None:
        """Stop writing if less than RESERVE would stay free, or if what processes use of the caches is too much."""
        if self.files is not None:
            disk = os.fstatvfs(self.files[0].fileno())
            if disk.f_bavail * disk.f_frsize < RESERVE:
                self._give_up(f"less than {RESERVE >> 20} MiB are free")
            elif self.caches is not None and self.unseen >= PART:
                self.unseen = 0
                if not trim(self.caches):
                    self._give_up("the caches in use take more than their limit, see MINBERT_CACHE_SIZE")

    def _give_up(self, reason: str) -> None:
        """Stop writing; rows already verified are still read through the memory map."""
        if self.files is not None:
            _warn(self.location, reason)
        self.files = None


def _crc(data: bytes | memoryview) -> int:
    return zlib.crc32(data) or 1  # 0 marks an absent row


def _named(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)


def _unnamed(parent: Path | None) -> IO[bytes]:
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=parent, buffering=0)


def _write(file: IO[bytes], data: bytes, offset: int) -> None:
    if os.pwrite(file.fileno(), data, offset) < len(data):
        raise OSError("the disk is full")


@functools.cache
def _warn(location: str, reason: str) -> None:
    """Warn once for each file and reason."""
    log.warning("Features cannot be cached in %s (%s): missing rows are computed at every request.", location, reason)
