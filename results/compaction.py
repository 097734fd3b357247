"""Compaction: merges small files, as a log-structured merge tree does; files of one size class become one of the next.

A barrier commits a file of a few rows, so a sweep of 10,000 trials would leave 40,000 files. As soon as a size class
holds FEWEST files they are merged; a row is rewritten about log(rows) / log(FEWEST) times.

The merged file names in its metadata the files that it replaces. Once it has been renamed into place, readers read it
instead of them. The replaced files stay for ten minutes, for readers that listed the folder before. A crash at any
point leaves either both (readers drop rows that repeat a seq) or the merged file alone. Two compactions at the same
time do no harm.
"""

from __future__ import annotations

import math
import secrets
import time

import pyarrow.compute as pc

from results.files import Folder
from results.reading import MERGED, SUFFIX, encode, joined, listing

FEWEST = 32
"""Number of files in a size class that starts a merge."""
GRACE = 600.0
"""Seconds for which replaced files stay after the merged file was written."""


def compact(folder: Folder, name: str, *, fewest: int = FEWEST, now: float | None = None) -> list[str]:
    """Merge every size class of a table that has at least `fewest` files; returns the names of the merged files."""
    current = listing(folder, name)
    classes: dict[int, list[str]] = {}
    for file, table in current.tables.items():
        classes.setdefault(int(math.log(max(table.num_rows, 1), FEWEST)), []).append(file)
    written = []
    for files in classes.values():
        if len(files) >= fewest:
            rows = joined(name, [current.tables[file] for file in files]).sort_by("seq")
            # If one of the files is itself a merged file, the files that it replaced may still exist. They must stay
            # replaced after it has been deleted.
            older = (old for file in files for old in current.replaced.get(file, ()) if folder.exists(old))
            replaces = {*files, *older}
            first, last = pc.min(rows["seq"]).as_py(), pc.max(rows["seq"]).as_py()
            merged = f"{MERGED}{first or 0:012d}-{last or 0:012d}-{secrets.token_hex(4)}{SUFFIX}"
            folder.write(merged, encode(name, rows, replaces))
            written.append(merged)
    discard(folder, name, now=now)
    return written


def discard(folder: Folder, name: str, *, now: float | None = None, grace: float = GRACE) -> list[str]:
    """Delete replaced files and temporary files that are old enough; returns the names of the deleted replaced files.

    A replaced file is deleted if its merged file can be read and was written at least `grace` seconds ago.
    """
    now = time.time() if now is None else now
    present = set(folder.names())
    deleted = []
    merges = listing(folder, name, accept=lambda file: file.startswith(MERGED))
    for merged, replaced in merges.replaced.items():
        if folder.age(merged, now) < grace:
            continue
        for file in sorted(present & set(replaced)):
            folder.delete(file)
            deleted.append(file)
    folder.delete_temporaries(now, grace)
    return deleted
