"""Merging small files, as a log-structured merge tree does: files of one size class become one of the next.

A barrier commits a file of a few rows, so that a sweep of 10,000 trials would leave 40,000 files. Whenever FEWEST
files of a class exist they are merged; a row is rewritten about log(rows) / log(FEWEST) times. The merged file names
in its metadata
those that it replaces; from the instant of its rename readers take it instead. The replaced files stay for ten minutes,
for readers that listed before. A crash at any point leaves either both (the repetition is dropped by seq) or the merged
file alone. Two compactors at once do no harm either.
"""

from __future__ import annotations

import math
import secrets
import time

import pyarrow.compute as pc

from results.files import Folder
from results.reading import MERGED, SUFFIX, encode, joined, listing

FEWEST = 32
"""Files of one size class that are merged together."""
GRACE = 600.0
"""Seconds that replaced files stay after the merged one."""


def compact(folder: Folder, name: str, *, fewest: int = FEWEST, now: float | None = None) -> list[str]:
    """Merge the files of one table where a size class has `fewest`; the names of the new files."""
    found = listing(folder, name)
    classes: dict[int, list[str]] = {}
    for file, table in found.tables.items():
        classes.setdefault(int(math.log(max(table.num_rows, 1), FEWEST)), []).append(file)
    written = []
    for files in classes.values():
        if len(files) >= fewest:
            rows = joined(name, [found.tables[file] for file in files]).sort_by("seq")
            # What a merged file among them replaced, and is still there, must not come back when that one goes.
            replaces = {*files, *(old for file in files for old in found.replaced.get(file, ()) if folder.exists(old))}
            first, last = pc.min(rows["seq"]).as_py(), pc.max(rows["seq"]).as_py()
            merged = f"{MERGED}{first or 0:012d}-{last or 0:012d}-{secrets.token_hex(4)}{SUFFIX}"
            folder.write(merged, encode(name, rows, replaces))
            written.append(merged)
    discard(folder, name, now=now)
    return written


def discard(folder: Folder, name: str, *, now: float | None = None, grace: float = GRACE) -> list[str]:
    """Delete files whose replacement can be read and is older than `grace`, and old temporaries; the names deleted."""
    now = time.time() if now is None else now
    present = set(folder.names())
    deleted = []
    for merged, replaced in listing(folder, name, wanted=lambda file: file.startswith(MERGED)).replaced.items():
        if folder.age(merged, now) < grace:
            continue
        for file in sorted(present & set(replaced)):
            folder.delete(file)
            deleted.append(file)
    folder.sweep_temporaries(now, grace)
    return deleted
