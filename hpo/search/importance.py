"""Importance of a sweep's parameters: the share of each in what separates good trials from the others.

The table METHODS holds the methods:

ped-anova  PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255; conditional parameters: arXiv 2601.20800). The divergence
           of a parameter's density among the best trials from its density among all trials. It covers conditional
           parameters: one that few trials have, or few of the best, counts less
fanova     functional ANOVA (Hutter et al. 2014), computed by Optuna. The share of the variance of a random forest's
           prediction that a parameter explains alone. It covers the parameters that every compared trial has. It needs
           scikit-learn

Only values of one rung are compared. The rung is the highest below which no trial was stopped, so that every trial has
come that far or will: under asha the first one, without early stopping the full budget. Trials at a later rung were
selected: all of them have good values of what decided below, so that parameter seems to matter little. In 30 simulated
sweeps of 100 trials a parameter with a share of 0.70 among all trials had 0.24 among the third that had passed a rung
(`python -m benchmarks.importance`, also for the figures below).

`chance` says how often a parameter gets at least its importance when the same trials have random scores. In a small
sweep that is often: of ten parameters without any effect the first has a share of about 0.3.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import create_trial

from hpo.samplers.problem import distribution
from hpo.search.states import UNRANKED, State
from hpo.search.study import quiet_study
from hpo.space.tree import Leaf

OVERALL = "overall"
"""Target that is no task: the weighted mean of the tasks' scores."""
NEEDED = 20
"""Fewest trials to compare. With 20 draws of ten parameters and no noise PED-ANOVA put a number that decides everything
first in 0.93 of 30 cases, with 10 in 0.67."""
TOP = 0.25
"""Share of the trials that PED-ANOVA takes as the best. Among 50 draws of ten parameters, one of them with an effect of
the same spread as the noise, it put that one first in 0.93 (a number) and 0.87 (a choice) of 30 cases; with the best
tenth, Optuna's default, in 0.57 and 0.17."""
SHUFFLES = 39
"""Random scorings of the trials from which `chance` is computed: it has steps of 1/40."""


class ImportanceError(ValueError):
    """The importance cannot be computed: too few trials, an unknown name, or scikit-learn is missing."""


@dataclass(frozen=True)
class Trial:
    """One trial, as its importance needs it."""

    state: State
    params: Mapping[str, Any]
    """Drawn parameters by Optuna's names; empty for a configuration outside the space."""
    scores: Mapping[int, Mapping[str, float]]
    """Milestone -> target (`overall` or a task) -> score."""
    replicate: int = 0
    """Which repetition of its configuration the trial is; 0: the first."""


@dataclass(frozen=True)
class Parameter:
    """One parameter with its importance."""

    name: str
    """Name for people (see `labels`)."""
    trials: int
    """Number of compared trials that have it."""
    importance: Mapping[str, float]
    """Target -> share in [0, 1]; the shares of all parameters sum to 1, or are all 0 if the scores do not differ."""
    chance: Mapping[str, float]
    """Target -> probability of at least this importance under random scores, in (0, 1]; empty for fanova."""


@dataclass(frozen=True)
class Importance:
    """The importance of all parameters of a sweep."""

    method: str
    rung: int
    """Milestone at which trials are compared, in examples."""
    selected: bool
    """Whether trials were stopped at lower rungs, so that the compared ones were selected."""
    trials: int
    """Number of compared trials."""
    left_out: Mapping[str, int]
    """Reason -> number of trials that are not compared."""
    targets: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    """The most important for the first target first."""
    absent: tuple[str, ...] = ()
    """Parameters that the method cannot assess, because some of the compared trials do not have them."""


@dataclass(frozen=True)
class ComparedTrials:
    """The compared trials."""

    domains: Mapping[str, BaseDistribution]
    """Name of each varied parameter -> its domain."""
    params: Sequence[Mapping[str, Any]]
    """The parameters of each trial by these names."""
    scores: Mapping[str, Sequence[float]]
    """Target -> finite score of each trial; higher is better."""


Shares = dict[str, dict[str, float]]
"""Target -> name of a parameter -> a number for it."""


class Method(Protocol):
    """A way to compute importance."""

    name: ClassVar[str]

    def assess(self, compared: ComparedTrials) -> tuple[Shares, Shares]:
        """The importance of each parameter that the method can assess, not normalised, and its chance (no targets: the
        method has none). Raises ImportanceError if something that it needs is not installed."""
        ...


