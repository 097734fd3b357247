"""Tables of trials, computed from the store's rows: one row per trial, the best trials, one trial in detail.

If several attempts have reported a step, the tables show the report by which the search went
(`results.reading.report_per_step`). Trials are ranked by (last step, overall): a trial that trained longer ranks above
the trials that were stopped earlier. Diverged and failed trials have no rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from results import costs, noise, predictions, sql
from results.files import StoreError
from results.names import by_path
from results.objectives import Objective, gains, undominated
from results.reading import report_per_step, since_first_start
from results.schemas import to_rows
from results.scoring import Scoring
from results.store import SweepFolder

Row = dict[str, Any]
UNRANKED = ("diverged", "failed")
"""States of trials without a rank."""
REPEAT = "repeat"
"""Origin of a trial that runs the configuration of another one again."""
TYPES = {
    **dict.fromkeys(("trial", "attempts", "step", "examples"), "int64"),
    **dict.fromkeys(("overall", "seconds", *costs.RATES), "float64"),
    **dict.fromkeys((*costs.COUNTS, "replicate"), "Int64"),  # nullable: a trial without a report has no cost
    **dict.fromkeys(("state", "checkpoint", "origin", "config_id", "reason", "error", "config", "params"), "str"),
    "kept": "bool",
}
"""Types of the columns that every `trials_frame` has: a column has the same type in every sweep, even an empty one."""
HELD = "held_"
"""Prefix of the columns of scores on the held split."""


def trials_frame(folder: SweepFolder, scoring: Scoring | None = None) -> pd.DataFrame:
    """One row per trial, ordered by number.

    Columns: trial, state, attempts, step, examples, overall, one score for each task (on `search`, at the last step),
    seconds, trainable_parameters, trainable_share, seconds_per_1000, stage_seconds and peak_memory_bytes (see
    `results.costs`), examples_<task>, kept, checkpoint, origin, seed, config_id, replicate, reason, error, config
    (JSON), params (JSON: the drawn parameters by path). Then one column for each parameter that any trial has drawn,
    named by its path (`adapter/rank`): the value that the trial drew, or else that of its configuration, or null. With
    `scoring` also held_overall and held_<task>, for trials that have predictions.
    """
    events: dict[int, list[Row]] = {}
    starts_and_ends = folder.read("trials")
    for row in to_rows(since_first_start(starts_and_ends, starts_and_ends)):
        events.setdefault(int(row["trial"]), []).append(row)
    reports: dict[int, list[Row]] = {}
    for row in to_rows(report_per_step(folder.read("reports"), starts_and_ends)):
        reports.setdefault(int(row["trial"]), []).append(row)
    tasks = list(folder.tasks)
    rows = [_trial(trial, events[trial], reports.get(trial, []), tasks) for trial in sorted(events)]
    drawn = {row["trial"]: by_path(json.loads(row["params"] or "{}")) for row in rows}
    paths = sorted({path for params in drawn.values() for path in params})
    for row in rows:
        config, params = json.loads(row["config"] or "{}"), drawn[row["trial"]]
        row.update(_values(config, params, paths))
        row["params"] = json.dumps(params)
    columns = [*_trial(0, [], [], tasks), *paths]
    counts = dict.fromkeys((costs.EXAMPLES + task for task in tasks), "Int64")
    frame = pd.DataFrame(rows, columns=columns).astype({**TYPES, **dict.fromkeys(tasks, "float64"), **counts})
    if scoring is not None:
        held = {trial: held_scores(folder, scoring, trial) for trial in predictions.predicted(folder, predictions.HELD)}
        for name in ["overall", *scoring.metrics]:
            frame[HELD + name] = [held.get(trial, {}).get(name, math.nan) for trial in frame["trial"]]
    return frame


def held_scores(folder: SweepFolder, scoring: Scoring, trial: int) -> dict[str, float]:
    """A trial's scores on the rows of `held` on which headlines are estimated, by task, and `overall`; empty if its
    predictions are incomplete."""
    predicted = predictions.headline(folder, trial)
    labelled = predictions.labels(folder, ("held",), predictions.common_rows([predicted]))
    held = predictions.aligned(predicted, {task: rows for task, (rows, _) in labelled.items()})
    if held is None or not labelled.keys() >= scoring.metrics.keys():
        return {}
    values = {task: prediction.values for task, prediction in held.items()}
    scores = scoring.scores(values, {task: labels for task, (_, labels) in labelled.items()})
    return {"overall": scoring.overall(scores), **scores}


def ranking(frame: pd.DataFrame) -> list[int]:
    """Numbers of the ranked trials, best first by (last step, overall); among equals the lower number comes first.

    Diverged and failed trials, trials without a report, and repeats are left out: a repeat belongs to the trial whose
    configuration it runs again.
    """
    out = frame["state"].isin(UNRANKED) | (frame["origin"] == REPEAT)
    ranked = frame[~out.fillna(False).astype(bool) & np.isfinite(frame["overall"].astype(float))]
    ordered = ranked.sort_values(["step", "overall", "trial"], ascending=[False, False, True])
    return [int(trial) for trial in ordered["trial"]]


def top(folder: SweepFolder, n: int = 10, where: str | None = None, scoring: Scoring | None = None) -> pd.DataFrame:
    """Rows of the `n` best trials, best first, each with three more columns about the runs of its configuration.

    `runs`: number of its runs at full budget, repeats included; `mean`: the mean of their `overall`; `like_best`:
    whether noise alone may explain the difference from the best trial's mean, null below the full budget.

    `where`: an SQL condition on the columns of `trials_frame`, such as `overall > 0.6 and adapter/rank >= 8`.
    """
    frame = _where(with_runs(trials_frame(folder, scoring)), where)
    return _rows(frame, ranking(frame)[:n])


def pareto(
    folder: SweepFolder, objectives: Sequence[Objective], where: str | None = None, scoring: Scoring | None = None
) -> pd.DataFrame:
    """Rows of the complete trials that no other complete trial dominates (`results.objectives`), best first by the
    first objective, with the columns of `top`. Repeats, and trials without a value of an objective, are left out.

    `where`, as in `top`: only these trials are compared.
    """
    frame = _where(with_runs(trials_frame(folder, scoring)), where)
    frame = frame[(frame["state"] == "complete") & (frame["origin"] != REPEAT).fillna(True)]
    values = gains(frame, objectives)
    known = np.isfinite(values).all(axis=1)
    frame, values = frame[known], values[known]
    kept = undominated(values)
    order = np.lexsort((frame["trial"][kept], -values[kept, 0]))
    return _rows(frame, [int(trial) for trial in frame["trial"][kept].iloc[order]])


def _where(frame: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """The trials that fulfil an SQL condition, all without one."""
    return frame if where is None else frame[frame["trial"].isin(_matching(frame, where))]


def _rows(frame: pd.DataFrame, trials: list[int]) -> pd.DataFrame:
    """The rows of these trials, in this order."""
    return frame.set_index("trial", drop=False).loc[trials].reset_index(drop=True)


def with_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns `runs`, `mean` and `like_best` of `top`, beside `overall`."""
    groups = runs(frame)
    keys = _configurations(frame)
    complete = frame["state"] == "complete"
    counts = [len(groups.get(key, ())) if whole else 0 for key, whole in zip(keys, complete, strict=True)]
    means = [
        float(np.mean(groups[key])) if count else math.nan for key, count in zip(keys, counts, strict=True)
    ]
    alike: list[bool | None] = [None] * len(frame)
    best = next(iter(ranking(frame)), None)
    if best is not None:
        place = int(np.flatnonzero(frame["trial"] == best)[0])
        spread = noise.pooled(groups.values())
        if counts[place]:
            alike = [
                noise.alike(mean - means[place], count, counts[place], spread) if count else None
                for mean, count in zip(means, counts, strict=True)
            ]
    result = frame.copy()
    position = result.columns.get_loc("overall") + 1
    result.insert(position, "runs", pd.array(counts, dtype="Int64"))
    result.insert(position + 1, "mean", means)
    result.insert(position + 2, "like_best", pd.array(alike, dtype="boolean"))
    return result


