"""Predictions of trials on `search` that exist already: the evidence of their last reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from results.evidence import EVIDENCE, Evidence, arrays, decoded
from results.predictions import Prediction
from results.reading import since_first_start
from results.store import SweepFolder


def search_order(folder: SweepFolder) -> dict[str, NDArray[np.int64]]:
    """Rows of `search` by task, in the order in which reports score them; empty if `examples` does not tell it."""
    table = folder.read("examples")
    table = table.filter(pc.and_(pc.equal(table["split"], "search"), pc.is_valid(table["place"]))).sort_by("place")
    tasks = pc.unique(table["task"]).to_pylist()
    return {task: table.filter(pc.equal(table["task"], task))["row"].to_numpy() for task in tasks}


def last_evidence(folder: SweepFolder, trials: Collection[int] | None = None) -> dict[int, Evidence]:
    """Trial -> evidence of its last report that did not diverge, for `trials` or all; absent where there is none.

    Files and row groups of other reports are not read.
    """
    reports = since_first_start(folder.read("reports"), folder.read("trials"))
    columns = (reports[name].to_pylist() for name in ("trial", "step", "diverged", "generation", "seq"))
    last: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    for trial, step, diverged, generation, seq in zip(*columns, strict=True):
        if diverged or (trials is not None and trial not in trials):
            continue
        if trial not in last or step > last[trial][0]:
            last[trial] = step, []
        if step == last[trial][0]:  # attempts that report a step again do the same work
            last[trial][1].append((generation, seq))
    stored: dict[tuple[int, int], dict[str, NDArray[np.floating]]] = {}
    for row, values in arrays(folder.rows(EVIDENCE, [seq for _, keys in last.values() for _, seq in keys])):
        stored.setdefault((row["generation"], row["seq"]), {})[row["task"]] = values
    found = {trial: next((stored[key] for key in keys if key in stored), None) for trial, (_, keys) in last.items()}
    return {trial: evidence for trial, evidence in found.items() if evidence is not None}


def member_of(evidence: Evidence, order: Mapping[str, NDArray[np.int64]]) -> dict[str, Prediction]:
    """Evidence as predictions by task; `order` as of `search_order`. Without tasks that `order` does not cover."""
    member = {}
    for task, values in evidence.items():
        rows = order.get(task, np.empty(0, np.int64))[: len(values)]
        if len(rows) == len(values):
            ascending = np.argsort(rows)
            predicted, probabilities = decoded(values[ascending])
            member[task] = Prediction(rows[ascending], predicted, probabilities)
    return member
