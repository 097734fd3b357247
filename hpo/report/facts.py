"""What a page says about a sweep, read from its store once. The store's own readers do the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.display import status
from hpo.driver.answer import Decision, of_sweep
from hpo.driver.importance import importance_of
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

    record: SweepRecord
    snapshot: Snapshot
    trials: pd.DataFrame
    """As of `results.views.trials_frame`."""
    reports: pd.DataFrame
    attempts: pd.DataFrame
    """As of `results.frames`."""
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
    ensembles: Mapping[str, Mapping[str, Any]]
    """Records of the saved ensembles by name, the best by its score on `search` first."""
    looks: int
    """Number of predictors whose score on `held` was shown so far, this page included."""
    predictors: tuple[Predictor, ...]
    """The best trial and the best ensemble, with their predictions."""
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
    trials, reports = views.trials_frame(folder), frames.reports_frame(folder)
    step = frames.shared_step(reports)
    ensembles, problems = _ensembles(folder)
    best = views.top(folder, BEST)
    found, more = predictors(folder, record, next(iter(best["trial"]), None), _of_several_models(ensembles))
    return Facts(
        record=record,
        snapshot=snapshot,
        trials=trials,
        reports=reports,
        attempts=frames.attempts_frame(folder),
        best=best,
        step=step,
        compared=frames.at_rung(trials, reports, step),
        importance=_importance(folder),
        decision=of_sweep(folder),
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
    """The saved ensembles, the best by `search` first, and those that cannot be read."""
    from results.files import StoreError
    from results.selection import load, saved

    records, problems = [], []
    for name in saved(folder):
        try:
            records.append(load(folder, name))
        except StoreError as error:
            problems.append(str(error))
    records.sort(key=_on_search, reverse=True)
    return {str(record["name"]): record for record in records}, problems


def _of_several_models(ensembles: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The best ensemble whose members' predictions, which the store holds, are its own: no soup."""
    from results.choice import SOUP

    return next((record for record in ensembles.values() if record["combination"] != SOUP), None)


def _on_search(record: Mapping[str, Any]) -> float:
    """The ensemble's score on the data that chose it: `held` must not choose what a page shows."""
    return float(record["estimates"]["ensemble"].get("search", {}).get("overall", {}).get("value", 0.0))