def runs(frame: pd.DataFrame) -> dict[str, list[float]]:
    """Configuration -> `overall` of its runs at full budget, by number of the trial."""
    groups: dict[str, list[float]] = {}
    complete = (frame["state"] == "complete") & np.isfinite(frame["overall"].astype(float))
    for key, value, whole in zip(_configurations(frame), frame["overall"], complete, strict=True):
        if whole:
            groups.setdefault(key, []).append(float(value))
    return groups


def _configurations(frame: pd.DataFrame) -> list[str]:
    """A key for the configuration of each trial; older stores recorded no identity, and repeated none."""
    return [
        f"trial {trial}" if pd.isna(config_id) else str(config_id)
        for trial, config_id in zip(frame["trial"], frame["config_id"], strict=True)
    ]


def _matching(frame: pd.DataFrame, where: str) -> pd.Series:
    """Numbers of the trials for which an SQL condition holds. Raises QueryError if `where` is not a condition."""
    tables = {"trials": lambda: frame}
    rule = "`where` must be a condition that is true or false for each trial, such as overall > 0.6"
    if not where.strip():
        raise sql.QueryError(f"{rule}; found nothing.")
    kind = sql.run(f"DESCRIBE SELECT (\n{where}\n) AS condition FROM trials", tables)["column_type"][0]
    if kind != "BOOLEAN":
        raise sql.QueryError(f"{rule}; found `{where}`, which is of type {kind}.")
    return sql.run(f"SELECT trial FROM trials WHERE (\n{where}\n)", tables)["trial"]


