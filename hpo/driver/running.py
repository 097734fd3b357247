"""A running launch: the search, a stop on request, the final predictions."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from hpo.cluster.departures import Departures
from hpo.cluster.machines import look
from hpo.cluster.membership import Membership
from hpo.cluster.pause import Board
from hpo.cluster.processes import host
from hpo.driver.generations import Generation
from hpo.driver.jury import Jury
from hpo.driver.ledger import Ledger
from hpo.driver.placement import Placement
from hpo.driver.quarantines import QuarantineLog
from hpo.driver.recorder import Recorder
from hpo.driver.screen import Screen
from hpo.driver.slots import Slots
from hpo.driver.stopping import PATIENCE, Halt, StopNow
from hpo.driver.watchdog import Watchdog
from hpo.driver.weights import Shelf
from hpo.driver.whole_gpus import WholeGpus
from hpo.launch.plan import Plan
from hpo.worker.job import Job

if TYPE_CHECKING:
    from results.store import SweepFolder, Writer

LaunchState = Literal["done", "stopped"]
"""State of a sweep when its launch returns. stopped: trials or predictions are left; the sweep can be resumed."""


class SupersededError(ValueError):
    """Another driver has taken over this sweep."""


class Running:
    """A launch that owns the writer of its sweep and has replayed the stored rows."""

    def __init__(
        self,
        plan: Plan,
        folder: SweepFolder,
        writer: Writer,
        generation: Generation,
        job: Job,
        screen: Screen,
        elastic: bool = False,
    ) -> None:
        """`elastic`: the number of trials that run at once follows the cluster; else it is that of the job."""
        screen.begin("reading the store")
        events = folder.events()
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
        screen.recall(events)
        screen.tell(*self._sweep.warnings, *folder.warnings)
        shelf = Shelf(folder.folder, plan.record.keep, Jury(folder))
        self._board = Board(job.pause_key)
        tell = screen.tell
        room = functools.partial(look, job.resources.closed)
        self._placement = Placement(job.resources.workers, self._board, tell, closed=screen.quarantined)
        self._quarantines = QuarantineLog(folder.folder, generation.number, tell)
        self._whole_gpus = WholeGpus(job.resources, room, tell)
        self._recorder = Recorder(self._sweep, writer, shelf, screen.monitor, self._placement, tell, self._whole_gpus)
        self._recorder.recall(events)
        if plan.retry_failed and (failed := self._sweep.retry_failed()):
            screen.tell(f"failed trials are tried again: {', '.join(map(str, failed))}")
        self._halt = Halt(folder.folder, plan.time, since=generation.began, started=screen.clock)
        self._membership = Membership()
        self._departures = Departures() if elastic else None
        self._watchdog = Watchdog(self._board.sign_of_life, plan.trial_timeout)
        self._slots = Slots(job.resources, room, tell, time.monotonic()) if elastic else None
        self._give_up = math.inf
        """When a stop no longer waits for trials to pause, by `time.monotonic`."""

    def run(self) -> LaunchState:
        """Search and predict until all is done or a stop. Every row is durable when it returns."""
        with self._halt.signals():
            try:
                self._screen.begin("tokenising the data, unless done before")
                self._job.module().ready(self._job, self._folder)
                self._search()
                state = self._finish()
            except KeyboardInterrupt:  # StopNow; Ray's waits raise it again as a plain KeyboardInterrupt
                if self._recorder.running:
                    self._screen.tell("stopped at once; running trials will resume from their last checkpoint")
                self._recorder.abandon("stopped at once")
                state = "stopped"
            except Exception as error:
                if not self._generation.superseded:
                    with contextlib.suppress(Exception):  # the store itself may be what failed
                        self._recorder.abandon(f"the launch failed: {type(error).__name__}")
                raise
            finally:
                self._screen.quarantined = self._placement.quarantined
                self._settle()
                self._clear_board()
        self._recorder.settle()
        self._settle()
        return state

    def _clear_board(self) -> None:
        try:
            self._board.clear()
        except Exception as error:  # noqa: BLE001  if Ray is gone, so is the board; the error that ended Ray must be seen
            self._screen.tell(f"the pause flag could not be removed: {type(error).__name__}: {error}")

    def _search(self) -> None:
        from hpo.driver.tune import fit

        if self._sweep.finished:
            return
        self._screen.enter("searching")
        name = f"{self._plan.name}-{self._generation.number}"
        if self._slots is not None:
            self._placement.resize(self._slots.number)
        fit(self._recorder, self._job, self._job.resources, self._turn, name)

    def _turn(self, held: int, placed: Callable[[], Collection[str]]) -> Sequence[str]:
        """Called ten times a second, between two events of the search; returns attempts that are to end: their workers
        are killed. `held`: number of workers that hold resources; `placed()`: the attempts that have such a worker."""
        self._leave_if_useless()
        self._quarantines.follow(self._placement.quarantined)
        if self._slots is not None:
            self._placement.resize(self._slots.follow(held, time.monotonic()))
        if self._departures is not None:
            self._placement.leave(self._departures.new())
        if self._screen.phase == "searching" and self._sweep.searched:
            self._screen.enter("repeating")
        reason = self._recorder.fault or self._halt.reason
        if not self._sweep.halted and reason is not None:
            self._screen.enter("stopping")
            self._screen.tell(f"{reason}: no new trials; running trials write a checkpoint")
            self._sweep.halt()
            self._board.raise_flag()
            self._give_up = time.monotonic() + (self._plan.pause_timeout or PATIENCE)
        if time.monotonic() > self._give_up:
            raise StopNow
        if self._sweep.halted and not held and self._recorder.running:
            self._recorder.abandon("stopped before it began")  # it waits for a machine, which may never come
            raise StopNow
        self._show()
        return [*self._hung(placed), *self._waited_in_vain(placed)]

    def _waited_in_vain(self, placed: Callable[[], Collection[str]]) -> Sequence[str]:
        """The attempt that got no GPU to itself, taken back, if there is one. A stop does not wait for it."""
        attempt = self._whole_gpus.follow(placed, time.monotonic())
        if self._sweep.halted:
            attempt = self._whole_gpus.waiting
        if attempt is None:
            return []
        self._recorder.take_back(attempt, "no GPU to itself")
        return [attempt]

    def _hung(self, placed: Callable[[], Collection[str]]) -> Sequence[str]:
        """Attempts that hang; silent ones are reported in a message."""

        def running() -> Iterator[str]:  # evaluated only if it is time for a look
            there = placed()
            yield from (attempt for attempt in self._recorder.running if attempt in there)

        silent, hung = self._watchdog.look(running(), time.monotonic())
        for attempt, limit in silent.items():
            self._screen.tell(
                f"attempt {attempt} has shown no sign of life for {limit / 120:.0f} minutes; its worker is killed "
                f"after {limit / 60:.0f} minutes (see --trial-timeout)"
            )
        return hung

    def _finish(self) -> LaunchState:
        """Choose an ensemble and let the chosen trials predict, if the search has ended."""
        if not self._sweep.finished:
            return "stopped"
        from hpo.driver.answer import decided
        from hpo.driver.finalise import finalise
        from hpo.driver.selection import Needed, record_choice, settle

        self._recorder.settle()
        self._settle()
        self._screen.enter("finalising")
        self._screen.begin("choosing the trials that predict")
        ledger, interrupted = Ledger.of(self._folder), False
        failed: set[int] = set()

        def predict(needs: Needed) -> dict[int, str] | None:
            record_choice(self._folder, ledger, needs, failed)

            def on_turn(left: int, of: int = len(needs.trials)) -> bool:
                nonlocal interrupted
                self._leave_if_useless()
                self._screen.activity = f"{of - left} of {of} trials have predicted"
                self._show()
                if not interrupted and (reason := self._halt.reason) is not None:
                    interrupted = True
                    self._screen.tell(f"{reason}: no more predictions; the next launch makes the others")
                return not interrupted

            tell, limit = self._screen.tell, self._plan.trial_timeout
            problems = finalise(self._job, needs.pending, on_turn, tell, limit)
            self._screen.tell(*problems.values())
            failed.update(problems)
            return None if interrupted else problems

        chosen = settle(self._folder, ledger, predict)
        if chosen is None:
            return "stopped"
        record_choice(self._folder, ledger, Needed(chosen.trials, []), failed)
        self._screen.result = decided(self._folder, ledger, self._plan.record.budget), chosen.selection
        return "done"

    def _leave_if_useless(self) -> None:
        """Leave if another driver has taken over, or if this one can start no trial any more."""
        if self._generation.superseded:
            raise SupersededError(f"sweep {self._plan.name!r} was taken over by another driver; this one stops")
        if self._membership.lost():
            self._screen.tell(f"the cluster has given up {host()}, where this driver runs: resume elsewhere")
            raise StopNow

    def _settle(self) -> None:
        while self._writer.warnings:
            self._screen.tell(self._writer.warnings.pop(0))
        self._screen.settle(self._writer.durable_seq)

    def _show(self) -> None:
        self._settle()
        self._screen.show()
