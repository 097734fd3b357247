"""The choice of an ensemble, and of the best single trial, on `search`; no label of `held` is read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from results.candidates import Candidates, Rows, candidates
from results.ensembles import ENSEMBLES, Greedy, TopK
from results.files import StoreError
from results.predictions import labels
from results.scoring import Scoring, Vector
from results.store import SweepFolder

DEFAULT = 0
"""Number of the trial with the default configuration."""


@dataclass(frozen=True)
class Selection:
    """Trials that were chosen on `search`."""

    method: str
    technique: TopK | Greedy
    picks: tuple[int, ...]
    """Members of the ensemble in the order of the picks, with repetitions; empty without candidates."""
    best_single: int | None
    """The best candidate alone; without candidates the best trial by rank."""
    default: int | None
    """Trial 0, to compare with; None if it has neither weights nor predictions of all parts."""
    candidates: Candidates = field(repr=False)

    @property
    def roles(self) -> dict[str, tuple[int, ...]]:
        """Role -> its trials, with repetitions: "ensemble", "best_single", "default"."""
        single = () if self.best_single is None else (self.best_single,)
        roles = {"ensemble": self.picks, "best_single": single}
        return roles | ({} if self.default is None else {"default": (self.default,)})

    @property
    def trials(self) -> list[int]:
        """Every chosen trial once."""
        return list(dict.fromkeys(trial for trials in self.roles.values() for trial in trials))


def select(
    folder: SweepFolder,
    scoring: Scoring,
    *,
    method: str = "greedy",
    size: int = 5,
    trials: Sequence[int],
    without: Collection[int] = (),
) -> Selection:
    """Choose an ensemble, and the best single trial, on `search`.

    Candidates are those of `trials` that have predictions for the same rows of `search` (`results.candidates`).
    `trials`: trials with weights or predictions of all parts, best first. `without`: those of them that could not
    predict; they are left out, and named as skipped. Raises StoreError, ValueError for a size below 1.
    """
    if method not in ENSEMBLES:
        raise StoreError(f"Unknown ensemble method `{method}`. Expected one of: {', '.join(ENSEMBLES)}.")
    technique = ENSEMBLES[method](size)
    able = [trial for trial in trials if trial not in without]
    pool = candidates(folder, able)
    unable = [f"trial {trial}: its predictions are missing or damaged" for trial in sorted(without)]
    pool = replace(pool, skipped=[*pool.skipped, *unable])
    chosen = _choose(folder, scoring, pool, technique)
    best = next(iter([*chosen["best_single"], *able]), None)
    return Selection(method, technique, chosen["ensemble"], best, DEFAULT if DEFAULT in able else None, pool)


def _choose(
    folder: SweepFolder, scoring: Scoring, pool: Candidates, technique: TopK | Greedy
) -> dict[str, tuple[int, ...]]:
    """Role -> its trials: the ensemble and the best single member. Only labels of `search` are used."""
    if not pool.members:
        return {"ensemble": (), "best_single": ()}
    trials, members = list(pool.members), list(pool.members.values())
    judge = scoring.judge(labels_of(folder, scoring, ("search",), pool.rows))
    selected = {
        "ensemble": technique.select(members, judge, scoring.kinds),
        "best_single": TopK(1).select(members, judge, scoring.kinds),
    }
    return {role: tuple(trials[index] for index in indices) for role, indices in selected.items()}


def labels_of(folder: SweepFolder, scoring: Scoring, splits: Sequence[str], rows: Rows) -> dict[str, Vector]:
    """Labels of the rows by task. Raises StoreError where a task or row has none."""
    labelled = labels(folder, splits, {task: rows[task] for task in scoring.metrics if task in rows})
    missing = [task for task in scoring.metrics if task not in labelled or not len(labelled[task][1])]
    if missing:
        raise StoreError(f"Table `examples` has no labels of {', '.join(missing)} for {' and '.join(splits)}.")
    return {task: values for task, (_, values) in labelled.items()}
