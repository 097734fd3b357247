"""The store: rows of all sweeps in append-only Parquet files, safe against kill -9, without a server and without locks.

The contract
------------
Layout. `<store>/<sweep>/` holds `sweep.json` (the sweep's description, written once), `trials/`, `reports/`,
`evidence/`, `examples/` and `predictions/` (Parquet, schemas in `results.schemas`), `generations/` and `fences/` (the
claim and the fence of each generation of writer), `ensembles/` (JSON), and further folders of the search, such as
`checkpoints/`. A store holds many sweeps.

Writing. A sweep has one writer of `trials` and `reports`: that of its newest generation. Every row of these tables has
a `seq`: one counter over both tables, strictly increasing, continued from the highest seq that counts. The writer
commits rows in groups, one file a table: every half second, and at each `barrier` at once. Any process may write
`examples` and `predictions`: one whole file for each key. Writing a key again changes nothing. Rows of events and
evidence are never deleted; a file of predictions may be, and can be written again while the trial has weights.

Evidence. A report may bring its evidence, the predictions that it was scored from (`results.evidence`). The writer
commits it in the same group, before the row of the report, and with the `seq` of that row. Evidence counts if its row
counts. So readers see both or neither after a crash, and never a report whose evidence is still to come.

Durability. A file is visible as a whole or not at all: temporary name in the same directory, fsync of the file,
rename, fsync of the directory; on an object store one PUT. A row is acknowledged, and then durable, once `barrier` has
returned or `durable_seq` has reached the row's seq. After kill -9 of any process at any instant `events` returns a
prefix of the appended rows, which includes all acknowledged rows. If the kill came between the files of a group, its
reports are left out (`results.reading.complete`), and the next generation fences them off. The next `append` or
`barrier` raises a disk error; no acknowledged row is lost, and `barrier` may be called again.

Reading. Readers take no lock and may run at any time. A row counts if its file is whole and written by a store, no
merged file replaces that file, and no newer generation had begun before the row was written (`results.fences`).
`warnings` names every truncated or foreign file, which is skipped. If a report repeats one of the same
(trial, attempt, step), or an event repeats the event before it, only the first counts. If two attempts report the same
step, the search goes by the first finite report, and views show that row alone (`results.reading.report_per_step`);
a report that is not finite ends its trial. The store's `warnings` name every folder without a valid `sweep.json`,
which is skipped.

Compaction (`results.compaction`). A merged file names the files that it replaces; readers skip these, and they are
deleted ten minutes later. If a file vanishes while it is read, the reader lists the folder again. A merged file of
evidence keeps that of each trial's last report, and all of trial 0, of trials with kept weights, and of trials that
have not ended.

Versions. A schema change only adds nullable columns. Each file's metadata holds the schema's version; each file's
schema holds type, unit and meaning of every column.

Trust. Nothing read from a store is ever unpickled or executed. Names of sweeps, keys and ensembles cannot leave their
folder. SQL (`results.query`) only reads.

Place. A local disk, NFS, or S3 (`s3://bucket/runs`, `results.objects`), all through `results.files.Folder`. Of several
processes that claim one name or generation in the same instant exactly one succeeds, also on S3: the file must be new,
and no listing decides. Before a writer acknowledges rows, and before a new generation looks for them, it makes sure
that nothing that a client of NFS remembers hides a claim or a row. A reader on another NFS client may see one table as
it was up to a minute before the other, until both are listed anew: then rows of that minute may be missing between
others. Removing a sweep from S3 is not one step: until it has ended, the sweep may be seen in part.
"""

from __future__ import annotations

import difflib
import functools
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from results import fences
from results.allowance import Allowance
from results.compaction import GRACE, compact_sweep
from results.fences import Superseded
from results.files import Disk, Folder, StoreError, explained, safe_name
from results.places import locate
from results.reading import (
    SUFFIX,
    Cache,
    chosen,
    complete,
    decode,
    encode,
    fenced,
    in_order,
    joined,
    listing,
    lookup,
    may_follow,
)
from results.rows import to_rows, to_table
from results.schemas import TABLES, conform, find
from results.tasks import Task, tasks_of
from results.writer import PERIOD, Writer

