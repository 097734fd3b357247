"""Runs a sweep: the cluster, the store, the search and the final predictions, in this order and from this process
alone.

`run` begins one, `resume` goes on after any kind of end and may add trials. Both make a `Session`, which reaches the
cluster before there is a store, and then a `Running`, which replays the store's rows (none, for a new sweep) through
the pure `Sweep` and drives it by Ray Tune. Only this process writes rows of trials and reports.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpo.cluster.connection import Cluster, connect
from hpo.cluster.resources import Resources
from hpo.cluster.shared_files import check_nodes
from hpo.driver import generations
from hpo.driver.finalise import is_done
from hpo.driver.monitor import Monitor
from hpo.driver.running import Running, State
from hpo.driver.screen import Observer, Screen
from hpo.launch.plan import Plan
from hpo.launch.prepare import check_local, prepare
from hpo.launch.record import SweepRecord, job_of, record_of
from hpo.launch.relaunch import plan_again, total_of
from hpo.launch.request import Launch, Relaunch
from hpo.search.schedulers import scheduler_from
from hpo.search.snapshot import Snapshot
from hpo.worker.worker import is_disk_error

if TYPE_CHECKING:
    from results.store import SweepFolder


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    name: str
    state: State
    snapshot: Snapshot


def run(launch: Launch | Plan, observer: Observer | None = None) -> Outcome:
    """Run a new sweep to its end, or to a signal, a stop request or its time."""
    from results.store import Store

    plan = launch if isinstance(launch, Plan) else prepare(launch)
    session = Session(plan, observer)
    with session.connected() as (cluster, resources):
        folder = Store(plan.store).create(plan.name, plan.begun(resources).to_json())
        return session.drive(folder, cluster, resources)


def resume(store: str, name: str, relaunch: Relaunch | None = None, observer: Observer | None = None) -> Outcome:
    """Go on with a sweep after any kind of end; `relaunch` says what differs from the launch before.

    Where every trial has ended and has predicted, nothing is started and the outcome is known at once.
    """
    from results.store import Store

    relaunch = relaunch or Relaunch()
    check_local(store)
    folder = Store(store).open(name)
    record, path = record_of(folder), folder.path
    trials = total_of(generations.total_trials(record.trials, path), relaunch, name)
    if is_done(folder, trials):
        return _done_already(folder, record, trials)
    if not relaunch.takeover:
        generations.check_free(path)
    session = Session(plan_again(store, record, trials, relaunch), observer)
    with session.connected() as (cluster, resources):
        return session.drive(folder, cluster, resources, takeover=relaunch.takeover)


def _done_already(folder: SweepFolder, record: SweepRecord, trials: int) -> Outcome:
    """The outcome of a launch that has nothing to do."""
    monitor = Monitor(record.name, trials, record.milestones, scheduler_from(record.scheduler))
    monitor.feed_all(folder.events())
    now = time.time()
    return Outcome(record.name, "done", monitor.snapshot("done", started=now, now=now, live=False))


class Session:
    """One launch before its sweep has a writer: reach the cluster, choose resources, open the store."""

    def __init__(self, plan: Plan, observer: Observer | None) -> None:
        self._plan = plan
        self._screen = Screen(plan, observer)

    @contextlib.contextmanager
    def connected(self) -> Iterator[tuple[Cluster, Resources]]:
        """Reach the cluster and see that it can hold the trials, before anything is written or waits."""
        plan = self._plan
        joining = f"joining the Ray cluster at {plan.address}"
        self._screen.begin("launching Ray on this machine" if plan.address is None else joining)
        with connect(plan.address) as cluster:
            asked = plan.record.resources
            resources = plan.resources or asked.choose(cluster.cpus, cluster.gpus, cluster.nodes)
            cluster.check(resources)
            if not cluster.own:
                self._screen.begin("looking whether every machine reaches the store and the data")
                check_nodes(plan.store, plan.record.data.folder, plan.record.base.asked)
            yield cluster, resources

    def drive(self, folder: SweepFolder, cluster: Cluster, resources: Resources, takeover: bool = False) -> Outcome:
        """Work on the sweep to its end or a stop. A disk that is full or gone stops the launch too: what was
        acknowledged is safe, and a resume goes on from there."""
        screen = self._screen
        try:
            state = self._with_generation(folder, cluster, resources, takeover)
        except Exception as error:
            if not is_disk_error(error):
                raise
            screen.messages.append(f"the disk failed: {error}")
            state = "stopped"
        screen.phase = state
        screen.show(force=True)
        return Outcome(self._plan.name, state, screen.snapshot())

    def _with_generation(self, folder: SweepFolder, cluster: Cluster, resources: Resources, takeover: bool) -> State:
        generation = generations.claim(folder.path, takeover, self._plan.trials, self._screen.started)
        try:
            writer = folder.writer(generation.number)
            try:
                job = job_of(
                    self._plan.record,
                    folder.path,
                    resources,
                    memory_limit=None if cluster.memory_limit is None else cluster.memory_limit // resources.workers,
                    pause_key=f"pause/{uuid.uuid4().hex}",  # a killed launch leaves its flag on a cluster that runs on
                )
                return Running(self._plan, folder, writer, generation, job, self._screen).run()
            finally:
                if not generation.superseded:
                    writer.close()
        finally:
            generation.end()
