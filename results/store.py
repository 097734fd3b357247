"""The store: every sweep's rows in append-only Parquet, safe against kill -9, without a server and without locks.

The contract
------------
Layout. `<store>/<sweep>/` holds `sweep.json` (written once: what the sweep is), `trials/`, `reports/`, `examples/` and
`predictions/` (Parquet, schemas in `results.schemas`), `fences/` (one line for each generation), `ensembles/` (JSON)
and whatever the search keeps beside them, such as `checkpoints/`. Many sweeps share one store.

Writing. A sweep has one writer of `trials` and `reports`, its newest generation's. Every row of the two carries
`seq`, one counter over both, strictly increasing, that goes on from the highest seq that counts. Rows are committed
in groups every half second, a `barrier` at once. Anybody writes `examples` and `predictions`: a whole file under a
key, and writing the same key again changes nothing.

Durability. A file becomes visible whole or not at all: a temporary name in the same directory, fsync of the file,
rename, fsync of the directory; on an object store one PUT. Acknowledged means durable: `barrier` has returned, or
`durable_seq` has reached the row. What kill -9 of any process at any instant leaves is a prefix of the rows that were
appended, with all that were acknowledged. A disk error is raised by the next `append` or `barrier`; nothing that was
acknowledged is lost by it, and `barrier` may be called again.

Reading. Readers take no lock and may run at any time. A row counts if its file is whole and ours, no merged file
replaces that file, and no newer generation began before it (`results.fences`). A truncated or foreign file is named
in `warnings` and skipped. A report said twice for one (trial, attempt, step), or an event that repeats the one before
it, counts once, the first time. For a step that two attempts have reported, the first finite report feeds the search,
and views show that row alone (`results.reading.one_for_each_step`); a report that is not finite ends its trial.
A folder without a whole `sweep.json` of ours is named in the store's `warnings` and skipped.

Compaction (`results.compaction`). A merged file names those that it replaces; readers leave these out, and they are
deleted ten minutes later. A reader whose file vanished lists again.

Versions. Schema changes only add nullable columns; the version stands in each file's metadata, type, unit and meaning
of every column in its schema.

Trust. Nothing read from a store is ever unpickled or run. Names of sweeps, keys and ensembles cannot leave their
folder. SQL (`results.query`) reads and does nothing else.

Place. A local path, NFS, or a URI that pyarrow knows (`s3://bucket/runs`). An object store has no exclusive creation,
so there two drivers that claim one name or generation in the same instant are not told apart.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from results import fences
from results.compaction import compact, discard
from results.fences import Superseded
from results.files import Folder, StoreError, explained, locate, safe_name
from results.reading import SUFFIX, Cache, decode, encode, fenced, in_order, joined, listing
from results.schemas import TABLES, conform, find, to_rows, to_table
from results.tasks import Task, tasks_of
from results.writer import PERIOD, Writer

__all__ = ["Store", "StoreError", "Superseded", "SweepExists", "SweepFolder", "SweepMissing", "Writer"]

META = "sweep.json"
"""The description of a sweep: JSON, written by whoever begins it. This package reads its `name`, its `tasks`
(`results.tasks`) and, for SQL, single values as they are; the rest is its writer's."""


class SweepExists(StoreError):  # noqa: N818 - the name says what is
    """A sweep of that name is in the store already."""


class SweepMissing(StoreError):  # noqa: N818 - the name says what is
    """No sweep of that name is in the store."""


class Store:
    """The sweeps under one path or URI. Opening it touches nothing: reading an absent store finds no sweeps."""

    def __init__(self, uri: str | Path, *, filesystem: fs.FileSystem | None = None) -> None:
        self.uri = str(uri)
        self.warnings: list[str] = []
        """What the latest `readable`, or a query over the store, skipped, and why."""
        self._folder = locate(uri, filesystem)

    def sweeps(self) -> list[str]:
        """Names of the sweeps, sorted."""
        with explained("read the store", self.uri):
            return [name for name in self._folder.folders() if self._folder.child(name).exists(META)]

    def readable(self) -> list[SweepFolder]:
        """The sweeps whose description can be read, by name; every other folder is named in `warnings`."""
        with explained("read the store", self.uri):
            names = self._folder.folders()
        found, self.warnings = [], []
        for name in names:
            try:
                folder = self.open(name)
                assert folder.meta, "a description that was checked is never empty"
                found.append(folder)
            except SweepMissing:
                self.warnings.append(f"{self._folder.path}/{name} is skipped: it is no sweep, it has no {META}.")
            except StoreError as error:
                self.warnings.append(f"{self._folder.path}/{name} is skipped: {error}")
        return found

    def create(self, name: str, meta: Mapping[str, Any]) -> SweepFolder:
        """Begin a sweep; of several that create one name at once, one gets it and the others SweepExists."""
        folder = self._sweep(name)
        content = json.dumps({"name": name, **meta}, indent=1).encode()
        with explained("write to the store", self.uri):
            if not folder.exists(META):
                for table in (*TABLES, fences.FOLDER, "ensembles"):
                    folder.child(table).make()
                try:
                    folder.write(META, content, new=True)
                    return SweepFolder(folder, name)
                except FileExistsError:
                    pass
        raise SweepExists(f"Sweep `{name}` exists already in `{self.uri}`. Open it, or choose another name.")

    def open(self, name: str) -> SweepFolder:
        """An existing sweep."""
        folder = self._sweep(name)
        with explained("read the store", self.uri):
            if folder.exists(META):
                return SweepFolder(folder, name)
        names = self.sweeps()
        near = difflib.get_close_matches(name, names, 1)
        hint = f"Did you mean `{near[0]}`?" if near else f"It has: {', '.join(names) or 'no sweeps'}."
        raise SweepMissing(f"No sweep `{name}` in `{self.uri}`. {hint}")

    def remove(self, name: str) -> None:
        """Delete a sweep with all that is in it. Its name is free at once."""
        folder = self.open(name)
        with explained("delete", folder.path):
            self._sweep(name).remove()

    def _sweep(self, name: str) -> Folder:
        return self._folder.child(safe_name(name, "Sweep name"))


