"""The reader's fold: from the rows of `trials` and `reports` to one row a trial, computed in columns.

No step is a loop over rows, and configurations are not read, so a sweep of 10,000 trials with 100,000 reports folds in
a fraction of a second. The driver folds the same rows one by one (`hpo.driver.ledger`); tests hold the two equal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from results import costs
from results.objectives import SCORE
from results.reading import chosen, counted_per_step, first_per_step, since_first_start
from results.schemas import find

if TYPE_CHECKING:
    from results.store import SweepFolder

Places = NDArray[np.int64]
"""Row numbers in a table, one for each trial; -1: the trial has no such row."""
EVENTS = tuple(name for name in find("trials").schema.names if name not in ("config", "params", "host", "pid"))
"""Columns of `trials` that the fold reads; configurations and parameters fill most of a store."""
REPORTS = (
    "trial", "attempt", "step", "examples", "overall", "scores", "diverged", "seconds", "evaluation_seconds",
    "stage_seconds", "trainable_parameters", "total_parameters", "peak_memory_bytes", "examples_per_task", "checkpoint",
)  # fmt: skip
"""Columns of `reports` that the fold reads."""


@dataclass(frozen=True)
class Fold:
    """The trials of a sweep, by number; fields have one entry a trial [T]."""

    trials: NDArray[np.int64]
    """Numbers, ascending."""
    first: pa.Table
    """Row of the first start."""
    newest: pa.Table
    """Row of the last start."""
    event: pa.Table
    """Row of the last event."""
    end: pa.Table
    """Row of the last end; nulls if there is none."""
    starts: NDArray[np.int64]
    """Number of starts."""
    errors: pa.Table
    """Row of the last event with a traceback; nulls if there is none."""
    report: pa.Table
    """The report at the highest step (`results.reading.report_per_step`); nulls if there is none."""
    seconds: NDArray[np.float64]
    """Largest `seconds` of the reports that count, one a step; NaN if there is none."""
    reports: pa.Table
    """Every report of these trials, in order of seq: any number of entries a trial."""
    rows: int
    """Number of rows that were folded."""


def fold(folder: SweepFolder) -> Fold:
    """The trials of a sweep."""
    return folded(*folder.history(EVENTS, REPORTS))


def folded(trials: pa.Table, reports: pa.Table) -> Fold:
    """The trials of a sweep from its rows, both tables in order of seq."""
    rows = trials.num_rows + reports.num_rows
    trials, reports = since_first_start(trials, trials), since_first_start(reports, trials)
    number = trials["trial"].to_numpy()
    start = pc.equal(trials["event"], "start").to_numpy()
    error = pc.fill_null(pc.not_equal(trials["error"], ""), False).to_numpy()
    numbers, first, starts = np.unique(number[start], return_index=True, return_counts=True)

    def last(chosen: NDArray[np.bool_]) -> pa.Table:
        return taken(trials, last_places(numbers, number, np.flatnonzero(chosen)))

    counted = np.flatnonzero(counted_per_step(reports))
    owner = reports["trial"].to_numpy()
    ascending = counted[np.lexsort((reports["step"].to_numpy()[counted], owner[counted]))]
    seconds = np.full(len(numbers), np.nan)
    np.fmax.at(seconds, np.searchsorted(numbers, owner[counted]), reports["seconds"].to_numpy()[counted])
    return Fold(
        numbers,
        taken(trials, np.flatnonzero(start)[first]),
        last(start),
        last(np.ones_like(start)),
        last(~start),
        starts,
        last(error),
        taken(reports, last_places(numbers, owner, ascending)),
        seconds,
        reports,
        rows,
    )


def last_places(numbers: NDArray[np.int64], trial: NDArray[np.int64], rows: NDArray[np.int64]) -> Places:
    """For each of the trials `numbers`: the last of `rows` that is its own. `trial` holds the trial of every row."""
    owners, place = np.unique(trial[rows][::-1], return_index=True)
    places = np.full(len(numbers), -1, np.int64)
    places[np.searchsorted(numbers, owners)] = rows[::-1][place]
    return places


def taken(table: pa.Table, places: Places) -> pa.Table:
    """The rows of a table at these places, nulls where a place is -1."""
    return table.take(pa.array(places, mask=places < 0)).combine_chunks()


class Latest(NamedTuple):
    """What all rows of a trial say together."""

    attempt: int
    """The newest attempt."""
    examples: int
    """Largest number of examples of a report; 0 without a report."""
    checkpoint: str | None
    """Checkpoint that the newest report names."""
    steps: tuple[int, ...]
    """Steps with a report, ascending."""


def latest(found: Fold) -> list[Latest]:
    """One entry a trial."""
    reports, owner = found.reports, found.reports["trial"].to_numpy()
    place = np.searchsorted(found.trials, owner)
    examples = np.zeros(len(found.trials), np.int64)
    attempts = np.maximum(found.newest["attempt"].to_numpy(), found.event["attempt"].to_numpy())
    np.maximum.at(attempts, place, reports["attempt"].to_numpy())
    steps = reports["step"]
    used = pc.if_else(pc.equal(reports["examples"], 0), steps, reports["examples"])
    np.maximum.at(examples, place, pc.coalesce(used, steps).to_numpy())
    named = np.flatnonzero(pc.is_valid(reports["checkpoint"]).to_numpy())
    checkpoints = taken(reports.select(["checkpoint"]), last_places(found.trials, owner, named))["checkpoint"]
    first = first_per_step(reports)
    owner, reported = owner[first], steps.to_numpy()[first]
    ascending = np.lexsort((reported, owner))
    ordered = reported[ascending].tolist()
    bounds = [*np.searchsorted(owner[ascending], found.trials).tolist(), len(ordered)]
    return [
        Latest(attempt, most, checkpoint, tuple(ordered[begin:end]))
        for attempt, most, checkpoint, (begin, end) in zip(
            attempts.tolist(), examples.tolist(), checkpoints.to_pylist(), itertools.pairwise(bounds), strict=True
        )
    ]


def scores_per_step(found: Fold, targets: Collection[str]) -> dict[int, dict[int, dict[str, float]]]:
    """Trial -> step -> target (`overall` or a task) -> score, NaN where there is none, of the reports that count."""
    reports = chosen(found.reports, counted_per_step(found.reports))
    values = [_scores(reports, target).to_numpy().tolist() for target in targets]
    per_step: dict[int, dict[int, dict[str, float]]] = {}
    numbers = reports["trial"].to_pylist(), reports["step"].to_pylist()
    for trial, step, *scores in zip(*numbers, *values, strict=True):
        per_step.setdefault(trial, {})[step] = dict(zip(targets, scores, strict=True))
    return per_step


def _scores(reports: pa.Table, target: str) -> pa.ChunkedArray:
    """The scores for a target, NaN where there is none."""
    if target == SCORE:
        scores = pc.if_else(pc.fill_null(reports["diverged"], False), math.nan, reports["overall"])
    else:
        scores = pc.map_lookup(reports["scores"], pa.scalar(target), "first")
    return pc.fill_null(scores, math.nan)


def columns(found: Fold, tasks: list[str]) -> pa.Table:
    """Facts about each trial as columns: those of `results.views.trials_frame` up to `error`."""
    ended = pc.equal(found.event["event"], "end")
    kept = pc.and_(ended, pc.is_valid(found.event["checkpoint"]))
    report = found.report
    scores = {task: pc.map_lookup(report["scores"], pa.scalar(task), "first") for task in tasks}
    first = {name: found.first[name] for name in ("origin", "seed", "config_id", "replicate")}
    return pa.table(
        {
            "trial": found.trials,
            "state": pc.if_else(ended, found.event["state"], "running"),
            "attempts": found.starts,
            "step": pc.fill_null(report["step"], 0),
            "examples": pc.fill_null(report["examples"], 0),
            "overall": report["overall"],
            **scores,
            "seconds": found.seconds,
            **costs.columns(report, tasks),
            "kept": kept,
            "checkpoint": pc.if_else(ended, found.event["checkpoint"], pa.scalar(None, pa.string())),
            **first,
            "reason": found.event["reason"],
            "error": found.errors["error"],
        }
    )
