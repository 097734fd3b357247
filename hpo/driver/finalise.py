"""Predictions of trials with their kept weights, part by part; which ones, `hpo.driver.selection` says.

After a search, `finalise` spreads them over new actors, each with the resources of one trial (`hpo.driver.predictors`);
the actors of a machine share its data and weights. A command calls `finalise_here`, which predicts in the command's own
process. Both call `predict_part`. A part that was predicted has a file in the store, so an interrupted round continues
where it was and a repeated round does nothing. The actors are gone before `finalise` returns: living ones would
silently take the resources of the next search.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from hpo.driver.ledger import KeptWeights, Ledger
from hpo.driver.predictors import Round, predict_part
from hpo.driver.selection import Pending, lacking, still_needed
from hpo.launch.record import job_of, record_of
from hpo.worker.job import Job

if TYPE_CHECKING:
    from results.store import SweepFolder


class PredictError(ValueError):
    """Predictions cannot be made or written."""


def finalise(
    job: Job,
    pending: Sequence[Pending],
    on_turn: Callable[[int], bool],
    tell: Callable[[str], None],
    limit: float | None = None,
) -> dict[int, str]:
    """Make the predictions. `on_turn(left)` gets the number of predictions to come several times a second, and returns
    False to stop early. `tell` receives messages. `limit`: seconds that a prediction may take; None: they follow from
    the longest one so far.

    Returns a message for each trial that could not predict.
    """
    return Round(job, pending, tell, limit).run(on_turn) if pending else {}


def is_done(folder: SweepFolder, trials: int, retry_failed: bool = False) -> bool:
    """Whether all `trials` trials and their repeats have ended and the chosen ones have predicted: a launch would have
    nothing to do. `retry_failed`: failed trials are tried again."""
    ledger, record = Ledger.of(folder), record_of(folder)
    if retry_failed and any(entry.state == "failed" for entry in ledger.trials.values()):
        return False
    if not ledger.ended(trials, record.budget, record.repeats):
        return False
    needs = still_needed(folder, ledger)
    return needs is not None and not needs.pending


def asked(folder: SweepFolder, ledger: Ledger, trials: Collection[int], parts: Sequence[str]) -> list[Pending]:
    """The predictions of these trials that are missing or damaged. Raises PredictError for a trial that has neither
    them nor kept weights."""
    from results.predictions import has, predicted

    present = predicted(folder)
    for trial in sorted(set(trials) - ledger.kept.keys()):
        reason = without_weights(folder, trial, ledger.kept)
        if trial not in present:
            raise PredictError(reason)
        if not all(has(folder, trial, present[trial], part) for part in parts):
            raise PredictError(f"the predictions of trial {trial} are incomplete or damaged, and {reason}")
    return lacking(folder, ledger, trials, parts)


WORDS = {"held": "the held-out rows of the headline", "dev": "the other rows of dev", "test": "test"}
"""Part of predictions -> its name in messages."""


def finalise_here(folder: SweepFolder, pending: Sequence[Pending], tell: Callable[[str], None]) -> dict[int, str]:
    """Make the predictions in this process, one after the other. `tell` gets a message before each.

    Returns a message for each trial whose checkpoint is damaged.
    """
    if not pending:
        return {}
    from minbert.training.checkpoints import TrialCheckpointError

    problems: dict[int, str] = {}
    record = record_of(folder)
    job = job_of(record, folder.folder, record.resources.here())
    for number, entry in enumerate(pending, start=1):
        tell(f"trial {entry.weights.trial} predicts {WORDS[entry.part]} now ({number} of {len(pending)})")
        try:
            predict_part(job, folder, entry)
        except TrialCheckpointError as error:
            problems[entry.weights.trial] = f"trial {entry.weights.trial} could not predict: {error}"
    return problems


def without_weights(folder: SweepFolder, trial: int, kept: Mapping[int, KeptWeights]) -> str:
    """The message about a trial without kept weights: why it cannot predict, and which trials can."""
    trials = set(folder.read("trials", columns=())["trial"].to_pylist())
    if trial not in trials:
        return f"sweep {folder.name!r} has no trial {trial}; it has {len(trials)}, see: hpo top {folder.name}"
    with_weights = ", ".join(map(str, sorted(kept))) or "none"
    return f"the weights of trial {trial} are not kept, so it cannot predict. Trials with kept weights: {with_weights}."
