"""Reading a table: from its files to the rows that count.

    rows of readable files - files that a merged file replaces - rows behind a fence - repetitions, in order of seq

A warning names every file that is damaged (truncated, or with a flipped bit: pages carry checksums) or not written by
a store; the file is skipped. Files never change, so a reader may cache parsed files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from results.allowance import Allowance, least
from results.files import Folder, StoreError
from results.schemas import VERSION, conform, find

MERGED = "merged-"
"""Prefix of the names of merged files."""
SUFFIX = ".parquet"
RELISTINGS = 20
"""Number of times that a reader lists a folder whose files vanish (compaction deletes only after ten minutes)."""


@dataclass
class Listing:
    """Parsed files of one table that count, and warnings about the files that were skipped."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    replaced: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Merged file -> the files that it replaces."""
    warnings: list[str] = field(default_factory=list)


Cache = dict[tuple[str, str, frozenset[str] | None], pa.Table]
"""Parsed files by (folder, file name, columns; None: all)."""


def encode(name: str, table: pa.Table, replaces: Collection[str] = ()) -> bytes:
    """Rows of table `name` as the bytes of one Parquet file."""
    metadata = {"table": name, "schema_version": str(VERSION), "replaces": json.dumps(sorted(replaces))}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        use_dictionary=[path for column in table.schema for path in _repeating(column)],
        write_page_checksum=True,
        row_group_size=find(name).group,
    )
    return bytes(sink.getvalue())


def _repeating(column: pa.Field) -> list[str]:
    """The parts of a column whose values repeat, by their paths in Parquet; a dictionary makes these smaller.

    Lists of numbers are predictions, which do not repeat. With a dictionary they are larger and slower to read.
    """
    if pa.types.is_map(column.type):
        return [f"{column.name}.key_value.key", f"{column.name}.key_value.value"]
    if pa.types.is_list(column.type):
        return [] if pa.types.is_floating(column.type.value_type) else [f"{column.name}.list.element"]
    return [column.name]


def decode(
    name: str,
    content: bytes | pa.NativeFile,
    *,
    seqs: Collection[int] | None = None,
    columns: Collection[str] | None = None,
    allowance: Allowance | None = None,
) -> pa.Table:
    """The rows in a file of table `name`, in this version's columns. Raises StoreError for any other content.

    With `seqs` only rows with these are returned, and only the row groups that may hold them are read. With `columns`
    only these are read, and those by which rows are counted. `allowance`: what may be read; raises as it does.
    """
    schema = find(name).part(columns)
    source = pa.BufferReader(content) if isinstance(content, bytes) else content
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        # Without threads: files are small, and a short command may end while Arrow still starts its pool, which aborts.
        there = None if columns is None else [column for column in schema.names if column in file.schema_arrow.names]
        if allowance is not None:
            allowance.check(least(file.metadata, there))
        table = file.read(there, use_threads=False) if seqs is None else _rows_of(file, seqs)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for a column's name
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"it is damaged or not a Parquet file ({source.size()} bytes): {reason}") from error
    if allowance is not None:
        allowance.take(table.nbytes)
    metadata = table.schema.metadata or {}
    owner = metadata.get(b"table", b"").decode(errors="replace")
    if owner != name:
        raise StoreError(f"it belongs to table `{owner}`, not `{name}`" if owner else "it was not written by a store")
    replaces = metadata.get(b"replaces", b"[]")
    try:
        return conform(name, table, schema).replace_schema_metadata({"replaces": replaces})
    except pa.ArrowException as error:
        raise StoreError(f"its columns do not fit table `{name}`: {error}") from error


def _rows_of(file: pq.ParquetFile, seqs: Collection[int]) -> pa.Table:
    """The rows of a file whose `seq` is one of `seqs`."""
    place = file.schema_arrow.get_field_index("seq")
    if place < 0:
        return file.schema_arrow.empty_table()
    groups = []
    for group in range(file.num_row_groups):
        extremes = file.metadata.row_group(group).column(place).statistics
        if extremes is None or not extremes.has_min_max or any(extremes.min <= seq <= extremes.max for seq in seqs):
            groups.append(group)
    table = file.read_row_groups(groups, use_threads=False)
    return table.filter(pc.is_in(table["seq"], value_set=pa.array(list(seqs), pa.int64())))


NUMBERED = re.compile(r"(?:merged-|\d+-)(\d+)-(\d+)\b")
"""Name of a file of events: the first and the last `seq` of its rows."""


