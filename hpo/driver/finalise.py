"""Predictions of trials with their kept weights, part by part; which ones, `hpo.driver.selection` says.

After a search, `finalise` spreads them over new actors, each with the resources of one trial; the actors of a machine
share its data and weights. A command calls `finalise_here`, which predicts in the command's own process. Both call
`predict_part`. A part that was predicted has a file in the store, so an interrupted round continues where it was and a
repeated round does nothing. The actors are gone before `finalise` returns: living ones would silently take the
resources of the next search.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.cluster.memory import limit_memory
from hpo.driver.ledger import KeptWeights, Ledger
from hpo.driver.selection import Choice, Needed, Pending, conclude, lacking, settle, still_needed
from hpo.launch.record import job_of, record_of
from hpo.worker.faults import is_disk_error
from hpo.worker.job import Job

if TYPE_CHECKING:
    from results.store import SweepFolder

RETRIES = 2
"""How many times a trial whose actor died is given to another actor."""
TURN = 0.2
"""Seconds between two calls of `on_turn`."""


class PredictError(ValueError):
    """Predictions cannot be made or written."""


def predict_part(job: Job, folder: SweepFolder, pending: Pending) -> int:
    """Predict a part with a trial's kept checkpoint and store the predictions; returns their number of rows.

    Only the last part of the checkpoint's path is used: the store may have moved since that path was recorded.
    """
    from results.predictions import key, to_table

    (trial, attempt, checkpoint), part = pending
    path = job.checkpoints(trial) / Path(checkpoint).name
    table = to_table(trial, attempt, job.module().predict(job, path, part))
    folder.write_table("predictions", table, key(trial, attempt, part))
    return int(table.num_rows)


class Predictor:
    """Actor that predicts with one checkpoint after the other, all in one warm process."""

    def __init__(self, job: str, store: str, name: str) -> None:
        from results.store import Store

        logging.basicConfig(level=logging.WARNING)
        self._job = Job.from_json(job)
        self._folder = Store(store).open(name)
        limit_memory(self._job.memory_limit)

    def predict(self, trial: int, attempt: int, checkpoint: str, part: str) -> int:
        """See `predict_part`."""
        return predict_part(self._job, self._folder, Pending(KeptWeights(trial, attempt, checkpoint), part))


def finalise(job: Job, pending: Sequence[Pending], on_turn: Callable[[int], bool]) -> dict[int, str]:
    """Make the predictions. `on_turn(left)` gets the number of predictions to come every `TURN` seconds, and returns
    False to stop early.

    Returns a message for each trial that could not predict.
    """
    return _Round(job, pending).run(on_turn) if pending else {}


class _Round:
    """One round of predictions: hands them to actors until all are made."""

    def __init__(self, job: Job, pending: Sequence[Pending]) -> None:
        sweep = Path(job.folder)
        self._arguments = (job.to_json(), str(sweep.parent), sweep.name)
        self._resources = job.resources
        self._todo = [(entry, 0) for entry in pending]
        """Predictions that no actor has yet, and how many actors have died with them."""
        self._busy: dict[Any, tuple[Any, Pending, int]] = {}
        """Ray's reference to a prediction at work -> its actor, the prediction, its tries."""
        self._actors: list[Any] = []
        self._problems: dict[int, str] = {}
        """Trial that could not predict -> the message about it."""

    def run(self, on_turn: Callable[[int], bool]) -> dict[int, str]:
        import ray

        try:
            for _ in range(min(self._resources.workers, len(self._todo))):
                self._hand_out(self._new_actor())
            while self._busy:
                if not on_turn(len(self._todo) + len(self._busy)):
                    break
                ready, _ = ray.wait(list(self._busy), timeout=TURN)
                for reference in ready:
                    self._collect(reference)
        finally:
            for actor in self._actors:
                ray.kill(actor)
        return self._problems

    def _new_actor(self) -> Any:
        import ray

        options = {"num_cpus": self._resources.cpus_per_trial, "num_gpus": self._resources.gpus_per_trial}
        actor = ray.remote(Predictor).options(**options).remote(*self._arguments)
        self._actors.append(actor)
        return actor

    def _hand_out(self, actor: Any) -> None:
        if self._todo:
            entry, tries = self._todo.pop(0)
            reference = actor.predict.remote(*entry.weights, entry.part)
            self._busy[reference] = (actor, entry, tries)

    def _collect(self, reference: Any) -> None:
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        actor, entry, tries = self._busy.pop(reference)
        trial = entry.weights.trial
        try:
            ray.get(reference)
        except RayTaskError as error:
            if is_disk_error(error.cause):  # the launch stops, resumable: every other trial would fail too
                raise error.cause from error
            self._problems[trial] = f"trial {trial} could not predict: {_last_line(error)}"
        except (RayActorError, OutOfMemoryError) as error:
            if tries < RETRIES:
                self._todo.append((entry, tries + 1))
            else:
                self._problems[trial] = f"trial {trial} could not predict: {_last_line(error)}"
            self._actors.remove(actor)
            actor = self._new_actor() if self._todo else None
        if actor is not None:
            self._hand_out(actor)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def is_done(folder: SweepFolder, trials: int) -> bool:
    """Whether all `trials` trials and their repeats have ended and the chosen ones have predicted: a launch would have
    nothing to do."""
    ledger, record = Ledger.of(folder), record_of(folder)
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
    job = job_of(record, folder.path, record.resources.choose(cpus=1, gpus=0))
    for number, entry in enumerate(pending, start=1):
        tell(f"trial {entry.weights.trial} predicts {WORDS[entry.part]} now ({number} of {len(pending)})")
        try:
            predict_part(job, folder, entry)
        except TrialCheckpointError as error:
            problems[entry.weights.trial] = f"trial {entry.weights.trial} could not predict: {error}"
    return problems


def ensemble_here(
    folder: SweepFolder, tell: Callable[[str], None], choice: Choice, name: str | None = None
) -> dict[str, Any]:
    """Choose an ensemble, estimate its score and save its record, which is returned (`results.selection.conclude`).

    Predictions that are missing, as after a stop, are made in this process. Trials that cannot predict are left out;
    `tell` gets a message about each.
    """
    ledger = Ledger.of(folder)

    def predict(needs: Needed) -> Mapping[int, str]:
        problems = finalise_here(folder, needs.pending, tell)
        for problem in problems.values():
            tell(problem)
        return problems

    chosen = settle(folder, ledger, predict, choice)
    assert chosen is not None, "predictions in this process never stop early"
    return conclude(folder, ledger, chosen.selection, name)


def without_weights(folder: SweepFolder, trial: int, kept: Mapping[int, KeptWeights]) -> str:
    """The message about a trial without kept weights: why it cannot predict, and which trials can."""
    trials = set(folder.read("trials", columns=())["trial"].to_pylist())
    if trial not in trials:
        return f"sweep {folder.name!r} has no trial {trial}; it has {len(trials)}, see: hpo top {folder.name}"
    with_weights = ", ".join(map(str, sorted(kept))) or "none"
    return f"the weights of trial {trial} are not kept, so it cannot predict. Trials with kept weights: {with_weights}."
