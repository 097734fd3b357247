"""Tables that figures are made from: a sweep's reports, its attempts, and its trials at one milestone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from results.objectives import SCORE
from results.reading import report_per_step, since_first_start
from results.rows import to_rows
from results.store import SweepFolder
from results.views import REPEAT

REPORT_TYPES = {
    **dict.fromkeys(("trial", "step", "examples", "used"), "int64"),
    **dict.fromkeys(("elapsed", "seconds", SCORE), "float64"),
    **dict.fromkeys(("state", "origin"), "str"),
}
ATTEMPT_TYPES = {
    **dict.fromkeys(("trial", "attempt", "slot"), "int64"),
    **dict.fromkeys(("begin", "end"), "float64"),
    **dict.fromkeys(("worker", "state", "reason", "error"), "str"),
}
"""Types of the columns of the two tables, also where they are empty."""


def first_time(folder: SweepFolder) -> float:
    """When the sweep's first row was written, in seconds since 1970; 0 without rows. Times in the tables below count
    from it."""
    events = folder.read("trials")
    return _began(to_rows(since_first_start(events, events)))


def _began(rows: Iterable[Mapping[str, Any]]) -> float:
    return min((row["time"] for row in rows), default=0.0)


def reports_frame(folder: SweepFolder) -> pd.DataFrame:
    """One row per trial and step, in the order of the reports.

    Columns: trial, step (milestone, in examples), examples (used by the trial), used (by all trials up to then),
    elapsed (seconds since the sweep's first row), seconds (of training and evaluation), overall, one score for each
    task, state (of the trial now) and origin (default, given, sampler or repeat).
    """
    events = folder.read("trials")
    starts_and_ends = to_rows(since_first_start(events, events))
    began = _began(starts_and_ends)
    states = {row["trial"]: "running" if row["event"] == "start" else row["state"] for row in starts_and_ends}
    origins = {row["trial"]: row["origin"] for row in reversed(starts_and_ends) if row["event"] == "start"}
    rows, used, own = [], 0, dict[int, int]()
    for row in to_rows(report_per_step(folder.read("reports"), events)):
        trial, examples, scores = row["trial"], row["examples"] or row["step"], row["scores"] or {}
        used += max(0, examples - own.get(trial, 0))
        own[trial] = max(examples, own.get(trial, 0))
        rows.append(
            {
                "trial": trial,
                "step": row["step"],
                "examples": examples,
                "used": used,
                "elapsed": row["time"] - began,
                "seconds": row["seconds"],
                SCORE: math.nan if row["diverged"] else row[SCORE],
                **{task: scores.get(task, math.nan) for task in folder.tasks},
                "state": states[trial],
                "origin": origins[trial],
            }
        )
    columns = ["trial", "step", "examples", "used", "elapsed", "seconds", SCORE, *folder.tasks, "state", "origin"]
    return pd.DataFrame(rows, columns=columns).astype({**REPORT_TYPES, **dict.fromkeys(folder.tasks, "float64")})


def attempts_frame(folder: SweepFolder) -> pd.DataFrame:
    """One row per attempt of a trial, in the order of their starts.

    Columns: trial, attempt, worker (place and process that trained it; empty without a report), slot, begin and end
    (seconds since the sweep's first row), state, reason and error (its traceback). Slots, from 1, are the fewest in
    which no two attempts overlap. A running attempt ends at the sweep's latest row. One whose driver died ends at its
    last report, as lost.
    """
    events = folder.read("trials")
    rows = to_rows(since_first_start(events, events))
    reports = to_rows(folder.read("reports"))
    began = _began(rows)
    latest = max([began, *(row["time"] for row in rows), *(row["time"] for row in reports)])
    newest = {row["trial"]: row["attempt"] for row in rows}
    last = {(row["trial"], row["attempt"]): row for row in reports}
    ends: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows:
        if row["event"] == "end":
            ends.setdefault((row["trial"], row["attempt"]), row)  # later rows tell of displaced weights
    attempts: list[dict[str, Any]] = []
    free: list[float] = []
    for row in (row for row in rows if row["event"] == "start"):
        key = row["trial"], row["attempt"]
        running = row["attempt"] == newest[row["trial"]]
        report = last.get(key, {})
        ended = latest if running else report.get("time", row["time"])
        broken = {"time": ended, "state": "running" if running else "lost"}
        end: dict[str, Any] = ends.get(key, broken)
        slot = next((place for place, time in enumerate(free) if time <= row["time"]), len(free))
        free[slot : slot + 1] = [end["time"]]
        attempts.append(
            {
                "trial": row["trial"],
                "attempt": row["attempt"],
                "worker": f"{report['place']}, process {report['pid']}" if report.get("place") else "",
                "slot": slot + 1,
                "begin": row["time"] - began,
                "end": end["time"] - began,
                "state": end["state"],
                "reason": end.get("reason") or "",
                "error": end.get("error") or "",
            }
        )
    return pd.DataFrame(attempts, columns=list(ATTEMPT_TYPES)).astype(ATTEMPT_TYPES)


def shared_step(reports: pd.DataFrame) -> int:
    """The milestone at which trials are best compared: the highest below which none was stopped and that at least half
    of the trials with a report have reached; 0 without a report.

    Trials at a later rung were selected by their scores at the lower ones.
    """
    searched = reports[(reports["origin"] != REPEAT).fillna(True)]
    if searched.empty:
        return 0
    stopped = searched[searched["state"] == "pruned"].groupby("trial")["step"].max()
    limit = stopped.min() if len(stopped) else searched["step"].max()
    reached = searched[searched["step"] <= limit].groupby("step")["trial"].nunique()
    return int(max(reached.index[reached * 2 >= searched["trial"].nunique()], default=searched["step"].min()))


def at_rung(trials: pd.DataFrame, reports: pd.DataFrame, step: int) -> pd.DataFrame:
    """The trials of the search that have a report at a milestone, with their scores there.

    `trials` as of `results.views.trials_frame`, `reports` as of `reports_frame`.
    """
    there = reports[reports["step"] == step].set_index("trial")
    searched = (trials["origin"] != REPEAT).fillna(True)
    shown = trials[trials["trial"].isin(there.index) & searched].copy()
    scores = [name for name in there.columns if name in trials.columns and name not in REPORT_TYPES]
    for name in (SCORE, *scores):
        shown[name] = shown["trial"].map(there[name])
    return shown