class SweepFolder:
    """One sweep: its description, its tables, and its writer."""

    def __init__(self, folder: Folder, name: str) -> None:
        self.name = name
        self.path = Path(folder.path)
        """Where the sweep is; for an object store a path within it, not on this machine."""
        self.warnings: list[str] = []
        """What the latest reading of each table, or of some keys of it, skipped, and why."""
        self.folder = folder
        self._cache: Cache = {}
        self._warnings: dict[tuple[str, frozenset[str] | None], list[str]] = {}
        self._meta: dict[str, Any] | None = None

    @property
    def meta(self) -> dict[str, Any]:
        """What `create` was given, as JSON."""
        if self._meta is None:
            with explained("read", f"{self.path}/{META}"):
                content = self.folder.read(META)
            try:
                meta = json.loads(content)
                if not isinstance(meta, dict):
                    raise StoreError(f"expected a JSON object, found {type(meta).__name__}")
                if not isinstance(meta.get("name"), str):
                    raise StoreError(f"`name` must be a text, found {meta.get('name')!r}")
                tasks_of(meta)
            except ValueError as error:
                raise StoreError(f"`{self.path}/{META}` is damaged or foreign: {error}.") from error
            self._meta = meta
        return self._meta

    @property
    def tasks(self) -> dict[str, Task]:
        """The sweep's tasks by name, in the order of their declaration."""
        return tasks_of(self.meta)

    @property
    def generation(self) -> int:
        """The highest generation that has begun; 0 before the first."""
        return fences.generation(self.folder)

    def writer(self, generation: int | None = None, *, period: float = PERIOD) -> Writer:
        """Begin a generation (the next one if not given) as the sole writer of `trials` and `reports`.

        Begin it before `events()` is read: from then on no row of an older generation can be added.
        """
        number = self.generation + 1 if generation is None else generation
        with explained("write to", self.path):
            return Writer(self.folder, number, period=period)

    def write_table(self, table: str, rows: pa.Table | Iterable[Mapping[str, Any]], key: str) -> bool:
        """Write one whole file of `examples` or `predictions`; False if the key is there already, whole."""
        if find(table).sequenced:
            raise StoreError(f"Table `{table}` is written by a `writer`, row by row.")
        name = safe_name(str(key), "Key") + SUFFIX
        content = conform(table, rows) if isinstance(rows, pa.Table) else to_table(table, rows)
        folder = self.folder.child(table)
        if self.has(table, key):
            return False
        with explained("write to", folder.path):
            folder.make()
            folder.write(name, encode(table, content))
        return True

    def has(self, table: str, key: str) -> bool:
        """Whether `write_table` has written that key, and the file can be read."""
        folder, name = self.folder.child(table), safe_name(str(key), "Key") + SUFFIX
        try:
            decode(table, folder.read(name))
        except (FileNotFoundError, StoreError):
            return False
        return True

    def keys(self, table: str) -> list[str]:
        """The keys that `write_table` has written, sorted; the files themselves are not looked into."""
        return [name.removesuffix(SUFFIX) for name in self.folder.child(table).names() if name.endswith(SUFFIX)]

    def read(self, table: str, *, keys: Collection[str] | None = None) -> pa.Table:
        """All rows of a table that count (see the contract); of `examples` and `predictions`, those of `keys`."""
        rule = find(table)
        folder = self.folder.child(table)
        chosen = None if keys is None else frozenset(f"{key}{SUFFIX}" for key in keys)
        with explained("read", folder.path):
            if not rule.sequenced:
                found = listing(folder, table, wanted=None if chosen is None else chosen.__contains__)
                self._warn((table, chosen), found.warnings)
                return joined(table, list(found.tables.values()))
            # Rows first, fences after: a fence always stands before the first row of its generation.
            found = listing(folder, table, self._cache)
            lines, warnings = fences.fences(self.folder)
        self._warn((table, None), found.warnings + warnings)
        return in_order(table, fenced(joined(table, list(found.tables.values())), lines))

    def events(self) -> list[dict[str, Any]]:
        """Rows of `trials` and `reports` in order of seq, each with its `table`: all that a replay needs.

        `config` and `params` are JSON text, maps are dicts. Beside a running writer: a prefix of what it appended.
        """
        # Beside a writer the two tables are of different instants, but rows become durable in order: everything up to
        # the last trial row of before and up to the last report is there, and what comes after that may have gaps.
        before = self.read("trials")
        tables = {"reports": self.read("reports"), "trials": self.read("trials")}
        whole = max([0, *before["seq"].to_pylist(), *tables["reports"]["seq"].to_pylist()])
        rows = [
            {"table": name, **row} for name, table in tables.items() for row in to_rows(table) if row["seq"] <= whole
        ]
        return sorted(rows, key=lambda row: int(row["seq"]))

    def compact(self, *, fewest: int = 2) -> None:
        """Merge small files now; a writer does so by itself as it goes."""
        with explained("write to", self.path):
            for name, table in TABLES.items():
                if table.sequenced:
                    compact(self.folder.child(name), name, fewest=fewest)
                    discard(self.folder.child(name), name)

    def _warn(self, what: tuple[str, frozenset[str] | None], warnings: list[str]) -> None:
        self._warnings[what] = warnings
        self.warnings = sorted({warning for several in self._warnings.values() for warning in several})
