"""Rungs: how well the scores at each rung tell which trials are best at the end.

    hpo run benchmarks/around.py --data ../shared/data/cs224n --scheduler none --searcher random --trials 25 --keep 25 \
        --name around
    hpo ensemble around --method top-k --size 25 --name all
    python -m benchmarks.rungs around

The sweep trains every draw to the end, and the second command lets every trial predict `held`. For each rung the table
gives Spearman's correlation of the drawn trials' scores there with their scores at the end, on `search` and on `held`,
with its 95 % bootstrap interval over trials, and the places at the rung of the three trials that are best at the end.
Three scores of a rung are compared:

    overall      as a scheduler sees it
    half of SST  overall with the first half of the rows of SST: what fewer rows cost
    smooth       the mean over tasks of log likelihoods (of classes, at the best temperature) and of correlations

Trial 0 and trials that did not reach the end are left out. Two sweeps with the same draws (the same space and seed) are
compared: the last line gives the correlation of their scores at the end, the same configurations trained twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.stats import spearmanr

from benchmarks.common import markdown
from minbert import metrics
from results.candidates import search_order
from results.evidence import arrays, decoded
from results.predictions import headline, labels, predicted
from results.rows import to_rows
from results.scoring import Scoring
from results.store import Store, SweepFolder

DRAWS = 2000
"""Bootstrap samples of an interval."""

Scores = dict[int, dict[int, float]]
"""Step -> trial -> score."""
Score = Callable[[Mapping[str, tuple[NDArray[np.floating], NDArray[np.float64]]]], float]
"""Task -> (evidence, labels) -> score of one report."""


def overall_scores(folder: SweepFolder) -> Scores:
    """The overall score of every report that did not diverge."""
    scores: Scores = {}
    for row in to_rows(folder.read("reports")):
        if not row["diverged"]:
            scores.setdefault(row["step"], {})[row["trial"]] = row["overall"]
    return scores


def evidence_scores(folder: SweepFolder, score: Score) -> Scores:
    """The score of every report with evidence."""
    order, known = search_order(folder), labels(folder, ("search",))
    parts: dict[tuple[int, int], dict[str, tuple[NDArray[np.floating], NDArray[np.float64]]]] = {}
    for row, values in arrays(folder.read("evidence")):
        rows, all_labels = known[row["task"]]
        wanted = all_labels[np.searchsorted(rows, order[row["task"]][: len(values)])]
        parts.setdefault((row["step"], row["trial"]), {})[row["task"]] = values, wanted
    scores: Scores = {}
    for (step, trial), tasks in parts.items():
        scores.setdefault(step, {})[trial] = score(tasks)
    return scores


def half_of_sst(scoring: Scoring) -> Score:
    """The overall score with the first half of the rows of SST."""

    def score(tasks: Mapping[str, tuple[NDArray[np.floating], NDArray[np.float64]]]) -> float:
        count = {task: len(wanted) // 2 if task == "sst" else len(wanted) for task, (_, wanted) in tasks.items()}
        values = {task: decoded(values[: count[task]])[0] for task, (values, _) in tasks.items()}
        return scoring.judge({task: wanted[: count[task]] for task, (_, wanted) in tasks.items()})(values)

    return score


def smooth(tasks: Mapping[str, tuple[NDArray[np.floating], NDArray[np.float64]]]) -> float:
    """Mean over tasks: of classes the log likelihood per row at the best temperature; of a regression the
    correlation."""
    return float(np.mean([_smooth(values, wanted) for values, wanted in tasks.values()]))


def _smooth(values: NDArray[np.floating], wanted: NDArray[np.float64]) -> float:
    predicted_values, chances = decoded(values)
    if chances is None:
        return float(np.corrcoef(predicted_values, wanted)[0, 1])
    logits = np.log(np.maximum(chances, 1e-6))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        return -float(scaled[np.arange(len(wanted)), wanted.astype(int)].mean())

    return -float(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").fun)


def held_scores(folder: SweepFolder, scoring: Scoring) -> dict[int, float]:
    """The overall score on `held` of every trial that has predicted it."""
    known, scores = labels(folder, ("held",)), {}
    for trial in predicted(folder):
        parts = headline(folder, trial)
        if parts.keys() == scoring.metrics.keys():
            truth = {task: known[task][1][np.searchsorted(known[task][0], part.rows)] for task, part in parts.items()}
            scores[trial] = scoring.judge(truth)({task: part.values for task, part in parts.items()})
    return scores


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's correlation over trials, and its 95 % percentile interval by bootstrap."""
    generator = np.random.default_rng(0)
    samples = generator.integers(0, len(first), (DRAWS, len(first)))
    drawn = [spearmanr(first[rows], second[rows]).statistic for rows in samples if len(set(second[rows])) > 2]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(spearmanr(first, second).statistic), float(low), float(high)


