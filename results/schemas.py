"""Schemas of the store's tables: type, unit and meaning of every column.

Each Parquet file carries meaning and unit in its field metadata and the schema's version in its own metadata. A schema
change only adds nullable columns. The missing columns of an older file are read as nulls; the unknown columns of a
newer file are ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import pyarrow as pa

from results.files import StoreError

VERSION = 6
"""Schema version; it grows by one when columns are added."""

SCORES = pa.map_(pa.string(), pa.float64())
COUNTS = pa.map_(pa.string(), pa.int64())
WORDS = pa.list_(pa.string())
EXACT = pa.float64()


@dataclass(frozen=True)
class Table:
    """One table: its schema, and the rule by which a row repeats an earlier one."""

    schema: pa.Schema
    key: tuple[str, ...] = ()
    """Columns that identify the subject of a row. A table with a key has rows with `seq` and `generation`, which only a
    `Writer` adds. A table without a key consists of whole files, which only `write_table` adds."""
    news: tuple[str, ...] = ()
    """Columns that make a later row with the same key count: it counts only if one of them has changed."""
    beside: str = ""
    """The table whose rows these belong to: they have the `seq` of that row, and count if it counts."""
    group: int | None = None
    """Rows of a row group, the least that a reader of some rows reads; None: the default of Parquet."""

    @property
    def sequenced(self) -> bool:
        """Whether the rows are events, numbered by `seq`, or stand beside events."""
        return bool(self.key)

    def part(self, columns: Collection[str] | None) -> pa.Schema:
        """The schema of some columns and of those by which rows are counted; None: of all columns."""
        if columns is None:
            return self.schema
        names = {*columns, "seq", "generation", *self.key, *self.news}
        return pa.schema([field for field in self.schema if field.name in names], metadata=self.schema.metadata)


def column(name: str, kind: pa.DataType, meaning: str, unit: str = "", required: bool = False) -> pa.Field:
    """A column, with its meaning and unit in the field's metadata."""
    return pa.field(name, kind, nullable=not required, metadata={"meaning": meaning, "unit": unit})


def _schema(columns: Iterable[pa.Field]) -> pa.Schema:
    return pa.schema(list(columns), metadata={"schema_version": str(VERSION)})


_ORDER = [
    column("seq", pa.int64(), "counter over the rows of trials and reports, in the order of events", required=True),
    column("generation", pa.int64(), "number of the run or resume that wrote the row; 1 is the first", required=True),
]
_ATTEMPT = [
    column("trial", pa.int64(), "number of the trial in its sweep; 0 is the default configuration", required=True),
    column("attempt", pa.int64(), "how often the trial was issued before; 0 is the first attempt", required=True),
]
_WRITTEN = [
    column("time", EXACT, "time at which the row was appended", "seconds since 1970"),
    column("host", pa.string(), "name of the machine that appended the row"),
]
_STEP = column("step", pa.int64(), "milestone at which the trial reported", "examples", required=True)
_TASK = column("task", pa.string(), "name of the task", required=True)

TRIALS = _schema(
    [
        *_ORDER,
        *_ATTEMPT,
        column(
            "event",
            pa.string(),
            "`start`: the attempt was issued; `end`: it ended, or its kept weights changed",
            required=True,
        ),
        column("state", pa.string(), "of an end: complete, pruned, diverged, failed, lost or paused"),
        column("origin", pa.string(), "of a start: default, given, sampler or repeat"),
        column("config", pa.string(), "of a start: the complete nested configuration", "JSON"),
        column("params", pa.string(), "of a start: the drawn parameters by name, `adapter.lora/rank`", "JSON"),
        column("seed", pa.int64(), "of a start: the seed of the trial's training"),
        column("config_id", pa.string(), "of a start: identity of the trial's first configuration", "hexadecimal"),
        column("replicate", pa.int64(), "of a start: number of the repetition of this configuration; 0 is the first"),
        column("searcher", pa.string(), "of a start: the searcher that drew the configuration; null if none did"),
        *_WRITTEN,
        column("pid", pa.int64(), "process that appended the row"),
        column("error", pa.string(), "traceback of an attempt that raised"),
        column("reason", pa.string(), "why the attempt ended, in words"),
        column(
            "cause",
            pa.string(),
            "of an attempt without a verdict, whose fault its end is: refused, raised, memory, place, disk or driver",
        ),
        column("place", pa.string(), "of such an attempt: host and device where it ran; empty if not known"),
        column("reached", pa.int64(), "of such an attempt: the trial's newest checkpoint then", "examples"),
        column("checkpoint", pa.string(), "of an end: path of the kept weights; null if none are kept"),
    ]
)

