"""Ensembles of a sweep: applies the selection of `results` with the metrics of `minbert`; the estimates as table rows.

Members are chosen on the split `search`. The main figure is the score on the split `held`, with n and a 95 % interval.
The score on full dev, as papers report it, is shown too and marked: it contains the examples that chose the members.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpo.display.units import interval, score

if TYPE_CHECKING:
    from results.scoring import Scoring
    from results.store import SweepFolder

PREDICTORS = {"ensemble": "ensemble", "best_single": "best single trial by `search` score", "default": "default"}
"""Predictor that is estimated -> its name in tables."""
PARTS = {"held": "held out, seen by no choice", "dev": "full dev, as papers report it: selected on"}
"""Part of the examples on which an estimate is made -> its title; shown in this order."""


def scoring(folder: SweepFolder) -> Scoring:
    """The scoring of a sweep's tasks, by the metrics that scored its trials."""
    from minbert import metrics
    from results.scoring import Scoring

    return Scoring.of(folder.tasks, metrics.score, metrics.overall)


def choose(folder: SweepFolder, *, method: str = "greedy", size: int = 5, name: str | None = None) -> dict[str, Any]:
    """Choose an ensemble among the trials that have predicted, estimate its score, and save its record under
    `<store>/<sweep>/ensembles/`. Returns the record."""
    from results import selection

    return selection.choose(folder, scoring(folder), method=method, size=size, name=name)


def members(record: Mapping[str, Any]) -> str:
    """`7 (twice), 3, 11 (3 times)`."""
    return ", ".join(f"{member['trial']}{_times(int(member['weight']))}" for member in record["members"])


def _times(weight: int) -> str:
    return {1: "", 2: " (twice)"}.get(weight, f" ({weight} times)")


def estimate_rows(record: Mapping[str, Any], part: str) -> list[dict[str, str]]:
    """One row each for ensemble, best single trial and default: overall score with its interval, score of each task."""
    rows = []
    for predictor, parts in record["estimates"].items():
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


def gain(record: Mapping[str, Any]) -> str:
    """Difference between the ensemble and the best single trial on held-out data, in one sentence."""
    difference = record["gain"]
    bounds = f"{difference['low']:+.4f} .. {difference['high']:+.4f}"
    return f"ensemble minus best single trial, held out: {difference['value']:+.4f} ({bounds})"
