"""Candidates of an ensemble: trials whose predictions on `search` exist already, as evidence of their last reports.

A report at the full budget is scored on more rows than one at a lower rung. Candidates have predicted all rows that any
of the trials was scored on. A trial without such evidence (its sweep is older, or its evidence is damaged) is a
candidate if its stored predictions hold these rows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from results.evidence import EVIDENCE, Evidence, arrays, decoded
from results.predictions import DEV, Prediction, aligned, labels, member, predicted
from results.reading import since_first_start
from results.store import SweepFolder

Rows = Mapping[str, NDArray[np.int64]]
"""Row numbers [N] by task, in files of different tasks."""


@dataclass(frozen=True)
class Candidates:
    """Trials to choose from, with their predictions for the same rows of `search`."""

    members: dict[int, dict[str, Prediction]]
    """Trial -> predictions by task."""
    rows: Rows
    """The rows that are predicted, ascending."""
    skipped: list[str]
    """Trials that cannot be chosen, with the reason."""


def candidates(folder: SweepFolder, trials: Sequence[int]) -> Candidates:
    """The candidates among `trials`, in their order."""
    tasks, order = folder.tasks.keys(), search_order(folder)
    found = {trial: member_of(evidence, order) for trial, evidence in last_evidence(folder, trials).items()}
    evidence = {trial: predictions for trial, predictions in found.items() if predictions.keys() == tasks}
    rows: Rows = widest(evidence) or {task: rows for task, (rows, _) in labels(folder, ("search",)).items()}
    if not rows.keys() >= tasks:
        missing = ", ".join(sorted(tasks - rows.keys()))
        return Candidates({}, rows, [f"every trial: `examples` has no labels of {missing} on `search`"])
    rows = {task: rows[task] for task in tasks}
    stored = predicted(folder, DEV)
    members, skipped = {}, []
    for trial in trials:
        chosen = aligned(evidence[trial], rows) if trial in evidence else None
        if chosen is None and trial in stored:
            chosen = aligned(member(folder, trial, ("search",), (DEV,)), rows)
            if chosen is None:
                skipped.append(f"trial {trial}: its predictions are incomplete or not finite")
        if chosen is not None:
            members[trial] = chosen
    return Candidates(members, rows, skipped)


def widest(members: Mapping[int, Mapping[str, Prediction]]) -> dict[str, NDArray[np.int64]]:
    """The most rows of each task that one of the members has predicted. Of two members' rows one holds the other."""
    rows: dict[str, NDArray[np.int64]] = {}
    for predictions in members.values():
        for task, prediction in predictions.items():
            if task not in rows or len(prediction.rows) > len(rows[task]):
                rows[task] = prediction.rows
    return rows


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
    reports = folder.read("reports", columns=("trial", "step", "diverged"))
    if trials is not None:
        reports = reports.filter(pc.is_in(reports["trial"], value_set=pa.array(list(trials), pa.int64())))
    reports = since_first_start(reports, folder.read("trials", columns=()))
    columns = (reports[name].to_pylist() for name in ("trial", "step", "diverged", "generation", "seq"))
    last: dict[int, tuple[int, list[tuple[int, int]]]] = {}
    for trial, step, diverged, generation, seq in zip(*columns, strict=True):
        if diverged:
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


def member_of(evidence: Evidence, order: Rows) -> dict[str, Prediction]:
    """Evidence as predictions by task; `order` as of `search_order`. Without tasks that `order` does not cover."""
    member = {}
    for task, values in evidence.items():
        rows = order.get(task, np.empty(0, np.int64))[: len(values)]
        if len(rows) == len(values):
            ascending = np.argsort(rows)
            predicted, probabilities = decoded(values[ascending])
            member[task] = Prediction(rows[ascending], predicted, probabilities)
    return member
