"""The seam with Ray Tune: two thin adapters that ask the recorder, and one call of `fit`.

A `SearchAlgorithm` may return ready Tune trials, so trials keep our numbers (`<number>-<attempt>`), and a
`FIFOScheduler` subclass hears every result before anybody else. Tune starts and feeds the processes; it decides
nothing, keeps nothing that is ever read again, and retries nothing (`max_failures=0`: a lost trial is issued again by
us as a new Tune trial).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

from hpo.cluster.processes import scratch
from hpo.cluster.resources import Resources
from hpo.worker.job import Assignment, Job
from hpo.worker.worker import RESULT, Worker


class Desk(Protocol):
    """What the adapters need of the driver; `hpo.driver.recorder.Recorder` is one."""

    @property
    def closed(self) -> bool:
        """No trial will be issued any more."""
        ...

    def issue(self) -> Assignment | None:
        """The next attempt to run; None: not now, or never again if `closed`."""
        ...

    def result(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Take a worker's result; False stops the trial."""
        ...

    def lost(self, trial_id: str, reason: str, error: str) -> None:
        """The process of a trial died; `error` is all that Ray says about it."""
        ...


OnTurn = Callable[[], Collection[str]]
"""Called about ten times a second; returns attempts whose processes are to be killed."""


def fit(desk: Desk, job: Job, resources: Resources, on_turn: OnTurn, name: str) -> None:
    """Run trials until the desk is closed and the last one has ended."""
    from ray import tune

    # With a custom search Tune keeps one pending trial by default, so that workers start one after the other.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.workers)
    faults: list[BaseException] = []
    wanted = {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}
    try:
        with scratch() as folder:  # Tune insists on one; nothing in it is read again
            tune.Tuner(
                tune.with_resources(Worker, wanted),
                tune_config=tune.TuneConfig(
                    search_alg=search_algorithm(desk, job, faults),
                    scheduler=scheduler(desk, faults),
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name=name, storage_path=str(folder), verbose=0, callbacks=[turn_callback(on_turn, faults)]
                ),
            ).fit()
    except Exception as error:
        if faults:
            raise faults[0] from faults[0].__cause__  # by which a full disk is known
        raise RuntimeError(f"Ray Tune ended the search: {error}") from error


def _empty(_: object) -> tuple[type[dict[str, Any]], tuple[()]]:
    """For `__reduce__`: Tune pickles its parts at start, ours hold open files. What it pickles is never loaded."""
    return dict, ()


def search_algorithm(desk: Desk, job: Job, faults: list[BaseException]) -> Any:
    """Tune's source of trials."""
    from ray.tune.experiment import Trial
    from ray.tune.search.search_algorithm import SearchAlgorithm

    class Search(SearchAlgorithm):
        __reduce__ = _empty

        def add_configurations(self, experiments: Any) -> None:
            self._experiment = experiments[0] if isinstance(experiments, list) else experiments

        def next_trial(self) -> Any:
            with _kept(faults):
                assignment = desk.issue()
                self._finished = desk.closed
            if assignment is None:
                return None
            return Trial(
                self._experiment.run_identifier,
                config={"job": job.to_json(), "assignment": assignment.to_json()},
                trial_id=assignment.id,
                experiment_tag=assignment.id,
                storage=self._experiment.storage,
                stopping_criterion={},
                max_failures=0,
            )

    return Search()


def scheduler(desk: Desk, faults: list[BaseException]) -> Any:
    """Tune's judge of results."""
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    class Scheduler(FIFOScheduler):
        __reduce__ = _empty

        def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
            return True

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            with _kept(faults):
                go_on = desk.result(trial.trial_id, json.loads(result[RESULT]))
            return str(TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP)

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            with _kept(faults):
                desk.lost(trial.trial_id, *_last_words(trial))

    return Scheduler()  # type: ignore[no-untyped-call]


def _last_words(trial: Any) -> tuple[str, str]:
    """Why a process died: in one line, and all that Tune has written down about it."""
    try:
        text = Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    pid = re.search(r"\bpid: (\d+)|\bpid=(\d+)", text)
    who = f"worker process {pid[1] or pid[2]}" if pid else "its worker process"
    why = " for lack of memory" if "memory monitor" in text or "OutOfMemory" in text else ""
    return f"{who} died{why}", text


def turn_callback(on_turn: OnTurn, faults: list[BaseException]) -> Any:
    """Calls `on_turn` once per turn of Tune's loop."""
    import ray
    from ray.tune import Callback

    class Turn(Callback):
        __reduce__ = _empty

        def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
            with _kept(faults):
                hung = on_turn()
                for trial in trials if hung else ():
                    if trial.trial_id in hung and trial.temporary_state.ray_actor is not None:
                        ray.kill(trial.temporary_state.ray_actor)

    return Turn()


class _kept:  # noqa: N801  a context manager, read as a verb
    """Remember what our side raised: Tune turns exceptions into texts of its own."""

    def __init__(self, faults: list[BaseException]) -> None:
        self._faults = faults

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            self._faults.append(error)
