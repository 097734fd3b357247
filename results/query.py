"""SQL over one sweep, or over all sweeps of a store. Every table has a column `sweep`.

trials           one row per trial or repeat: state, scores at its last step, parameters by path; `replicate` is 0 for a
                 trial of the search, and 1, 2, ... for a repeat
reports          one row per trial and step; `scores`, `losses`, `examples_per_task` are maps: `scores['sst']`
attempt_reports  every report of every attempt: a resumed trial may report a step again
starts, ends     start and end events of attempts
examples         ids and labels of the rows that are predicted
predictions      predictions of trials for these rows
sweeps           one row per sweep: seed, budget, milestones, data_..., base_..., searcher_..., scheduler_...
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from results import sql
from results.allowance import Allowance
from results.files import StoreError
from results.parameters import Wanted
from results.reading import report_per_step
from results.schemas import find
from results.sql import QueryError
from results.store import Store, SweepFolder
from results.views import trials_frame

__all__ = ["VIEWS", "QueryError", "query"]


View = Callable[[SweepFolder, Wanted], pa.Table | pd.DataFrame]
"""Reads a sweep's rows of one table of SQL, of columns that take time only those that are wanted."""


def _event(kind: str) -> View:
    def load(folder: SweepFolder, wanted: Wanted) -> pa.Table:
        table = folder.read("trials")
        return table.filter(pc.equal(table["event"], kind))

    return load


VALUES = ("created", "seed", "trials", "budget", "workers", "milestones", "trainer", "config_version", "space_hash")
GROUPS = ("data", "base", "searcher", "scheduler")
"""Single values, and groups of values, that table `sweeps` shows of a sweep's description; null if it has none."""


def _sweep(folder: SweepFolder, wanted: Wanted) -> pd.DataFrame:
    description = folder.meta
    row: dict[str, Any] = {name: description.get(name) for name in VALUES}
    for group in GROUPS:
        values = description.get(group)
        row |= {f"{group}_{name}": value for name, value in (values if isinstance(values, Mapping) else {}).items()}
    return pd.DataFrame([{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()}])


def _reports(folder: SweepFolder, wanted: Wanted) -> pa.Table:
    reports = folder.read("reports", columns={"overall", *wanted(find("reports").schema.names)})
    return report_per_step(reports, folder.read("trials", columns=()))


def _predictions(folder: SweepFolder, wanted: Wanted) -> pa.Table:
    return folder.read("predictions", columns={"row", *wanted(find("predictions").schema.names)})


VIEWS: dict[str, View] = {
    "trials": lambda folder, wanted: trials_frame(folder, wanted=wanted),
    "reports": _reports,
    "attempt_reports": lambda folder, wanted: folder.read("reports", columns=wanted(find("reports").schema.names)),
    "starts": _event("start"),
    "ends": _event("end"),
    "examples": lambda folder, wanted: folder.read("examples", columns={"row", *wanted(find("examples").schema.names)}),
    "predictions": _predictions,
    "sweeps": _sweep,
}
"""Tables of SQL: name -> function that reads a sweep's rows."""


def query(source: Store | SweepFolder, statement: str) -> pd.DataFrame:
    """Run one statement of `results.sql` over a sweep or a store; returns its answer.

    `source.warnings` names the files and folders that could not be read and are missing from the answer. Raises
    QueryError (a ValueError), which names the nearest table or column; LimitError, which is one, for a statement that
    needs too much memory or time.
    """
    allowance = Allowance(sql.MEMORY, sql.SECONDS)
    folders = [source] if isinstance(source, SweepFolder) else _folders(source)
    try:
        for folder in folders:
            folder.allowance = allowance
        return sql.run(statement, {name: _loader(folders, view) for name, view in VIEWS.items()}, allowance)
    finally:
        for folder in folders:
            folder.allowance = None
        if isinstance(source, Store):
            source.warnings += [warning for folder in folders for warning in folder.warnings]


def _folders(store: Store) -> list[SweepFolder]:
    folders = store.readable()
    if not folders:
        raise StoreError(" ".join([f"There are no sweeps in `{store.uri}` that can be read.", *store.warnings]))
    return folders


def _loader(folders: list[SweepFolder], view: View) -> sql.Loader:
    def load(wanted: Wanted) -> pa.Table | pd.DataFrame:
        parts = [(folder.name, view(folder, wanted)) for folder in folders]
        if isinstance(parts[0][1], pa.Table):
            return pa.concat_tables(
                [part.add_column(0, "sweep", pa.array([name] * part.num_rows, pa.string())) for name, part in parts]
            )
        frames = [part.assign(sweep=name) for name, part in parts]
        merged = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
        return merged[["sweep", *(column for column in merged.columns if column != "sweep")]]

    return load
