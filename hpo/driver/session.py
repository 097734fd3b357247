"""Runs a sweep: the store, the cluster, the search and the final predictions, in this order and from this process
alone.

`run` begins one, `resume` goes on after any kind of end and may add trials; both replay the store's rows (none, for a
new sweep) through the pure `Sweep` and then drive it by Ray Tune. Only this process writes rows of trials and
reports.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hpo.cluster import pause
from hpo.cluster.connection import Cluster, connect
from hpo.cluster.resources import Resources, check_gpus, choose
from hpo.cluster.shared_files import check_nodes
from hpo.driver import generations, watchdog
from hpo.driver.monitor import Monitor
from hpo.driver.recorder import Recorder, RowWriter
from hpo.driver.stopping import Halt, Now
from hpo.driver.weights import Shelf
from hpo.launch.inputs import check_inputs, inputs
from hpo.launch.plan import Plan, changed_versions, check_same
from hpo.launch.prepare import check_local, describe_task, prepare
from hpo.launch.request import Launch, LaunchError
from hpo.search.snapshot import Snapshot
from hpo.worker.job import Job
from hpo.worker.progress import stages_of

if TYPE_CHECKING:
    from results.store import SweepFolder

Observer = Callable[[Snapshot], None]

REFRESH = 0.25
"""Seconds between two snapshots for the observer."""


PATIENCE = 120.0
"""Seconds after which trials that have not paused are left behind: a hung one would otherwise hold a stop for ever."""


class SupersededError(ValueError):
    """Another driver has taken this sweep over."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    name: str
    state: Literal["done", "stopped"]
    """stopped: before all trials had ended, and resumable."""
    snapshot: Snapshot


def run(launch: Launch | Plan, observer: Observer | None = None) -> Outcome:
    """Run a new sweep to its end, or to a signal, a stop request or its time."""
    from results.store import Store

    plan = launch if isinstance(launch, Plan) else prepare(launch)
    session = Session(plan, plan.trials, observer)
    with session.connected() as cluster:
        folder = Store(plan.store).create(plan.name, plan.meta(session.resources))
        return session.drive(folder, cluster, takeover=False)


def resume(
    store: str,
    name: str,
    *,
    takeover: bool = False,
    trials: int | None = None,
    observer: Observer | None = None,
    time: float | None = None,
    address: str | None = None,
    workers: int | None = None,
    cpus_per_trial: int | None = None,
    gpus_per_trial: float | None = None,
    keep: int | None = None,
    data: str | None = None,
    trainer: str | None = None,
) -> Outcome:
    """Go on with a sweep after any kind of end. `trials`: a new, larger total. `data`: where the same data lies now."""
    from results.store import Store

    check_local(store)
    check_gpus(gpus_per_trial)
    folder = Store(store).open(name)
    changes = {
        "time": time,
        "address": address,
        "workers_asked": workers,
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "keep": keep,
        "data": None if data is None else str(Path(data).expanduser().absolute()),
        "trainer": trainer,
    }
    plan = Plan.from_meta(store, folder.meta, **changes)
    check_unchanged(plan, folder.meta)
    total = generations.total_trials(folder.meta, Path(folder.path))
    if trials is not None and trials < total:
        raise LaunchError(f"`trials`: sweep {name!r} has {total} trials, a total of {trials} would be fewer.")
    if not takeover:
        generations.check_free(Path(folder.path))
    session = Session(plan, trials or total, observer)
    session.messages += changed_versions(folder.meta)
    with session.connected() as cluster:
        return session.drive(folder, cluster, takeover)


def check_unchanged(plan: Plan, meta: Mapping[str, Any]) -> None:
    """Refuse a resume whose trials could not be compared with the earlier ones."""
    from hpo.space.source import space_hash
    from minbert.config import CONFIG_VERSION
    from minbert.data.files import read_corpus
    from minbert.encoder.base import find_base

    corpus = read_corpus(plan.data, tuple(plan.tasks))
    tasks = {task.name: describe_task(task) for task in corpus.tasks}
    check_same(meta, config_version=CONFIG_VERSION, space=space_hash(plan.space), tasks=tasks)
    check_same(meta, data=corpus.fingerprint, base=find_base(plan.base).sha256)
    if meta["data"].get("inputs"):
        check_inputs(meta, inputs(plan.space, plan.pinned, plan.start, corpus))


