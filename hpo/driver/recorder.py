"""Between Tune and the sweep: every event becomes a row first, then a decision.

A start is durable before its trial runs, a stop and an end before anybody acts on them (each is a barrier of the
writer); reports that let a trial go on are committed in groups. Weights are deleted only after the row that no longer
names them. This is the only place that writes rows of `trials` and `reports`, in the driver's thread.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from hpo.cluster.processes import host
from hpo.driver.weights import Ended, Shelf
from hpo.search.snapshot import Tally
from hpo.search.sweep import Start, Sweep, Verdict
from hpo.worker.job import OUT_OF_MEMORY, Assignment

COPIED = (
    "step", "examples", "overall", "scores", "losses", "flags", "diverged", "seconds", "evaluation_seconds",
    "stage_seconds", "trainable_parameters", "total_parameters", "peak_memory_bytes", "examples_per_task",
    "checkpoint", "checkpoint_bytes", "checkpoint_sha256",
)  # fmt: skip
"""Fields of a report that its row takes over as they are."""


ALIKE = 5
"""So many failures for one and the same reason, with no report between them, are taken for a fault of the place: data
that a machine lacks, a broken driver. Fewer may be a corner of the space."""


class Rows(Protocol):
    """What is needed of `results.store.Writer`."""

    @property
    def durable_seq(self) -> int: ...

    def append(self, table: str, row: dict[str, Any]) -> int: ...

    def barrier(self) -> object: ...


class Recorder:
    """Issues assignments, takes results, and writes down both."""

    def __init__(
        self, sweep: Sweep, writer: Rows, shelf: Shelf, tally: Tally, tell: Callable[[str], None] = lambda message: None
    ) -> None:
        """`tell` takes messages for the person who watches."""
        self._sweep = sweep
        self._writer = writer
        self._shelf = shelf
        self._tally = tally
        self._open: dict[str, Start] = {}
        self._checkpoint: dict[int, str] = {}
        self._tell = tell
        self._lost: dict[int, str] = {}
        """Trials whose last attempt was lost, and why."""
        self._alike = 0
        self._failure = ""
        self.fault: str | None = None
        """Why the search must stop: more trials would only fail the same way."""

    def recall(self, events: list[dict[str, Any]]) -> None:
        """Stand where the rows end, and write down the ends that a dead driver no longer could."""
        for row in events:
            trial = int(row["trial"])
            if row.get("event") is None and row.get("checkpoint"):
                self._checkpoint[trial] = row["checkpoint"]
            elif row.get("event") == "start":
                self._lost[trial] = "its driver died"  # unless the row of its end follows
            elif row.get("event") == "end":
                self._lost.pop(trial, None)
                if row["state"] == "lost":
                    self._lost[trial] = row["reason"] or "no reason is known"
        self._shelf.recall(events)
        for trial, attempt, verdict in self._sweep.unwritten_ends:
            self._end(trial, attempt, verdict)
        self._shelf.tidy()

    @property
    def closed(self) -> bool:
        """No trial will be issued any more."""
        return self._sweep.halted or self._sweep.finished

    @property
    def running(self) -> tuple[str, ...]:
        """Attempts that were issued and have not ended, by Tune's ids."""
        return tuple(self._open)

    def issue(self) -> Assignment | None:
        start = None if self.fault else self._sweep.next()
        if start is None:
            return None
        assignment = Assignment(start.trial, start.attempt, start.config, start.seed)
        self._append(
            "trials",
            trial=start.trial,
            attempt=start.attempt,
            event="start",
            origin=start.origin,
            config=json.dumps(start.config),
            params=json.dumps(start.params),
            seed=start.seed,
        )
        self._writer.barrier()
        self._open[assignment.id] = start
        if reason := self._lost.pop(start.trial, None):
            self._tell(f"trial {start.trial} was lost ({reason}); issued again as attempt {start.attempt}")
        return assignment

    def result(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Take what a worker returned from one step; True: it should go on."""
        start = self._open.get(trial_id)
        if start is None:
            return False  # it ended here before; its worker is late
        if result["kind"] == "failure":
            self._failed(trial_id, result)
            return bool(result["fatal"])  # told to go on, a damaged process exits in its next step
        if result["kind"] == "paused" or result.get("paused"):
            self._finish(trial_id, "paused", "asked to pause")
            return False
        return self._report(trial_id, start, result)

    def lost(self, trial_id: str, reason: str, error: str) -> None:
        """The process of a trial died, or never came to life."""
        if trial_id in self._open:
            self._finish(trial_id, "lost", reason, error)

    def abandon(self, reason: str) -> None:
        """The launch ends at once: what runs is paused where it last wrote a checkpoint, at the cost of no attempt."""
        for trial_id in list(self._open):
            self._finish(trial_id, "paused", reason)

    def _failed(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """A trial raised. Where that was not its own fault the search has to stop, and the trial only pauses."""
        reason = str(result["reason"])
        if result["place"]:
            self.fault = f"trial {self._open[trial_id].trial} on {result['host']}: {reason}"
            self._finish(trial_id, "paused", reason, error=result["error"])
            return
        self._finish(trial_id, "failed", reason, error=result["error"])
        self._alike = self._alike + 1 if reason == self._failure else 1
        self._failure = reason
        if self._alike >= max(ALIKE, self._sweep.workers) and reason != OUT_OF_MEMORY:
            self.fault = f"{self._alike} trials in a row failed alike: {reason}"

    def _report(self, trial_id: str, start: Start, report: Mapping[str, Any]) -> bool:
        value = math.nan if report["overall"] is None else float(report["overall"])
        diverged = bool(report["diverged"]) or not math.isfinite(value)
        self._alike = 0
        verdict = self._sweep.report(start.trial, start.attempt, report["step"], value, diverged=diverged)
        row = {name: report.get(name) for name in COPIED} | {"overall": value, "diverged": diverged}
        self._append("reports", trial=start.trial, attempt=start.attempt, verdict=verdict.action, **row)
        if report.get("checkpoint"):
            self._checkpoint[start.trial] = str(report["checkpoint"])
        if verdict.action == "continue":
            return True
        del self._open[trial_id]
        self._end(start.trial, start.attempt, verdict)
        return False

    def _finish(self, trial_id: str, state: Any, reason: str, error: str | None = None) -> None:
        start = self._open.pop(trial_id)
        verdict = self._sweep.end(start.trial, start.attempt, state, reason)
        if verdict.state == "lost":
            self._lost[start.trial] = verdict.reason
        if verdict.state in ("lost", "paused"):
            ended = Ended(start.trial, start.attempt, verdict.state, verdict.reason, None)
            self._append_end(ended, error)
            self._writer.barrier()
        else:
            self._end(start.trial, start.attempt, verdict, error)

    def _end(self, trial: int, attempt: int, verdict: Verdict, error: str | None = None) -> None:
        """A trial is over: its row, the rows of those it displaced among the kept, then the files."""
        ended = Ended(trial, attempt, str(verdict.state), verdict.reason, self._checkpoint.get(trial))
        ended, gone = self._shelf.settle(ended, self._sweep.ranking())
        self._append_end(ended, error)
        for other in gone:
            self._append_end(other)
        self._writer.barrier()
        self._shelf.tidy([ended.trial, *(other.trial for other in gone)])

    def _append_end(self, ended: Ended, error: str | None = None) -> None:
        self._append(
            "trials",
            trial=ended.trial,
            attempt=ended.attempt,
            event="end",
            state=ended.state,
            reason=ended.reason,
            error=error,
            checkpoint=ended.checkpoint,
        )

    def _append(self, table: str, **row: Any) -> None:
        row |= {"time": time.time(), "host": host()} | ({"pid": os.getpid()} if table == "trials" else {})
        seq = self._writer.append(table, row)
        self._tally.expect(seq, row)

    def kept(self) -> list[Ended]:
        """The trials whose weights are kept, best first."""
        return self._shelf.kept(self._sweep.ranking())