@dataclass(frozen=True)
class PedAnova:
    """PED-ANOVA with the best quarter of the trials."""

    name: ClassVar[str] = "ped-anova"

    def assess(self, compared: ComparedTrials) -> tuple[Shares, Shares]:
        from hpo.search import pedanova

        values: dict[str, tuple[list[int], list[Any]]] = {}
        for row, params in enumerate(compared.params):
            for name, value in params.items():
                rows, held = values.setdefault(name, ([], []))
                rows.append(row)
                held.append(value)
        columns = [pedanova.column(compared.domains[name], *values[name]) for name in values]
        best = {target: _best(np.array(scores)) for target, scores in compared.scores.items()}
        counts = {target: int(marks.sum()) for target, marks in best.items()}
        shuffled = {count: _shuffled(count, len(compared.params)) for count in set(counts.values())}
        marked = pedanova.importances(columns, np.concatenate([np.stack(list(best.values())), *shuffled.values()]))
        found = dict(zip(best, marked, strict=False))
        random = dict(zip(shuffled, np.split(marked[len(best) :], len(shuffled)), strict=True))
        chance = {target: (1 + (random[counts[target]] >= of).sum(0)) / (1 + SHUFFLES) for target, of in found.items()}
        return _named(found, values), _named(chance, values)


@dataclass(frozen=True)
class Fanova:
    """Functional ANOVA with a forest of 64 trees, Optuna's default, from a fixed seed."""

    name: ClassVar[str] = "fanova"

    def assess(self, compared: ComparedTrials) -> tuple[Shares, Shares]:
        if importlib.util.find_spec("sklearn") is None:
            raise ImportanceError(
                "`method`: fanova needs scikit-learn, which is not installed. Install it (pip install scikit-learn), "
                f"or use {PedAnova.name}."
            )
        study = _study(compared)
        return {target: _evaluate(study, scores) for target, scores in compared.scores.items()}, {}


METHODS: Mapping[str, type[Method]] = {entry.name: entry for entry in (PedAnova, Fanova)}
"""Every method by its name."""


def importance(
    space: Sequence[Leaf],
    milestones: Sequence[int],
    trials: Sequence[Trial],
    targets: Sequence[str],
    *,
    method: str = PedAnova.name,
    rung: int | None = None,
) -> Importance:
    """The importance of the varied parameters of `space` for each of `targets`.

    `rung` is the milestone at which trials are compared; None: the highest below which no trial was stopped and that
    enough trials have reached. Trials that diverged or failed, repetitions, and configurations outside the space are
    left out. Equal arguments give equal results. Raises ImportanceError.
    """
    if method not in METHODS:
        raise ImportanceError(f"Unknown method `{method}`. Expected one of: {', '.join(METHODS)}.")
    if rung is not None and rung not in milestones:
        listed = ", ".join(map(str, milestones))
        raise ImportanceError(f"`rung` must be one of the sweep's milestones ({listed} examples), not {rung}.")
    names = labels(space)
    reasons = [_objection(trial, names) for trial in trials]
    usable = [trial for trial, reason in zip(trials, reasons, strict=True) if reason is None]
    left_out = Counter(reason for reason in reasons if reason is not None)
    limit = _unselected(usable, milestones)
    step = rung if rung is not None else _rung(usable, milestones, targets, limit)
    raced = [trial for trial in usable if _scored(trial, step, targets)]
    left_out["not at this rung"] = len(usable) - len(raced)
    if len(raced) < NEEDED:
        raise ImportanceError(_too_few(step, len(raced), len(trials), left_out))
    compared = ComparedTrials(
        domains={names[leaf.name]: distribution(leaf) for leaf in space if not leaf.constant},
        params=[{names[name]: value for name, value in trial.params.items()} for trial in raced],
        scores={target: [trial.scores[step][target] for trial in raced] for target in targets},
    )
    raw, chance = METHODS[method]().assess(compared)
    present = Counter(itertools.chain.from_iterable(compared.params))
    parameters = [
        Parameter(
            name,
            present[name],
            {target: _share(raw[target], name) for target in targets},
            {target: chance[target][name] for target in chance},
        )
        for name in raw[targets[0]]
    ]
    return Importance(
        method=method,
        rung=step,
        selected=step > limit,
        trials=len(raced),
        left_out={reason: count for reason, count in left_out.items() if count},
        targets=tuple(targets),
        parameters=tuple(sorted(parameters, key=lambda entry: (-entry.importance[targets[0]], entry.name))),
        absent=tuple(sorted(present.keys() - raw[targets[0]].keys())),
    )


def labels(space: Sequence[Leaf]) -> dict[str, str]:
    """The name for people of each varied leaf, by its Optuna name.

    That is its path (`adapter/rank`). Where branches give one path different domains it names the branch too:
    `optimizer/encoder_lr (adapter=lora)`. Branches with equal domains share a name. Where no single choice tells the
    branches apart, it is Optuna's name.
    """
    at: dict[str, list[Leaf]] = {}
    for leaf in space:
        if not leaf.constant:
            at.setdefault(leaf.path, []).append(leaf)
    named = {}
    for path, leaves in at.items():
        groups: dict[BaseDistribution, list[Leaf]] = {}
        for leaf in leaves:
            groups.setdefault(distribution(leaf), []).append(leaf)
        branches = _branches(list(groups.values()))
        distinct = len(set(branches)) == len(groups)
        for group, branch in zip(groups.values(), branches, strict=True):
            for leaf in group:
                named[leaf.name] = (f"{path} ({branch})" if branch else path) if distinct else leaf.name
    return named