class Session:
    """One launch, from the connection to the outcome."""

    def __init__(self, plan: Plan, trials: int, observer: Observer | None) -> None:
        self._plan = plan
        self._trials = trials
        self._observer = observer
        self._phase = "starting"
        self._started = time.time()
        self._clock = time.monotonic()
        self._next_refresh = 0.0
        self._impatient = math.inf
        self._watchdog = watchdog.Watchdog(lambda one: pause.sign_of_life(self._job.pause_key, one))
        self._monitor = Monitor(plan.name, trials, plan.milestones, plan.scheduler)
        self.messages: list[str] = []
        self.resources: Resources = plan.resources or Resources(1)

    @contextlib.contextmanager
    def connected(self) -> Iterator[Cluster]:
        """Reach the cluster and see that it can hold the trials, before anything is written or waits."""
        self._show(force=True)
        plan = self._plan
        with connect(plan.address) as cluster:
            if plan.resources is None:
                wanted = (plan.workers_asked, plan.cpus_per_trial, plan.gpus_per_trial)
                self.resources = choose(*wanted, cpus=cluster.cpus, gpus=cluster.gpus, nodes=cluster.nodes)
            cluster.check(self.resources)
            if not cluster.own:
                check_nodes(plan.store, plan.data, plan.base)
            yield cluster

    def drive(self, folder: SweepFolder, cluster: Cluster, takeover: bool) -> Outcome:
        path = Path(folder.path)
        generation = generations.claim(path, takeover, self._trials)
        try:
            writer = folder.writer(generation.number)
            try:
                return self._with_writer(folder, writer, cluster, generation)
            finally:
                if not generation.superseded:
                    writer.close()
        finally:
            generation.end()

    def _with_writer(
        self, folder: SweepFolder, writer: RowWriter, cluster: Cluster, generation: generations.Generation
    ) -> Outcome:
        plan, path = self._plan, Path(folder.path)
        self._writer, self._generation = writer, generation
        self._sweep = plan.sweep(self.resources.workers, self._trials)
        events = folder.events()
        self._sweep.replay(events)
        self._monitor.feed_all(events)
        self.messages += [*self._sweep.warnings, *folder.warnings]
        self._recorder = Recorder(self._sweep, writer, Shelf(path, plan.keep), self._monitor)
        self._recorder.recall(events)
        self._job = self._make_job(path, cluster)
        self._halt = Halt(path, plan.time, since=generation.began, started=self._clock)
        with self._halt.signals():
            try:
                self._job.module().ready(self._job, folder)
                self._search()
                state = self._finish()
            except KeyboardInterrupt:  # the second signal; within Ray's waits it loses its class
                self._recorder.abandon("stopped at once")
                self.messages.append("stopped at once; trials that ran will go on from their last checkpoint")
                state = "stopped"
            except Exception as error:
                if not self._generation.superseded:
                    with contextlib.suppress(Exception):  # the store itself may be what failed
                        self._recorder.abandon(f"the launch failed: {type(error).__name__}")
                raise
            finally:
                self._drop_flag()
        return self._outcome(state)

    def _drop_flag(self) -> None:
        try:
            pause.drop_flag(self._job.pause_key)
        except Exception as error:  # noqa: BLE001  where Ray is gone so is the flag; why it is gone is what must be seen
            self.messages.append(f"the pause flag could not be taken back: {type(error).__name__}: {error}")

    def _make_job(self, path: Path, cluster: Cluster) -> Job:
        plan, limit = self._plan, cluster.memory_limit
        return Job(
            folder=str(path.absolute()),
            milestones=plan.milestones,
            data=plan.data,
            tasks=tuple(plan.tasks),
            base=plan.base,
            base_sha256=plan.base_sha256,
            fingerprint=plan.fingerprint,
            search_sizes=dict(plan.search_sizes),
            cpus=self.resources.cpus_per_trial,
            gpus=self.resources.gpus_per_trial,
            memory_limit=None if limit is None else limit // self.resources.workers,
            pause_key=f"pause/{uuid.uuid4().hex}",  # a killed launch leaves its flag on a cluster that runs on
            trainer=plan.trainer,
        )

    def _search(self) -> None:
        from hpo.driver.tune import fit

        if self._sweep.finished:
            return
        self._phase = "searching"
        name = f"{self._plan.name}-{self._generation.number}"
        fit(self._recorder, self._job, self.resources, self._turn, name)

    def _turn(self) -> Sequence[str]:
        """Ten times a second, between two events of the search; returns attempts whose workers are to be killed."""
        if self._generation.superseded:
            raise SupersededError(f"sweep {self._plan.name!r} was taken over by another driver; this one leaves")
        reason = self._recorder.fault or self._halt.reason
        if not self._sweep.halted and reason is not None:
            self._phase = "stopping"
            self.messages.append(f"{reason}: no new trials, running ones write a checkpoint")
            self._sweep.halt()
            pause.raise_flag(self._job.pause_key)
            self._impatient = time.monotonic() + PATIENCE
        if time.monotonic() > self._impatient:
            raise Now
        self._show()
        return self._hung()

    def _hung(self) -> Sequence[str]:
        silent, hung = self._watchdog.look(self._recorder.running, time.monotonic())
        minutes, most = round(watchdog.SILENT / 60), round(watchdog.HUNG / 60)
        for one in silent:
            self.messages.append(
                f"attempt {one} has shown no sign of life for {minutes} minutes; if it has begun, its worker is killed "
                f"after {most}"
            )
        return hung

    def _finish(self) -> Literal["done", "stopped"]:
        if not self._sweep.finished:
            return "stopped"
        from hpo.driver.finalise import finalise

        self._phase = "finalising"
        remain = False

        def on_turn(done: int, of: int) -> bool:  # called while some are not done
            nonlocal remain
            if self._generation.superseded:
                raise SupersededError(f"sweep {self._plan.name!r} was taken over by another driver; this one leaves")
            self._show()
            remain = self._halt.reason is not None
            return not remain

        store, kept = str(Path(self._job.folder).parent), self._recorder.kept()
        self.messages += finalise(store, self._plan.name, self._job, kept, self.resources, on_turn)
        return "stopped" if remain else "done"

    def _outcome(self, state: Literal["done", "stopped"]) -> Outcome:
        self._writer.barrier()
        self._phase = state
        self._show(force=True)
        return Outcome(self._plan.name, state, self._snapshot())

    def _snapshot(self) -> Snapshot:
        if hasattr(self, "_writer"):
            self._monitor.settle(self._writer.durable_seq)
        snapshot = self._monitor.snapshot(self._phase, self._started, time.time(), tuple(self.messages))
        if self._plan.time is not None:  # with --time it ends then at the latest
            left = max(0.0, self._clock + self._plan.time - time.monotonic())
            known = snapshot.time_left
            snapshot = replace(snapshot, time_left=left if known is None else min(left, known))
        if hasattr(self, "_job"):
            snapshot = replace(snapshot, stages=stages_of(Path(self._job.folder), snapshot.beginning))
        return snapshot

    def _show(self, force: bool = False) -> None:
        now = time.monotonic()
        if self._observer is None or (now < self._next_refresh and not force):
            return
        self._next_refresh = now + REFRESH
        try:
            self._observer(self._snapshot())
        except Exception as error:  # noqa: BLE001  a display that fails must not end a sweep
            self._observer = None
            self.messages.append(f"the display failed and is off: {type(error).__name__}: {error}")
