"""Predictors: actors that predict with kept weights, one part of a trial at a time, all at once as far as they fit.

An actor gets a prediction only when it lives, and goes after its last one. So nothing waits for an actor that the
cluster has no room for: what is left does the work. A prediction whose actor died, hung or met a fault of its place
goes to another actor. While others live, an actor at a faulty place is kept without work, so that no new one starts
there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hpo.cluster.faults import cause_of, is_fatal
from hpo.cluster.machines import has_resources, living_nodes, look
from hpo.cluster.memory import limit_memory
from hpo.driver.ledger import KeptWeights
from hpo.driver.selection import Pending
from hpo.driver.watchdog import START, longest_silence
from hpo.worker.job import Job

if TYPE_CHECKING:
    from results.store import SweepFolder

RETRIES = 2
"""How many times a prediction that failed for its place, or whose actor died, is given to another actor."""
STARTS = 5
"""Number of actors that may die before their first prediction; then no new ones are started."""
TURN = 0.2
"""Seconds between two calls of `on_turn`."""
LOOK = 20.0
"""Seconds between two looks at what the round waits for."""


def predict_part(job: Job, folder: SweepFolder, pending: Pending) -> int:
    """Predict a part with a trial's kept checkpoint and store the predictions; returns their number of rows.

    Only the last part of the checkpoint's path is used: the store may have moved since that path was recorded.
    """
    from hpo.worker.checkpoints import local
    from results.predictions import key, to_table

    weights, part = pending
    trial, attempt = weights.trial, weights.attempt
    path = local(job.checkpoints(trial), weights.name)
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

    def ready(self) -> None:
        """Return once the actor lives."""

    def predict(self, trial: int, attempt: int, checkpoint: str, part: str) -> int:
        """See `predict_part`."""
        return predict_part(self._job, self._folder, Pending(KeptWeights(trial, attempt, checkpoint), part))


class Task(NamedTuple):
    """A prediction that an actor makes."""

    actor: Any
    entry: Pending
    tries: int
    """Number of actors that had it before."""
    since: float
    """When the actor got it."""


class Round:
    """One round of predictions: hands them to actors until all are made."""

    def __init__(
        self, job: Job, pending: Sequence[Pending], tell: Callable[[str], None], limit: float | None = None
    ) -> None:
        """`tell` receives messages for the person who watches. `limit`: seconds that a prediction may take; None: they
        follow from the longest one so far."""
        store, _, name = job.folder.rpartition("/")
        self._arguments = (job.to_json(), store, name)
        self._resources = job.resources
        self._tell = tell
        self._limit = limit
        self._longest = 0.0
        """Longest time in seconds of a prediction."""
        self._todo = [(entry, 0) for entry in pending]
        """Predictions that no actor has, and how many had them before."""
        self._starting: dict[Any, Any] = {}
        """Ray's reference to the first answer of an actor that does not live yet -> the actor."""
        self._placed: dict[Any, float] = {}
        """The same reference -> when the actor was first seen to have its resources."""
        self._busy: dict[Any, Task] = {}
        """Ray's reference to a prediction -> its task."""
        self._kept: list[Any] = []
        """Actors at faulty places."""
        self._dead_starts = 0
        self._start_error: Exception = RuntimeError("no worker could start")
        self._problems: dict[int, str] = {}
        """Trial that could not predict -> the message about it."""
        self._next_look = time.monotonic() + LOOK
        self._waits_for = ""

    def run(self, on_turn: Callable[[int], bool]) -> dict[int, str]:
        """Make the predictions; see `hpo.driver.finalise.finalise`."""
        import ray

        try:
            while self._todo or self._busy:
                if not self._starting and not self._busy:
                    self._begin()
                    continue
                if not on_turn(len(self._todo) + len(self._busy)):
                    break
                ready, _ = ray.wait([*self._starting, *self._busy], timeout=TURN)
                for reference in ready:
                    if reference in self._starting:
                        self._started(reference)
                    else:
                        self._collect(reference)
                self._look()
        finally:
            for actor in [*self._starting.values(), *(task.actor for task in self._busy.values()), *self._kept]:
                ray.kill(actor)
        return self._problems

    def _begin(self) -> None:
        """Start actors where there are none, also at places that failed. If none could live, give up what is left."""
        import ray

        for actor in self._kept:
            ray.kill(actor)
        self._kept.clear()
        self._start_actors()
        if not self._starting:
            for entry, _ in self._todo:
                self._give_up(entry, self._start_error)
            self._todo.clear()

    def _start_actors(self) -> None:
        """Start as many actors as there are predictions, as far as the cluster's nodes can hold them."""
        import ray

        resources = self._resources
        options: dict[str, Any] = {"num_cpus": resources.cpus_per_trial, "num_gpus": resources.gpus_per_trial}
        options |= {"label_selector": resources.open_nodes}
        most = max(1, resources.within(living_nodes(resources.closed)).workers - len(self._kept))
        wanted = min(most, len(self._todo) + len(self._busy)) if self._dead_starts < STARTS else 0
        for _ in range(wanted - len(self._starting) - len(self._busy)):
            actor: Any = ray.remote(Predictor).options(**options).remote(*self._arguments)
            self._starting[actor.ready.remote()] = actor

    def _started(self, reference: Any) -> None:
        import ray
        from ray.exceptions import RayError

        actor = self._starting.pop(reference)
        self._placed.pop(reference, None)
        try:
            ray.get(reference)
        except RayError as error:
            self._dead_starts, self._start_error = self._dead_starts + 1, error
            self._start_actors()
        else:
            self._hand_out(actor)

    def _hand_out(self, actor: Any) -> None:
        """Give an actor its next prediction, or end it."""
        import ray

        if not self._todo:
            ray.kill(actor)
            return
        entry, tries = self._todo.pop(0)
        reference = actor.predict.remote(*entry.weights, entry.part)
        self._busy[reference] = Task(actor, entry, tries, time.monotonic())

    def _collect(self, reference: Any) -> None:
        """Take the end of a prediction."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        task = self._busy.pop(reference)
        try:
            ray.get(reference)
        except RayTaskError as error:
            self._failed(task, error)
        except RayError as error:  # its process died, or Ray's memory monitor ended it
            self._again(task, error)
            self._start_actors()
        else:
            self._longest = max(self._longest, time.monotonic() - task.since)
            self._hand_out(task.actor)

    def _failed(self, task: Task, error: Any) -> None:
        """Take a prediction that raised an error: a full disk ends the launch, resumable; for a fault of the place or
        of memory another actor tries; any other error is the trial's."""
        import ray

        cause = cause_of(error.cause)
        if cause == "disk":
            raise error.cause from error
        if cause not in ("place", "memory"):
            self._give_up(task.entry, error)
            self._hand_out(task.actor)
            return
        self._again(task, error)
        if cause == "place" and (self._busy or self._starting):
            self._kept.append(task.actor)
        elif is_fatal(error.cause) or cause == "memory":
            ray.kill(task.actor)
            self._start_actors()
        else:
            self._hand_out(task.actor)

    def _again(self, task: Task, error: Exception) -> None:
        """Give a prediction to another actor, or give it up."""
        if task.tries < RETRIES:
            self._todo.append((task.entry, task.tries + 1))
        else:
            self._give_up(task.entry, error)

    def _give_up(self, entry: Pending, error: Exception) -> None:
        trial = entry.weights.trial
        last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        self._problems[trial] = f"trial {trial} could not predict: {last}"

    def _look(self) -> None:
        """End predictions and starts that hang, and now and then say what the round waits for."""
        import ray

        now = time.monotonic()
        limit = longest_silence(self._longest, self._limit)
        for reference, task in list(self._busy.items()):
            if now - task.since > limit:
                trial, minutes = task.entry.weights.trial, limit / 60
                self._tell(f"the prediction of trial {trial} has taken {minutes:.0f} minutes: its worker is killed")
                self._busy[reference] = task._replace(since=now)
                ray.kill(task.actor)
        if now >= self._next_look:
            self._next_look = now + LOOK
            self._start_actors()  # machines may have joined
            self._end_hung_starts(now)
            if self._starting and not self._placed and not self._busy:
                self._say_what_is_missing()

    def _end_hung_starts(self, now: float) -> None:
        """End actors that have had their resources for long and are not ready: a file server may be dead."""
        import ray

        for reference, actor in self._starting.items():
            if reference not in self._placed and has_resources(actor):
                self._placed[reference] = now
            if now - self._placed.get(reference, now) > START:
                minutes = START / 60
                self._tell(f"a worker for the final predictions did not start in {minutes:.0f} minutes: it is killed")
                self._placed[reference] = now
                ray.kill(actor)

    def _say_what_is_missing(self) -> None:
        missing = look(self._resources.closed).missing(self._resources)
        text = f"the final predictions wait for a worker to start: {missing}"
        if text != self._waits_for:
            self._waits_for = text
            self._tell(text)
