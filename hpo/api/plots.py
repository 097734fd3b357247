"""Figures of a stored sweep (`results.plots`), each a `plotly.graph_objects.Figure`: `sweep.plot.timeline().show()`.

Scores of trials are those on `search`; `target` is `overall` or a task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from hpo.driver.answer import predictor_of
from hpo.driver.importance import importance_of, importances_frame
from hpo.launch.record import TaskRecord, record_of
from hpo.report.quality import confusion_counts, precision_recall_curve, predictors, with_outliers
from minbert.metrics import details
from minbert.tasks import Task, choose_tasks, named_or_only
from results import frames
from results.objectives import SCORE, objectives_from
from results.plots import predictions, trials
from results.selection import load
from results.store import StoreError, SweepFolder
from results.views import trials_frame

SHOWN = 8
"""Parameters that a figure shows where the caller names none."""


class Plots:
    """The figures of one sweep; each reads the store anew."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder

    def history(self, by: str = "used", target: str = SCORE) -> go.Figure:
        """Every report, and the best score at the full budget so far. `by`: `used`, examples used by all trials, or
        `elapsed`, seconds since the sweep began."""
        return trials.history(frames.reports_frame(self._folder), by=by, target=target)

    def intermediate_values(self, target: str = SCORE) -> go.Figure:
        """The learning curve of each trial over its milestones."""
        return trials.intermediate_values(frames.reports_frame(self._folder), target=target)

    def parallel_coordinate(
        self, params: Sequence[str] | None = None, target: str = SCORE, step: int | None = None
    ) -> go.Figure:
        """One line per trial through its parameters, coloured by its score. `params`: paths, such as `adapter/rank`;
        None: up to eight of those that differ. `step`: the milestone at which trials are compared; None: the one that
        most trials share."""
        table = self._compared(step)
        return trials.parallel_coordinate(table, _differing(table, params), target=target)

    def slice(self, params: Sequence[str] | None = None, target: str = SCORE, step: int | None = None) -> go.Figure:
        """The score over each parameter, one panel each; `params` and `step` as in `parallel_coordinate`."""
        table = self._compared(step)
        return trials.slice(table, _differing(table, params), target=target)

    def param_importances(
        self, method: str = "ped-anova", task: str | None = None, rung: int | None = None
    ) -> go.Figure:
        """The importance of each parameter, for overall and each task or for one `task`; arguments and errors as those
        of `sweep.importance`."""
        return trials.param_importances(
            importances_frame(importance_of(self._folder, method=method, task=task, rung=rung))
        )

    def pareto_front(self, cost: str = "-seconds", target: str = SCORE) -> go.Figure:
        """The score of complete trials over a cost, such as `-seconds` or `-trainable_parameters`, and those that no
        other trial beats in both."""
        objective, *_ = objectives_from(cost, list(self._folder.tasks))
        return trials.pareto_front(trials_frame(self._folder), objective, target=target)

    def timeline(self) -> go.Figure:
        """Which trial was trained when, how each attempt ended, and which places were in quarantine."""
        from hpo.driver.quarantines import quarantines_frame

        attempts = frames.attempts_frame(self._folder)
        return trials.timeline(attempts, quarantines_frame(self._folder, attempts))

    def replicates(self) -> go.Figure:
        """The runs at full budget of the configurations that ran more than once, and their means."""
        return trials.replicates(trials_frame(self._folder))

    def confusion(self, task: str | None = None, *, trial: int | None = None, ensemble: str | None = None) -> go.Figure:
        """The classes that a trial or an ensemble predicts, against the labels.

        `task`: a classification task; None: the only one. `trial`, `ensemble`: as in `sweep.predict`. The rows are
        those of `held`, a look, where the store holds predictions of them, else those of `search`. Raises ConfigError
        for another task, StoreError without predictions.
        """
        record, rows, title = self._quality(lambda task: task.kind == "classification", task, trial, ensemble)
        return predictions.confusion(confusion_counts(_details(record, rows))).update_layout(title=title)

    def precision_recall(
        self, task: str | None = None, *, trial: int | None = None, ensemble: str | None = None
    ) -> go.Figure:
        """Precision over recall of class 1 of a task with two classes; arguments and errors as in `confusion`."""
        _, rows, title = self._quality(lambda task: task.classes == 2, task, trial, ensemble)
        return predictions.precision_recall(precision_recall_curve(rows)).update_layout(title=title)

    def agreement(self, task: str | None = None, *, trial: int | None = None, ensemble: str | None = None) -> go.Figure:
        """The predicted scores over the labels of a regression task, with outliers marked; arguments and errors as in
        `confusion`."""
        record, rows, title = self._quality(lambda task: task.kind == "regression", task, trial, ensemble)
        return predictions.agreement(with_outliers(rows, _details(record, rows))).update_layout(title=title)

    def _quality(
        self, suits: Callable[[Task], bool], task: str | None, trial: int | None, ensemble: str | None
    ) -> tuple[TaskRecord, pd.DataFrame, str]:
        """A task that suits, the rows of a predictor for it (`hpo.report.quality.Predictor`), and who predicts what."""
        record = record_of(self._folder)
        suited = {name: declared for name, declared in choose_tasks(record.tasks).items() if suits(declared)}
        if not suited:
            raise ValueError(f"No task of {self._folder.name!r} is of the figure's kind: {', '.join(record.tasks)}.")
        named = named_or_only(suited, task).name
        number, name = predictor_of(self._folder, trial, ensemble)
        who = f"trial {number}" if name is None else f"ensemble {name}"
        singles = {} if number is None else {who: number}
        found, problems = predictors(self._folder, record, singles, None if name is None else load(self._folder, name))
        part = found[-1].part
        if part is None:
            raise StoreError("; ".join(problems) or f"The store holds no predictions of {who}.")
        return record.tasks[named], found[-1].parts[part][named], f"{named}, {who}, on {part}"

    def _compared(self, step: int | None) -> pd.DataFrame:
        """The trials with their scores at one milestone."""
        reports = frames.reports_frame(self._folder)
        return frames.at_rung(
            trials_frame(self._folder), reports, frames.shared_step(reports) if step is None else step
        )


def _details(task: TaskRecord, rows: pd.DataFrame) -> Mapping[str, Any]:
    """Every metric of these rows."""
    return details(task, rows["prediction"].to_numpy(dtype=float), rows["label"].to_numpy(dtype=float))


def _differing(table: pd.DataFrame, params: Sequence[str] | None) -> list[str]:
    """The named parameters, or up to SHOWN of those that differ, those of most trials first. Raises ValueError for an
    unknown one."""
    drawn = list(table.columns[table.columns.get_loc("params") + 1 :])
    if params is None:
        varied = [name for name in drawn if table[name].nunique(dropna=False) > 1]
        return sorted(varied, key=lambda name: -int(table[name].notna().sum()))[:SHOWN]
    for name in params:
        if name not in drawn:
            raise ValueError(f"`params`: no trial drew `{name}`. Drawn: {', '.join(drawn)}.")
    return list(params)
