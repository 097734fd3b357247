"""The choice of an ensemble, and of the best single trial, on `search`; no label of `held` is read.

Method and size are chosen by cross-validation (`results.crossvalidation`), then the members on all rows of `search`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from results.blending import Weights
from results.candidates import Candidates, Rows, candidates
from results.crossvalidation import FOLDS, Plan, Tried, best, compare, plans
from results.ensembles import AUTO, METHODS, Problem, check, choose
from results.files import StoreError
from results.predictions import Member, labels
from results.scoring import Scoring, Vector
from results.store import SweepFolder

DEFAULT = 0
"""Number of the trial with the default configuration."""
SOUP = "soup"
"""Method and combination of an ensemble that is one model, with the mean of its members' weights. Who has the weights
chooses it; the methods of this package choose from predictions."""


@dataclass(frozen=True)
class Soup:
    """What is known of the one model that has the mean of its members' weights."""

    checkpoints: tuple[str, ...]
    """Name of each member's checkpoint."""
    values: tuple[float, ...]
    """Overall score on `search` of the first member, of the mean of the first two, and so on."""
    evaluations: int
    """Number of models that were evaluated on `search` to choose the members."""
    predictions: Member
    """Its predictions for rows of the dev files, ascending: those that estimates need."""


@dataclass(frozen=True)
class Ensemble:
    """Trials that predict together."""

    trials: tuple[int, ...]
    """Members, the heaviest first."""
    weights: Weights
    """Task -> weight of each member; their sum is 1."""
    combination: str = "average"
    """How they are combined (`results.blending`), or SOUP."""
    soup: Soup | None = field(default=None, repr=False)
    """None: the members' predictions are combined."""

    @classmethod
    def even(cls, trials: Sequence[int], tasks: Collection[str], combination: str = "average") -> Ensemble:
        """Trials with equal weights."""
        return cls(tuple(trials), dict.fromkeys(tasks, np.full(len(trials), 1 / len(trials))), combination)

    @property
    def predictors(self) -> tuple[int, ...]:
        """The trials whose predictions are combined; those of a soup need not predict."""
        return self.trials if self.soup is None else ()

    @property
    def shares(self) -> dict[int, float]:
        """Trial -> its mean weight over the tasks."""
        return dict(zip(self.trials, np.mean(list(self.weights.values()), axis=0).tolist(), strict=True))

    def first(self, number: int) -> Ensemble:
        """The heaviest members alone. In a task where they have no weight they count alike."""
        kept = {task: own[:number] if own[:number].any() else np.ones(number) for task, own in self.weights.items()}
        return Ensemble(self.trials[:number], {t: own / own.sum() for t, own in kept.items()}, self.combination)


@dataclass(frozen=True)
class Selection:
    """Trials that were chosen on `search`."""

    method: str
    size: int
    """Largest number of members that the method was allowed."""
    ensemble: Ensemble | None
    """None without candidates."""
    best_single: int | None
    """The best candidate alone; without candidates the best trial by rank."""
    default: int | None
    """Trial 0, to compare with; None if it has neither weights nor predictions of all parts."""
    seeds: tuple[int, ...]
    """All runs of the best single trial's configuration, if there are several and an ensemble of them is asked for."""
    tried: Sequence[Tried] = field(repr=False)
    """The methods that were compared by cross-validation, the best single trial first; empty with too few rows."""
    candidates: Candidates = field(repr=False)

    @property
    def roles(self) -> dict[str, Ensemble]:
        """Predictors of which the score is estimated: "ensemble", "best_single", "default", "seeds"."""
        tasks = self.candidates.rows.keys()
        roles = {} if self.ensemble is None else {"ensemble": self.ensemble}
        alone = {"best_single": self.best_single, "default": self.default}
        roles |= {role: Ensemble.even([trial], tasks) for role, trial in alone.items() if trial is not None}
        return roles | ({"seeds": Ensemble.even(self.seeds, tasks)} if self.seeds else {})

    @property
    def trials(self) -> list[int]:
        """Every chosen trial that predicts, once."""
        return list(dict.fromkeys(trial for role in self.roles.values() for trial in role.predictors))


