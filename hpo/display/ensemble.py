"""Ensembles of a sweep: the record of a selection as table rows and sentences.

Members are chosen on the split `search`. The main figure is the score on the split `held`, with n and a 95 % interval.
The score on full dev, as papers report it, is shown on request and marked: it contains the examples that chose the
members.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.display.units import interval, score

PREDICTORS = {"ensemble": "ensemble", "best_single": "best single trial by `search` score", "default": "default"}
"""Predictor that is estimated -> its name in tables."""
PARTS = {"held": "held out, seen by no choice", "dev": "full dev, as papers report it: selected on"}
"""Part of the examples on which an estimate is made -> its title; shown in this order, `dev` where it was estimated."""


def members(record: Mapping[str, Any]) -> str:
    """`7 (twice), 3, 11 (3 times)`."""
    return ", ".join(f"{member['trial']}{_times(int(member['weight']))}" for member in record["members"])


def _times(weight: int) -> str:
    return {1: "", 2: " (twice)"}.get(weight, f" ({weight} times)")


def estimate_rows(record: Mapping[str, Any], part: str) -> list[dict[str, str]]:
    """One row each for ensemble, best single trial and default: overall score with its interval, score of each task."""
    rows = []
    for predictor, parts in record["estimates"].items():
        if part not in parts:
            continue
        estimate = parts[part]
        overall = estimate["overall"]
        row = {"": f"{PREDICTORS[predictor]}{_trial_of(record, predictor)}", "overall": score(overall["value"])}
        row["95 % interval"] = interval(overall["low"], overall["high"])
        rows.append(row | {task: score(task_estimate["value"]) for task, task_estimate in estimate["tasks"].items()})
    return rows


def size_of(record: Mapping[str, Any], part: str) -> str:
    """`n = 300: 100 sst, 100 qqp, 100 sts`."""
    estimate = record["estimates"]["ensemble"][part]
    tasks = ", ".join(f"{task_estimate['n']:,} {task}" for task, task_estimate in estimate["tasks"].items())
    return f"n = {estimate['overall']['n']:,}: {tasks}"


def _trial_of(record: Mapping[str, Any], predictor: str) -> str:
    """Number of the trial that predicts, in parentheses; empty for an ensemble."""
    trial = record[predictor] if predictor in ("best_single", "default") else None
    return "" if trial is None else f" ({trial})"


def gains(record: Mapping[str, Any]) -> list[str]:
    """Differences on held-out data, one sentence each: the ensemble against the best single trial, that against the
    default."""
    pairs = {"gain": "ensemble minus best single trial", "gain_over_default": "best single trial minus default"}
    lines = []
    for name, words in pairs.items():
        if (difference := record[name]) is not None:
            bounds = f"{difference['low']:+.4f} .. {difference['high']:+.4f}"
            lines.append(f"{words}, held out: {difference['value']:+.4f} ({bounds})")
    return lines
