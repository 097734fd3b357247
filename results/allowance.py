"""Allowance of a question to a store: the bytes of rows that it may read, and when it must end.

Each file is charged when it is read: before, by the least that its metadata says, so that nothing large is read in
vain, then by what its rows take in memory.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import pyarrow.parquet as pq

WIDTHS = {"BOOLEAN": 0.125, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "BYTE_ARRAY": 4}
"""Physical type of Parquet -> least bytes of a value in memory; for a text those of its position."""


class TooMuchError(Exception):
    """A question would read more than it may. (No StoreError: those are told for a file that is skipped.)"""


class TooLateError(Exception):
    """A question has taken longer than it may."""


class Allowance:
    """What a question may still use."""

    def __init__(self, size: float, seconds: float) -> None:
        """`size`: bytes of rows. `seconds`: time from now on."""
        self._size = size
        self._end = time.monotonic() + seconds

    def seconds(self) -> float:
        """Seconds that are left. Raises TooLateError if there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TooLateError
        return left

    def check(self, size: float) -> None:
        """Raise TooMuchError if fewer than `size` bytes are left, or TooLateError."""
        self.seconds()
        if size > self._size:
            raise TooMuchError

    def take(self, size: int) -> None:
        """Use `size` bytes; raises as `check` does."""
        self.check(size)
        self._size -= size


def least(metadata: pq.FileMetaData, columns: Collection[str] | None) -> float:
    """Least bytes that these columns of a file take in memory; None: all columns."""
    names = [metadata.schema.column(place).path.partition(".")[0] for place in range(metadata.num_columns)]
    chosen = [place for place, name in enumerate(names) if columns is None or name in columns]
    total = 0.0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, chosen):
            total += max(chunk.total_uncompressed_size, chunk.num_values * WIDTHS.get(chunk.physical_type, 1))
    return total
