"""Rungs: how well the scores at each rung tell which trials are best at the end.

    hpo run benchmarks/around.py --data ../shared/data/cs224n --scheduler none --trials 25 --keep 25 --name around
    python -m benchmarks.rungs around

The sweep trains every draw to the end. For each rung this prints Spearman's correlation of the drawn trials' scores
there with their scores at the end, with its 95 % bootstrap interval over trials, and the places at the rung of the
three trials that are best at the end. Two scores of a rung are compared: the overall score, as a scheduler sees it, and
a smooth one, the mean over tasks of log likelihoods (of classes, at the best temperature) and of correlations. Trial 0
and trials that did not reach the end are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

from benchmarks.common import markdown
from results.evidence import arrays, decoded
from results.predictions import labels
from results.schemas import to_rows
from results.store import Store, SweepFolder

DRAWS = 2000
"""Bootstrap samples of an interval."""

Scores = dict[int, dict[int, float]]
"""Step -> trial -> score."""


def overall_scores(folder: SweepFolder) -> Scores:
    """The overall score of every report that did not diverge."""
    scores: Scores = {}
    for row in to_rows(folder.read("reports")):
        if not row["diverged"]:
            scores.setdefault(row["step"], {})[row["trial"]] = row["overall"]
    return scores


def smooth_scores(folder: SweepFolder) -> Scores:
    """The smooth score of every report with evidence."""
    from results.candidates import search_order

    order, known = search_order(folder), labels(folder, ("search",))
    parts: dict[tuple[int, int], list[float]] = {}
    for row, values in arrays(folder.read("evidence")):
        rows, all_labels = known[row["task"]]
        wanted = all_labels[np.searchsorted(rows, order[row["task"]][: len(values)])]
        parts.setdefault((row["step"], row["trial"]), []).append(smooth(values, wanted))
    scores: Scores = {}
    for (step, trial), values in parts.items():
        scores.setdefault(step, {})[trial] = float(np.mean(values))
    return scores


def smooth(values: NDArray[np.floating], wanted: NDArray[np.float64]) -> float:
    """Of classes the log likelihood per row at the best temperature; of a regression the correlation."""
    predicted, chances = decoded(values)
    if chances is None:
        return float(np.corrcoef(predicted, wanted)[0, 1])
    logits = np.log(np.maximum(chances, 1e-6))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        return -float(scaled[np.arange(len(wanted)), wanted.astype(int)].mean())

    return -float(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").fun)


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's correlation over trials, and its 95 % percentile interval by bootstrap."""
    generator = np.random.default_rng(0)
    samples = generator.integers(0, len(first), (DRAWS, len(first)))
    drawn = [spearmanr(first[rows], second[rows]).statistic for rows in samples if len(set(second[rows])) > 2]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(spearmanr(first, second).statistic), float(low), float(high)


def table(folder: SweepFolder) -> str:
    """The Markdown table: one line for each rung and kind of score."""
    overall = overall_scores(folder)
    last = max(overall)
    end: Mapping[int, float] = {trial: score for trial, score in overall[last].items() if trial != 0}
    best = sorted(end, key=lambda trial: -end[trial])[:3]
    lines = []
    for name, scores in (("overall", overall), ("smooth", smooth_scores(folder))):
        for step in sorted(overall):
            at = {trial: score for trial, score in scores.get(step, {}).items() if trial in end}
            if len(at) < 4 or (name == "overall" and step == last):
                continue
            trials = sorted(at)
            rho, low, high = correlation(np.array([at[t] for t in trials]), np.array([end[t] for t in trials]))
            places = sorted(at, key=lambda trial: -at[trial])
            shown = ", ".join(f"{places.index(trial) + 1}" for trial in best if trial in at)
            lines.append([name, f"{step:,}", str(len(at)), f"{rho:.2f} ({low:.2f} .. {high:.2f})", shown])
    return markdown(("score", "rung", "trials", "Spearman with the end", "places of the best three at the end"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", help="name of a sweep that stopped no trial early")
    parser.add_argument("--store", default="runs")
    options = parser.parse_args()
    print(table(Store(options.store).open(options.sweep)))


if __name__ == "__main__":
    main()
