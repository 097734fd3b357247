"""The writer of `trials` and `reports`: it collects rows for half a second and makes them durable together.

A group of rows is written as one file a table: first the evidence of its reports, then its reports, then its rows of
`trials`. After a crash the store holds a prefix of the groups. Of the group that was being written its reports may be
there without its rows of `trials`; readers and the next generation leave these out (`results.reading.complete`).

A daemon thread commits every half second; `barrier` commits at once, in the caller's thread. Each commit makes files.
So a caller that can do other work meanwhile asks first whether a commit is `due`: on average one every half second is,
and a quiet time saves up a few. What is not due becomes durable with the thread's next commit, together with all that
arrives until then. So the starts of a few workers, whose trials take seconds, never wait, and those of many workers
share their files.

If the disk fails, the rows stay in memory, `append` takes no more rows, and `barrier` tries again. Small files are
merged in a thread of its own, which no commit waits for.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from results import fences
from results.compaction import FEWEST, compact_sweep
from results.evidence import EVIDENCE, Evidence, evidence_table
from results.files import Folder, StoreError, explained
from results.reading import SUFFIX, Cache, complete, encode, fenced, joined, listing
from results.rows import fitting, to_table
from results.schemas import EVENTS, find

PERIOD = 0.5
"""Seconds between group commits."""
SAVED = 8
"""Largest number of commits that a quiet time saves up."""


class Entry(NamedTuple):
    """A row that was appended and is not durable yet."""

    table: str
    seq: int
    row: Mapping[str, Any]
    """The row itself, which fits its table."""
    evidence: pa.Table | None
    """Its evidence, rows of table `evidence`."""


class Writer:
    """Writer of one generation: appends rows to a sweep. Once a newer generation has begun, it raises `Superseded`."""

    def __init__(self, sweep: Folder, generation: int, *, period: float = PERIOD) -> None:
        """`generation`: a number that was claimed for this writer (`results.fences.claim`)."""
        for table in EVENTS:
            sweep.child(table).refresh()  # a row that this listing misses would be fenced off
        self.generation = generation
        self.continued_from = durable_seq(sweep)
        """Highest seq of the generations before this one; 0 if they have written no rows."""
        fences.fence(sweep, generation, self.continued_from)
        self.warnings: list[str] = []
        """Compactions that failed, with the reasons. They lose no rows."""
        self._sweep = sweep
        self._seq = self._durable = self.continued_from
        self._pending: list[Entry] = []
        self._error: StoreError | None = None
        self._lock = threading.Lock()  # guards _seq, _durable, _pending and _error; held for less than a millisecond
        self._committing = threading.Lock()  # held while files are written, so that one commit runs at a time
        self._period = period
        self._due = 0.0
        """When the next commit is due, by `time.monotonic`."""
        self._files = 0
        self._merging: threading.Thread | None = None
        """Merges small files; the latest such thread."""
        self._parsed: Cache = {}
        """What that thread has parsed; of use to the next one."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def durable_seq(self) -> int:
        """Highest seq on the disk; every row up to it is acknowledged."""
        with self._lock:
            return self._durable

    @property
    def due(self) -> bool:
        """Whether a commit now keeps the average at one in `period` seconds; see the head of this file."""
        return time.monotonic() >= self._due

    def append(self, table: str, row: Mapping[str, Any], evidence: Evidence | None = None) -> int:
        """Append a row to `trials` or `reports`; returns its seq. A report may bring its evidence, which readers see
        with its row or not at all.

        The row becomes durable within half a second, or at the next `barrier`. `seq` and `generation` are filled in,
        and `time`, `host` and `pid` where they are missing. Raises StoreError, and does not take the row, if it does
        not fit the schema, the disk has failed, or the writer is closed.
        """
        if table not in EVENTS:
            raise StoreError(f"A writer appends to {' and '.join(EVENTS)}; found `{table}`. Others: `write_table`.")
        defaults: dict[str, Any] = {"time": time.time(), "host": socket.gethostname(), "pid": os.getpid()}
        filled = {name: value for name, value in defaults.items() if name in find(table).schema.names} | dict(row)
        with self._lock:
            if self._stop.is_set():
                raise StoreError("The writer is closed; open another with the next generation.")
            if self._error is not None:
                raise self._error
            seq = self._seq + 1
            filled |= {"seq": seq, "generation": self.generation}
            beside = evidence_table(filled, evidence) if evidence else None
            self._pending.append(Entry(table, seq, fitting(table, filled), beside))
            self._seq = seq
            return seq

    def barrier(self) -> int:
        """Make every appended row durable now; returns the durable seq.

        Raises StoreError if the disk fails: no acknowledged row is lost, the other rows stay in memory, and the next
        `barrier` tries again. Raises Superseded if a newer generation has begun.
        """
        self._commit()
        return self.durable_seq

    def close(self) -> None:
        """Commit the last rows and end the threads. A second call does nothing."""
        if self._stop.is_set():
            return
        try:
            self.barrier()
        finally:
            self._stop.set()
            self._thread.join()
            if self._merging is not None:
                self._merging.join()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _loop(self) -> None:
        while not self._stop.wait(self._period):
            try:
                self._commit()
            except StoreError:
                continue  # `_commit` has stored the error; `append` raises it, and `barrier` tries again
            if self._files >= FEWEST and (self._merging is None or not self._merging.is_alive()):
                self._files = 0
                self._merging = threading.Thread(target=self._compact, name="store-compaction", daemon=True)
                self._merging.start()

    def _compact(self) -> None:
        try:
            compact_sweep(self._sweep, cache=self._parsed)
        except Exception as error:  # noqa: BLE001  left alone it would end the thread, and with it the commits
            self.warnings.append(f"Small files were not merged: {error!r}")

    def _commit(self) -> None:
        with self._committing:
            with self._lock:
                group = list(self._pending)
            if not group:
                return
            now = time.monotonic()
            self._due = min(max(self._due, now - SAVED * self._period), now) + self._period
            try:
                self._write_group(group)
            except StoreError as error:
                with self._lock:
                    self._error = error
                raise
            except Exception as error:  # left alone it would end the thread, and rows would wait unseen
                with self._lock:
                    self._error = StoreError(f"Cannot commit: {error!r}")
                raise self._error from error
            with self._lock:
                self._error = None
                del self._pending[: len(group)]
                self._durable = group[-1].seq

    def _write_group(self, group: list[Entry]) -> None:
        """Write one file a table. Evidence comes first: without its report's row it counts nowhere, and no report may
        lack it. Rows of `trials` come last: see `results.reading.complete`."""
        beside = [(entry.seq, entry.evidence) for entry in group if entry.evidence is not None]
        if beside:
            self._write(EVIDENCE, [seq for seq, _ in beside], joined(EVIDENCE, [rows for _, rows in beside]))
        for table in reversed(EVENTS):
            entries = [entry for entry in group if entry.table == table]
            if entries:
                rows = to_table(table, [entry.row for entry in entries])
                self._write(table, [entry.seq for entry in entries], rows)
        with explained("read", self._sweep.path):
            superseded = fences.superseded(self._sweep, self.generation)
        if superseded:
            raise fences.Superseded(
                f"Generation {self.generation + 1} of `{self._sweep.path}` has begun; "
                f"generation {self.generation} may write no more."
            )

    def _write(self, table: str, seqs: Sequence[int], rows: pa.Table) -> None:
        """Write rows with these seqs as one file."""
        folder = self._sweep.child(table)
        name = f"{self.generation:06d}-{seqs[0]:012d}-{seqs[-1]:012d}{SUFFIX}"
        with explained("write to", folder.path):
            folder.make()  # a sweep of an earlier version has no folder of a later table
            folder.write(name, encode(table, rows))
        self._files += 1


def durable_seq(sweep: Folder) -> int:
    """Highest seq up to which the rows of a sweep are complete; 0 if it has no rows."""
    read = {name: listing(sweep.child(name), name) for name in EVENTS}
    continued, _ = fences.fences(sweep)
    seqs = {name: fenced(joined(name, list(found.tables.values())), continued)["seq"] for name, found in read.items()}
    damaged = any(found.warnings for found in read.values())
    return complete(*(seqs[name].to_numpy() for name in EVENTS), damaged=damaged)
