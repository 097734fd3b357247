"""Runs and resumes sweeps: connects to the cluster, opens the store, searches, predicts.

`run` begins a new sweep. `resume` continues a sweep, however its last launch stopped, and may add trials. Both make a
`Session`, which connects to the cluster before it opens the store. Then a `Running` replays the stored rows (none, for
a new sweep) through the pure `Sweep` and drives the search by Ray Tune. Only this process writes rows of trials and
reports.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from hpo.cluster.connection import Cluster, connect
from hpo.cluster.faults import is_disk_error
from hpo.cluster.resources import Resources
from hpo.cluster.survey import check_nodes
from hpo.driver import generations
from hpo.driver.arrival import resources_of_machines
from hpo.driver.callbacks import Callback
from hpo.driver.monitor import monitor_of
from hpo.driver.resumption import resumption
from hpo.driver.running import LaunchState, Running
from hpo.driver.screen import Observer, Screen
from hpo.launch.plan import Plan
from hpo.launch.prepare import prepare
from hpo.launch.record import SweepRecord, job_of
from hpo.launch.relaunch import plan_again
from hpo.launch.request import Launch, Relaunch
from hpo.search.snapshot import Snapshot

if TYPE_CHECKING:
    from results.store import SweepFolder


@dataclass(frozen=True)
class Outcome:
    """Result of a launch."""

    name: str
    """Name of the sweep."""
    state: LaunchState
    snapshot: Snapshot
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Places (hosts, devices) that got no more trials -> what failed there."""


def run(launch: Launch | Plan, observer: Observer | None = None, callbacks: Sequence[Callback] = ()) -> Outcome:
    """Run a new sweep until it is done, or until a signal, a stop request or its time limit."""
    from results.store import Store

    plan = launch if isinstance(launch, Plan) else prepare(launch)
    session = Session(plan, observer, callbacks)
    with session.connected() as (cluster, resources):
        folder = Store(plan.store).create(plan.name, plan.begun(resources).to_json())
        return session.drive(folder, cluster, resources)


def resume(
    store: str,
    name: str,
    relaunch: Relaunch | None = None,
    observer: Observer | None = None,
    callbacks: Sequence[Callback] = (),
) -> Outcome:
    """Resume a sweep, however its last launch stopped. `relaunch` says what differs from the launch before.

    If every trial has ended and the chosen ones have predicted, nothing is started and the function returns at once.
    """
    from results.store import Store

    relaunch = relaunch or Relaunch()
    folder = Store(store).open(name)
    record, trials, done = resumption(folder, relaunch)
    if done:
        return _done_already(folder, record, trials)
    session = Session(plan_again(store, record, trials, relaunch), observer, callbacks)
    with session.connected() as (cluster, resources):
        return session.drive(folder, cluster, resources, takeover=relaunch.takeover)


def _done_already(folder: SweepFolder, record: SweepRecord, trials: int) -> Outcome:
    """The outcome of a launch that found nothing to do."""
    from results.fold import fold

    monitor = monitor_of(record, trials)
    monitor.begin(folder, fold(folder))
    now = time.time()
    return Outcome(record.name, "done", monitor.snapshot("done", started=now, now=now, live=False))


