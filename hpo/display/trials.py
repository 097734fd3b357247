"""Tables of trials: the rows of `results.views` reduced to what fits a screen. JSON output holds them in full."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.display import tables
from hpo.display.tables import MISSING, Row, cell, records
from hpo.display.units import amount, digits, duration, percent, score, size
from results.costs import EXAMPLES

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from results.objectives import Objective

RANKED = "furthest rung first, then score on `search`"
"""The ranking of trials, in words."""
ALIKE = "~ noise of single runs may explain the difference from the best"
"""Explanation of the mark in `score_rows`."""
UNBEATEN = "trials that no other beats in all objectives"
"""Title of the Pareto set."""
JSON_COLUMNS = ("config", "params")
"""Columns that hold JSON text."""
BEFORE_PARAMETERS = "params"
"""In `results.views.trials_frame` every column after this one is a drawn parameter."""


def trial_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame of trials, JSON text parsed."""
    rows = records(frame)
    for row in rows:
        for name in JSON_COLUMNS:
            row[name] = json.loads(row[name] or "{}")
    return rows


def score_rows(rows: Sequence[Row], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One row a trial: state, examples used, scores on `search`, adapter.

    Where configurations have run again, also the number of their runs at full budget, and the mean. `~` marks trials
    that cannot be told apart from the first.
    """
    repeated = any((row["runs"] or 0) > 1 for row in rows)
    alike = any(row["like_best"] for row in rows[1:])
    return [
        {
            "trial": row["trial"],
            "state": row["state"],
            "examples": amount(row["examples"]),
            "overall": score(row["overall"]),
            **({"": "~" if place and row["like_best"] else ""} if alike else {}),
            **({"runs": row["runs"] or MISSING, "mean": score(row["mean"])} if repeated else {}),
            **{task: score(row.get(task)) for task in tasks},
            "adapter": _kind(row["config"].get("adapter")),
        }
        for place, row in enumerate(rows)
    ]


def objective_rows(rows: Sequence[Row], objectives: Sequence[Objective]) -> list[dict[str, str]]:
    """One row a trial: the value of each objective, in the objective's column."""
    return [
        {
            "trial": row["trial"],
            **{str(each): UNITS.get(each.column, score)(row[each.column]) for each in objectives},
        }
        for row in rows
    ]


UNITS: Mapping[str, Callable[[float | None], str]] = {
    "seconds": duration,
    "stage_seconds": duration,
    "trainable_parameters": amount,
    "peak_memory_bytes": size,
    "trainable_share": percent,
    "seconds_per_1000": digits,
}
"""Column of a cost -> how it is written."""


def cost_rows(rows: Sequence[Row], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One row a trial: trained parameters, time, memory, examples used of each task."""
    return [
        {"trial": row["trial"], **_cost(row), **{f"{task} used": amount(row.get(EXAMPLES + task)) for task in tasks}}
        for row in rows
    ]


def _cost(costs: Row) -> dict[str, str]:
    """The costs of `results.costs` as text."""
    return {
        "trained": amount(costs["trainable_parameters"]),
        "of model": percent(costs["trainable_share"]),
        "s/1k": digits(costs["seconds_per_1000"]),
        "memory": size(costs["peak_memory_bytes"]),
    }


def cost_facts(row: Row, tasks: Sequence[str]) -> dict[str, str]:
    """The costs of a trial, as text by their names."""
    cost = _cost(row)
    used = ", ".join(f"{row[EXAMPLES + task]:,} {task}" for task in tasks if row.get(EXAMPLES + task) is not None)
    stages = {"time of stages": duration(row["stage_seconds"])} if row.get("stage_seconds") else {}
    return {
        "trained parameters": f"{cost['trained']}, {cost['of model']} of the model",
        "time per 1,000 examples": f"{cost['s/1k']} s of training, evaluation left out",
        **stages,
        "peak memory": cost["memory"],
        "examples per task": used or "-",
    }


def _kind(adapter: Any) -> str:
    """Kind and rank of an adapter: `lora 8`, `none`."""
    if not isinstance(adapter, Mapping):
        return "-"
    return " ".join(str(adapter[name]) for name in ("kind", "rank") if name in adapter)


def show_parameters(rows: Sequence[Row], console: Console) -> None:
    """Print the parameters in which the trials differ, one column a trial, as many columns side by side as fit; then
    the parameters that are the same in all trials."""
    parameters = parameter_rows(rows)
    columns = [_column(row) for row in rows]
    shared = [values for values in parameters if len(rows) > 1 and len({values[name] for name in columns}) == 1]
    differing = [values for values in parameters if values not in shared]
    if not parameters:
        console.print("no parameter was drawn", style="dim")
    if differing:
        title = "parameters that differ" if len(rows) > 1 else "its parameters"
        tables.show_blocks(differing, console, columns=["parameter", *columns], title=title)
    if differing and shared:
        console.print()
    if shared:
        shared_rows = [{"parameter": values["parameter"], "value": values[columns[0]]} for values in shared]
        tables.show(shared_rows, console, title="parameters that are the same in all of them")


def parameter_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """One row for each parameter that any of the trials has, one column a trial."""
    paths = dict.fromkeys(path for row in rows for path in _parameters(row))
    columns = {_column(row): _parameters(row) for row in rows}
    table = [
        {"parameter": path, **{name: cell(values.get(path)) for name, values in columns.items()}} for path in paths
    ]
    return [values for values in table if any(values[name] != MISSING for name in columns)]


def _column(row: Row) -> str:
    return f"trial {row['trial']}"


def _parameters(row: Row) -> dict[str, Any]:
    """Drawn parameters of a trial by their paths."""
    names = list(row)
    drawn = names[names.index(BEFORE_PARAMETERS) + 1 :] if BEFORE_PARAMETERS in names else []
    return {name: row[name] for name in drawn}


def report_row(report: Row) -> dict[str, Any]:
    """Row of a report of a trial."""
    scores, losses = report["scores"] or {}, report["losses"] or {}
    return {
        "attempt": report["attempt"],
        "step": report["step"],
        "examples": report["examples"],
        "overall": score(report["overall"]),
        **{task: score(value) for task, value in scores.items()},
        "verdict": report["verdict"],
        "time": duration(report["seconds"]),
        **_cost(report["cost"]),
        **({"flags": ", ".join(report["flags"])} if report["flags"] else {}),
        **{f"loss {task}": score(losses[task]) for task in sorted(losses)},
    }


def run_row(run: Row) -> dict[str, Any]:
    """Row of one run of a configuration."""
    return {**run, "overall": score(run["overall"])}


def event_rows(events: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows of the starts and ends of a trial's attempts, in their order. A later end of an attempt in the same state
    tells of its weights alone (`results.schemas`)."""
    rows, ended = [], set()
    for event in events:
        key = event["attempt"], event["event"], event["state"]
        row = {
            "attempt": event["attempt"],
            "event": event["event"],
            "state": event["state"] or "",
            "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"])),
            "cause": event["cause"] or "",
            "place": event["place"] or "",
            "reason": event["reason"] or "",
            "weights": event["checkpoint"] or "",
        }
        if key in ended:
            change = "its weights are kept" if event["checkpoint"] else "its weights are no longer kept"
            row |= {"event": "weights", "state": "", "cause": "", "place": "", "reason": change}
        ended.add(key)
        rows.append(row)
    return rows
