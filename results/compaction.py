"""Compaction: merges small files, as a log-structured merge tree does; files of one size class become one of the next.

A group of half a second is a file of a few rows, so a day of short trials would leave 170,000 files a table. As soon as
a size class holds FEWEST files they are merged; a row is rewritten about log(rows) / log(FEWEST) times.

The merged file names in its metadata the files that it replaces. Once it has been renamed into place, readers read it
instead of them. The replaced files stay for ten minutes, for readers that listed the folder before. A crash at any
point leaves either both (readers drop rows that repeat a seq) or the merged file alone. Two compactions at the same
time do no harm.

Every pass looks at the header of every file that counts. Files never change, so a writer keeps what it has parsed in a
`Cache` from one pass to the next.

Evidence is the bulk of a store, and most of it is never read again. A merged file keeps the evidence of each trial's
last report, and all evidence of trial 0, of trials with kept weights, and of trials that have not ended.
"""

from __future__ import annotations

import functools
import math
import secrets
import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from results.evidence import EVIDENCE
from results.fences import fences
from results.files import Folder
from results.reading import MERGED, SUFFIX, Cache, encode, fenced, joined, listing
from results.schemas import EVENTS

FEWEST = 32
"""Number of files in a size class that starts a merge."""
GRACE = 600.0
"""Seconds for which replaced files stay after the merged file was written."""
DEFAULT = 0
"""Number of the trial with the default configuration."""
INTERRUPTED = ("lost", "paused")
"""States of an end after which the trial starts again."""


def compact_sweep(sweep: Folder, *, fewest: int = FEWEST, grace: float = GRACE, cache: Cache | None = None) -> None:
    """Compact the tables of events of a sweep, and its evidence. Replaced files are deleted after `grace` seconds.
    `cache`: what earlier passes have parsed."""
    cache = {} if cache is None else cache
    for name in EVENTS:
        compact(sweep.child(name), name, fewest=fewest, grace=grace, cache=cache)
    keep = functools.partial(lasting, sweep, cache=cache)
    compact(sweep.child(EVIDENCE), EVIDENCE, fewest=fewest, grace=grace, keep=keep, cache=cache)


def compact(
    folder: Folder,
    name: str,
    *,
    fewest: int = FEWEST,
    now: float | None = None,
    grace: float = GRACE,
    keep: Callable[[pa.Table], pa.Table] | None = None,
    cache: Cache | None = None,
) -> list[str]:
    """Merge every size class of a table that has at least `fewest` files; returns the names of the merged files.

    `keep` chooses the rows that a merged file keeps; None: all. `cache`: what earlier passes have parsed; files that no
    longer count go from it.
    """
    cache = {} if cache is None else cache
    current = listing(folder, name, cache, columns=())
    there = current.tables.keys() | current.replaced.keys()
    for key in [key for key in cache if key[0] == folder.path and key[1] not in there]:
        del cache[key]
    classes: dict[int, list[str]] = {}
    for file, table in current.tables.items():
        classes.setdefault(int(math.log(max(table.num_rows, 1), FEWEST)), []).append(file)
    written = []
    for files in classes.values():
        if len(files) >= fewest:
            read = listing(folder, name, accept=set(files).__contains__).tables  # a damaged file is not replaced
            rows = joined(name, list(read.values())).sort_by("seq")
            # If one of the files is itself a merged file, the files that it replaced may still exist. They must stay
            # replaced after it has been deleted.
            older = (old for file in read for old in current.replaced.get(file, ()) if folder.exists(old))
            replaces = {*read, *older}
            first, last = pc.min(rows["seq"]).as_py(), pc.max(rows["seq"]).as_py()
            merged = f"{MERGED}{first or 0:012d}-{last or 0:012d}-{secrets.token_hex(4)}{SUFFIX}"
            folder.write(merged, encode(name, rows if keep is None else keep(rows), replaces))
            written.append(merged)
    discard(folder, name, now=now, grace=grace, cache=cache)
    return written


def lasting(sweep: Folder, evidence: pa.Table, cache: Cache | None = None) -> pa.Table:
    """The rows of evidence that compaction keeps; see the head of this file."""
    columns: dict[str, tuple[str, ...]] = {"trials": (), "reports": ("diverged",)}
    trials, reports = (
        joined(name, list(listing(sweep.child(name), name, cache, columns=chosen).tables.values()), chosen)
        for name, chosen in columns.items()
    )
    continued, _ = fences(sweep)
    events, finite = fenced(trials, continued).sort_by("seq"), fenced(reports, continued)
    finite = finite.filter(pc.invert(pc.fill_null(finite["diverged"], False)))
    newest = pa.TableGroupBy(events, "trial", use_threads=False).aggregate(
        [(name, "last", pc.ScalarAggregateOptions(skip_nulls=False)) for name in ("event", "state", "checkpoint")]
    )
    ended = pc.and_(
        pc.equal(newest["event_last"], "end"),
        pc.invert(pc.is_in(newest["state_last"], value_set=pa.array(INTERRUPTED))),
    )
    lost = newest.filter(pc.and_(ended, pc.is_null(newest["checkpoint_last"])))["trial"].to_pylist()
    last = finite.group_by("trial").aggregate([("step", "max")])
    steps = dict(zip(last["trial"].to_pylist(), last["step_max"].to_pylist(), strict=True))
    dropped = {trial for trial in lost if trial != DEFAULT and trial in steps}
    pairs = zip(evidence["trial"].to_pylist(), evidence["step"].to_pylist(), strict=True)
    stays = [trial not in dropped or step >= steps[trial] for trial, step in pairs]
    return fenced(evidence.filter(pa.array(stays, pa.bool_())), continued)


def outdated(
    folder: Folder, name: str, *, now: float | None = None, grace: float = GRACE, cache: Cache | None = None
) -> list[str]:
    """Names of a table's files that a merged file, which can be read, replaced at least `grace` seconds ago."""
    now = time.time() if now is None else now
    present = set(folder.names())
    found = []
    old = {file for file in present if file.startswith(MERGED) and folder.age(file, now) >= grace}
    merges = listing(folder, name, cache, accept=old.__contains__, columns=())
    for merged, replaced in merges.replaced.items():
        files = sorted(present & set(replaced))
        if files and listing(folder, name, accept=merged.__eq__).tables:
            found += files
    return list(dict.fromkeys(found))


def replaced(sweep: Folder, now: float) -> list[tuple[str, str]]:
    """Table and name of every outdated file of a sweep."""
    return [(name, file) for name in (*EVENTS, EVIDENCE) for file in outdated(sweep.child(name), name, now=now)]


def discard(
    folder: Folder, name: str, *, now: float | None = None, grace: float = GRACE, cache: Cache | None = None
) -> list[str]:
    """Delete outdated files and temporary files that are old enough; returns the names of the outdated files."""
    now = time.time() if now is None else now
    files = outdated(folder, name, now=now, grace=grace, cache=cache)
    for file in files:
        folder.delete(file)
    for left in folder.temporaries(now, GRACE):
        folder.discard(left)
    return files
