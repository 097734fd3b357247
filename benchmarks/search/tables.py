"""Tables and plot of the search benchmark's stored runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.common import markdown, mean
from benchmarks.search.simulation import CHECKPOINTS
from benchmarks.sweeps.plot import text

SAMPLES = 4000
"""Bootstrap samples of an interval."""

ANSWERS = {"gain": "best observed", "ruled": "rule"}
"""Kinds of answers: the best observed score, and the rule of `hpo run`."""

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


def gains(runs: Iterable[dict[str, Any]], point: str, answer: str = "gain") -> list[float]:
    """Gains at a checkpoint, of the runs that reached it; `answer`: one of ANSWERS."""
    found = [run["answers"][point][answer] for run in runs if point in run["answers"]]
    return [gain for gain in found if gain is not None]


def table(rows: Rows, cells: Sequence[str] | None = None) -> str:
    """One line for each cell, engine and kind of answer: gains x 1000 with intervals and numbers of seeds."""
    points = [f"{point:g}" for point in CHECKPOINTS]
    lines = []
    for (cell, name), by_seed in sorted(groups(rows).items()):
        if cells and cell not in cells:
            continue
        runs = list(by_seed.values())
        ends = [run["answers"][max(run["answers"], key=float)] for run in runs if run["answers"]]
        if not ends:
            continue
        for answer, words in ANSWERS.items():
            shown = [_cell(gains(runs, point, answer)) for point in points]
            if any(shown):
                lines.append([cell, name, words, *shown, f"{mean([end['trials'] for end in ends]):.0f}",
                              f"{mean([run['draw_ms'] for run in runs]):.1f}"])  # fmt: skip
    head = ("cell", "engine", "answer", *(f"{point} FTE" for point in points), "trials", "ms a draw")
    return markdown(head, lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = bootstrap(values)
    return f"{1000 * mean(values):+.1f} ({1000 * low:.1f} .. {1000 * high:.1f}; {len(values)})"


def parts(rows: Rows, cells: Sequence[str] | None = None) -> str:
    """One line for each part of our searchers: what its draws are worth, over all seeds."""
    lines = []
    for (cell, name), by_seed in sorted(groups(rows).items()):
        drawn: dict[str, list[float]] = {}
        for run in by_seed.values() if not cells or cell in cells else ():
            for part, values in run["parts"].items():
                drawn.setdefault(part, []).extend(values)
        for part, values in sorted(drawn.items()):
            middle, high = (f"{1000 * value:+.1f}" for value in np.quantile(values, [0.5, 0.98]))
            better = f"{mean([value > 0 for value in values]):.0%}"
            lines.append([cell, name, part, str(len(values)), better, middle, high])
    return markdown(("cell", "engine", "part", "draws", "better than the default", "median", "98 % quantile"), lines)


def differences(rows: Rows, cell: str, point: str) -> str:
    """Every engine against every other at a checkpoint, by seed: mean difference x 1000 with its interval."""
    runs = {name: by_seed for (where, name), by_seed in sorted(groups(rows).items()) if where == cell}
    lines = []
    for (first, second), answer in itertools.product(itertools.combinations(runs, 2), ANSWERS):
        seeds = sorted(runs[first].keys() & runs[second].keys())
        both = [[gains([runs[name][seed]], point, answer) for name in (first, second)] for seed in seeds]
        paired = [left[0] - right[0] for left, right in both if left and right]
        if len(paired) > 1:
            lines.append([first, second, ANSWERS[answer], _cell(paired)])
    return markdown(("engine", "less", "answer", f"difference at {point} FTE"), lines)


WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 48, 48
COLOURS = ("#0b6e4f", "#b3541e", "#3b5bdb", "#862e9c", "#c92a2a", "#5c677d", "#e0a800", "#087f8c")


def plot(rows: Rows, cell: str) -> str:
    """SVG of one cell: mean gain of each engine's answer by the rule of `hpo run` over full-trial equivalents (log
    scale), with its intervals."""
    lines: dict[str, list[tuple[float, float, float, float]]] = {}
    for (where, name), by_seed in sorted(groups(rows).items()):
        for point in CHECKPOINTS if where == cell else ():
            values = [1000 * gain for gain in gains(by_seed.values(), f"{point:g}", "ruled")]
            if len(values) > 1:
                lines.setdefault(name, []).append((point, mean(values), *bootstrap(values)))
    edges = [edge for points in lines.values() for _, _, low, high in points for edge in (low, high)] or [0.0, 1.0]
    bottom, top = min(0.0, *edges), max(1.0, *edges)

    def x(point: float) -> float:
        share = math.log(point / CHECKPOINTS[0]) / math.log(CHECKPOINTS[-1] / CHECKPOINTS[0])
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def y(gain: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (gain - bottom) / (top - bottom)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        text(LEFT, 20, f"True gain of the answer over the default, x 1000: {cell}", weight="bold"),
        text(LEFT, 38, "answer by the rule of hpo run; mean over seeds with its 95 % bootstrap interval"),
        text(WIDTH - RIGHT, HEIGHT - 8, "full-trial equivalents of examples", anchor="end"),
        f'<path d="M{LEFT} {y(0):.1f}H{WIDTH - RIGHT}" stroke="#888888"/>',
    ]
    for tick in range(5):
        gain = bottom + (top - bottom) * tick / 4
        parts += [f'<path d="M{LEFT} {y(gain):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>',
                  text(LEFT - 6, y(gain) + 4, f"{gain:.1f}", anchor="end")]  # fmt: skip
    parts += [text(x(point), HEIGHT - BOTTOM + 18, f"{point:g}", anchor="middle") for point in CHECKPOINTS]
    for place, (name, points) in enumerate(lines.items()):
        colour, shift = COLOURS[place % len(COLOURS)], 3 * (place - len(lines) / 2)
        path = "L".join(f"{x(point) + shift:.1f} {y(gain):.1f}" for point, gain, _, _ in points)
        bars = "".join(f"M{x(point) + shift:.1f} {y(low):.1f}V{y(high):.1f}" for point, _, low, high in points)
        parts += [
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<path d="{bars}" fill="none" stroke="{colour}" opacity="0.5"/>',
            text(WIDTH - RIGHT + 12, TOP + 18 * place, name, colour=colour),
        ]
    return "\n".join([*parts, "</svg>", ""])
