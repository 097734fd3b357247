"""SQL over a sweep, or over all sweeps of a store with a column `sweep`.

trials           one row per trial: state, scores at its last step, parameters by name
reports          one row per trial and step; `scores`, `losses`, `examples_per_task` are maps: `scores['sst']`
attempt_reports  every report of every attempt: a resumed trial may report a step again
starts, ends     the events of attempts
examples, predictions
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
from results.files import StoreError
from results.reading import one_for_each_step
from results.sql import QueryError
from results.store import Store, SweepFolder
from results.views import trials_frame

__all__ = ["VIEWS", "QueryError", "query"]


def _event(kind: str) -> Callable[[SweepFolder], pa.Table]:
    def load(folder: SweepFolder) -> pa.Table:
        table = folder.read("trials")
        return table.filter(pc.equal(table["event"], kind))

    return load


PLAIN = ("created", "seed", "trials", "budget", "workers", "milestones", "trainer", "config_version", "space_hash")
GROUPS = ("data", "base", "searcher", "scheduler")
"""Single values, and groups of values, of a sweep's description that SQL shows; null where it has none."""


def _sweep(folder: SweepFolder) -> pd.DataFrame:
    description = folder.meta
    row: dict[str, Any] = {name: description.get(name) for name in PLAIN}
    for group in GROUPS:
        values = description.get(group)
        row |= {f"{group}_{name}": value for name, value in (values if isinstance(values, Mapping) else {}).items()}
    return pd.DataFrame([{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()}])


VIEWS: dict[str, Callable[[SweepFolder], pa.Table | pd.DataFrame]] = {
    "trials": trials_frame,
    "reports": lambda folder: one_for_each_step(folder.read("reports")),
    "attempt_reports": lambda folder: folder.read("reports"),
    "starts": _event("start"),
    "ends": _event("end"),
    "examples": lambda folder: folder.read("examples"),
    "predictions": lambda folder: folder.read("predictions"),
    "sweeps": _sweep,
}
"""What SQL may name, and how a sweep's rows of it are read."""


def query(source: Store | SweepFolder, statement: str) -> pd.DataFrame:
    """The answer to one SELECT; QueryError (a ValueError) for anything else, naming the nearest table or column.

    What could not be read, and so is not in the answer, is named in `source.warnings`.
    """
    folders = [source] if isinstance(source, SweepFolder) else _folders(source)
    try:
        return sql.run(statement, {name: _loader(folders, view) for name, view in VIEWS.items()})
    finally:
        if isinstance(source, Store):
            source.warnings += [warning for folder in folders for warning in folder.warnings]


def _folders(store: Store) -> list[SweepFolder]:
    folders = store.readable()
    if not folders:
        raise StoreError(" ".join([f"There are no sweeps in `{store.uri}` that can be read.", *store.warnings]))
    return folders


def _loader(
    folders: list[SweepFolder], view: Callable[[SweepFolder], pa.Table | pd.DataFrame]
) -> Callable[[], pa.Table | pd.DataFrame]:
    def load() -> pa.Table | pd.DataFrame:
        parts = [(folder.name, view(folder)) for folder in folders]
        if isinstance(parts[0][1], pa.Table):
            return pa.concat_tables(
                [part.add_column(0, "sweep", pa.array([name] * part.num_rows, pa.string())) for name, part in parts]
            )
        frames = [part.assign(sweep=name) for name, part in parts]
        whole = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
        return whole[["sweep", *(column for column in whole.columns if column != "sweep")]]

    return load
