"""Predictions of the kept trials for all of dev and test: each trial predicts once, and its rows are stored.

After a search, `finalise` spreads the trials over new actors, each with the resources of one trial; the actors of a
machine share its data and weights. A command calls `finalise_here`, which predicts in the command's own process. Both
call `predict_trial`. A trial that has predicted has a file in the store, so an interrupted round continues where it was
and a repeated round does nothing. The actors are gone before `finalise` returns: living ones would silently take the
resources of the next search.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.cluster.memory import limit_memory
from hpo.driver.ledger import KeptWeights, Ledger
from hpo.launch.record import job_of, record_of
from hpo.search.states import CLOSED
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


def predict_trial(job: Job, folder: SweepFolder, trial: int, attempt: int, checkpoint: str) -> int:
    """Predict with a trial's kept checkpoint and store the predictions; returns their number of rows.

    Only the last part of the path `checkpoint` is used: the store may have moved since that path was recorded.
    """
    from results.predictions import key, to_table

    path = job.checkpoints(trial) / Path(checkpoint).name
    table = to_table(trial, attempt, job.module().predict(job, path))
    folder.write_table("predictions", table, key(trial, attempt))
    return int(table.num_rows)


class Predictor:
    """Actor that predicts with one checkpoint after the other, all in one warm process."""

    def __init__(self, job: str, store: str, name: str) -> None:
        from results.store import Store

        logging.basicConfig(level=logging.WARNING)
        self._job = Job.from_json(job)
        self._folder = Store(store).open(name)
        limit_memory(self._job.memory_limit)

    def predict(self, trial: int, attempt: int, checkpoint: str) -> int:
        """See `predict_trial`."""
        return predict_trial(self._job, self._folder, trial, attempt, checkpoint)


def finalise(
    folder: SweepFolder, job: Job, kept: Sequence[KeptWeights], on_turn: Callable[[int, int], bool]
) -> list[str]:
    """Let every kept trial that has not predicted yet predict. `on_turn(done, total)` is called every `TURN` seconds
    and returns False to stop early.

    Returns one message for each trial that could not predict.
    """
    from results.predictions import key

    missing = [weights for weights in kept if not folder.has("predictions", key(weights.trial, weights.attempt))]
    return _Round(job, missing).run(on_turn) if missing else []


class _Round:
    """One round of predictions: hands trials to actors until all have predicted."""

    def __init__(self, job: Job, missing: Sequence[KeptWeights]) -> None:
        sweep = Path(job.folder)
        self._arguments = (job.to_json(), str(sweep.parent), sweep.name)
        self._resources = job.resources
        self._total = len(missing)
        self._todo = [(weights, 0) for weights in missing]
        """Weights that no actor has yet, and how many actors have died with them."""
        self._busy: dict[Any, tuple[Any, KeptWeights, int]] = {}
        """Ray's reference to a prediction at work -> its actor, its weights, their tries."""
        self._actors: list[Any] = []
        self._problems: list[str] = []

    def run(self, on_turn: Callable[[int, int], bool]) -> list[str]:
        import ray

        try:
            for _ in range(min(self._resources.workers, len(self._todo))):
                self._hand_out(self._new_actor())
            while self._busy:
                if not on_turn(self._total - len(self._todo) - len(self._busy), self._total):
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
            weights, tries = self._todo.pop(0)
            reference = actor.predict.remote(weights.trial, weights.attempt, weights.checkpoint)
            self._busy[reference] = (actor, weights, tries)

    def _collect(self, reference: Any) -> None:
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        actor, weights, tries = self._busy.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            if is_disk_error(error.cause):  # the launch stops, resumable: every other trial would fail too
                raise error.cause from error
            self._problems.append(f"trial {weights.trial} could not predict: {_last_line(error)}")
        except (RayActorError, OutOfMemoryError) as error:
            if tries < RETRIES:
                self._todo.append((weights, tries + 1))
            else:
                self._problems.append(f"trial {weights.trial} could not predict: {_last_line(error)}")
            self._actors.remove(actor)
            actor = self._new_actor() if self._todo else None
        if actor is not None:
            self._hand_out(actor)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def is_done(folder: SweepFolder, trials: int) -> bool:
    """Whether all `trials` trials have ended and every kept one has predicted: a launch would have nothing to do."""
    from results.predictions import key

    ledger = Ledger(folder.events())
    if sum(entry.state in CLOSED for entry in ledger.trials.values()) < trials:
        return False
    return all(folder.has("predictions", key(weights.trial, weights.attempt)) for weights in ledger.kept.values())


def finalise_here(folder: SweepFolder, trials: Iterable[int] | None, tell: Callable[[str], None]) -> list[int]:
    """Let kept trials whose predictions are missing or damaged predict in this process, one after the other.

    `trials`: the trials to look at; None: all kept ones. `tell` gets a message before each prediction. Returns the
    trials that predicted. Raises PredictError for a trial that has neither predictions nor kept weights.
    """
    from results.predictions import key, predicted

    kept, present = Ledger(folder.events()).kept, predicted(folder)
    record = record_of(folder)
    job = job_of(record, folder.path, record.resources.choose(cpus=1, gpus=0))
    missing = []
    for trial in kept if trials is None else trials:
        if trial not in kept and trial not in present:
            raise PredictError(without_weights(folder, trial, kept))
        if trial not in kept and not folder.has("predictions", key(trial, present[trial])):
            reason = without_weights(folder, trial, kept)
            raise PredictError(f"the predictions of trial {trial} are damaged, and {reason}")
        if trial in kept and not folder.has("predictions", key(trial, kept[trial].attempt)):
            missing.append(trial)
    for number, trial in enumerate(missing, start=1):
        _, attempt, checkpoint = kept[trial]
        reason = "its predictions are damaged" if present.get(trial) == attempt else "it has no predictions yet"
        tell(f"trial {trial} predicts dev and test now ({number} of {len(missing)}): {reason}")
        predict_trial(job, folder, trial, attempt, checkpoint)
    return missing


def without_weights(folder: SweepFolder, trial: int, kept: Mapping[int, KeptWeights]) -> str:
    """The message about a trial without kept weights: why it cannot predict, and which trials can."""
    trials = {int(row["trial"]) for row in folder.events()}
    if trial not in trials:
        return f"sweep {folder.name!r} has no trial {trial}; it has {len(trials)}, see: hpo top {folder.name}"
    with_weights = ", ".join(map(str, sorted(kept))) or "none"
    return f"the weights of trial {trial} are not kept, so it cannot predict. Trials with kept weights: {with_weights}."
