"""Between Tune and the sweep: every event becomes a row first, then a decision.

A start is durable before its trial runs, a stop and an end before anybody acts on them (each is a barrier of the
writer); reports that let a trial continue are committed in groups. Weights are deleted only after the row that no
longer names them. This is the only place that writes rows of `trials` and `reports`, in the driver's thread. Whether a
trial diverged is decided here, in the row of its report; everybody else reads the row.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from hpo.cluster.processes import host
from hpo.driver.ledger import KeptWeights, Ledger
from hpo.driver.monitor import Monitor
from hpo.driver.weights import Ended, Shelf
from hpo.search.states import INTERRUPTIONS, Start, Verdict
from hpo.search.sweep import Sweep
from hpo.worker.job import OUT_OF_MEMORY, Assignment, attempt_id

COPIED = (
    "step", "examples", "scores", "losses", "flags", "seconds", "evaluation_seconds", "stage_seconds",
    "trainable_parameters", "total_parameters", "peak_memory_bytes", "examples_per_task",
    "checkpoint", "checkpoint_bytes", "checkpoint_sha256",
)  # fmt: skip
"""Fields of a report that its row takes over as they are."""

ALIKE = 5
"""Number of failures in a row for the same reason, with no report between them, that are taken for a fault of the
place: data that a machine lacks, a broken driver. Fewer may be a corner of the space."""


class RowWriter(Protocol):
    """What the driver needs of `results.store.Writer`."""

    @property
    def durable_seq(self) -> int:
        """The highest `seq` that is on the disk."""
        ...

    def append(self, table: str, row: Mapping[str, Any]) -> int:
        """Take a row; its `seq`."""
        ...

    def barrier(self) -> int:
        """Make every appended row durable now; the durable `seq`."""
        ...


class Recorder:
    """Issues assignments, takes results, and writes down both; a `hpo.driver.tune.Desk`."""

    def __init__(
        self,
        sweep: Sweep,
        writer: RowWriter,
        shelf: Shelf,
        monitor: Monitor,
        tell: Callable[[str], None] = lambda message: None,
    ) -> None:
        """`tell` takes messages for the person who watches."""
        self._sweep = sweep
        self._writer = writer
        self._shelf = shelf
        self._monitor = monitor
        self._tell = tell
        self._ledger = Ledger()
        """Every row that was appended, durable or not: by these the recorder acts."""
        self._open: dict[str, dict[str, Start]] = {}
        """Tune's id -> the attempts that this Tune trial still carries, by their ids."""
        self._failures_alike = 0
        self._last_failure = ""
        self.fault: str | None = None
        """Why the search must stop: more trials would only fail the same way."""

    def recall(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Stand where the rows end, and write down the ends that a dead driver no longer could."""
        for row in events:
            self._ledger.feed(row)
        for trial, attempt, verdict in self._sweep.unwritten_ends:
            self._close(trial, attempt, verdict)
        self._shelf.tidy(self._ledger)

    @property
    def closed(self) -> bool:
        """No trial will be issued any more."""
        return self._sweep.halted or self._sweep.finished

    @property
    def running(self) -> tuple[str, ...]:
        """Tune trials that carry an attempt which has not ended, by Tune's ids."""
        return tuple(self._open)

    def kept(self) -> list[KeptWeights]:
        """The kept weights, those of the best trial first."""
        return self._shelf.kept(self._ledger)

    def issue(self) -> list[Assignment]:
        """The attempts that the next Tune trial carries: one; empty: not now, or never again if `closed`."""
        start = None if self.fault else self._sweep.next()
        if start is None:
            return []
        loss = self._ledger.loss(start.trial)
        self._append(
            "trials",
            trial=start.trial,
            attempt=start.attempt,
            event="start",
            origin=start.origin,
            searcher=self._sweep.searcher.name if start.origin == "sampler" else None,
            config=json.dumps(start.config),
            config_id=start.config_id,
            params=json.dumps(start.params),
            seed=start.seed,
            replicate=start.replicate,
        )
        self._writer.barrier()
        assignments = [Assignment(start.trial, start.attempt, start.config, start.seed)]
        self._open[assignments[0].id] = {assignments[0].id: start}
        if loss is not None:
            self._tell(f"trial {start.trial} was lost ({loss}); issued again as attempt {start.attempt}")
        return assignments

    def result(self, tune_id: str, results: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Take what a worker returned from one step, a result for each attempt; True: that attempt continues."""
        return [self._result(tune_id, result) for result in results]

    def _result(self, tune_id: str, result: Mapping[str, Any]) -> bool:
        attempt = attempt_id(result["trial"], result["attempt"])
        if attempt not in self._open.get(tune_id, {}):
            return False  # it ended here before; its worker is late
        if result["kind"] == "failure":
            self._failed(tune_id, attempt, result)
            return bool(result["fatal"])  # told to continue, a damaged process exits in its next step
        if result["kind"] == "paused" or result.get("paused"):
            self._finish(tune_id, attempt, "paused", "asked to pause")
            return False
        return self._report(tune_id, attempt, result)

    def lost(self, tune_id: str, reason: str, error: str) -> None:
        """The process of a Tune trial died, or never came to life: the attempts that it still carried are lost."""
        for attempt in list(self._open.get(tune_id, {})):
            self._finish(tune_id, attempt, "lost", reason, error)

    def abandon(self, reason: str) -> None:
        """The launch ends at once: running trials pause at their last checkpoint, at the cost of no attempt."""
        for tune_id, attempts in list(self._open.items()):
            for attempt in list(attempts):
                self._finish(tune_id, attempt, "paused", reason)

    def _failed(self, tune_id: str, attempt: str, result: Mapping[str, Any]) -> None:
        """A trial raised. Where that was not its own fault the search has to stop, and the trial only pauses."""
        reason = str(result["reason"])
        if result["place"]:
            self.fault = f"trial {result['trial']} on {result['host']}: {reason}"
            self._finish(tune_id, attempt, "paused", reason, error=result["error"])
            return
        self._finish(tune_id, attempt, "failed", reason, error=result["error"])
        self._failures_alike = self._failures_alike + 1 if reason == self._last_failure else 1
        self._last_failure = reason
        if self._failures_alike >= max(ALIKE, self._sweep.workers) and reason != OUT_OF_MEMORY:
            self.fault = f"{self._failures_alike} trials in a row failed alike: {reason}"

    def _report(self, tune_id: str, attempt: str, report: Mapping[str, Any]) -> bool:
        start = self._open[tune_id][attempt]
        value = math.nan if report["overall"] is None else float(report["overall"])
        diverged = bool(report["diverged"]) or not math.isfinite(value)
        value = math.nan if diverged else value
        self._failures_alike = 0
        verdict = self._sweep.report(start.trial, start.attempt, report["step"], value, diverged=diverged)
        row = {name: report.get(name) for name in COPIED} | {"overall": value, "diverged": diverged}
        self._append("reports", trial=start.trial, attempt=start.attempt, verdict=verdict.action, **row)
        if verdict.action == "continue":
            return True
        self._take(tune_id, attempt)
        self._close(start.trial, start.attempt, verdict)
        return False

    def _take(self, tune_id: str, attempt: str) -> Start:
        """Remove an attempt from its Tune trial."""
        start = self._open[tune_id].pop(attempt)
        if not self._open[tune_id]:
            del self._open[tune_id]
        return start

    def _finish(
        self,
        tune_id: str,
        attempt: str,
        state: Literal["failed", "lost", "paused"],
        reason: str,
        error: str | None = None,
    ) -> None:
        start = self._take(tune_id, attempt)
        verdict = self._sweep.end(start.trial, start.attempt, state, reason)
        if verdict.state in INTERRUPTIONS:
            self._append_end(Ended(start.trial, start.attempt, str(verdict.state), verdict.reason, None), error)
            self._writer.barrier()
        else:
            self._close(start.trial, start.attempt, verdict, error)

    def _close(self, trial: int, attempt: int, verdict: Verdict, error: str | None = None) -> None:
        """A trial is over: its row, the rows of trials whose kept weights it displaces, then the files."""
        ended = Ended(trial, attempt, str(verdict.state), verdict.reason, self._ledger.trials[trial].checkpoint)
        own, *displaced = self._shelf.settle(self._ledger, ended)
        self._append_end(own, error)
        for other in displaced:
            self._append_end(other)
        self._writer.barrier()
        self._shelf.tidy(self._ledger, [trial, *(other.trial for other in displaced)])

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
        self._ledger.feed(row)
        self._monitor.expect(seq, row)
