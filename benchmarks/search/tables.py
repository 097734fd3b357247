"""Tables and plot of the search benchmark's stored runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.common import markdown, mean
from benchmarks.search.simulation import CHECKPOINTS

SAMPLES = 4000
"""Bootstrap samples of an interval."""

Rows = Sequence[dict[str, Any]]


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """95 % percentile interval of the mean over seeds, by bootstrap."""
    generator = np.random.default_rng(0)
    array = np.asarray(values)
    means = array[generator.integers(0, len(array), (SAMPLES, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def groups(rows: Rows) -> dict[tuple[str, str], dict[int, dict[str, Any]]]:
    """(cell, engine with its label) -> seed -> the run that went farthest."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["until"]):
        found.setdefault((row["cell"], name_of(row)), {})[row["seed"]] = row
    return found


def name_of(row: dict[str, Any]) -> str:
    return row["engine"] + f" ({row['label']})" * bool(row["label"])


def gains(runs: Iterable[dict[str, Any]], point: str) -> list[float]:
    """The answers' gains at a checkpoint, of the runs that reached it."""
    return [run["answers"][point]["gain"] for run in runs if point in run["answers"]]


def table(rows: Rows, cells: Sequence[str] | None = None) -> str:
    """One line for each cell and engine: gains x 1000 with their intervals at each checkpoint."""
    points = [f"{point:g}" for point in CHECKPOINTS]
    lines = []
    for (cell, name), by_seed in sorted(groups(rows).items()):
        if cells and cell not in cells:
            continue
        runs = list(by_seed.values())
        shown = [_cell(gains(runs, point)) for point in points]
        last = [run["answers"][max(run["answers"], key=float)] for run in runs if run["answers"]]
        lines.append([cell, name, *shown, f"{mean([end['trials'] for end in last]):.0f}",
                      f"{mean([end['default'] for end in last]):.2f}",
                      f"{mean([run['draw_ms'] for run in runs]):.1f}"])  # fmt: skip
    head = ("cell", "engine", *(f"{point} FTE" for point in points), "trials", "default", "ms a draw")
    return markdown(head, lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = bootstrap(values)
    return f"{1000 * mean(values):+.1f} [{1000 * low:.1f}, {1000 * high:.1f}] ({len(values)})"


def plot(rows: Rows, cell: str) -> str:
    raise NotImplementedError