REPORTS = _schema(
    [
        *_ORDER,
        *_ATTEMPT,
        _STEP,
        column("examples", pa.int64(), "training rows that have passed through the loss", "examples"),
        column(
            "overall", EXACT, "weighted mean of the tasks' scores on the search subset; NaN if it diverged", "score"
        ),
        column("scores", SCORES, "score of each task on the search subset", "the task's metric"),
        column("losses", SCORES, "mean training loss of each task since the report before", "loss"),
        column("flags", WORDS, "anomalies of the predictions or the training, for example `constant:sts`"),
        column("diverged", pa.bool_(), "whether a loss or a score was not finite; its scores do not count"),
        column("verdict", pa.string(), "the search's answer: continue or stop"),
        column("seconds", EXACT, "time of training and evaluation so far, over all attempts", "seconds"),
        column("evaluation_seconds", EXACT, "part of `seconds` that was spent on evaluation", "seconds"),
        column("stage_seconds", EXACT, "time of the stages before training, once for all that share them", "seconds"),
        column("trainable_parameters", pa.int64(), "parameters that training changes"),
        column("total_parameters", pa.int64(), "parameters of the whole model"),
        column("peak_memory_bytes", pa.int64(), "largest memory of the worker so far", "bytes"),
        column("examples_per_task", COUNTS, "training rows of each task", "examples"),
        column("checkpoint", pa.string(), "path of the checkpoint that was written just before the report"),
        column("checkpoint_bytes", pa.int64(), "size of that checkpoint", "bytes"),
        column("checkpoint_sha256", pa.string(), "digest of that checkpoint's weights", "hexadecimal"),
        column("place", pa.string(), "host and device where the trial was trained; null in older files"),
        column("pid", pa.int64(), "process that trained it; null in older files"),
        *_WRITTEN,
    ]
)

EVIDENCE = _schema(
    [
        *_ORDER,
        *_ATTEMPT,
        _STEP,
        _TASK,
        column("classes", pa.int64(), "number of classes C; null for a regression"),
        column(
            "probabilities",
            pa.list_(pa.float16()),
            "of each scored row, in the order of `place` in split `search`: C probabilities; of two classes that of "
            "class 1 alone, which is predicted where it is above 1/2",
        ),
        column("scores", pa.list_(pa.float32()), "of a regression: the score of each scored row, in the same order"),
    ]
)

_EXAMPLE = [
    _TASK,
    column("split", pa.string(), "search, held, dev (rows of the dev file without a label) or test", required=True),
    column(
        "row", pa.int64(), "position of the row in its file; search, held and dev share the dev file", required=True
    ),
]

EXAMPLES = _schema(
    [
        *_EXAMPLE,
        column("id", pa.string(), "id of the row in its file"),
        column("label", EXACT, "class or score; null if the row has no label"),
        column(
            "place",
            pa.int64(),
            "position of the row in its split, in the order in which parts of it are scored; null in older files",
        ),
    ]
)

PREDICTIONS = _schema(
    [
        *_ATTEMPT,
        *_EXAMPLE,
        column("value", EXACT, "predicted class or score"),
        column("probabilities", pa.list_(pa.float32()), "probability of each class; null for a regression"),
    ]
)

TABLES: dict[str, Table] = {
    "trials": Table(TRIALS, ("trial", "attempt", "event"), ("state", "error", "reason", "checkpoint"), group=512),
    "reports": Table(REPORTS, ("trial", "attempt", "step"), group=4096),
    "evidence": Table(EVIDENCE, ("trial", "attempt", "step", "task"), beside="reports", group=48),
    "examples": Table(EXAMPLES),
    "predictions": Table(PREDICTIONS),
}
"""Every table of a sweep by its name."""
EVENTS = tuple(name for name, table in TABLES.items() if table.sequenced and not table.beside)
"""Tables of events: `seq` counts their rows."""


def find(name: str) -> Table:
    """The table called `name`. Raises StoreError for an unknown name."""
    if name not in TABLES:
        raise StoreError(f"Unknown table `{name}`. Expected one of: {', '.join(TABLES)}.")
    return TABLES[name]


def conform(name: str, table: pa.Table, schema: pa.Schema | None = None) -> pa.Table:
    """The rows in exactly this version's columns: unknown columns are dropped, missing nullable columns are null.

    `schema`: some of these columns. Raises StoreError if a required column is missing.
    """
    schema = find(name).schema if schema is None else schema
    if table.schema.equals(schema):
        return pa.Table.from_arrays(table.columns, schema=schema)
    columns = []
    for field in schema:
        if field.name in table.column_names:
            columns.append(table[field.name].cast(field.type))
        elif field.nullable:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            raise StoreError(f"Column `{field.name}` is missing; a file of table `{name}` must have it.")
    return pa.table(columns, schema=schema)
