"""Greedy selection and bootstrap intervals: CPU seconds and memory, against the plain loop and AutoGluon's routine.

    python -m benchmarks.ensembles
    python -m benchmarks.ensembles --candidates 200 --only "search"

1,000 made-up trials of some skill predict three tasks as evidence does (float16 probabilities, float32 scores), and 50
members are picked with replacement. `search` has the rows that a sweep scores, `dev` the whole dev files. Joint
selection goes by `overall`; AutoGluon's `EnsembleSelection` knows one task, so it is run once a task, and ours as well.
Every case is a process of its own. AutoGluon is no dependency: its cases are left out where `autogluon.core` cannot be
imported (`pip install --no-deps autogluon.core autogluon.common autogluon.features` beside our packages is enough).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.common import ROOT, environment, markdown, python
from minbert import metrics
from results.blending import decided, shares
from results.ensembles import Problem, forward
from results.estimates import RESAMPLES, of_difference
from results.evidence import Evidence, decoded
from results.growth import Joint, growths
from results.predictions import Member, Prediction
from results.scoring import Scoring
from results.tasks import Task

PICKS = 50
ROWS = {"search": (551, 2_000, 432), "dev": (1_101, 20_214, 863)}
"""Rows of SST, QQP and STS."""
TASKS = {
    "sst": Task("classification", "accuracy", 1.0),
    "qqp": Task("classification", "accuracy", 1.0),
    "sts": Task("regression", "pearson", 1.0),
}
SCORING = Scoring.of(TASKS, metrics.score, metrics.overall)
CLASSES = {"sst": 5, "qqp": 2}
Arrays = Mapping[str, np.ndarray]
"""Arrays by task."""


def problem(rows: Sequence[int], candidates: int) -> Problem:
    """Trials of skills that differ a little; a row that is hard for one is hard for all."""
    generator = np.random.default_rng(0)
    labels, hardness = {}, {}
    for task, size in zip(TASKS, rows, strict=True):
        whole = generator.integers(0, CLASSES[task], size) if task in CLASSES else generator.uniform(0, 5, size)
        labels[task], hardness[task] = whole.astype(float), generator.normal(0, 1, size)
    rows_of = {task: np.arange(len(truth)) for task, truth in labels.items()}  # one array for all, as candidates have
    members = [_member(generator, labels, hardness, rows_of) for _ in range(candidates)]
    return Problem(members, labels, SCORING)


def _member(generator: np.random.Generator, labels: Arrays, hardness: Arrays, rows: Arrays) -> Member:
    skill, member = generator.normal(1.0, 0.1), {}
    for task, truth in labels.items():
        evidence: Evidence
        if task in CLASSES:
            logits = generator.normal(0, 1, (len(truth), CLASSES[task]))
            logits[np.arange(len(truth)), truth.astype(int)] += skill + hardness[task]
            chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            evidence = (chances[:, 1] if CLASSES[task] == 2 else chances).astype(np.float16)
        else:
            evidence = (truth + generator.normal(0, 1, len(truth)) / skill + hardness[task]).astype(np.float32)
        member[task] = Prediction(rows[task], *decoded(evidence))
    return member


def ours_jointly(given: Problem) -> list[int]:
    return forward(Joint(growths(given.members, given.labels, SCORING), SCORING), PICKS)


def ours_by_task(given: Problem) -> list[list[int]]:
    return [forward(growth, PICKS) for growth in growths(given.members, given.labels, SCORING).values()]


def plain_jointly(given: Problem) -> list[int]:
    """The loop as one would write it: sums that grow, every candidate scored by the metrics."""
    parts = {task: shares([member[task] for member in given.members], TASKS[task].kind) for task in TASKS}
    judge = SCORING.judge(given.labels)

    def score(total: Arrays, weight: int, place: int) -> float:
        return judge({t: decided(total[t] + parts[t][place], weight + 1, TASKS[t].kind) for t in TASKS})

    def added(picks: Sequence[int]) -> dict[str, np.ndarray]:
        return {task: np.sum([parts[task][pick] for pick in picks], axis=0) for task in TASKS}

    nothing = {task: np.zeros_like(parts[task][0]) for task in TASKS}
    alone = [score(nothing, 0, place) for place in range(len(given.members))]
    order = sorted(range(len(alone)), key=lambda place: -alone[place])
    picks = max(
        (order[:n] for n in range(1, PICKS // 2 + 1)),
        key=lambda start: judge({t: decided(added(start)[t], len(start), TASKS[t].kind) for t in TASKS}),
    )
    total, best = added(picks), (judge({t: decided(added(picks)[t], len(picks), TASKS[t].kind) for t in TASKS}), picks)
    while len(picks) < PICKS:
        values = [score(total, len(picks), place) for place in range(len(given.members))]
        picks = [*picks, int(np.argmax(values))]
        total = {task: total[task] + parts[task][picks[-1]] for task in TASKS}
        best = max(best, (max(values), picks), key=lambda pair: pair[0])
    return best[1]


def autogluon_by_task(given: Problem) -> list[list[int]]:
    from autogluon.core.metrics import accuracy, pearsonr
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    found = []
    for task, truth in given.labels.items():
        classes = CLASSES.get(task, 1)
        kind = "regression" if classes == 1 else "binary" if classes == 2 else "multiclass"
        parts = shares([member[task] for member in given.members], TASKS[task].kind)
        chances = [part[:, 1] if classes == 2 else part for part in parts]
        metric = pearsonr if classes == 1 else accuracy
        selection = EnsembleSelection(PICKS, kind, metric).fit(chances, truth if classes == 1 else truth.astype(int))
        found.append([int(pick) for pick in selection.indices_])
    return found


def ours_bootstrap(given: Problem) -> list[float]:
    left, right = (_values(member) for member in given.members[:2])
    estimate = of_difference(SCORING, [left], [right], given.labels)
    return [estimate.low, estimate.high]


def plain_bootstrap(given: Problem) -> list[float]:
    """Each resample scored by the metrics; the same resamples."""
    from results.estimates import SEED

    generator, differences = np.random.default_rng(SEED), []
    left, right = (_values(member) for member in given.members[:2])
    for _ in range(RESAMPLES):
        rows = {task: generator.integers(0, len(truth), len(truth)) for task, truth in given.labels.items()}
        judge = SCORING.judge({task: truth[rows[task]] for task, truth in given.labels.items()})
        first, second = (judge({task: own[task][rows[task]] for task in TASKS}) for own in (left, right))
        differences.append(first - second)
    return [float(end) for end in np.quantile(differences, [0.025, 0.975])]


def _values(member: Member) -> dict[str, np.ndarray]:
    return {task: prediction.values for task, prediction in member.items()}


CASES: dict[str, Callable[[Problem], object]] = {
    "greedy, joint: ours": ours_jointly,
    "greedy, joint: plain loop": plain_jointly,
    "greedy, each task: ours": ours_by_task,
    "greedy, each task: AutoGluon": autogluon_by_task,
    "interval of a difference: ours": ours_bootstrap,
    "interval of a difference: plain": plain_bootstrap,
}


def measure(case: str, part: str, candidates: int) -> dict[str, object]:
    """CPU seconds, peak memory of the process in MB (the candidates' own included), the picks or ends of the interval,
    and the overall score of an ensemble."""
    CASES[case](problem((50, 50, 50), 2))  # imports, first calls
    given = problem(ROWS[part], candidates)
    began = time.process_time()
    found = CASES[case](given)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {"case": case, "part": part, "seconds": seconds, "peak": peak}
    return row | {"found": found, "overall": overall(given, found)}


def overall(given: Problem, picks: object) -> float | None:
    """Overall score of picks, or of the picks of each task; None for an interval."""
    if not isinstance(picks, list) or isinstance(picks[0], float):
        return None
    by_task = picks if isinstance(picks[0], list) else [picks] * len(TASKS)
    counts = {t: np.bincount(own, minlength=len(given.members)) for t, own in zip(TASKS, by_task, strict=True)}
    return given.value(counts, "average")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1_000)
    parser.add_argument("--only", default="", help="run the cases whose `PART CASE` contains this text")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.case, arguments.part, arguments.candidates)))
        return
    rows = []
    for part in ROWS:
        for case in CASES:
            if arguments.only not in f"{part} {case}":
                continue
            if case.endswith("AutoGluon") and importlib.util.find_spec("autogluon") is None:
                print(f"{case}: left out, `autogluon.core` is not installed")
                continue
            options = ["--case", case, "--part", part, "--candidates", str(arguments.candidates)]
            done = subprocess.run(
                python("benchmarks.ensembles", *options), cwd=ROOT, check=True, capture_output=True, text=True,
                env=environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
            )  # fmt: skip
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{part}, {case}: {rows[-1]['seconds']:.2f} s, {rows[-1]['peak']:.0f} MB", flush=True)
    print(table(rows))


def table(rows: Sequence[dict[str, object]]) -> str:
    """The cases as Markdown, each with what it found compared with ours."""
    found = {(row["part"], row["case"]): row["found"] for row in rows}
    lines = []
    for row in rows:
        ours = found.get((row["part"], f"{str(row['case']).split(':')[0]}: ours"))
        same = "" if str(row["case"]).endswith("ours") else "yes" if _same(row["found"], ours) else "no"
        score = "" if row["overall"] is None else f"{row['overall']:.4f}"
        lines.append([str(row["part"]), str(row["case"]), f"{row['seconds']:.2f}", f"{row['peak']:.0f}", score, same])
    return markdown(["rows", "case", "CPU seconds", "peak memory, MB", "overall", "same result as ours"], lines)


def _same(found: object, ours: object) -> bool:
    if ours is None or not isinstance(found, list) or not isinstance(ours, list):
        return False
    if found and isinstance(found[0], float):
        return bool(np.allclose(found, ours, rtol=0, atol=1e-12))
    return found == ours


if __name__ == "__main__":
    main()