__all__ = ["Store", "StoreError", "Superseded", "SweepExists", "SweepFolder", "SweepMissing", "Writer"]

META = "sweep.json"
"""File name of a sweep's description: JSON, written once by the code that creates the sweep. This package reads its
`name`, its `tasks` (`results.tasks`) and the values that SQL shows (`results.query`)."""


class SweepExists(StoreError):  # noqa: N818 - names the state, as FileExistsError does
    """The store already has a sweep of that name."""


class SweepMissing(StoreError):  # noqa: N818 - names the state, as FileNotFoundError does
    """The store has no sweep of that name."""


class Store:
    """The sweeps under one path or URI, or in one folder. Opening a store creates nothing; a store that does not exist
    has no sweeps."""

    def __init__(self, place: str | Path | Folder) -> None:
        self._folder = place if isinstance(place, Folder) else locate(place)
        self.uri = self._folder.path if isinstance(place, Folder) else str(place)
        self.warnings: list[str] = []
        """Folders and files that the latest `readable`, or a query over the store, has skipped, with the reasons."""

    def sweeps(self) -> list[str]:
        """Names of the sweeps, sorted: the folders with a `sweep.json`."""
        with explained("read the store", self.uri):
            names = self._folder.folders()
            there = self._folder.map(lambda name: self._folder.child(name).exists(META), names)
            return [name for name, exists in zip(names, there, strict=True) if exists]

    def readable(self) -> list[SweepFolder]:
        """The sweeps whose description can be read, sorted by name; `warnings` names every other folder."""
        with explained("read the store", self.uri):
            names = self._folder.folders()
        sweeps, self.warnings = [], []
        for name in names:
            try:
                folder = self.open(name)
                assert folder.meta, "a checked description is never empty"
                sweeps.append(folder)
            except SweepMissing:
                self.warnings.append(f"{self._folder.path}/{name} is skipped: it has no {META}, so it is not a sweep.")
            except StoreError as error:
                self.warnings.append(f"{self._folder.path}/{name} is skipped: {error}")
        return sweeps

    def create(self, name: str, meta: Mapping[str, Any]) -> SweepFolder:
        """Create a sweep with the description `meta`.

        Raises SweepExists if the store has a sweep of that name; of several simultaneous creators one succeeds.
        """
        folder = self._sweep(name)
        content = json.dumps({"name": name, **meta}, indent=1).encode()
        with explained("write to the store", self.uri):
            if not folder.exists(META):
                for table in (*TABLES, fences.CLAIMS, fences.FENCES, "ensembles"):
                    folder.child(table).make()
                try:
                    folder.write(META, content, new=True)
                    return SweepFolder(folder, name)
                except FileExistsError:
                    pass
        raise SweepExists(f"Sweep `{name}` exists already in `{self.uri}`. Open it, or choose another name.")

    def open(self, name: str) -> SweepFolder:
        """An existing sweep. Raises SweepMissing, which names the nearest sweep, if there is none of that name."""
        folder = self._sweep(name)
        with explained("read the store", self.uri):
            if folder.exists(META):
                return SweepFolder(folder, name)
        names = self.sweeps()
        near = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(names) or 'no sweeps'}."
        raise SweepMissing(f"No sweep `{name}` in `{self.uri}`. {hint}")

    def remove(self, name: str) -> None:
        """Delete a sweep with its whole folder. Its name is free once this has returned."""
        folder = self.open(name)
        with explained("delete", folder.folder.path):
            self._sweep(name).remove()

    def _sweep(self, name: str) -> Folder:
        return self._folder.child(safe_name(name, "Sweep name"))


