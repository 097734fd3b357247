"""From files to rows: what is ours, what still counts, what was said once.

    rows of readable files - files that a merged file replaces - rows behind a fence - repetitions, in order of seq

A file that cannot be read whole (truncated, a flipped bit: pages carry checksums) or that is not ours is named in a
warning and skipped. Files are immutable, so a reader may keep what it has parsed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.files import Folder, StoreError
from results.schemas import VERSION, conform, find

MERGED = "merged-"
"""How names of merged files begin."""
SUFFIX = ".parquet"
RELISTINGS = 20
"""How often a reader lists again when a file vanished under it (compaction deletes only after ten minutes)."""


@dataclass
class Listing:
    """The files of one table that count, parsed, and what was wrong with the others."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    replaced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Of each merged file, the files that it replaces."""
    warnings: list[str] = field(default_factory=list)

    @property
    def gone(self) -> set[str]:
        """Every file that some merged file replaces."""
        return {name for names in self.replaced.values() for name in names}


Cache = dict[tuple[str, str], pa.Table]
"""Parsed files by folder and name."""


def encode(name: str, table: pa.Table, replaces: Collection[str] = ()) -> bytes:
    """One Parquet file of that table as bytes."""
    metadata = {"table": name, "schema_version": str(VERSION), "replaces": json.dumps(sorted(replaces))}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def decode(name: str, content: bytes) -> pa.Table:
    """The table in the bytes, in this version's columns; StoreError if they are no whole file of that table."""
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"it is damaged or no Parquet file ({len(content)} bytes): {first}") from error
    metadata = table.schema.metadata or {}
    found = metadata.get(b"table", b"").decode(errors="replace")
    if found != name:
        raise StoreError(f"it belongs to table `{found}`, not `{name}`" if found else "it was not written by a store")
    replaces = metadata.get(b"replaces", b"[]")
    try:
        return conform(name, table).replace_schema_metadata({"replaces": replaces})
    except pa.ArrowException as error:
        raise StoreError(f"its columns do not fit table `{name}`: {error}") from error


def listing(
    folder: Folder, name: str, cache: Cache | None = None, wanted: Callable[[str], bool] | None = None
) -> Listing:
    """Every file of a table that counts now. `wanted` chooses by file name."""
    for _ in range(RELISTINGS):
        try:
            return _listing(folder, name, cache if cache is not None else {}, wanted)
        except FileNotFoundError:
            continue
    raise StoreError(f"Files keep vanishing from `{folder.path}` while they are read; is something else cleaning it?")


def _listing(folder: Folder, name: str, cache: Cache, wanted: Callable[[str], bool] | None) -> Listing:
    result = Listing()
    # Merged files first: what they replace need not be opened at all.
    for file in sorted(_names(folder), key=lambda file: (not file.startswith(MERGED), file)):
        if file in result.gone or (wanted is not None and not wanted(file)):
            continue
        if not file.endswith(SUFFIX):
            result.warnings.append(f"{folder.path}/{file} is skipped: it is no file of a store.")
            continue
        table = cache.get((folder.path, file))
        if table is None:
            try:
                table = cache[folder.path, file] = decode(name, folder.read(file))
            except StoreError as error:
                result.warnings.append(f"{folder.path}/{file} is skipped: {error}.")
                continue
        result.tables[file] = table
        if file.startswith(MERGED):
            result.replaced[file] = tuple(json.loads(table.schema.metadata[b"replaces"]))
    for file in result.gone & result.tables.keys():
        del result.tables[file]
    return result


def _names(folder: Folder) -> list[str]:
    """The files of a folder, without gaps: a listing may miss a file that was created while it ran, yet show one that
    was created later. If two listings in a row agree, whatever stood before a file that they show is in them too."""
    names = folder.names()
    for _ in range(RELISTINGS):
        before, names = names, folder.names()
        if names == before:
            break
    return names


def joined(name: str, tables: Collection[pa.Table]) -> pa.Table:
    """The rows of several files as one table."""
    schema = find(name).schema
    return pa.concat_tables([schema.empty_table(), *(t.replace_schema_metadata(schema.metadata) for t in tables)])


def fenced(table: pa.Table, fences: dict[int, int]) -> pa.Table:
    """Without the rows that an older generation wrote after a newer one began.

    `fences` gives for each generation the seq that it continued from: a row (generation h, seq s) counts only if
    s <= fences[g] for every g > h.
    """
    keep = pa.array([True] * table.num_rows, pa.bool_())
    for generation, continued_from in fences.items():
        older = pc.less(table["generation"], generation)
        late = pc.greater(table["seq"], continued_from)
        keep = pc.and_(keep, pc.invert(pc.and_(older, late)))
    return table.filter(keep)


def in_order(name: str, table: pa.Table) -> pa.Table:
    """Rows by seq, each event once: see `Table.key` and `Table.news`."""
    table = table.sort_by([("seq", "ascending"), ("generation", "descending")])
    rule = find(name)
    keys = zip(*(table[column].to_pylist() for column in rule.key), strict=True)
    news = list(zip(*(table[column].to_pylist() for column in rule.news), strict=True)) or [()] * table.num_rows
    last: dict[tuple[object, ...], tuple[object, ...]] = {}
    kept = []
    for index, key in enumerate(keys):
        if last.get(key) != news[index]:
            last[key] = news[index]
            kept.append(index)
    return table if len(kept) == table.num_rows else table.take(pa.array(kept, pa.int64()))


def one_for_each_step(reports: pa.Table) -> pa.Table:
    """One of the reports, given in order of seq, for each (trial, step): the first finite one, or the first.

    Attempts of a trial repeat the same work, so a resumed trial may report a step again. The search goes by the first
    report; every view shows it.
    """
    overall = reports["overall"].to_pylist()
    chosen: dict[tuple[int, int], int] = {}
    for index, at in enumerate(zip(reports["trial"].to_pylist(), reports["step"].to_pylist(), strict=True)):
        if at not in chosen or (_finite(overall[index]) and not _finite(overall[chosen[at]])):
            chosen[at] = index
    return reports if len(chosen) == reports.num_rows else reports.take(pa.array(sorted(chosen.values()), pa.int64()))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
