"""A sweep of short trials in real time: recorder, search and the store's writer, without Ray; how many files it makes.

Workers are timers. As in Tune's loop one thread takes results and asks for the next start, again after a tenth of a
second at the latest. Every report brings evidence of the usual size.
"""

from __future__ import annotations

import heapq
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.driver.events import STEPS, Driver
from benchmarks.store.history import POOL, evidence
from hpo.worker.job import Assignment
from results.evidence import EVIDENCE
from results.schemas import EVENTS

POLL = 0.1
"""Seconds after which Tune's loop asks for a start again, if nothing happens."""


class Short(Driver):
    """A launch without Ray whose trials last `seconds` each, if they report at every milestone."""

    def __init__(self, store: Path, trials: int, workers: int, seconds: float) -> None:
        super().__init__(store, "numbers", trials, workers)
        self._workers, self._seconds = workers, seconds
        rng = np.random.default_rng(0)
        self._pool = [evidence(rng) for _ in range(POOL)]
        self.waits: list[float] = []
        """Seconds from the moment at which a worker is free to its next start."""

    def run(self) -> None:
        """Run until every trial has ended."""
        events: list[tuple[float, str, Assignment]] = []
        free = [time.monotonic()] * self._workers
        while True:
            while assignments := self.recorder.issue():
                now = time.monotonic()
                self.waits.append(now - free.pop(0))
                heapq.heappush(events, (now + self._seconds / len(STEPS), assignments[0].id, assignments[0]))
            if not events and self.recorder.closed:
                return
            pause = events[0][0] - time.monotonic() if events else POLL
            time.sleep(min(POLL, max(0.0, pause)))
            if events and events[0][0] <= time.monotonic():
                _, tune_id, assignment = heapq.heappop(events)
                report = self.report(assignment) | {"evidence": self._pool[assignment.trial % POOL]}
                if self.recorder.result(tune_id, [report])[0]:
                    heapq.heappush(events, (time.monotonic() + self._seconds / len(STEPS), tune_id, assignment))
                else:
                    free.append(time.monotonic())


def measure(trials: int, workers: int, seconds: float) -> list[str]:
    """Workers, seconds of a trial, seconds of the sweep, median and 95th percentile of the milliseconds that a start
    waits, files that were written by the end, and files after the merge at the end."""
    with tempfile.TemporaryDirectory() as place:
        driver = Short(Path(place), trials, workers, seconds)
        begun = time.monotonic()
        driver.run()
        taken = time.monotonic() - begun
        driver.writer.close()
        folders = [driver.folder.path / table for table in (*EVENTS, EVIDENCE)]
        there = [len(list(folder.iterdir())) for folder in folders]
        driver.folder.compact(grace=0.0)
        left = sum(1 for path in driver.folder.path.rglob("*") if path.is_file())
        waits = [1000 * wait for wait in driver.waits]
        middle, high = statistics.median(waits), statistics.quantiles(waits, n=20)[-1]
        return [
            f"{workers}",
            f"{seconds}",
            f"{taken:.1f}",
            f"{middle:.0f}",
            f"{high:.0f}",
            " + ".join(map(str, there)),
            f"{left}",
        ]
