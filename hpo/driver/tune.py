"""Adapters to Ray Tune: a search algorithm and a scheduler that ask the recorder, and one call of `Tuner.fit`.

A `SearchAlgorithm` may return complete Tune trials, so they carry our ids (`<trial>-<attempt>`). A subclass of
`FIFOScheduler` gets every result first. Tune starts the processes and passes messages. It decides nothing, nothing that
it stores is read again, and it retries nothing (`max_failures=0`): the recorder issues a lost trial again as a new Tune
trial.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hpo.cluster.processes import scratch
from hpo.cluster.resources import Resources
from hpo.worker.job import Assignment, Job, assignments_to_json
from hpo.worker.worker import EVIDENCE, Worker, results_of


class Desk(Protocol):
    """What the adapters need of the driver: it issues trials and takes their results. `hpo.driver.recorder.Recorder`
    implements it.

    A Tune trial carries one or more attempts at trials of ours. Its id is that of its first attempt
    (`<trial>-<attempt>`). It continues while any of its attempts continues. An attempt that has ended gets no verdict
    but False.

    Tune returns one answer for the whole Tune trial to its worker. A worker that trains several attempts would have to
    read the verdict on each elsewhere. That channel does not exist yet: `Worker` takes one assignment. It could rely on
    the order: `result` returns before Tune calls the worker's next step.
    """

    @property
    def closed(self) -> bool:
        """No trial will be issued any more."""
        ...

    def issue(self) -> Sequence[Assignment]:
        """The attempts of the next Tune trial. Empty: none now, and none ever if `closed`."""
        ...

    def result(self, tune_id: str, results: Sequence[Mapping[str, Any]]) -> Sequence[bool]:
        """Take the results of one step; each names its `trial` and `attempt`. Returns for each whether it continues."""
        ...

    def lost(self, tune_id: str, reason: str, error: str) -> None:
        """The process of a Tune trial died, and with it all its attempts that had not ended. `error`: Ray's whole
        text."""
        ...


OnTurn = Callable[[int, Callable[[], Collection[str]]], Collection[str]]
"""Called about ten times a second with the number of worker processes that hold resources, idle ones included, and a
function that returns Tune's ids of the trials that have such a process; returns those that are to end: their processes
are killed, and those that have none leave Tune's queue."""


def fit(desk: Desk, job: Job, resources: Resources, on_turn: OnTurn, name: str) -> None:
    """Run trials until the desk is closed and every started trial has ended. `name`: Tune's name for the experiment."""
    from ray import tune

    # With a custom search algorithm Tune allows one pending trial by default: workers would start one after the other.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.workers)
    keep_starting_processes()
    faults: list[BaseException] = []
    judge = scheduler(desk, faults)
    try:
        with scratch() as folder:  # Tune needs a folder; nothing in it is read again
            tune.Tuner(
                Worker,
                tune_config=tune.TuneConfig(
                    search_alg=search_algorithm(desk, job, faults),
                    scheduler=judge,
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name=name,
                    storage_path=str(folder),
                    verbose=0,
                    callbacks=[turn_callback(on_turn, judge, faults)],
                    progress_reporter=silent_reporter(),
                ),
            ).fit()
    except Exception as error:
        if faults:
            raise faults[0] from faults[0].__cause__  # the cause shows a full disk
        raise RuntimeError(f"Ray Tune ended the search: {error}") from error


def has_process(controller: Any, trial: Any) -> bool:
    """Whether a trial has a process of its own, which may still be starting. A trial that only waits for resources has
    none."""
    return controller._trial_to_actor.get(trial) in controller._actor_manager._live_actors_to_ray_actors_resources


def keep_starting_processes() -> None:
    """Let a worker that has become free wait for the next trial. Tune would give it the trial of a process that is
    still starting, and stop that process: with quick trials most workers would never get to their first one.

    A trial that waits for resources is given to a free worker: it may wait for what that worker holds.
    """
    from ray.tune.execution.tune_controller import TuneController

    original = TuneController._maybe_reuse_cached_actor
    if getattr(original, "keeps_starting_processes", False):
        return

    def patched(self: Any, trial: Any) -> bool:
        starting = has_process(self, trial) and trial not in self._resetting_trials
        return False if starting and not self._search_alg.is_finished() else original(self, trial)

    patched.keeps_starting_processes = True  # type: ignore[attr-defined]
    setattr(TuneController, "_maybe_reuse_cached_actor", patched)  # noqa: B010  mypy forbids the plain form


def _empty(_: object) -> tuple[type[dict[str, Any]], tuple[()]]:
    """Value of `__reduce__`: Tune pickles its parts at the start, and ours hold open files. The pickles are never
    loaded."""
    return dict, ()


