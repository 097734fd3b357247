"""The plain display of a sweep, for output that is no terminal: one line for each event, easy to grep.

    10:30:58 phase    starting
    10:30:58 activity starting Ray
    10:31:07 phase    searching
    10:31:40 stage    trial=8 stage=mlm begins steps=900
    10:31:52 best     trial=7 at=1666 overall=0.6123 sst=0.4510 qqp=0.8012 sts=0.8120
    10:31:55 progress closed=9 of=24 running=2 complete=3 pruned=6 diverged=0 failed=0 examples=51200 ...
    10:32:01 message  trial 6 was lost (worker process 1234 died); issued again as attempt 1
    10:32:09 furthest trial=3 at=5000 overall=0.6045 sst=0.4420 qqp=0.7911 sts=0.8210

Trials are ranked by the furthest rung, then by score. `best` is a better score at the rung of the lines before, so it
never falls. `furthest` is the first score at a further rung; it may be lower, and later `best` lines start from it. If
the best trial later diverges or fails, the line of the trial that takes its place says `instead_of=7`.

Changes are written when they happen. A progress line is written at most every `every` seconds, and only if something
changed.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, TYPE_CHECKING

from hpo.display.units import OVER, TRAINING
from hpo.search.states import CLOSED

if TYPE_CHECKING:
    from hpo.search.snapshot import Leader, Snapshot


def progress(snapshot: Snapshot) -> str:
    """Content of a progress line."""
    counts = snapshot.counts
    closed = sum(counts.get(state, 0) for state in CLOSED)
    states = " ".join(f"{state}={counts.get(state, 0)}" for state in ("running", *CLOSED))
    show_left = snapshot.time_left is not None and snapshot.phase in TRAINING
    left = f" left={snapshot.time_left:.0f}s" if show_left else ""
    repeats = f" repeats={snapshot.repeats_ended}/{snapshot.repeats_total}" if snapshot.repeats_total else ""
    return (
        f"closed={closed} of={snapshot.trials_total} {states}{repeats} examples={snapshot.budget_examples_used}"
        f" rate={snapshot.examples_per_second:.0f} elapsed={snapshot.elapsed:.0f}s{left}"
    )


def scores(leader: Leader) -> str:
    """`trial=7 at=1666 overall=0.6123 sst=0.4510 qqp=0.8012 sts=0.8120`"""
    tasks = "".join(f" {task}={value:.4f}" for task, value in leader.scores.items())
    return f"trial={leader.trial} at={leader.step} overall={leader.overall:.4f}{tasks}"


class PlainDisplay:
    """Observer of a sweep that writes lines."""

    def __init__(
        self, stream: IO[str] | None = None, every: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stream = stream or sys.stdout
        self.every = every
        self.clock = clock
        self.last_time = -math.inf
        """When the last progress line was written, by `clock`."""
        self.last: dict[str, object] = {"phase": "", "activity": "", "progress": None}
        """Event -> its value in the last line about it."""
        self.best: Leader | None = None
        """The best trial in the last line about it."""
        self.written: set[str] = set()
        """Messages that were written."""
        self.stages: dict[int, tuple[str, int]] = {}
        """Trial -> kind and total steps of its stage in the last snapshot."""

    def __call__(self, snapshot: Snapshot) -> None:
        over = snapshot.phase in OVER
        if not over:
            self.changed("phase", snapshot.phase)
        self.changed("activity", snapshot.activity)
        self.leader(snapshot)
        self.stage(snapshot)
        for message in snapshot.messages:
            if message not in self.written:
                self.written.add(message)
                self.write("message", message)
        self.progress(snapshot, over)
        if over:
            self.changed("phase", snapshot.phase)

    def progress(self, snapshot: Snapshot, over: bool) -> None:
        """Write a progress line if something changed since the last one and `every` seconds have passed, or at the
        end."""
        state = (dict(snapshot.counts), dict(snapshot.repeats), snapshot.budget_examples_used)
        if snapshot.phase == "starting" or state == self.last["progress"]:
            return
        if over or self.clock() - self.last_time >= self.every:
            self.last["progress"], self.last_time = state, self.clock()
            self.write("progress", progress(snapshot))

    def leader(self, snapshot: Snapshot) -> None:
        """Write the best trial if it is better than in the last line about it, or if another trial takes its place."""
        if not snapshot.best:
            return
        before, now = self.best, snapshot.best[0]
        if before is None:
            self.write("best", scores(now))
        elif (now.step, now.overall) >= (before.step, before.overall):
            if now == before:
                return
            self.write("furthest" if now.step > before.step else "best", scores(now))
        elif now.trial != before.trial:
            self.write("best", f"{scores(now)} instead_of={before.trial}")
        else:
            return  # an attempt that was issued again repeats its earlier reports
        self.best = now

    def stage(self, snapshot: Snapshot) -> None:
        """Write the stages before training that have begun or ended since the last snapshot."""
        now = {trial: (stage.kind, stage.total) for trial, stage in snapshot.stages.items()}
        running = {trial.trial for trial in snapshot.running}
        for trial, (kind, total) in self.stages.items():
            if now.get(trial) != (kind, total) and total and trial in running:
                self.write("stage", f"trial={trial} stage={kind} ends")
        for trial, (kind, total) in now.items():
            if self.stages.get(trial) != (kind, total):
                self.write("stage", f"trial={trial} stage={kind} {f'begins steps={total}' if total else 'waits'}")
        self.stages = now

    def changed(self, event: str, value: str) -> None:
        """Write an event if its value differs from the last one."""
        if value and value != self.last[event]:
            self.last[event] = value
            self.write(event, value)

    def write(self, event: str, words: str) -> None:
        self.stream.write(f"{time.strftime('%H:%M:%S')} {event:<8} {' '.join(words.split())}\n")
        self.stream.flush()

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.flush()
