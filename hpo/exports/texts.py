"""Predictions of a trial or an ensemble for any texts: each member predicts with its kept weights, a soup with their
mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hpo.driver.kept import kept_checkpoint, kept_model, soup_model
from hpo.worker.trainer import as_stored

if TYPE_CHECKING:
    from minbert.encoder.base import Base
    from minbert.training.model import MultitaskModel
    from results.predictions import Prediction
    from results.store import SweepFolder

Texts = Sequence[tuple[str, ...]]
"""Rows of a task, each with a text for every column of the task."""


def of_trial(folder: SweepFolder, trial: int, task: str, texts: Texts) -> Prediction:
    """Predictions of one trial. Raises PredictError, TrialCheckpointError."""
    return _of_model(kept_model(folder, kept_checkpoint(folder, trial)), task, texts)


def _of_model(found: tuple[MultitaskModel, Base], task: str, texts: Texts) -> Prediction:
    from minbert.training.predict import Predictor

    return as_stored(Predictor.of(*found)(task, texts))


def of_ensemble(folder: SweepFolder, name: str, task: str, texts: Texts, tell: Callable[[str], None]) -> Prediction:
    """Predictions of a saved ensemble (`results.selection.combine`): its members with weight in the task predict.
    `tell` gets a message before each.

    Raises StoreError, PredictError, TrialCheckpointError.
    """
    from results.choice import SOUP
    from results.selection import combine, load, weight_in

    record = load(folder, name)
    if record["combination"] == SOUP:
        return _of_model(soup_model(folder, record), task, texts)
    record["members"] = [member for member in record["members"] if weight_in(task, member)]
    trials = [int(member["trial"]) for member in record["members"]]
    for trial in trials:
        kept_checkpoint(folder, trial)  # whatever is missing is said before the first member predicts
    members = {}
    for number, trial in enumerate(trials, start=1):
        tell(f"trial {trial} predicts {len(texts):,} rows ({number} of {len(trials)})")
        members[trial] = {task: of_trial(folder, trial, task, texts)}
    return combine(record, members, {task: folder.tasks[task].kind})[task]


def predicted(
    folder: SweepFolder, trial: int | None, ensemble: str | None, task: str, texts: Texts, tell: Callable[[str], None]
) -> Prediction:
    """Predictions of a saved ensemble if one is named, else those of a trial. Raises as `of_ensemble`, `of_trial`."""
    if ensemble is not None:
        return of_ensemble(folder, ensemble, task, texts, tell)
    assert trial is not None, "a trial or an ensemble predicts"
    return of_trial(folder, trial, task, texts)
