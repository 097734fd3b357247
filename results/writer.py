"""The one writer of `trials` and `reports`: rows gather for half a second and become durable together.

Rows become durable in the order in which they were appended: what a crash leaves is always a prefix. A group is
written as one file for each run of rows of one table. `barrier` commits at once, in the caller's own thread;
otherwise a daemon thread does. If the disk refuses, the rows stay here, `append` takes no more, and `barrier` tries
again.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from results import fences
from results.compaction import FEWEST, compact
from results.files import Folder, StoreError, explained
from results.reading import SUFFIX, encode, fenced, joined, listing
from results.schemas import TABLES, find, to_table

PERIOD = 0.5
"""Seconds between group commits."""
SEQUENCED = tuple(name for name, table in TABLES.items() if table.sequenced)


class Writer:
    """Appends rows to a sweep as one of its generations; a newer generation ends it with `Superseded`."""

    def __init__(self, sweep: Folder, generation: int, *, period: float = PERIOD) -> None:
        fences.claim(sweep, generation)
        self.generation = generation
        self.continued_from = durable_seq(sweep)
        """The highest seq of the generations before."""
        fences.fence(sweep, generation, self.continued_from)
        self.warnings: list[str] = []
        """What went wrong beside the writing itself: failed compactions."""
        self._sweep = sweep
        self._seq = self._durable = self.continued_from
        self._pending: list[tuple[str, int, pa.Table]] = []
        self._error: StoreError | None = None
        self._lock = threading.Lock()  # guards the five above; held for microseconds
        self._committing = threading.Lock()  # held while files are written: one commit at a time
        self._files = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, args=(period,), name="store-writer", daemon=True)
        self._thread.start()

    @property
    def durable_seq(self) -> int:
        """The highest seq that is on the disk: every row up to it is acknowledged."""
        with self._lock:
            return self._durable

    def append(self, table: str, row: Mapping[str, Any]) -> int:
        """Take a row and give it the next seq; durable within half a second, or at the next `barrier`.

        `seq` and `generation` are filled in, and `time`, `host` and `pid` where they are missing. A row that does not
        fit the schema, or one that comes after the disk refused, raises StoreError and is not taken.
        """
        if table not in SEQUENCED:
            raise StoreError(f"A writer appends to {' and '.join(SEQUENCED)}; found `{table}`. Others: `write_table`.")
        defaults: dict[str, Any] = {"time": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        filled = {name: value for name, value in defaults.items() if name in find(table).schema.names} | dict(row)
        with self._lock:
            if self._stop.is_set():
                raise StoreError("The writer is closed; open another with the next generation.")
            if self._error is not None:
                raise self._error
            seq = self._seq + 1
            rows = to_table(table, [{**filled, "seq": seq, "generation": self.generation}])
            self._seq = seq
            self._pending.append((table, seq, rows))
            return seq

    def barrier(self) -> int:
        """Make every appended row durable now; the durable seq. Raises StoreError if the disk refuses: nothing is lost
        of what was acknowledged, the rest waits here, and the next `barrier` tries again."""
        self._commit()
        return self.durable_seq

    def close(self) -> None:
        """A last barrier, and the end of the thread. A second call does nothing."""
        if self._stop.is_set():
            return
        try:
            self.barrier()
        finally:
            self._stop.set()
            self._thread.join()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _loop(self, period: float) -> None:
        while not self._stop.wait(period):
            try:
                self._commit()
            except StoreError:
                continue  # kept in `_error`: `append` and `barrier` raise it
            if self._files >= FEWEST:
                self._files = 0
                self._compact()

    def _compact(self) -> None:
        try:
            for name in SEQUENCED:
                compact(self._sweep.child(name), name)
        except (OSError, StoreError, pa.ArrowException) as error:
            self.warnings.append(f"Small files were not merged: {error}")

    def _commit(self) -> None:
        with self._committing:
            with self._lock:
                group = list(self._pending)
            try:
                for table, run in itertools.groupby(group, key=lambda entry: entry[0]):
                    self._write(table, list(run))
            except StoreError as error:
                with self._lock:
                    self._error = error
                raise
            with self._lock:
                self._error = None

    def _write(self, table: str, run: list[tuple[str, int, pa.Table]]) -> None:
        first, last = run[0][1], run[-1][1]
        rows = joined(table, [entry[2] for entry in run])
        name = f"{self.generation:06d}-{first:012d}-{last:012d}{SUFFIX}"
        with explained("write to", f"{self._sweep.path}/{table}"):
            self._sweep.child(table).write(name, encode(table, rows))
            newest = fences.generation(self._sweep)
        if newest > self.generation:
            raise fences.Superseded(
                f"Generation {newest} of `{self._sweep.path}` has begun; "
                f"generation {self.generation} may write no more."
            )
        with self._lock:
            del self._pending[: len(run)]
            self._durable = last
            self._files += 1


def durable_seq(sweep: Folder) -> int:
    """The highest seq that counts in a sweep; 0 if it has no rows."""
    highest = 0
    tables = [joined(name, list(listing(sweep.child(name), name).tables.values())) for name in SEQUENCED]
    lines, _ = fences.fences(sweep)
    for table in tables:
        highest = max([highest, *fenced(table, lines)["seq"].to_pylist()])
    return highest
