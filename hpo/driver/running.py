"""One launch at work on its sweep: the search, a stop on request, the final predictions."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from hpo.cluster import pause
from hpo.driver import watchdog
from hpo.driver.generations import Generation
from hpo.driver.recorder import Recorder
from hpo.driver.screen import Screen
from hpo.driver.stopping import Halt, Now
from hpo.driver.weights import Shelf
from hpo.launch.plan import Plan
from hpo.worker.job import Job

if TYPE_CHECKING:
    from results.store import SweepFolder, Writer

PATIENCE = 120.0
"""Seconds after which trials that have not paused are left behind: a hung one would otherwise hold a stop for ever."""

State = Literal["done", "stopped"]
"""How a launch ends; stopped: before all trials had ended, and resumable."""


class SupersededError(ValueError):
    """Another driver has taken this sweep over."""


class Running:
    """A launch that has its sweep's writer; it stands where the stored rows end."""

    def __init__(
        self, plan: Plan, folder: SweepFolder, writer: Writer, generation: Generation, job: Job, screen: Screen
    ) -> None:
        screen.begin("reading the store")
        path, events = folder.path, folder.events()
        if events:
            screen.begin(f"replaying {len(events):,} rows")
        self._plan = plan
        self._folder = folder
        self._writer = writer
        self._generation = generation
        self._job = job
        self._screen = screen
        self._sweep = plan.sweep(job.resources.workers)
        self._sweep.replay(events)
        screen.monitor.feed_all(events)
        screen.messages += [*self._sweep.warnings, *folder.warnings]
        shelf = Shelf(path, plan.record.keep)
        self._recorder = Recorder(self._sweep, writer, shelf, screen.monitor, screen.messages.append)
        self._recorder.recall(events)
        self._halt = Halt(path, plan.time, since=generation.began, started=screen.clock)
        self._watchdog = watchdog.Watchdog(functools.partial(pause.sign_of_life, job.pause_key))
        self._impatient = math.inf

    def run(self) -> State:
        """Search and predict, to the end or to a stop; every row is durable at the return."""
        with self._halt.signals():
            try:
                self._screen.begin("tokenising the data, where that is not done yet")
                self._job.module().ready(self._job, self._folder)
                self._search()
                state = self._finish()
            except KeyboardInterrupt:  # the second signal; within Ray's waits it loses its class
                self._recorder.abandon("stopped at once")
                self._screen.messages.append("stopped at once; trials that ran will go on from their last checkpoint")
                state = "stopped"
            except Exception as error:
                if not self._generation.superseded:
                    with contextlib.suppress(Exception):  # the store itself may be what failed
                        self._recorder.abandon(f"the launch failed: {type(error).__name__}")
                raise
            finally:
                self._settle()
                self._drop_flag()
        self._writer.barrier()
        self._settle()
        return state

    def _drop_flag(self) -> None:
        try:
            pause.drop_flag(self._job.pause_key)
        except Exception as error:  # noqa: BLE001  where Ray is gone so is the flag; why it is gone is what must be seen
            self._screen.messages.append(f"the pause flag could not be taken back: {type(error).__name__}: {error}")

    def _search(self) -> None:
        from hpo.driver.tune import fit

        if self._sweep.finished:
            return
        self._screen.phase = "searching"
        name = f"{self._plan.name}-{self._generation.number}"
        fit(self._recorder, self._job, self._job.resources, self._turn, name)

    def _turn(self) -> Sequence[str]:
        """Ten times a second, between two events of the search; returns attempts whose workers are to be killed."""
        self._leave_if_superseded()
        reason = self._recorder.fault or self._halt.reason
        if not self._sweep.halted and reason is not None:
            self._screen.phase = "stopping"
            self._screen.messages.append(f"{reason}: no new trials, running ones write a checkpoint")
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
        for attempt in silent:
            self._screen.messages.append(
                f"attempt {attempt} has shown no sign of life for {minutes} minutes; if it has begun, its worker is "
                f"killed after {most}"
            )
        return hung

    def _finish(self) -> State:
        if not self._sweep.finished:
            return "stopped"
        from hpo.driver.finalise import finalise

        self._screen.phase = "finalising"
        remain, kept = False, self._recorder.kept()

        def on_turn(done: int, of: int) -> bool:  # called while some are not done
            nonlocal remain
            self._leave_if_superseded()
            self._screen.activity = f"{len(kept) - of + done} of {len(kept)} trials have predicted"
            self._show()
            remain = self._halt.reason is not None
            return not remain

        self._screen.messages += finalise(self._folder, self._job, kept, on_turn)
        return "stopped" if remain else "done"

    def _leave_if_superseded(self) -> None:
        if self._generation.superseded:
            raise SupersededError(f"sweep {self._plan.name!r} was taken over by another driver; this one leaves")

    def _settle(self) -> None:
        self._screen.monitor.settle(self._writer.durable_seq)

    def _show(self) -> None:
        self._settle()
        self._screen.show()