def select(
    folder: SweepFolder,
    scoring: Scoring,
    *,
    method: str = AUTO,
    size: int = 5,
    trials: Sequence[int],
    without: Collection[int] = (),
    compare: Collection[Collection[int]] | None = None,
) -> Selection:
    """Choose an ensemble, and the best single trial, on `search`.

    Candidates are those of `trials` that have predictions for the same rows of `search` (`results.candidates`).
    `method`: one of `results.ensembles.METHODS`, or AUTO. `size`: members at most; AUTO tries smaller ensembles too.
    `trials`: trials with weights or predictions of all parts, best first. `without`: those of them that could not
    predict; they are left out, and named as skipped. `compare`: the runs of each configuration; then every method is
    tried beside the one asked for, and the seeds of the best single trial are chosen as well. Raises StoreError,
    ValueError for an unknown method or a size below 1.
    """
    check(method, size)
    able = [trial for trial in trials if trial not in without]
    pool = candidates(folder, able)
    unable = [f"trial {trial}: its predictions are missing or damaged" for trial in sorted(without)]
    pool = replace(pool, skipped=[*pool.skipped, *unable])
    default = DEFAULT if DEFAULT in able else None
    if not pool.members:
        return Selection(method, size, None, next(iter(able), None), default, (), (), pool)
    problem, numbers = problem_of(folder, scoring, pool), list(pool.members)
    tried = _tried(problem, method if compare is None else AUTO, size)
    plan = best(tried).plan if method == AUTO and tried else Plan("greedy" if method == AUTO else method, size)
    single = numbers[problem.order[0]]
    group = next((sorted(group) for group in compare or () if single in group), [])
    seeds = tuple(trial for trial in group if trial in pool.members)
    weights = choose(problem, *plan)
    chosen = _ensemble(numbers, problem.order, weights, METHODS[plan.method].combination)
    return Selection(*plan, chosen, single, default, seeds if len(seeds) > 1 else (), tried, pool)


def problem_of(folder: SweepFolder, scoring: Scoring, pool: Candidates) -> Problem:
    """What the methods see: the candidates' predictions and the labels on `search` alone."""
    return Problem(list(pool.members.values()), labels_of(folder, scoring, ("search",), pool.rows), scoring)


def _tried(problem: Problem, method: str, size: int) -> list[Tried]:
    """The methods compared by cross-validation; none where a task has fewer rows than parts."""
    if min(len(truth) for truth in problem.labels.values()) < FOLDS:
        return []
    return compare(problem, plans(method, size))


def _ensemble(numbers: Sequence[int], order: Sequence[int], weights: Weights, combination: str) -> Ensemble:
    """The members with weight, the heaviest first; of equal ones the better candidate."""
    totals = np.round(np.sum(list(weights.values()), axis=0), 12)
    places = [place for place in sorted(order, key=lambda place: -totals[place]) if totals[place] > 0]
    kept = {task: own[places] for task, own in weights.items()}
    return Ensemble(tuple(numbers[place] for place in places), kept, combination)


def labels_of(folder: SweepFolder, scoring: Scoring, splits: Sequence[str], rows: Rows) -> dict[str, Vector]:
    """Labels of the rows by task. Raises StoreError where a task or row has none."""
    labelled = labels(folder, splits, {task: rows[task] for task in scoring.metrics if task in rows})
    missing = [task for task in scoring.metrics if task not in labelled or not len(labelled[task][1])]
    if missing:
        raise StoreError(f"Table `examples` has no labels of {', '.join(missing)} for {' and '.join(splits)}.")
    return {task: values for task, (_, values) in labelled.items()}