def may_follow(seq: int, file: str) -> bool:
    """Whether a file may hold rows with a higher seq; the last one stands in its name."""
    numbers = NUMBERED.match(file)
    return numbers is None or int(numbers[2]) > seq


def lookup(folder: Folder, name: str, seqs: Collection[int]) -> Listing:
    """The rows of a table with these `seqs`, by file: other files are not opened. Rows may stand in several files.

    Raises StoreError if files vanish again and again while they are read.
    """
    for _ in range(RELISTINGS):
        try:
            return _lookup(folder, name, seqs)
        except FileNotFoundError:
            continue
    raise StoreError(f"Files keep vanishing from `{folder.path}` while they are read; is something else cleaning it?")


def _lookup(folder: Folder, name: str, seqs: Collection[int]) -> Listing:
    result = Listing()
    for file in _names(folder):
        numbers = NUMBERED.match(file)
        wanted = [seq for seq in seqs if int(numbers[1]) <= seq <= int(numbers[2])] if numbers else []
        if wanted:
            try:
                with folder.open(file) as stream:
                    result.tables[file] = decode(name, stream, seqs=wanted)
            except StoreError as error:
                result.warnings.append(f"{folder.path}/{file} is skipped: {error}.")
    return result


def listing(
    folder: Folder,
    name: str,
    cache: Cache | None = None,
    accept: Callable[[str], bool] | None = None,
    columns: Collection[str] | None = None,
    allowance: Allowance | None = None,
) -> Listing:
    """The files of a table that count now; `accept` selects some of them by file name. With `columns` only these are
    read, and those by which rows are counted. `allowance`: what may be read; raises as it does.

    Raises StoreError if files vanish again and again while they are read.
    """
    for _ in range(RELISTINGS):
        try:
            return _listing(folder, name, cache if cache is not None else {}, accept, columns, allowance)
        except FileNotFoundError:
            continue
    raise StoreError(f"Files keep vanishing from `{folder.path}` while they are read; is something else cleaning it?")


def _listing(
    folder: Folder,
    name: str,
    cache: Cache,
    accept: Callable[[str], bool] | None,
    columns: Collection[str] | None,
    allowance: Allowance | None,
) -> Listing:
    result, gone = Listing(), set[str]()
    part = None if columns is None else frozenset(columns)
    names = [file for file in _names(folder) if accept is None or accept(file)]

    def parsed(file: str) -> tuple[str, pa.Table | StoreError]:
        if not file.endswith(SUFFIX):
            return file, StoreError(f"it is not a {SUFFIX} file")
        table = cache.get((folder.path, file, part))
        try:
            return file, _parsed(folder, name, file, columns, allowance) if table is None else table
        except StoreError as error:
            return file, error

    # Merged files come first, so that the files that they replace need not be opened.
    for group in (
        (file for file in names if file.startswith(MERGED)),
        (file for file in names if not file.startswith(MERGED) and file not in gone),
    ):
        for file, table in folder.map(parsed, group):
            if isinstance(table, StoreError):
                result.warnings.append(f"{folder.path}/{file} is skipped: {table}.")
                continue
            cache[folder.path, file, part] = table
            result.tables[file] = table
            if file.startswith(MERGED):
                result.replaced[file] = tuple(json.loads(table.schema.metadata[b"replaces"]))
                gone.update(result.replaced[file])
    for file in gone & result.tables.keys():
        del result.tables[file]
    return result


def _parsed(
    folder: Folder, name: str, file: str, columns: Collection[str] | None, allowance: Allowance | None
) -> pa.Table:
    if columns is None:
        return decode(name, folder.read(file), allowance=allowance)
    with folder.open(file) as stream:
        return decode(name, stream, columns=columns, allowance=allowance)


def _names(folder: Folder) -> list[str]:
    """Names of the files in a folder, without gaps.

    One listing may miss a file that was created while it ran, and still show a file that was created later. If two
    listings in a row agree, they hold every file that is older than any file that they show.
    """
    names = folder.names()
    for _ in range(RELISTINGS):
        previous, names = names, folder.names()
        if names == previous:
            break
    return names


def joined(name: str, tables: Collection[pa.Table], columns: Collection[str] | None = None) -> pa.Table:
    """The rows of several files of table `name` as one table; `columns`: those that were read."""
    schema = find(name).part(columns)
    return pa.concat_tables([schema.empty_table(), *(t.replace_schema_metadata(schema.metadata) for t in tables)])


