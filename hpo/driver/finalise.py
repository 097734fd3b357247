"""Predictions of the kept trials for all of dev and test: each trial predicts once, and its rows enter the store.

After a search the trials are spread over fresh actors with a trial's resources, which share the machine's data and
weights; a command lets them predict in its own process. Both call `predict_trial`. A trial that has predicted is known
by its file, so an interrupted round goes on where it was, and a repeated one does nothing. The actors are gone before
`finalise` returns: living ones would starve the next search without a word.
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
from hpo.worker.job import Job

if TYPE_CHECKING:
    from results.store import SweepFolder

RETRIES = 2
"""How many times a trial whose actor died is given to another one."""
TURN = 0.2
"""Seconds between two calls of `on_turn`."""


class PredictError(ValueError):
    """Predictions that cannot be made or written."""


def predict_trial(job: Job, folder: SweepFolder, trial: int, attempt: int, checkpoint: str) -> int:
    """Predict with a trial's kept checkpoint, write the table, return its number of rows.

    Only the name of `checkpoint` counts: the store may have moved since the row that holds the path.
    """
    from results.predictions import key, to_table

    path = job.checkpoints(trial) / Path(checkpoint).name
    table = to_table(trial, attempt, job.module().predict(job, path))
    folder.write_table("predictions", table, key(trial, attempt))
    return int(table.num_rows)


class Predictor:
    """The actor: predicts with one checkpoint after the other in one warm process."""

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
    """Predict with every kept trial that has not predicted yet. `on_turn(done, all)` returns False to stop early.

    Returns one line for each trial that could not predict.
    """
    from results.predictions import key

    todo = [ended for ended in kept if not folder.has("predictions", key(ended.trial, ended.attempt))]
    return _Round(job, todo).run(on_turn) if todo else []


class _Round:
    """Hands trials to actors until all have predicted."""

    def __init__(self, job: Job, todo: Sequence[KeptWeights]) -> None:
        sweep = Path(job.folder)
        self._arguments = (job.to_json(), str(sweep.parent), sweep.name)
        self._resources = job.resources
        self._all = len(todo)
        self._todo = [(weights, 0) for weights in todo]
        self._busy: dict[Any, tuple[Any, KeptWeights, int]] = {}
        self._actors: list[Any] = []
        self._problems: list[str] = []

    def run(self, on_turn: Callable[[int, int], bool]) -> list[str]:
        import ray

        try:
            for _ in range(min(self._resources.workers, len(self._todo))):
                self._hand_out(self._new_actor())
            while self._busy:
                if not on_turn(self._all - len(self._todo) - len(self._busy), self._all):
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
            ended, tries = self._todo.pop(0)
            reference = actor.predict.remote(ended.trial, ended.attempt, ended.checkpoint)
            self._busy[reference] = (actor, ended, tries)

    def _collect(self, reference: Any) -> None:
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        actor, ended, tries = self._busy.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            self._problems.append(f"trial {ended.trial} could not predict: {_last_line(error)}")
        except (RayActorError, OutOfMemoryError) as error:
            if tries < RETRIES:
                self._todo.append((ended, tries + 1))
            else:
                self._problems.append(f"trial {ended.trial} could not predict: {_last_line(error)}")
            self._actors.remove(actor)
            actor = self._new_actor() if self._todo else None
        if actor is not None:
            self._hand_out(actor)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def is_done(folder: SweepFolder, trials: int) -> bool:
    """Whether all of `trials` trials have ended and every kept one has predicted: nothing is left for a launch."""
    from results.predictions import key

    ledger = Ledger(folder.events())
    if sum(entry.state in CLOSED for entry in ledger.trials.values()) < trials:
        return False
    return all(folder.has("predictions", key(weights.trial, weights.attempt)) for weights in ledger.kept.values())


def finalise_here(folder: SweepFolder, trials: Iterable[int] | None, tell: Callable[[str], None]) -> list[int]:
    """Let kept trials without whole predictions (all, or these) predict, one after the other, in this process.

    `tell` gets a line before each. Returns the trials that predicted.
    """
    from results.predictions import key, predicted

    weights, present = Ledger(folder.events()).kept, predicted(folder)
    record = record_of(folder)
    job = job_of(record, folder.path, record.resources.choose(cpus=1, gpus=0))
    missing = []
    for trial in weights if trials is None else trials:
        if trial not in weights and trial not in present:
            raise PredictError(without_weights(folder, trial, weights))
        if trial not in weights and not folder.has("predictions", key(trial, present[trial])):
            why = without_weights(folder, trial, weights)
            raise PredictError(f"the predictions of trial {trial} are damaged, and {why}")
        if trial in weights and not folder.has("predictions", key(trial, weights[trial].attempt)):
            missing.append(trial)
    for place, trial in enumerate(missing, start=1):
        _, attempt, checkpoint = weights[trial]
        why = "its predictions are damaged" if present.get(trial) == attempt else "it has no predictions yet"
        tell(f"trial {trial} predicts dev and test now ({place} of {len(missing)}): {why}")
        predict_trial(job, folder, trial, attempt, checkpoint)
    return missing


def without_weights(folder: SweepFolder, trial: int, weights: Mapping[int, Any]) -> str:
    """Why a trial cannot predict, and which can."""
    known = {int(row["trial"]) for row in folder.events()}
    if trial not in known:
        return f"sweep {folder.name!r} has no trial {trial}; it has {len(known)}, see: hpo top {folder.name}"
    have = ", ".join(map(str, sorted(weights))) or "none"
    return f"the weights of trial {trial} are not kept, so it cannot predict. Kept are those of: {have}."
