"""One row per trial, the best trials, all about one: what the store's events amount to.

A step that several attempts have reported shows its latest finite report; the search went by the first, finite or not.
Trials are ranked by (last step, overall): a trial that went further was judged better there. Diverged and failed ones
have no rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from results import costs, predictions, sql
from results.files import StoreError
from results.schemas import to_rows
from results.scoring import Scoring
from results.store import SweepFolder

Row = dict[str, Any]
UNRANKED = ("diverged", "failed")
TYPES = {
    **dict.fromkeys(("trial", "attempts", "step", "examples"), "int64"),
    **dict.fromkeys(("overall", "seconds", *costs.RATES), "float64"),
    **dict.fromkeys((*costs.COUNTS, "replicate"), "Int64"),  # with nulls: a trial without a report has no cost
    **dict.fromkeys(("state", "checkpoint", "origin", "config_id", "reason", "error", "config", "params"), "str"),
    "kept": "bool",
}
"""Types of the columns that every `trials_frame` has."""
HELD = "held_"
"""How columns of scores on the held split begin."""


def latest_finite(reports: Iterable[Row]) -> list[Row]:
    """Of each (trial, step) the latest finite report by seq, or the latest if none is: what views show."""
    chosen: dict[tuple[int, int], Row] = {}
    for row in sorted(reports, key=lambda row: -int(row["seq"])):
        at = (row["trial"], row["step"])
        if at not in chosen or (_finite(row) and not _finite(chosen[at])):
            chosen[at] = row
    return sorted(chosen.values(), key=lambda row: int(row["seq"]))


def trials_frame(folder: SweepFolder, scoring: Scoring | None = None) -> pd.DataFrame:
    """One row per trial, by number.

    Columns: trial, state, attempts, step, examples, overall, one for each task (scores on `search` at the last step),
    seconds, trainable_parameters, trainable_share, seconds_per_1000, stage_seconds and peak_memory_bytes (see
    `results.costs`), examples_<task>, kept, checkpoint, origin, seed, config_id, replicate, reason, error, config and
    params (JSON), then every parameter by its name (`adapter.lora/rank`; null where the trial's branch has none). With
    `scoring`: held_overall and held_<task> of trials that have predictions.
    """
    events: dict[int, list[Row]] = {}
    for row in to_rows(folder.read("trials")):
        events.setdefault(int(row["trial"]), []).append(row)
    reports: dict[int, list[Row]] = {}
    for row in latest_finite(to_rows(folder.read("reports"))):
        reports.setdefault(int(row["trial"]), []).append(row)
    tasks = _tasks(folder, reports.values())
    rows = [_trial(trial, events[trial], reports.get(trial, []), tasks) for trial in sorted(events)]
    names = sorted({name for row in rows for name in json.loads(row["params"] or "{}")})
    for row in rows:
        config, params = json.loads(row["config"] or "{}"), json.loads(row["params"] or "{}")
        row.update({name: _plain(params.get(name, configured(config, name))) for name in names})
    columns = [*_trial(0, [], [], tasks), *names]
    # Said, not guessed: a column must have one type in every sweep, however few trials it has yet.
    used = dict.fromkeys((costs.EXAMPLES + task for task in tasks), "Int64")
    frame = pd.DataFrame(rows, columns=columns).astype({**TYPES, **dict.fromkeys(tasks, "float64"), **used})
    if scoring is not None:
        held = {trial: held_scores(folder, scoring, trial) for trial in predictions.predicted(folder)}
        for name in ["overall", *scoring.metrics]:
            frame[HELD + name] = [held.get(trial, {}).get(name, math.nan) for trial in frame["trial"]]
    return frame


def held_scores(folder: SweepFolder, scoring: Scoring, trial: int) -> dict[str, float]:
    """A trial's score on the held split for each task, and `overall`; empty if its predictions are not all there."""
    known = predictions.labels(folder, ("held",))
    columns = predictions.aligned(
        predictions.member(folder, trial, ("held",)), {task: rows for task, (rows, _) in known.items()}
    )
    if columns is None or not known:
        return {}
    values = {task: column.values for task, column in columns.items()}
    scores = scoring.scores(values, {task: wanted for task, (_, wanted) in known.items()})
    return {"overall": scoring.overall(scores), **scores}


def ranking(frame: pd.DataFrame) -> list[int]:
    """Trials best first by (last step, overall), of equals the older; without diverged, failed and unreported ones."""
    able = frame[~frame["state"].isin(UNRANKED) & np.isfinite(frame["overall"].astype(float))]
    ordered = able.sort_values(["step", "overall", "trial"], ascending=[False, False, True])
    return [int(trial) for trial in ordered["trial"]]


def top(folder: SweepFolder, n: int = 10, where: str | None = None, scoring: Scoring | None = None) -> pd.DataFrame:
    """The `n` best trials, best first; `where` is an SQL condition on the columns of `trials_frame`:
    `overall > 0.6 and adapter.lora/rank >= 8`."""
    frame = trials_frame(folder, scoring)
    if where is not None:
        found = sql.run(f"SELECT trial FROM trials WHERE (\n{where}\n)", {"trials": lambda: frame})
        frame = frame[frame["trial"].isin(found["trial"])]
    order = ranking(frame)[:n]
    return frame.set_index("trial", drop=False).loc[order].reset_index(drop=True)


def show(folder: SweepFolder, trial: int, scoring: Scoring | None = None) -> Row:
    """All about one trial: its row of `trials_frame` with `config` and `params` parsed, `rank` (1 is best), `held`
    scores, `attempts` (the events of each) and `reports` in order of seq, each with its `cost` (`results.costs`)."""
    frame = trials_frame(folder)
    numbers = [int(number) for number in frame["trial"]]
    if trial not in numbers:
        known = f"It has trials {numbers[0]} to {numbers[-1]}." if numbers else "It has no trials yet."
        raise StoreError(f"No trial {trial} in sweep `{folder.name}`. {known}")
    row = {
        str(name): None if pd.isna(value) else _plain(value) for name, value in frame.iloc[numbers.index(trial)].items()
    }
    config, params = json.loads(row["config"] or "{}"), json.loads(row["params"] or "{}")
    facts = {
        name: value for name, value in row.items() if name not in ("config", "params", "attempts") and "/" not in name
    }
    order = ranking(frame)
    events = [event for event in to_rows(folder.read("trials")) if event["trial"] == trial]
    has_held = scoring is not None and trial in predictions.predicted(folder)
    return {
        **facts,
        "rank": order.index(trial) + 1 if trial in order else None,
        "held": held_scores(folder, scoring, trial) if scoring is not None and has_held else None,
        "config": config,
        "params": params,
        "attempts": [{k: v for k, v in event.items() if k not in ("config", "params", "error")} for event in events],
        "reports": [
            report | {"cost": costs.cost(report)}
            for report in to_rows(folder.read("reports"))
            if report["trial"] == trial
        ],
    }


def configured(config: Mapping[str, Any], name: str) -> Any:
    """What a configuration has where a parameter's name points, `adapter.lora/rank`; None if it took another branch."""
    node: Any = config
    branches, _, absolute = name.rpartition("//")
    if absolute and branches and not _walk(config, branches):
        return None
    node = _walk(node, absolute or name)
    if isinstance(node, list):
        return "+".join(map(str, node))
    return json.dumps(node) if isinstance(node, Mapping) else node


def _walk(node: Any, name: str) -> Any:
    for part in name.split("/"):
        key, _, branch = part.partition(".")
        node = node.get(key) if isinstance(node, Mapping) else None
        if branch and not (isinstance(node, Mapping) and node.get("kind") == branch):
            return None
    return node


def _finite(row: Row) -> bool:
    return not row["diverged"]


def _tasks(folder: SweepFolder, reports: Iterable[list[Row]]) -> list[str]:
    declared = list(folder.meta.get("tasks") or {})
    return declared or sorted({task for rows in reports for row in rows for task in row["scores"] or {}})


def _trial(trial: int, events: list[Row], reports: list[Row], tasks: list[str]) -> Row:
    """One row from a trial's events and its chosen reports, both in order of seq."""
    starts = [event for event in events if event["event"] == "start"]
    start, event = (starts or [{}])[0], (events or [{}])[-1]
    report = max(reports, key=lambda row: int(row["step"]), default={})
    scores = report.get("scores") or {}
    ended = event.get("event") == "end"
    return {
        "trial": trial,
        "state": event.get("state") if ended else "running",
        "attempts": len(starts),
        "step": report.get("step") or 0,
        "examples": report.get("examples") or 0,
        "overall": _number(report.get("overall")),
        **{task: _number(scores.get(task)) for task in tasks},
        "seconds": max((row["seconds"] for row in reports if row["seconds"] is not None), default=math.nan),
        **costs.columns(report, tasks),
        "kept": ended and event.get("checkpoint") is not None,
        "checkpoint": event.get("checkpoint") if ended else None,
        "origin": start.get("origin"),
        "seed": start.get("seed"),
        "config_id": start.get("config_id"),
        "replicate": start.get("replicate"),
        "reason": event.get("reason"),
        "error": next((one["error"] for one in reversed(events) if one["error"]), None),
        "config": start.get("config"),
        "params": start.get("params"),
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    """JSON's own types; a composite choice as JSON text."""
    if isinstance(value, list | dict):
        return json.dumps(value)
    return value.item() if isinstance(value, np.generic) else value