def compared(at: Mapping[int, float], end: Mapping[int, float]) -> str:
    """`correlation` over the trials that both have, as text; empty below four."""
    trials = sorted(at.keys() & end.keys())
    if len(trials) < 4:
        return ""
    pairs = np.array([(at[trial], end[trial]) for trial in trials])
    rho, low, high = correlation(pairs[:, 0], pairs[:, 1])
    return f"{rho:.2f} ({low:.2f} .. {high:.2f})"


def drawn_ends(scores: Scores) -> dict[int, float]:
    """The scores at the end of the trials that were drawn."""
    return {trial: score for trial, score in scores[max(scores)].items() if trial != 0}


def table(folder: SweepFolder) -> str:
    """The Markdown table: one line for each rung and kind of score."""
    scoring = Scoring.of(folder.tasks, metrics.score, metrics.overall)
    overall, held = overall_scores(folder), held_scores(folder, scoring)
    end = drawn_ends(overall)
    best = sorted(end, key=lambda trial: -end[trial])[:3]
    kinds = {
        "overall": overall,
        "half of SST": evidence_scores(folder, half_of_sst(scoring)),
        "smooth": evidence_scores(folder, smooth),
    }
    lines = []
    for name, scores in kinds.items():
        for step in sorted(scores):
            at = {trial: score for trial, score in scores[step].items() if trial in end}
            places = sorted(at, key=lambda trial: -at[trial])
            lines.append([
                name,
                f"{step:,}",
                str(len(at)),
                "" if scores is overall and step == max(overall) else compared(at, end),
                compared(at, held),
                ", ".join(f"{places.index(trial) + 1}" for trial in best if trial in at),
            ])  # fmt: skip
    columns = ("score", "rung", "trials", "Spearman with the end on `search`", "with the end on `held`",
               "places of the best three at the end")  # fmt: skip
    return markdown(columns, lines)


def twice(folders: Sequence[SweepFolder]) -> str:
    """The correlation of two sweeps' scores at the end, on `search` and on `held`.

    Raises ValueError unless their trials have the same configurations.
    """
    first, second = (
        {row["trial"]: row["config_id"] for row in to_rows(folder.read("trials")) if row["event"] == "start"}
        for folder in folders
    )
    if first != second:
        raise ValueError("The trials of the two sweeps have different configurations.")
    scoring = Scoring.of(folders[0].tasks, metrics.score, metrics.overall)
    ends = [drawn_ends(overall_scores(folder)) for folder in folders]
    held = [{t: score for t, score in held_scores(folder, scoring).items() if t != 0} for folder in folders]
    return f"the same configurations twice: {compared(*ends)} on `search`, {compared(*held)} on `held`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", nargs="+", help="names of one or two sweeps that stopped no trial early")
    parser.add_argument("--store", default="runs")
    options = parser.parse_args()
    folders = [Store(options.store).open(name) for name in options.sweep]
    for folder in folders:
        print(f"{folder.name}\n\n{table(folder)}\n")
    if len(folders) == 2:
        print(twice(folders))


if __name__ == "__main__":
    main()
