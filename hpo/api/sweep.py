"""A stored sweep from Python: its tables, its best trial, its ensembles, its Optuna study.

Each property reads the store anew, also while a driver works on the sweep. Files that cannot be read cause a
UserWarning with their names.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from hpo.driver.selection import METHOD, SIZE, Choice
from results.store import Store, SweepFolder

if TYPE_CHECKING:
    import optuna

    from hpo.api.plots import Plots
    from hpo.driver.answer import Decision
    from hpo.search.snapshot import Snapshot

log = logging.getLogger("hpo")

SHOWN = 5
"""Trials that a notebook shows of a sweep."""


class StoredSweep:
    """A sweep of a store. Its methods raise StoreError for a damaged store, and QueryError for wrong SQL."""

    def __init__(self, name: str, store: str = "runs") -> None:
        """Open the sweep. Raises SweepMissing, which names the nearest sweep, if there is none of that name."""
        self.name = name
        self.store = str(store)
        self.folder: SweepFolder = Store(self.store).open(name)
        """The sweep in the store, for functions of `results` and `hpo.driver`."""

    @property
    def status(self) -> Snapshot:
        """The progress of the sweep: counts of trials by state, rungs, examples used, the best trials."""
        from hpo.display.status import read

        with self._warned():
            return read(self.folder)

    @property
    def state(self) -> str:
        """searching, repeating, finalising or done; stopped or interrupted: it can be resumed."""
        return self.status.phase

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial, by number; its columns are listed in `docs/python.md` and `results.views.trials_frame`."""
        from results.views import trials_frame

        with self._warned():
            return trials_frame(self.folder)

    @property
    def reports(self) -> pd.DataFrame:
        """One row for each trial and step; its columns are listed in `docs/python.md` and `results.frames`."""
        from results.frames import reports_frame

        with self._warned():
            return reports_frame(self.folder)

    def top(self, n: int = 10, where: str | None = None) -> pd.DataFrame:
        """The rows of the `n` best trials, best first, by furthest rung, then by the score on `search` there.

        `where`: an SQL condition, such as `overall > 0.6 and adapter/rank > 8`. See `results.views.top`.
        """
        from results import views

        with self._warned():
            return views.top(self.folder, n, where)

    def pareto(self, objectives: str | Sequence[str] | None = None, where: str | None = None) -> pd.DataFrame:
        """The rows of the complete trials that no other one beats in all objectives, best first by the first one.

        `objectives`: as `overall,-seconds`; None: those of the sweep. Raises ValueError for an unknown one.
        """
        from hpo.launch.record import record_of
        from results.objectives import objectives_from
        from results.views import pareto

        names = record_of(self.folder).objectives if objectives is None else objectives
        with self._warned():
            return pareto(self.folder, objectives_from(names, list(self.folder.tasks)), where)

    @property
    def answer(self) -> Decision | None:
        """The sweep's answer against the default configuration, on `search` and on `held`; None before its end."""
        from hpo.driver.answer import of_sweep

        with self._warned():
            return of_sweep(self.folder)

    @property
    def best(self) -> pd.Series:
        """The row of `trials` of the sweep's answer; before its end, of the best trial so far. Raises ValueError if no
        trial has a score."""
        trials = self.trials
        return trials[trials["trial"] == self._best()].iloc[0]

    def _best(self) -> int:
        from hpo.driver.answer import best_trial

        with self._warned():
            return best_trial(self.folder)

    def trial(self, number: int) -> dict[str, Any]:
        """Everything about one trial: config, params, reports, attempts, runs, held scores, rank, error. See
        `results.views.show`. Raises StoreError for an unknown trial."""
        from hpo.driver.jury import scoring
        from results.views import show

        with self._warned():
            return show(self.folder, number, scoring(self.folder))

    def config(self, number: int | None = None) -> dict[str, Any]:
        """The complete configuration of a trial as a nested dict; None: of the `best` one. It is what
        `Config.from_dict` and, in a JSON file, `start` take."""
        from hpo.driver.retraining import config_of

        with self._warned():
            return config_of(self.folder, self._best() if number is None else number)

    def importance(self, method: str = "ped-anova", task: str | None = None, rung: int | None = None) -> pd.DataFrame:
        """One row per parameter and target (overall and each task, or the one `task`), the most important parameter
        first; its columns are listed in `docs/python.md`. `method`: ped-anova or fanova. `rung`: the milestone of the
        scores; None: the highest below which no trial was stopped. Raises ImportanceError below 20 trials."""
        from hpo.driver.importance import importance_of, importances_frame

        with self._warned():
            return importances_frame(importance_of(self.folder, method=method, task=task, rung=rung))

    def ensemble(
        self, method: str = METHOD, size: int = SIZE, name: str | None = None, full_dev: bool = False
    ) -> dict[str, Any]:
        """Choose an ensemble on `search`, estimate its score on `held`, save it, and return its record: name, members
        with weights, estimates with intervals (`results.selection.conclude`). Chosen trials that have not predicted
        `held` do so now. `name` None: METHOD-SIZE. `full_dev`: estimate on the full dev set too.
        """
        from hpo.driver.ensemble import ensemble_here

        with self._warned():
            return ensemble_here(self.folder, log.info, Choice(method, size, full_dev), name)

    def predict(
        self,
        texts: Iterable[str | Sequence[str]],
        task: str | None = None,
        *,
        trial: int | None = None,
        ensemble: str | None = None,
    ) -> pd.DataFrame:
        """Predictions for texts, a row each; its columns are listed in `docs/python.md`.

        `texts`: a text for each row, or a pair of texts where the task has two. `task` None: the only one of the sweep.
        `trial`: one whose weights are kept; `ensemble`: a saved one; neither: the `best` trial. Raises ConfigError for
        an unknown task, ValueError for a row with another number of texts and if both are named, PredictError for
        weights that are gone.
        """
        from hpo.driver.answer import predictor_of
        from hpo.exports.texts import predicted
        from hpo.launch.record import record_of
        from minbert.tasks import choose_tasks, named_or_only

        named = named_or_only(choose_tasks(record_of(self.folder).tasks), task)
        rows = [(row,) if isinstance(row, str) else tuple(row) for row in texts]
        columns = len(named.columns)
        for place, row in enumerate(rows):
            if len(row) != columns:
                raise ValueError(f"`texts`: row {place} has {len(row)} texts; {named.name} takes {columns}.")
        with self._warned():
            chosen = predictor_of(self.folder, trial, ensemble)
            found = predicted(self.folder, *chosen, named.name, rows, log.info)
        frame = pd.DataFrame({"prediction": found.values})
        if found.probabilities is None:
            return frame
        names = [f"probability_{index}" for index in range(found.probabilities.shape[1])]
        return frame.astype({"prediction": int}).join(pd.DataFrame(found.probabilities, columns=names))

    def export(
        self, trial: int | str, directory: str | Path, *, adapter: str = "merged", overwrite: bool = False
    ) -> dict[str, Any]:
        """Write a directory that `transformers` loads, and return what it holds. See `hpo.exports.model.export`.

        `trial`: one whose weights are kept, or the name of a saved soup. `adapter`: merged, peft or own.
        """
        from hpo.exports.model import export

        with self._warned():
            return export(self.folder, str(trial), Path(directory), form=adapter, overwrite=overwrite)

    def report(self, out: str | Path | None = None) -> Path:
        """Write the page of the sweep, one HTML file, and return its path; None: SWEEP.html here. Raises ReportError if
        another file is there."""
        from hpo.report.write import write_page

        with self._warned():
            return write_page([self.folder], Path(out or f"{self.name}.html"))

    def command(self, number: int | None = None) -> str:
        """The command that trains a trial again without a search; None: the `best` one. Raises StoreError for an
        unknown trial."""
        from hpo.driver.retraining import train_command

        with self._warned():
            return train_command(self.folder, self._best() if number is None else number)

    @property
    def study(self) -> optuna.Study:
        """A new Optuna study in memory with the trials as the searcher was told of them. See `hpo.driver.study`."""
        from hpo.driver.study import study_of

        with self._warned():
            return study_of(self.folder)

    def query(self, sql: str) -> pd.DataFrame:
        """The answer to a SELECT statement over the sweep's tables. See `results.query`."""
        from results.query import query

        with self._warned():
            return query(self.folder, sql)

    @property
    def plot(self) -> Plots:
        """The figures of the sweep, such as `sweep.plot.history()`. See `hpo.api.plots`."""
        from hpo.api.plots import Plots

        return Plots(self.folder)

    @contextmanager
    def _warned(self) -> Iterator[None]:
        """Warn of the files that could not be read."""
        try:
            yield
        finally:
            for message in self.folder.warnings:
                warnings.warn(message, stacklevel=4)

    def __repr__(self) -> str:
        from hpo.search.states import CLOSED

        status = self.status
        best = f", best {status.best[0].overall:.4f} by trial {status.best[0].trial}" if status.best else ""
        closed = f"{sum(status.counts[state] for state in CLOSED)} of {status.trials_total} trials ended"
        return f"<StoredSweep {self.name} in {self.store}: {status.phase}, {closed}{best}>"

    def _repr_html_(self) -> str:
        from html import escape

        columns = ["trial", "state", "step", "overall", *self.folder.tasks]
        return f"<p>{escape(repr(self)[1:-1])}</p>{self.top(SHOWN)[columns].to_html(index=False)}"