def _branches(groups: Sequence[Sequence[Leaf]]) -> list[str]:
    """What tells groups of leaves apart: `adapter=dora or lora` and `adapter=pal`; empty for a single group."""
    if len(groups) == 1:
        return [""]
    paths = dict.fromkeys(path for group in groups for leaf in group for path, _ in leaf.conditions)
    kinds = [{path: _kinds(group, path) for path in paths} for group in groups]
    differing = [path for path in paths if any(each[path] != kinds[0][path] for each in kinds)]
    return [
        ", ".join(f"{path.removesuffix('/kind')}={' or '.join(each[path])}" for path in differing if each[path])
        for each in kinds
    ]


def _kinds(leaves: Sequence[Leaf], path: str) -> list[str]:
    """The kinds at `path` under which some of the leaves exist."""
    return sorted({kind for leaf in leaves for where, kind in leaf.conditions if where == path})


def _objection(trial: Trial, names: Mapping[str, str]) -> str | None:
    """Why a trial is never compared; None if it may be."""
    if trial.state in UNRANKED:
        return trial.state
    if trial.replicate:
        return "repetition"
    return None if trial.params and trial.params.keys() <= names.keys() else "outside the space"


def _scored(trial: Trial, step: int, targets: Sequence[str]) -> bool:
    """Whether a trial has a finite score for every target at a milestone."""
    scores = trial.scores.get(step, {})
    return all(math.isfinite(scores.get(target, math.nan)) for target in targets)


def _rung(trials: Sequence[Trial], milestones: Sequence[int], targets: Sequence[str], limit: int) -> int:
    """The highest milestone up to `limit` that enough trials have reached; without one the lowest."""
    for step in reversed(milestones):
        if step <= limit and sum(_scored(trial, step, targets) for trial in trials) >= NEEDED:
            return step
    return milestones[0]


def _unselected(trials: Sequence[Trial], milestones: Sequence[int]) -> int:
    """The highest milestone below which no trial was stopped."""
    stops = [max(trial.scores) for trial in trials if trial.state == "pruned" and trial.scores]
    return min(stops, default=milestones[-1])


def _too_few(step: int, found: int, total: int, left_out: Mapping[str, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
    return (
        f"Importance needs {NEEDED} trials with a score at one rung; at the rung of {step:,} examples {found} have "
        f"one. Trials started: {total}{f'; left out: {reasons}' if reasons else ''}."
    )


def _best(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which trials are the best share TOP; more if scores are equal."""
    cutoff = -np.sort(-scores)[math.ceil(TOP * len(scores)) - 1]
    return np.asarray(scores >= cutoff)


def _shuffled(best: int, trials: int) -> NDArray[np.bool_]:
    """[SHUFFLES, trials] which trials are the best under random scores."""
    marks = np.tile(np.arange(trials) < best, (SHUFFLES, 1))
    return np.random.default_rng(0).permuted(marks, axis=1)


def _named(rows: Mapping[str, NDArray[np.float64]], names: Iterable[str]) -> Shares:
    return {target: dict(zip(names, row.tolist(), strict=True)) for target, row in rows.items()}


def _study(compared: ComparedTrials) -> optuna.Study:
    """A study of complete trials with these parameters; their values are given to the evaluator apart."""
    domains = compared.domains
    study = quiet_study(optuna.storages.InMemoryStorage())
    study.add_trials(
        [
            create_trial(params=dict(each), distributions={name: domains[name] for name in each}, value=0.0)
            for each in compared.params
        ]
    )
    for trial in study.get_trials(deepcopy=False):
        # Optuna has copied the domains and compares them by value at every use; one object for each halves the time.
        trial.distributions = {name: domains[name] for name in trial.params}
    return study


def _evaluate(study: optuna.Study, scores: Sequence[float]) -> dict[str, float]:
    """Importance by functional ANOVA of each parameter that all trials of the study have, not normalised."""
    from optuna.importance import FanovaImportanceEvaluator  # scikit-learn with it, which takes 1.5 s

    equal = min(scores) == max(scores)  # then Optuna raises: there is no variance to share
    values = range(len(scores)) if equal else scores
    found = FanovaImportanceEvaluator(seed=0).evaluate(study, target=lambda trial: float(values[trial.number]))
    return {name: 0.0 if equal else float(value) for name, value in found.items()}


def _share(raw: Mapping[str, float], name: str) -> float:
    total = math.fsum(raw.values())
    return raw[name] / total if total else 0.0
