"""After the search: each kept trial predicts all of dev and test once, and the predictions enter the store.

One job per trial, on fresh actors with a trial's resources which share the machine's data and weights. A job that is
done is known by its file, so an interrupted round goes on where it was, and a repeated one does nothing. The actors
are gone before this returns: living ones would starve the next search without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hpo.cluster.memory import limit_memory
from hpo.cluster.resources import Resources
from hpo.driver.ledger import KeptWeights, Ledger
from hpo.worker.job import Job, checkpoint_folder

if TYPE_CHECKING:
    from results.store import SweepFolder

RETRIES = 2
"""A job whose actor died is given to another one so often."""
TURN = 0.2
"""Seconds between two calls of `on_turn`."""


class Predictor:
    """The actor: predicts with one checkpoint after the other in one warm process."""

    def __init__(self, job: str, store: str, name: str) -> None:
        logging.basicConfig(level=logging.WARNING)
        self._job = Job.from_json(job)
        self._store = store
        self._name = name
        limit_memory(self._job.memory_limit)

    def predict(self, trial: int, attempt: int, checkpoint: str) -> int:
        """Predict, write the table, return its number of rows. Of `checkpoint` the name counts: the store may have
        moved since the row that holds the path."""
        from results.predictions import key
        from results.store import Store

        path = self._job.checkpoints(trial) / Path(checkpoint).name
        table = prediction_table(trial, attempt, self._job.module().predict(self._job, path))
        Store(self._store).open(self._name).write_table("predictions", table, key(trial, attempt))
        return int(table.num_rows)


def prediction_table(trial: int, attempt: int, parts: Any) -> pa.Table:
    """The store's rows for (task, split, prediction) triples."""
    from results.schemas import find

    schema = find("predictions").schema
    batches = []
    for task, split, prediction in parts:
        rows = len(prediction.rows)
        probabilities = prediction.probabilities
        columns = {
            "trial": pa.array([trial] * rows, pa.int64()),
            "attempt": pa.array([attempt] * rows, pa.int64()),
            "task": pa.array([task] * rows),
            "split": pa.array([split] * rows),
            "row": pa.array(prediction.rows, pa.int64()),
            "value": pa.array(prediction.values, pa.float64()),
            "probabilities": pa.nulls(rows, pa.list_(pa.float32())) if probabilities is None else _lists(probabilities),
        }
        batches.append(pa.table(columns).cast(schema))
    return pa.concat_tables(batches) if batches else schema.empty_table()


def _lists(probabilities: Any) -> pa.Array:
    """[R, C] as a list column."""
    rows, classes = probabilities.shape
    flat = pa.array(probabilities.reshape(-1), pa.float32())
    return pa.ListArray.from_arrays(pa.array(range(0, rows * classes + 1, classes), pa.int32()), flat)


def finalise(
    store: str,
    name: str,
    job: Job,
    kept: Sequence[KeptWeights],
    resources: Resources,
    on_turn: Callable[[int, int], bool],
) -> list[str]:
    """Predict with every kept trial that has not predicted yet. `on_turn(done, all)` returns False to stop early.

    Returns one line for each trial that could not predict.
    """
    from results.predictions import key
    from results.store import Store

    folder = Store(store).open(name)
    todo = [one for one in kept if not folder.has("predictions", key(one.trial, one.attempt))]
    if not todo:
        return []
    return _Round(store, name, job, todo, resources).run(on_turn)


class _Round:
    """Hands jobs to actors until all are done."""

    def __init__(self, store: str, name: str, job: Job, todo: list[KeptWeights], resources: Resources) -> None:
        self._arguments = (job.to_json(), store, name)
        self._all = len(todo)
        self._todo = [(one, 0) for one in todo]
        self._resources = resources
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
            one, tries = self._todo.pop(0)
            reference = actor.predict.remote(one.trial, one.attempt, one.checkpoint)
            self._busy[reference] = (actor, one, tries)

    def _collect(self, reference: Any) -> None:
        import ray
        from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

        actor, one, tries = self._busy.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            self._problems.append(f"trial {one.trial} could not predict: {_last_line(error)}")
        except (RayActorError, OutOfMemoryError) as error:
            if tries < RETRIES:
                self._todo.append((one, tries + 1))
            else:
                self._problems.append(f"trial {one.trial} could not predict: {_last_line(error)}")
            self._actors.remove(actor)
            actor = self._new_actor() if self._todo else None
        if actor is not None:
            self._hand_out(actor)


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


class PredictError(ValueError):
    """Predictions that cannot be made or written."""


def finalise_here(folder: SweepFolder, trials: Iterable[int] | None, told: Callable[[str], None]) -> list[int]:
    """Let kept trials without whole predictions (all, or these) predict; returns which did. `told` hears of each."""
    from results.predictions import key, predicted

    weights, present = Ledger(folder.events()).kept, predicted(folder)
    done = []
    for trial in weights if trials is None else trials:
        if trial not in weights and trial not in present:
            raise PredictError(without_weights(folder, trial, weights))
        if trial not in weights and not folder.has("predictions", key(trial, present[trial])):
            why = without_weights(folder, trial, weights)
            raise PredictError(f"the predictions of trial {trial} are damaged, and {why}")
        if trial in weights and not folder.has("predictions", key(trial, weights[trial].attempt)):
            from hpo.worker.trainer import predict

            _, attempt, checkpoint = weights[trial]
            # Of the row's path the name counts: the store may have moved.
            path = checkpoint_folder(Path(folder.path).absolute(), trial) / Path(checkpoint).name
            how = "are damaged and made again" if present.get(trial) == attempt else "are not there yet and made"
            told(f"the predictions of trial {trial} for dev and test {how} now")
            table = prediction_table(trial, attempt, predict(job_of(folder), path))
            folder.write_table("predictions", table, key(trial, attempt))
            done.append(trial)
    return done


def without_weights(folder: SweepFolder, trial: int, weights: Mapping[int, Any]) -> str:
    """Why a trial cannot predict, and which can."""
    name = folder.meta["name"]
    known = {int(row["trial"]) for row in folder.events()}
    if trial not in known:
        return f"sweep {name!r} has no trial {trial}; it has {len(known)}, see: hpo top {name}"
    have = ", ".join(map(str, sorted(weights))) or "none"
    return f"the weights of trial {trial} are not kept, so it cannot predict. Kept are those of: {have}."


def job_of(folder: SweepFolder) -> Job:
    """What a trial's predictor must know, from the sweep's record."""
    meta = folder.meta
    return Job(
        folder=str(Path(folder.path).absolute()),
        milestones=tuple(meta["milestones"]),
        data=meta["data"]["folder"],
        tasks=tuple(meta["tasks"]),
        base=meta["base"].get("asked"),
        search_sizes=dict(meta["search_sizes"]),
        cpus=int(meta.get("cpus_per_trial", 1)),
    )