class SweepFolder:
    """One sweep: its description, its tables, and its writer."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.name = name
        self.warnings: list[str] = []
        """Files that the latest reading of each table, or of some of its keys, has skipped, with the reasons."""
        self.folder = folder
        self.allowance: Allowance | None = None
        """What may be read from now on; None: anything. Readings raise as it does."""
        self._cache: Cache = {}
        self._warnings: dict[tuple[str, frozenset[str] | None], list[str]] = {}
        self._meta: dict[str, Any] | None = None

    @property
    def path(self) -> Path:
        """Folder of the sweep on this machine. Raises StoreError if the sweep lies in an object store."""
        if isinstance(self.folder, Disk):
            return Path(self.folder.path)
        raise StoreError(f"Sweep `{self.name}` lies in an object store, {self.folder.path}, and has no path.")

    @property
    def meta(self) -> dict[str, Any]:
        """The description: what `create` was given, and `name`. Raises StoreError if it is damaged or foreign."""
        if self._meta is None:
            with explained("read", f"{self.folder.path}/{META}"):
                content = self.folder.read(META)
            try:
                meta = json.loads(content)
                if not isinstance(meta, dict):
                    raise StoreError(f"expected a JSON object, found {type(meta).__name__}")
                if not isinstance(meta.get("name"), str):
                    raise StoreError(f"`name` must be a text, found {meta.get('name')!r}")
                tasks_of(meta)
            except ValueError as error:
                raise StoreError(f"`{self.folder.path}/{META}` is damaged or foreign: {error}.") from error
            self._meta = meta
        return self._meta

    @property
    def tasks(self) -> dict[str, Task]:
        """The sweep's tasks by name, in the order of their declaration."""
        return tasks_of(self.meta)

    @property
    def generation(self) -> int:
        """Number of the newest generation of writer that has begun; 0 before the first."""
        return fences.generation(self.folder)

    def writer(self, generation: int | None = None, *, period: float = PERIOD) -> Writer:
        """Begin a generation and return it as the sole writer of `trials` and `reports`.

        `generation`: number that the caller has claimed (`results.fences.claim`); None: the next one is claimed here.
        `period`: seconds between group commits. Call this before `events()`: from then on no older writer can add rows.
        """
        number = fences.claim(self.folder) if generation is None else generation
        with explained("write to", self.folder.path):
            return Writer(self.folder, number, period=period)

    def write_table(self, table: str, rows: pa.Table | Iterable[Mapping[str, Any]], key: str) -> bool:
        """Write one whole file of `examples` or `predictions`. Returns False if a readable file has the key already."""
        if find(table).sequenced:
            raise StoreError(f"Rows of table `{table}` are appended by a `writer`; `write_table` writes the others.")
        name = safe_name(str(key), "Key") + SUFFIX
        content = conform(table, rows) if isinstance(rows, pa.Table) else to_table(table, rows)
        folder = self.folder.child(table)
        if self.has(table, key):
            return False
        with explained("write to", folder.path):
            folder.make()
            folder.write(name, encode(table, content))
        return True

    def remove_table(self, table: str, key: str) -> None:
        """Delete the file that `write_table` has written under a key; a missing one is no error."""
        if find(table).sequenced:
            raise StoreError(f"Rows of table `{table}` are never deleted.")
        folder = self.folder.child(table)
        with explained("delete", folder.path):
            folder.delete(safe_name(str(key), "Key") + SUFFIX)

    def has(self, table: str, key: str) -> bool:
        """Whether `write_table` has written that key and its file can be read."""
        folder, name = self.folder.child(table), safe_name(str(key), "Key") + SUFFIX
        try:
            decode(table, folder.read(name))
        except (FileNotFoundError, StoreError):
            return False
        return True

    def keys(self, table: str) -> list[str]:
        """The keys that `write_table` has written, sorted; the files are not opened, so some may be damaged."""
        return [name.removesuffix(SUFFIX) for name in self.folder.child(table).names() if name.endswith(SUFFIX)]

    def read(
        self,
        table: str,
        *,
        keys: Collection[str] | None = None,
        columns: Collection[str] | None = None,
        after: int = 0,
    ) -> pa.Table:
        """All rows of a table that count (see the contract).

        `keys` selects files of `examples` and `predictions`. `columns` selects columns, with which those come by which
        rows are counted. For tables of events `after` selects rows, as in `events`.
        """
        if find(table).sequenced:
            rows = in_order(table, self._counted(table, columns, after)[0])
            return chosen(rows, rows["seq"].to_numpy() > after)
        folder = self.folder.child(table)
        named = None if keys is None else frozenset(f"{key}{SUFFIX}" for key in keys)
        with explained("read", folder.path):
            accept = None if named is None else named.__contains__
            files = listing(folder, table, accept=accept, columns=columns, allowance=self.allowance)
        self._warn((table, named), files.warnings)
        return joined(table, list(files.tables.values()), columns)

    def _counted(self, table: str, columns: Collection[str] | None, after: int) -> tuple[pa.Table, bool]:
        """The rows of a table of events in files that may hold rows after `after`, repetitions included; and whether a
        file was skipped."""
        folder = self.folder.child(table)
        with explained("read", folder.path):
            # Rows are read before fences: a generation writes its fence before its first row.
            newer = None if after == 0 else functools.partial(may_follow, after)
            files = listing(folder, table, self._cache, newer, columns, self.allowance)
            continued, warnings = fences.fences(self.folder)
        self._warn((table, None), files.warnings + warnings)
        return fenced(joined(table, list(files.tables.values()), columns), continued), bool(files.warnings)

    def rows(self, table: str, seqs: Collection[int]) -> pa.Table:
        """Rows of a table of events, or of one beside it, with one of these `seqs`, whatever their generation.

        Only files and row groups that may hold them are read.
        """
        folder = self.folder.child(table)
        with explained("read", folder.path):
            files = lookup(folder, table, seqs)
        self._warn((table, frozenset()), files.warnings)
        return in_order(table, joined(table, list(files.tables.values())))

    def history(
        self, trials: Collection[str] | None = None, reports: Collection[str] | None = None, *, after: int = 0
    ) -> tuple[pa.Table, pa.Table]:
        """Rows of `trials` and of `reports` as of one instant, in order of seq. `trials` and `reports` select columns,
        as in `read`; None: all. `after`: as in `events`.

        While a writer runs, the rows are a prefix of those that it has appended.
        """
        # While a writer runs, the three readings are of different instants; `before` says what is complete in all.
        before, _ = self._counted("trials", (), after)
        later, damaged = self._counted("reports", reports, after)
        events, skipped = self._counted("trials", trials, after)
        seqs = before["seq"].to_numpy(), later["seq"].to_numpy()
        newest = complete(*seqs, after=after, damaged=damaged or skipped)

        def part(table: str, rows: pa.Table) -> pa.Table:
            ordered = in_order(table, rows)
            seq = ordered["seq"].to_numpy()
            return chosen(ordered, (seq > after) & (seq <= newest))

        return part("trials", events), part("reports", later)

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """Rows of `trials` and `reports` in order of seq, each with its `table`: the input of a replay.

        `config` and `params` are JSON text, maps are dicts. While a writer runs, the rows are a prefix of those that it
        has appended. `after`: only rows with a higher seq, from the files that may hold them; a row among them that
        repeats an earlier one is not left out.
        """
        tables = dict(zip(("trials", "reports"), self.history(after=after), strict=True))
        rows = [{"table": name, **row} for name, table in tables.items() for row in to_rows(table)]
        return sorted(rows, key=lambda row: int(row["seq"]))

    def compact(self, *, fewest: int = 2, grace: float = GRACE) -> None:
        """Merge small files now, and delete replaced files after `grace` seconds. A running writer merges by itself."""
        with explained("write to", self.folder.path):
            compact_sweep(self.folder, fewest=fewest, grace=grace)

    def _warn(self, reading: tuple[str, frozenset[str] | None], warnings: list[str]) -> None:
        self._warnings[reading] = warnings
        self.warnings = sorted({warning for latest in self._warnings.values() for warning in latest})
