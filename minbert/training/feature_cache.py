"""A cache of features on disk: each row is computed once and shared by all processes of a node.

    <folder>/values    float32 [sum of n_i, D], row i is the n_i lines from n_0 + .. + n_(i-1) on; holes take no room
    <folder>/crc       uint32 [R], the CRC-32 of each row's bytes; 0 for an absent row

Rows are written one by one, without locks: the folder's name identifies everything that decides the values, so all
writers of a row write the same bytes. A row's CRC is written after the row. A CRC that does not match (a torn write,
kill -9, a power cut) makes the row absent: it is computed again. Reads go through the page cache, which the processes
share.

The cache may neither end a trial nor fill a disk: where a row cannot be written there is one warning, and the row is
computed at every request.
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

log = logging.getLogger("minbert")

Compute = Callable[[list[int]], Mapping[int, NDArray[np.float32]]]
"""From rows that are missing to their values [n_i, D]; further rows may come with them."""

RESERVE = 2 << 30
"""Bytes that stay free on the disk, for checkpoints and the store: features can be computed again."""


class CachedRows:
    """R rows of n_i x D numbers each."""

    def __init__(self, folder: Path | None, lengths: NDArray[np.int64], width: int, room: Path | None = None) -> None:
        """`lengths` n_i [R], `width` D. Without a folder the rows go to an unnamed file in `room`, deleted with this
        object."""
        self.starts = np.concatenate([[0], np.cumsum(lengths)])  # [R + 1]
        self.lengths, self.width = lengths, width
        self.single = bool((lengths == 1).all())
        self.intact = np.zeros(len(lengths), dtype=bool)
        """Rows that this process has found present and undamaged [R]."""
        self.files: tuple[IO[bytes], IO[bytes]] | None = None
        """Values and CRCs; None where nothing can be written."""
        self.table: NDArray[np.float32] = np.empty((0, width), dtype=np.float32)
        self.crcs: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)
        try:
            self.files = self._open(folder, room)
        except OSError as error:
            _warn(str(folder or room), str(error))

    def _open(self, folder: Path | None, room: Path | None) -> tuple[IO[bytes], IO[bytes]]:
        sizes = (int(self.starts[-1]) * self.width * 4, len(self.lengths) * 4)
        with ExitStack() as opened:
            files = []
            for name, size in zip(("values", "crc"), sizes, strict=True):
                file = opened.enter_context(_unnamed(room) if folder is None else _named(folder / name))
                if os.fstat(file.fileno()).st_size < size:
                    os.ftruncate(file.fileno(), size)
                files.append(file)
            if sizes[0]:  # views: a memmap's own indexing is slow
                shape = (int(self.starts[-1]), self.width)
                self.table = np.memmap(files[0], np.float32, "r", shape=shape).view(np.ndarray)
                self.crcs = np.memmap(files[1], np.uint32, "r").view(np.ndarray)
            opened.pop_all()
        return files[0], files[1]

    def fetch(self, rows: NDArray[np.int64], compute: Compute) -> NDArray[np.float32]:
        """The rows' values [sum of n_i, D] in the order of `rows`; missing ones are computed and written."""
        unseen = rows[~self.intact[rows]]
        unwritten = self._fill(sorted(set(unseen.tolist())), compute) if len(unseen) else {}
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
        """Make rows present; returns those that could not be written."""
        missing = [row for row in rows if not self._present(row)]
        if not missing:
            return {}
        requested = set(missing)
        self._leave_room()
        computed = compute(missing).items()
        return {row: values for row, values in computed if not self._write_row(row, values) and row in requested}

    def _present(self, row: int) -> bool:
        """Whether the file holds a row, undamaged."""
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
        return True

    def _leave_room(self) -> None:
        if self.files is not None:
            disk = os.fstatvfs(self.files[0].fileno())
            if disk.f_bavail * disk.f_frsize < RESERVE:
                self._give_up(f"less than {RESERVE >> 20} MiB are free")

    def _give_up(self, reason: str) -> None:
        """Write nothing from now on; intact rows are still read through the memory map."""
        if self.files is not None:
            _warn(str(self.files[0].name), reason)
        self.files = None


def _crc(data: bytes | memoryview) -> int:
    return zlib.crc32(data) or 1  # 0 marks an absent row


def _named(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)


def _unnamed(room: Path | None) -> IO[bytes]:
    if room is not None:
        room.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=room, buffering=0)


def _write(file: IO[bytes], data: bytes, offset: int) -> None:
    if os.pwrite(file.fileno(), data, offset) < len(data):
        raise OSError("the disk is full")


@functools.cache
def _warn(place: str, reason: str) -> None:
    """Warn once for each file and reason."""
    log.warning("Features cannot be cached in %s (%s): missing rows are computed at every request.", place, reason)