def show(folder: SweepFolder, trial: int, scoring: Scoring | None = None) -> Row:
    """One trial in detail.

    The result holds the trial's row of `trials_frame` without the parameters' columns, `config` and `params` as dicts,
    `rank` (1 is best), `held` scores, `runs` (trial, replicate, state and overall of every run of its configuration),
    `attempts` (start and end events) and `reports` in order of seq, each with its `cost` (`results.costs`). Raises
    StoreError for an unknown trial.
    """
    frame = trials_frame(folder)
    numbers = [int(number) for number in frame["trial"]]
    if trial not in numbers:
        existing = f"It has trials {numbers[0]} to {numbers[-1]}." if numbers else "It has no trials yet."
        raise StoreError(f"No trial {trial} in sweep `{folder.name}`. {existing}")
    row = {
        str(name): None if pd.isna(value) else _plain(value) for name, value in frame.iloc[numbers.index(trial)].items()
    }
    config, params = json.loads(row["config"] or "{}"), json.loads(row["params"] or "{}")
    facts = {
        name: value for name, value in row.items() if name not in ("config", "params", "attempts") and "/" not in name
    }
    order = ranking(frame)
    events = [event for event in to_rows(folder.read("trials")) if event["trial"] == trial]
    has_held = scoring is not None and trial in predictions.predicted(folder, predictions.HELD)
    return {
        **facts,
        "rank": order.index(trial) + 1 if trial in order else None,
        "held": held_scores(folder, scoring, trial) if scoring is not None and has_held else None,
        "runs": _runs_of(frame, trial),
        "config": config,
        "params": params,
        "attempts": [{k: v for k, v in event.items() if k not in ("config", "params", "error")} for event in events],
        "reports": [
            report | {"cost": costs.cost(report)}
            for report in to_rows(folder.read("reports"))
            if report["trial"] == trial
        ],
    }


def _runs_of(frame: pd.DataFrame, trial: int) -> list[Row]:
    """The trials of one configuration, by number."""
    keys = pd.Series(_configurations(frame), index=frame.index)
    own = frame[(keys == keys[frame["trial"] == trial].iloc[0]).to_numpy()]
    columns = ["trial", "replicate", "state", "overall"]
    return [{name: None if pd.isna(row[name]) else _plain(row[name]) for name in columns} for _, row in own.iterrows()]


def _values(config: Mapping[str, Any], drawn: Mapping[str, Any], paths: Iterable[str]) -> Row:
    """One trial's value at each path: the value that it drew, or else that of its configuration.

    A path may hold a number in one branch (`adapter/dropout`) and a group of parameters in another
    (`adapter/dropout/sst`). A group's value is None, because its members have columns of their own.
    """
    groups = {path[:end] for path in paths for end, letter in enumerate(path) if letter == "/"}
    values = {path: drawn[path] if path in drawn else _configured(config, path) for path in paths}
    grouped = {path for path in groups & values.keys() - drawn.keys() if isinstance(values[path], Mapping)}
    return {path: None if path in grouped else _plain(value) for path, value in values.items()}


def _configured(config: Mapping[str, Any], path: str) -> Any:
    """The value of a configuration at a path, a list as `query+value`; None if the configuration has no such path."""
    node: Any = config
    for key in path.split("/"):
        node = node.get(key) if isinstance(node, Mapping) else None
    return "+".join(map(str, node)) if isinstance(node, list) else node


def _trial(trial: int, events: list[Row], reports: list[Row], tasks: list[str]) -> Row:
    """One row of `trials_frame`, from a trial's events and its reports (one per step), both in order of seq."""
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
        "error": next((event["error"] for event in reversed(events) if event["error"]), None),
        "config": start.get("config"),
        "params": start.get("params"),
    }


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _plain(value: Any) -> Any:
    """The value as a JSON type; a list or dict as JSON text."""
    if isinstance(value, list | dict):
        return json.dumps(value)
    return value.item() if isinstance(value, np.generic) else value