def fenced(table: pa.Table, fences: dict[int, int]) -> pa.Table:
    """The rows that no fence excludes: those written before any newer generation had begun.

    `fences[g]` is the seq that generation g continued from. A row of generation h with seq s counts only if
    s <= fences[g] for every g > h.
    """
    generations, seqs = table["generation"].to_numpy(), table["seq"].to_numpy()
    counts = np.ones(table.num_rows, np.bool_)
    for generation, continued_from in fences.items():
        counts &= ~((generations < generation) & (seqs > continued_from))
    return chosen(table, counts)


def complete(trials: NDArray[np.int64], reports: NDArray[np.int64], *, after: int = 0, damaged: bool = False) -> int:
    """Highest seq up to which no row is missing, from the seqs of both tables; those above `after` are given.

    A writer commits groups in order, and of a group its rows of `trials` last. So up to the newest row of `trials` all
    rows are there; of the reports behind it those count whose seqs follow without a gap. The others belong to a group
    that is being written, or whose writer was killed: none of its rows is acknowledged. `damaged`: a file was skipped,
    so a gap says nothing, and every row counts.
    """
    newest = max(after, int(trials.max(initial=0)))
    later = np.unique(reports[reports > newest])
    if damaged:
        return max(newest, int(later.max(initial=0)))
    return newest + int(np.sum(later == newest + 1 + np.arange(len(later))))


def chosen(table: pa.Table, counts: NDArray[np.bool_]) -> pa.Table:
    """The rows of a table for which `counts` is true."""
    return table if counts.all() else table.filter(pa.array(counts))


def in_order(name: str, table: pa.Table) -> pa.Table:
    """Rows of table `name` in order of seq, without repetitions (see `Table.key` and `Table.news`)."""
    if (np.diff(table["seq"].to_numpy()) <= 0).any():
        table = table.sort_by([("seq", "ascending"), ("generation", "descending")])
    rule = find(name)
    keys, news = ([_codes(table[column]) for column in columns] for columns in (rule.key, rule.news))
    order = np.lexsort(keys)  # stable: rows of one key stay in order of seq
    return chosen(table, _first_of_run(order, *keys, *news))


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Integers that are equal where the values of a column are; null equals null."""
    values = column.combine_chunks()
    if not pa.types.is_integer(values.type):
        values = pc.dictionary_encode(values, null_encoding="encode").indices
    codes: NDArray[np.int64] = values.to_numpy(zero_copy_only=False)
    return codes


def _first_of_run(order: NDArray[np.int64], *columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Of the rows in `order`: which of them differ in some column from the row before. As flags by row number."""
    differs = np.zeros(len(order), np.bool_)
    differs[:1] = True
    for values in columns:
        differs[1:] |= values[order][1:] != values[order][:-1]
    flags = np.empty_like(differs)
    flags[order] = differs
    return flags


def since_first_start(rows: pa.Table, trials: pa.Table) -> pa.Table:
    """Rows of `trials` or `reports` from each trial's first start on, `trials` being the table of all events, in order
    of seq.

    If the row of a start is lost (a damaged file), the trial is drawn again: earlier rows belong to an unknown
    configuration, and count nowhere.
    """
    starts = trials.filter(pc.equal(trials["event"], "start"))
    numbers, first = np.unique(starts["trial"].to_numpy(), return_index=True)
    if not len(numbers):
        return rows.slice(0, 0)
    trial, seq = rows["trial"].to_numpy(), rows["seq"].to_numpy()
    place = np.minimum(np.searchsorted(numbers, trial), len(numbers) - 1)
    return chosen(rows, (numbers[place] == trial) & (seq >= starts["seq"].to_numpy()[first][place]))


def report_per_step(reports: pa.Table, trials: pa.Table) -> pa.Table:
    """One report for each (trial, step): the first finite one since the trial's first start, or else the first.

    Both tables are in order of seq. Attempts of a trial repeat the same work, so a resumed trial may report a step
    again. The search goes by this report, and every view shows it.
    """
    reports = since_first_start(reports, trials)
    return chosen(reports, counted_per_step(reports))


def counted_per_step(reports: pa.Table) -> NDArray[np.bool_]:
    """Which reports count, by the rule of `report_per_step`."""
    return first_per_step(reports, late=~np.isfinite(reports["overall"].to_numpy()))


def first_per_step(reports: pa.Table, late: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Which reports, in order of seq, are the first of their (trial, step); those for which `late` is true come after
    the others."""
    trial, step = reports["trial"].to_numpy(), reports["step"].to_numpy()
    order = np.lexsort((step, trial) if late is None else (late, step, trial))  # stable, as above
    return _first_of_run(order, trial, step)
