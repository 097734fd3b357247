"""Trials as people read them: the rows of `results.views` cut down to what fits a screen. JSON takes them whole."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.display import tables
from hpo.display.tables import MISSING, Row, cell, records
from hpo.display.units import amount, digits, duration, percent, score, size
from results.costs import EXAMPLES

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

RANKED = "furthest rung first, then score on `search`"
"""How trials are ranked wherever they are: the words for it."""
HELD = "held_overall"
JSON_COLUMNS = ("config", "params")
BEFORE_PARAMETERS = "params"
"""In `results.views.trials_frame` every column after this one, but for scores on `held`, is a drawn parameter."""


def trial_records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame of trials, JSON text parsed."""
    rows = records(frame)
    for row in rows:
        for name in JSON_COLUMNS:
            row[name] = json.loads(row[name] or "{}")
    return rows


def score_rows(rows: Sequence[Row], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One line a trial: how it ended, how far it came, its scores on `search`, its overall on `held`."""
    return [
        {
            "trial": row["trial"],
            "state": row["state"],
            "examples": amount(row["examples"]),
            "overall": score(row["overall"]),
            **{task: score(row.get(task)) for task in tasks},
            "held out": score(row.get(HELD)),
            "adapter": _kind(row["config"].get("adapter")),
        }
        for row in rows
    ]


def cost_rows(rows: Sequence[Row], tasks: Sequence[str]) -> list[dict[str, Any]]:
    """One line a trial: what of the model is trained, time, memory, training rows of each task."""
    return [
        {"trial": row["trial"], **_cost(row), **{f"{task} used": amount(row.get(EXAMPLES + task)) for task in tasks}}
        for row in rows
    ]


def _cost(known: Row) -> dict[str, str]:
    """The costs of `results.costs` as people read them."""
    return {
        "trained": amount(known["trainable_parameters"]),
        "of model": percent(known["trainable_share"]),
        "s/1k": digits(known["seconds_per_1000"]),
        "memory": size(known["peak_memory_bytes"]),
    }


def cost_facts(row: Row, tasks: Sequence[str]) -> dict[str, str]:
    """A trial's cost, each in words."""
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
    """`lora 8`, `none`: the choice that tells trials apart at a glance."""
    if not isinstance(adapter, Mapping):
        return "-"
    return " ".join(str(adapter[name]) for name in ("kind", "rank") if name in adapter)


def show_parameters(rows: Sequence[Row], console: Console) -> None:
    """The parameters that set the trials apart, one column a trial, as many columns side by side as the console has
    room for; then the parameters that are the same in all of them."""
    lines = parameter_rows(rows)
    columns = [_column(row) for row in rows]
    alike = [line for line in lines if len(rows) > 1 and len({line[name] for name in columns}) == 1]
    apart = [line for line in lines if line not in alike]
    if not lines:
        console.print("no parameter was drawn", style="dim")
    if apart:
        title = "parameters that differ" if len(rows) > 1 else "its parameters"
        tables.show_blocks(apart, console, columns=["parameter", *columns], title=title)
    if apart and alike:
        console.print()
    if alike:
        same = [{"parameter": line["parameter"], "value": line[columns[0]]} for line in alike]
        tables.show(same, console, title="parameters that are the same in all of them")


def parameter_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """One line a parameter that one of the trials has, one column a trial: what sets them apart, side by side."""
    paths = dict.fromkeys(path for row in rows for path in _parameters(row))
    columns = {_column(row): _parameters(row) for row in rows}
    lines = [
        {"parameter": path, **{name: cell(values.get(path)) for name, values in columns.items()}} for path in paths
    ]
    return [line for line in lines if any(line[name] != MISSING for name in columns)]


def _column(row: Row) -> str:
    return f"trial {row['trial']}"


def _parameters(row: Row) -> dict[str, Any]:
    names = list(row)
    drawn = names[names.index(BEFORE_PARAMETERS) + 1 :] if BEFORE_PARAMETERS in names else []
    return {name: row[name] for name in drawn if not name.startswith("held_")}


def report_row(report: Row) -> dict[str, Any]:
    """One report of a trial."""
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


def event_row(event: Row) -> dict[str, Any]:
    """One start or end of an attempt."""
    return {
        "attempt": event["attempt"],
        "event": event["event"],
        "state": event["state"] or "",
        "when": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event["time"])),
        "host": event["host"] or "",
        "reason": event["reason"] or "",
        "weights": event["checkpoint"] or "",
    }
