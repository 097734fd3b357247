"""Writes a large sweep into a store: the rows of `history` with the store's schemas and files, then compacted.

The rows go into files of FILE rows at once. The store's writer would commit them in 10,000 groups, which takes hours on
a busy machine and ends in the same merged files.
"""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.store import history
from hpo.driver.ledger import Ledger
from hpo.driver.selection import needed, record_choice, select
from results import fences
from results.evidence import EVIDENCE, evidence_table
from results.reading import SUFFIX, encode
from results.rows import to_table
from results.store import Store, SweepFolder

FILE = 20_000
"""Rows of `trials` and `reports` in a file, and a third of those of `evidence`."""


def create(store: Path, name: str, trials: int, reports: int) -> SweepFolder:
    """Create the sweep `name`, without rows, whose first generation has begun."""
    folder = Store(store).create(name, history.record(name, trials, reports).to_json())
    fences.fence(folder.folder, fences.claim(folder.folder), 0)
    return folder


def fill(store: Path, name: str, trials: int, reports: int) -> SweepFolder:
    """Create the sweep `name` with so many trials, of so many reports each."""
    folder = create(store, name, trials, reports)
    folder.write_table("examples", history.examples(), "benchmark")
    waiting: dict[str, list[Any]] = collections.defaultdict(list)
    firsts: dict[str, int] = {}
    for seq, row in enumerate(history.rows(trials, reports), start=1):
        values = {"seq": seq, "generation": 1, "time": history.CREATED + seq / 10, "host": "node-1", **row.values}
        waiting[row.table].append(values)
        if row.evidence is not None:
            waiting[EVIDENCE].append(evidence_table(values, row.evidence))
        for table, rows in waiting.items():
            firsts.setdefault(table, seq)
            if len(rows) == (FILE if table != EVIDENCE else FILE // 3):
                write(folder, table, firsts.pop(table), seq, rows)
    for table, rows in waiting.items():
        if rows:
            write(folder, table, firsts[table], seq, rows)
    folder.compact(grace=0.0)
    choose(folder)
    return folder


def choose(folder: SweepFolder) -> None:
    """Record which trials predict, as a launch does once its search has ended."""
    ledger = Ledger.of(folder)
    record_choice(folder, ledger, needed(folder, ledger, select(folder, ledger)), ())


def write(folder: SweepFolder, table: str, first: int, last: int, rows: list[Any]) -> None:
    """Write rows, those with seqs from `first` to `last`, as one file, and forget them."""
    content = pa.concat_tables(rows) if table == EVIDENCE else to_table(table, rows)
    folder.folder.child(table).write(f"{1:06d}-{first:012d}-{last:012d}{SUFFIX}", encode(table, content))
    rows.clear()