def search_algorithm(desk: Desk, job: Job, faults: list[BaseException]) -> Any:
    """Tune's source of trials: asks the desk for each."""
    from ray.tune import PlacementGroupFactory
    from ray.tune.experiment import Trial
    from ray.tune.search.search_algorithm import SearchAlgorithm

    @functools.cache  # one object for all trials: Tune compares their resources many times
    def shared(alone: bool) -> tuple[str, PlacementGroupFactory]:
        """What trials have in common: the job as JSON, and their resources."""
        own = job.for_trial(alone)
        needs = {"CPU": float(own.resources.cpus_per_trial), "GPU": float(own.resources.gpus_per_trial)}
        return own.to_json(), PlacementGroupFactory([needs], bundle_label_selector=[own.resources.open_nodes])

    class Search(SearchAlgorithm):
        __reduce__ = _empty

        def add_configurations(self, experiments: Any) -> None:
            self._experiment = experiments[0] if isinstance(experiments, list) else experiments

        def next_trial(self) -> Any:
            with remembering(faults):
                assignments = desk.issue()
                self._finished = desk.closed
            if not assignments:
                return None
            tune_id = assignments[0].id
            text, needs = shared(any(assignment.alone for assignment in assignments))
            return Trial(
                self._experiment.run_identifier,
                config={"job": text, "assignments": assignments_to_json(assignments)},
                trial_id=tune_id,
                experiment_tag=tune_id,
                storage=self._experiment.storage,
                stopping_criterion={},
                placement_group_factory=needs,
                max_failures=0,
            )

    return Search()


def scheduler(desk: Desk, faults: list[BaseException]) -> Any:
    """Tune's scheduler: hands every result to the desk and returns its verdict. It also knows Tune's controller, and so
    which processes hold resources: contract tests check the private parts of Tune that this needs."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    class Scheduler(FIFOScheduler):
        __reduce__ = _empty
        _controller: Any = None

        def held(self) -> int:
            return self._controller._actor_manager.num_live_actors if self._controller else 0

        def processes(self) -> dict[str, Any]:
            """Tune's id of each trial that has got its resources -> Ray's handle of its process, which may still be
            starting."""
            if self._controller is None:
                return {}
            live = self._controller._actor_manager._live_actors_to_ray_actors_resources
            pairs = self._controller._trial_to_actor.items()
            return {trial.trial_id: live[actor][0] for trial, actor in pairs if actor in live}

        def forget(self, tune_id: str) -> None:
            """Take a trial that waits for resources out of Tune's queue."""
            waiting = (trial for trial in self._controller._pending_trials if trial.trial_id == tune_id)
            for trial in list(waiting):
                self._controller.stop_trial(trial)
                if trial in self._controller._staged_trials:  # else Tune would keep a place for its worker
                    self._controller._unstage_trial_with_resources(trial)

        def choose_trial_to_run(self, tune_controller: Any) -> Any:
            """The oldest waiting trial without a process. (Tune's own way looks through all trials that ever were.)"""
            self._controller = controller = tune_controller._tune_controller  # schedulers get a wrapper
            waiting = (trial for trial in controller._pending_trials_list if trial in controller._pending_trials)
            return next((trial for trial in waiting if not has_process(controller, trial)), None)

        def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
            return True

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            with remembering(faults):
                verdicts = desk.result(trial.trial_id, results_of(result))
            return str(TrialScheduler.CONTINUE if any(verdicts) else TrialScheduler.STOP)

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            with remembering(faults):
                desk.lost(trial.trial_id, *_cause_of_death(trial))

    return Scheduler()  # type: ignore[no-untyped-call]


def _cause_of_death(trial: Any) -> tuple[str, str]:
    """Why a process died: in one line, and the whole text that Tune recorded."""
    try:
        text = Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    pid = re.search(r"\bpid: (\d+)|\bpid=(\d+)", text)
    process = f"worker process {pid[1] or pid[2]}" if pid else "its worker process"
    reason = " for lack of memory" if "memory monitor" in text or "OutOfMemory" in text else ""
    return f"{process} died{reason}", text


def turn_callback(on_turn: OnTurn, judge: Any, faults: list[BaseException]) -> Any:
    """Tune callback that calls `on_turn` once per turn of Tune's loop, and ends the trials that it returns. It takes
    the evidence out of every result before Tune keeps the result. `judge`: the `scheduler`, which knows the workers."""
    import ray
    from ray.tune import Callback

    class Turn(Callback):
        __reduce__ = _empty

        def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
            with remembering(faults):
                to_end = on_turn(judge.held(), judge.processes)
                processes = judge.processes() if to_end else {}
                for tune_id in to_end:
                    if tune_id in processes:
                        ray.kill(processes[tune_id])
                    else:
                        judge.forget(tune_id)

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
            result.pop(EVIDENCE, None)  # the scheduler, which comes first, has handed it to the desk

    return Turn()


def silent_reporter() -> Any:
    """Tune progress reporter without output: in a notebook Tune's own one would clear the cell, our display in it."""
    from ray.tune import ProgressReporter

    class Silent(ProgressReporter):
        def should_report(self, trials: Any, done: bool = False) -> bool:
            return False

        def report(self, trials: Any, done: bool, *system: str) -> None:
            """Say nothing."""

    return Silent()


@contextlib.contextmanager
def remembering(faults: list[BaseException]) -> Iterator[None]:
    """Append an exception of our code to `faults`, and raise it again. Tune would keep only a text of it."""
    try:
        yield
    except BaseException as error:
        faults.append(error)
        raise