class Session:
    """A launch before it owns the writer: connects to the cluster, chooses resources, claims the sweep."""

    def __init__(self, plan: Plan, observer: Observer | None, callbacks: Sequence[Callback] = ()) -> None:
        self._plan = plan
        self._screen = Screen(plan, observer, callbacks)

    @contextlib.contextmanager
    def connected(self) -> Iterator[tuple[Cluster, Resources]]:
        """Connect to the cluster and check that the trials fit on it, before anything is written or waits for
        resources."""
        plan = self._plan
        joining = f"joining the Ray cluster at {plan.address}"
        self._screen.begin("launching Ray on this machine" if plan.address is None else joining)
        with connect(plan.address) as cluster:
            resources = self._resources(cluster)
            if not cluster.own:
                resources = self._on_able_nodes(cluster, resources)
            self._tell_of_less(resources)
            yield cluster, resources

    def _on_able_nodes(self, cluster: Cluster, resources: Resources) -> Resources:
        """What trials get on the nodes that can run them."""
        record, screen = self._plan.record, self._screen
        check = check_nodes(self._plan.store, record.data.folder, record.base.asked, resources, screen.begin)
        screen.tell(*check.warnings)
        if not check.closed:
            return resources
        screen.quarantined = {node.name: why for node, why in check.closed.items()}
        return self._resources(cluster, [node.id for node in check.closed])

    def _resources(self, cluster: Cluster, closed: Collection[str] = ()) -> Resources:
        """What trials get; their number is that of all that fit, or on a running cluster the largest. `closed`: Ray's
        ids of the nodes that get no trials."""
        plan, request = self._plan, self._plan.record.resources
        if plan.resources is None and not cluster.own:
            deadline = math.inf if plan.time is None else self._screen.clock + plan.time
            say = self._screen.begin
            return resources_of_machines(request, plan.trials, say, deadline, closed, plan.recorded_cpus)
        asked = request.reduced(cluster.nodes) if plan.recorded_cpus else request
        resources = plan.resources or asked.choose(cluster.cpus, cluster.gpus, cluster.nodes).within(cluster.nodes)
        cluster.check(resources)
        return replace(resources, closed=tuple(closed))

    def _tell_of_less(self, resources: Resources) -> None:
        """Say what trials get less than was requested or recorded."""
        request, tell = self._plan.record.resources, self._screen.tell
        if request.workers is not None and resources.workers < request.workers:
            tell(f"{request.workers} trials were to run at a time: this machine has room for {resources.workers}")
        if request.cpus_per_trial is not None and resources.cpus_per_trial < request.cpus_per_trial:
            tell(
                f"a trial had {request.cpus_per_trial} CPUs, and no machine here has so many: it gets "
                f"{resources.cpus_per_trial}"
            )

    def drive(self, folder: SweepFolder, cluster: Cluster, resources: Resources, takeover: bool = False) -> Outcome:
        """Work on the sweep until it is done or stopped. A full or missing disk stops the launch too: durable rows are
        safe, and a resume continues from them."""
        screen = self._screen
        try:
            state = self._with_generation(folder, cluster, resources, takeover)
        except Exception as error:
            if not is_disk_error(error):
                raise
            screen.tell(f"the disk failed: {error}")
            state = "stopped"
        screen.finish(state)
        return Outcome(self._plan.name, state, screen.snapshot().at_rest(), screen.quarantined)

    def _with_generation(
        self, folder: SweepFolder, cluster: Cluster, resources: Resources, takeover: bool
    ) -> LaunchState:
        """Claim the sweep, open its writer and run the launch; give both back at the end."""
        generation = generations.claim(folder.folder, takeover, self._plan.trials, self._screen.started)
        try:
            writer = folder.writer(generation.number)
            try:
                job = job_of(
                    self._plan.record,
                    folder.folder,
                    resources,
                    trainer=self._plan.trainer,
                    memory_limit=cluster.memory_per_worker(resources.workers),
                    pause_key=f"pause/{uuid.uuid4().hex}",  # unique: a killed launch leaves its flag in its cluster
                    generation=generation.number,
                )
                elastic = not cluster.own
                state = Running(self._plan, folder, writer, generation, job, self._screen, elastic).run()
            finally:
                if not generation.superseded:
                    writer.close()
            if state == "done":
                self._merge(folder)
            return state
        finally:
            generation.end()

    def _merge(self, folder: SweepFolder) -> None:
        """Merge the small files of a sweep that is done, and delete them at once. It is done all the same if that
        fails."""
        try:
            folder.compact(grace=0.0)
        except (ValueError, OSError) as error:
            self._screen.tell(f"small files were not merged: {error}")
