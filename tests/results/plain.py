"""The reader's fold row by row, in plain Python: the witness of `results.reading`, `results.fold` and
`results.parameters`, which compute the same in columns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from results.costs import EXAMPLES, cost
from results.names import by_path
from results.rows import to_rows
from results.schemas import find
from results.store import SweepFolder

Row = dict[str, Any]


def in_order(name: str, rows: list[Row]) -> list[Row]:
    """Rows of a table in order of seq, without repetitions."""
    rule = find(name)
    latest: dict[tuple[object, ...], tuple[object, ...]] = {}
    counted = []
    for row in sorted(rows, key=lambda row: (row["seq"], -row["generation"])):
        key, news = (tuple(row[column] for column in columns) for columns in (rule.key, rule.news))
        if key not in latest or latest[key] != news:
            latest[key] = news
            counted.append(row)
    return counted


def since_first_start(rows: list[Row], trials: list[Row]) -> list[Row]:
    """Rows from each trial's first start on."""
    starts: dict[int, int] = {}
    for row in trials:
        if row["event"] == "start":
            starts[row["trial"]] = min(row["seq"], starts.get(row["trial"], row["seq"]))
    return [row for row in rows if row["trial"] in starts and row["seq"] >= starts[row["trial"]]]


def report_per_step(reports: list[Row], trials: list[Row]) -> list[Row]:
    """One report for each (trial, step): the first finite one since the trial's first start, or else the first."""
    chosen: dict[tuple[int, int], Row] = {}
    for row in since_first_start(reports, trials):
        key = row["trial"], row["step"]
        if key not in chosen or (_finite(row["overall"]) and not _finite(chosen[key]["overall"])):
            chosen[key] = row
    return sorted(chosen.values(), key=lambda row: int(row["seq"]))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def trials_table(folder: SweepFolder) -> list[Row]:
    """One row a trial, as `results.views.trials_frame` has them."""
    starts_and_ends = to_rows(folder.read("trials"))
    events: dict[int, list[Row]] = {}
    for row in since_first_start(starts_and_ends, starts_and_ends):
        events.setdefault(int(row["trial"]), []).append(row)
    reports: dict[int, list[Row]] = {}
    for row in report_per_step(to_rows(folder.read("reports")), starts_and_ends):
        reports.setdefault(int(row["trial"]), []).append(row)
    rows = [_trial(trial, events[trial], reports.get(trial, []), list(folder.tasks)) for trial in sorted(events)]
    drawn = {row["trial"]: by_path(json.loads(row["params"] or "{}")) for row in rows}
    paths = sorted({path for params in drawn.values() for path in params})
    for row in rows:
        config, params = json.loads(row["config"] or "{}"), drawn[row["trial"]]
        row.update(_values(config, params, paths))
        row["params"] = json.dumps(params)
    return rows


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
        **_costs(report, tasks),
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


def _costs(report: Row, tasks: list[str]) -> Row:
    values = cost(report)
    examples = values.pop("examples_per_task")
    return {**values, **{EXAMPLES + task: examples.get(task) for task in tasks}}
