"""The screen of a launch: hands its observer a snapshot of the durable rows, at most once a second, and tells the
callbacks of each new row, phase and message."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hpo.driver.callbacks import Callback, Callbacks
from hpo.driver.monitor import monitor_of
from hpo.launch.plan import Plan
from hpo.search.snapshot import Snapshot
from hpo.worker.progress import stages_of

if TYPE_CHECKING:
    from hpo.search.answer import Answer
    from results.choice import Selection

Observer = Callable[[Snapshot], None]
"""A display: called with each new snapshot."""

REFRESH = 1.0
"""Seconds between two snapshots for the observer. Each reads the progress file of every trial that has not reported."""


class Screen:
    """Phase and messages of one launch, and the monitor of its durable rows."""

    def __init__(self, plan: Plan, observer: Observer | None, callbacks: Sequence[Callback] = ()) -> None:
        self.activity = ""
        """What the driver does now, in words; shown while it starts or finalises."""
        self.messages: list[str] = []
        self.quarantined: Mapping[str, str] = {}
        """Places that get no more trials -> what failed there."""
        self.result: tuple[Answer, Selection] | None = None
        """What the launch has found; None before the sweep is done."""
        self.monitor = monitor_of(plan.record, plan.trials)
        self.clock = time.monotonic()
        """When the launch began, by `time.monotonic`."""
        self._plan = plan
        self._observer = observer
        self._callbacks = Callbacks(callbacks, self.messages.append)
        self.started = time.time()
        """When the launch began, in seconds since 1970."""
        self._next_refresh = 0.0
        self.enter("starting")
        self.tell(*plan.warnings)

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.phase = phase
        self._callbacks.phase(phase)

    def tell(self, *messages: str) -> None:
        """Add messages of the driver."""
        self.messages += messages
        for message in messages:
            self._callbacks.message(message)

    def finish(self, state: str) -> None:
        """End the launch in this state: show it, and tell the callbacks what was found."""
        self.enter(state)
        self.show(force=True)
        row: dict[str, Any] = {"sweep": self._plan.name, "state": state}
        if self.result is not None:
            answer, selection = self.result
            members = {} if selection.ensemble is None else selection.ensemble.shares
            row |= {"answer": answer.trial, "method": selection.method, "members": members}
        self._callbacks.finished(row)

    def recall(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Count the stored rows of earlier launches."""
        self.monitor.feed_all(events)
        self._callbacks.recall(events)

    def settle(self, durable_seq: int) -> None:
        """Count the rows that have become durable, and tell the callbacks of them."""
        self._callbacks(self.monitor.settle(durable_seq))

    def snapshot(self) -> Snapshot:
        """The sweep as its durable rows describe it. A time limit of the launch bounds the time left."""
        snapshot = self.monitor.snapshot(self.phase, self.started, time.time(), tuple(self.messages))
        if self.phase in ("starting", "finalising"):
            snapshot = replace(snapshot, activity=self.activity)
        if self._plan.time is not None:
            limit = max(0.0, self.clock + self._plan.time - time.monotonic())
            estimate = snapshot.time_left
            snapshot = replace(snapshot, time_left=limit if estimate is None else min(limit, estimate))
        return replace(snapshot, stages=stages_of(self._plan.folder, snapshot.beginning))

    def begin(self, activity: str) -> None:
        """Show what the driver does next."""
        self.activity = activity
        self.show(force=True)

    def show(self, force: bool = False) -> None:
        """Hand a snapshot to the observer, unless the last one is less than `REFRESH` seconds old; `force`: in any
        case."""
        now = time.monotonic()
        if self._observer is None or (now < self._next_refresh and not force):
            return
        self._next_refresh = now + REFRESH
        try:
            self._observer(self.snapshot())
        except Exception as error:  # noqa: BLE001  a display that fails must not stop a sweep
            self._observer = None
            self.tell(f"the display failed and is off: {type(error).__name__}: {error}")
