"""What a page says about a sweep, read from its store once. The store's own readers do the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.display import ensemble, status
from hpo.driver.answer import Decision, of_sweep, scores_on_held
from hpo.driver.importance import importance_of
from hpo.driver.quarantines import quarantines_frame
from hpo.launch.record import SweepRecord, record_of
from hpo.report.quality import Predictor, predictors
from hpo.search.importance import Importance, ImportanceError
from hpo.search.snapshot import Snapshot

if TYPE_CHECKING:
    import pandas as pd

    from results.store import SweepFolder

BEST = 10
"""Largest number of rows of the table of best trials."""


@dataclass(frozen=True)
class Facts:
    """One sweep as a page shows it."""

    folder: SweepFolder
    """The sweep itself, to be compared with others."""
    record: SweepRecord
    snapshot: Snapshot
    trials: pd.DataFrame
    """As of `results.views.trials_frame`."""
    reports: pd.DataFrame
    attempts: pd.DataFrame
    """As of `results.frames`."""
    quarantines: pd.DataFrame
    """As of `hpo.driver.quarantines.quarantines_frame`."""
    best: pd.DataFrame
    """The best trials, as of `results.views.top`."""
    step: int
    """The milestone at which trials are compared; 0: there is no report."""
    compared: pd.DataFrame
    """The trials at that milestone."""
    importance: Importance | str
    """The importance of parameters, or why there is none."""
    decision: Decision | None
    """The sweep's answer; None: the search has not ended."""
    answer: Mapping[str, Any] | None
    """The scores of the answer's trial on `held`, as of `hpo.driver.answer.scores_on_held`; None: there are none."""
    ensembles: Mapping[str, Mapping[str, Any]]
    """Records of the saved ensembles by name, the best by cross-validation on `search` first."""
    looks: int
    """Number of predictors whose score on `held` was shown so far, this page included."""
    predictors: tuple[Predictor, ...]
    """The answer, the best single trial and the best ensemble, with their predictions."""
    warnings: tuple[str, ...]
    """What could not be read."""

    @property
    def params(self) -> list[str]:
        """Columns of the drawn parameters that differ among the compared trials, the most important first."""
        table = self.compared
        columns = list(table.columns)
        drawn = [name for name in columns[columns.index("params") + 1 :] if table[name].nunique(dropna=False) > 1]
        shares = dict[str, float]()
        if isinstance(self.importance, Importance):
            for entry in self.importance.parameters:
                path = entry.name.partition(" (")[0]
                shares[path] = shares.get(path, 0.0) + entry.importance[self.importance.targets[0]]
        present = {name: int(table[name].notna().sum()) for name in drawn}
        return sorted(drawn, key=lambda name: (-shares.get(name, 0.0), -present[name], name))


def facts_of(folder: SweepFolder) -> Facts:
    """Read a sweep. Raises StoreError and RecordError."""
    from results import frames, views
    from results.looks import looks

    record, snapshot = record_of(folder), status.read(folder)
    trials, reports, attempts = views.trials_frame(folder), frames.reports_frame(folder), frames.attempts_frame(folder)
    step = frames.shared_step(reports)
    ensembles, problems = _ensembles(folder)
    best, decision = views.top(folder, BEST), of_sweep(folder)
    chosen = None if decision is None else decision.answer.trial
    first = next(iter(ensembles.values()), None)
    single = next(iter(best["trial"]), None) if first is None else first["best_single"]
    found, more = predictors(folder, record, _singles(chosen, single), first)
    return Facts(
        folder=folder,
        record=record,
        snapshot=snapshot,
        trials=trials,
        reports=reports,
        attempts=attempts,
        best=best,
        step=step,
        compared=frames.at_rung(trials, reports, step),
        importance=_importance(folder),
        quarantines=quarantines_frame(folder, attempts),
        decision=decision,
        answer=None if chosen is None else scores_on_held(folder, chosen),
        ensembles=ensembles,
        looks=looks(folder),
        predictors=found,
        warnings=(*problems, *more, *folder.warnings),
    )


def _importance(folder: SweepFolder) -> Importance | str:
    try:
        return importance_of(folder)
    except ImportanceError as error:
        return str(error)


def _ensembles(folder: SweepFolder) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    """The saved ensembles, the best first, and those that cannot be read."""
    from results.files import StoreError
    from results.selection import load, saved

    records, problems = [], []
    for name in saved(folder):
        try:
            records.append(load(folder, name))
        except StoreError as error:
            problems.append(str(error))
    records.sort(key=_worth, reverse=True)
    return {str(record["name"]): record for record in records}, problems


def _worth(record: Mapping[str, Any]) -> tuple[bool, float]:
    """By what ensembles are ordered: their cross-validated score on `search`. One without, as a soup, comes after all
    others, by its score on the rows that chose it. `held` must not choose what a page shows."""
    if (tried := ensemble.validated(record)) is not None:
        return True, float(tried["value"])
    return False, float(record["estimates"]["ensemble"].get("search", {}).get("overall", {}).get("value", 0.0))


def _singles(answer: int | None, best: int | None) -> dict[str, int]:
    """Name -> number of the answer's trial and of the best single trial, which may be one."""
    name = ensemble.PREDICTORS["best_single"]
    if best is not None and answer == best:
        return {f"answer, {name} ({answer})": answer}
    named = {} if answer is None else {f"answer ({answer})": answer}
    return named if best is None else named | {f"{name} ({best})": int(best)}
