"""Ensembles of a sweep: binds the metrics of `minbert` to the selection of `results`, and says in rows what came out.

Chosen on `search`, estimated on `held`: the headline, with n and a 95 % interval. Full dev, as papers report it, stands
beside it and is marked as selected on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpo.display.units import interval, score

if TYPE_CHECKING:
    from results.scoring import Scoring
    from results.store import SweepFolder

WHO = {"ensemble": "ensemble", "best_single": "best single trial", "default": "default"}
PARTS = {"held": "held out, seen by no choice", "dev": "full dev, as papers report it: selected on"}
"""Parts that are shown, in this order, with the words for them."""


def scoring(folder: SweepFolder) -> Scoring:
    """The sweep's tasks, scored by the functions that judged its trials."""
    from minbert import metrics
    from results.scoring import Scoring

    return Scoring.of(folder.tasks, metrics.score, metrics.overall)


def choose(folder: SweepFolder, *, method: str = "greedy", size: int = 5, name: str | None = None) -> dict[str, Any]:
    """Select among the trials that have predicted, estimate, save under `<store>/<sweep>/ensembles/`; the record."""
    from results import selection

    return selection.choose(folder, scoring(folder), method=method, size=size, name=name)


def members(record: Mapping[str, Any]) -> str:
    """`7 (twice), 3, 11 (3 times)`."""
    return ", ".join(f"{one['trial']}{_times(int(one['weight']))}" for one in record["members"])


def _times(weight: int) -> str:
    return {1: "", 2: " (twice)"}.get(weight, f" ({weight} times)")


def estimate_rows(record: Mapping[str, Any], part: str) -> list[dict[str, str]]:
    """One row for each of ensemble, best single trial and default: overall with its interval, each task."""
    rows = []
    for who, parts in record["estimates"].items():
        about = parts[part]
        whole = about["overall"]
        row = {"": f"{WHO[who]}{_which(record, who)}", "overall": score(whole["value"])}
        row["95 % interval"] = interval(whole["low"], whole["high"])
        rows.append(row | {task: score(one["value"]) for task, one in about["tasks"].items()})
    return rows


def size_of(record: Mapping[str, Any], part: str) -> str:
    """`n = 300: 100 sst, 100 qqp, 100 sts`."""
    about = record["estimates"]["ensemble"][part]
    tasks = ", ".join(f"{one['n']:,} {task}" for task, one in about["tasks"].items())
    return f"n = {about['overall']['n']:,}: {tasks}"


def _which(record: Mapping[str, Any], who: str) -> str:
    number = record[who] if who in ("best_single", "default") else None
    return "" if number is None else f" ({number})"


def gain(record: Mapping[str, Any]) -> str:
    """The ensemble against the best single trial on held-out data, in one sentence."""
    found = record["gain"]
    bounds = f"{found['low']:+.4f} .. {found['high']:+.4f}"
    return f"ensemble less best single trial, held out: {found['value']:+.4f} ({bounds})"
