"""The driver's work for each event: recorder, search, kept weights, monitor and a real store, without Ray.

Trials report at three milestones under `asha`, with random scores. Times are CPU milliseconds of the thread that runs
Tune's loop, over the last hundredth of the trials: a start without its draw, a report after which the trial goes on,
and the end of a trial with its report; each with the barriers that it waits for. `draw`: the draw alone. `look`: a
snapshot for the display. `memory`: growth of the process for each trial. `files`: in `trials/` and `reports/` at the
end. `durable`: reports a second that become durable when all open trials report at once.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.driver.race import memory
from hpo.driver.monitor import Monitor
from hpo.driver.placement import Placement
from hpo.driver.recorder import Recorder
from hpo.driver.weights import Shelf
from hpo.launch.plan import complete_for
from hpo.search.schedulers import Asha
from hpo.search.searchers import Random
from hpo.search.sweep import Sweep
from hpo.space.build import build
from hpo.space.space import Space
from hpo.worker.job import Assignment
from minbert.tasks import choose_tasks
from results.store import Store
from search_spaces.domains import Float

STEPS = (2_222, 6_666, 20_000)
TASKS = ("sst", "qqp", "sts")
NUMBERS = {f"x{number}": Float(0.0, 1.0) for number in range(20)}
"""A space whose draws are cheap, for many trials."""


class Clock:
    """CPU milliseconds of this thread, by name of the work; the last `kept` of each."""

    def __init__(self, kept: int) -> None:
        self.times: dict[str, list[float]] = {}
        self._kept = kept

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Do the work and keep its time."""
        begun = time.thread_time()
        answer = work()
        self.add(name, time.thread_time() - begun)
        return answer

    def add(self, name: str, seconds: float) -> None:
        """Keep a time."""
        times = self.times.setdefault(name, [])
        times.append(1000 * seconds)
        del times[: -self._kept]


class Driver:
    """A launch without Ray."""

    def __init__(self, store: Path, space: str, trials: int, workers: int) -> None:
        tasks = list(choose_tasks(None))
        meta = {
            "tasks": {task: {"kind": "regression", "classes": 1, "metric": "pearson", "weight": 1.0} for task in tasks}
        }
        self.folder = Store(store).create("s", meta)
        self.writer = self.folder.writer()
        self.clock = Clock(max(30, trials // 100))
        full = complete_for(choose_tasks(None))
        complete = full if space == "full" else lambda config: config
        searched = build("full", tasks).space.resolved(full) if space == "full" else Space(NUMBERS)
        self.sweep = Sweep(
            searched, seed=0, trials=trials, milestones=STEPS, searcher=Random(), scheduler=Asha(), workers=workers,
            complete=complete,
        )  # fmt: skip
        self._draw = self.sweep.study.draw
        self.sweep.study.draw = self._drawn  # type: ignore[method-assign]
        self._drawing = 0.0
        self.monitor = Monitor("s", trials, STEPS, Asha())
        board: Any = SimpleNamespace(place_of=lambda tune_id: "here", close_places=lambda places: None)
        placement = Placement(workers, board, lambda message: None)
        self.recorder = Recorder(self.sweep, self.writer, Shelf(self.folder.folder, keep=20), self.monitor, placement)
        self.rng, self.running, self.reached = random.Random(0), list[Assignment](), dict[int, int]()

    def _drawn(self, number: int, attempt: int = 0) -> Any:
        begun = time.thread_time()
        drawn = self.clock.time("draw", lambda: self._draw(number, attempt))
        self._drawing += time.thread_time() - begun
        return drawn

    def run(self) -> None:
        """Run until every trial has ended, with a look at every fiftieth event."""
        events = 0
        while True:
            while self._started():
                pass
            if not self.running:
                return
            self._reported(self.rng.randrange(len(self.running)))
            events += 1
            if events % 50 == 0:
                self.monitor.settle(self.writer.durable_seq)
                self.clock.time("look", lambda: self.monitor.snapshot("searching", 0.0, time.time()))

    def _started(self) -> bool:
        self._drawing = 0.0
        begun = time.thread_time()
        assignments = self.recorder.issue()
        taken = time.thread_time() - begun - self._drawing
        self.running += assignments
        if assignments:
            self.clock.add("start", taken)
        return bool(assignments)

    def _reported(self, place: int) -> None:
        assignment = self.running[place]
        report = self.report(assignment)
        begun = time.thread_time()
        goes_on = self.recorder.result(assignment.id, [report])[0]
        self.clock.add("report" if goes_on else "end", time.thread_time() - begun)
        if not goes_on:
            self.running[place] = self.running[-1]
            self.running.pop()

    def report(self, assignment: Assignment) -> dict[str, Any]:
        """The next report of an attempt."""
        passed = self.reached.get(assignment.trial, 0)
        self.reached[assignment.trial] = passed + 1
        value, step = self.rng.random(), STEPS[passed]
        return {
            "kind": "report", "place": "here", "trial": assignment.trial, "attempt": assignment.attempt,
            "step": step, "examples": step,
            "overall": value, "diverged": False, "scores": {task: value * self.rng.random() for task in TASKS},
            "losses": dict.fromkeys(TASKS, 0.5), "flags": [], "seconds": 1.0, "evaluation_seconds": 0.1,
            "examples_per_task": dict.fromkeys(TASKS, step // 3),
            "checkpoint": f"{self.folder.path}/checkpoints/{assignment.trial}/{assignment.attempt}-{step}",
            "checkpoint_sha256": "0" * 64,
        }  # fmt: skip

    def durable(self, reports: int) -> float:
        """Reports a second, from the first `append` until all are durable: rows of attempts that have ended."""
        begun = time.perf_counter()
        row = self.report(Assignment(10**9, 0, {}, 0))
        names = ("trial", "attempt", "step", "examples", "overall", "scores", "losses", "seconds", "checkpoint")
        for _ in range(reports):
            self.writer.append("reports", {name: row[name] for name in names})
        self.writer.barrier()
        return reports / (time.perf_counter() - begun)


def measure(space: str, trials: int, workers: int) -> dict[str, Any]:
    """The figures of one sweep."""
    with tempfile.TemporaryDirectory() as store:
        driver = Driver(Path(store), space, trials, workers)
        before, wall, cpu = memory(), time.perf_counter(), time.process_time()
        driver.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        grown = (memory() - before) / trials
        durable = driver.durable(1_000)
        driver.writer.close()
        files = sum(len(list((driver.folder.path / table).iterdir())) for table in ("trials", "reports"))
        begun = time.process_time()
        driver.folder.compact(grace=0.0)
        merged = sum(len(list((driver.folder.path / table).iterdir())) for table in ("trials", "reports"))
        times = {name: round(statistics.median(each), 3) for name, each in driver.clock.times.items()}
        return {
            "space": space, "trials": trials, "open": workers, **times, "memory": round(grown),
            "durable": round(durable), "files": files, "merged": merged,
            "merging": round(time.process_time() - begun, 2), "wall": round(wall, 1),
            "cpu": round(cpu, 1),
        }  # fmt: skip
