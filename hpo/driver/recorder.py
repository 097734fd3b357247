"""The recorder, between Ray Tune and the sweep: turns every event into a row first, then into a decision.

Nothing acts on a start, a stop or an end before its row is durable. A start is handed to Tune once it is durable. A
worker whose trial has stopped idles until it gets the next start, whose row comes later and is durable only with all
rows before. Weights are deleted only after the row that no longer names them is durable.

So only starts wait, and Tune's loop goes on meanwhile. A start is committed at once if the writer says that a commit is
due, or if no worker is at work: then no row can come to share the commit. Otherwise it waits for the writer's next
commit, at most half a second, with the ends and reports that arrive until then. Few workers wait for nobody, and many
make few files.

Only the recorder writes rows of `trials` and `reports`, in the driver's thread. It decides whether a trial diverged and
writes that into the row of the report; all other code reads the row.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hpo.cluster.faults import cause_of_death
from hpo.cluster.machines import look
from hpo.cluster.places import host_of
from hpo.cluster.processes import host
from hpo.cluster.resources import Resources
from hpo.driver.ledger import Ledger
from hpo.driver.monitor import Monitor
from hpo.driver.placement import Placement
from hpo.driver.weights import KEPT_STATES, EndRow, Shelf
from hpo.driver.whole_gpus import WholeGpus
from hpo.search.endings import Ending
from hpo.search.states import INTERRUPTIONS, Start, Verdict
from hpo.search.sweep import Sweep
from hpo.worker.job import Assignment, attempt_id

if TYPE_CHECKING:
    from results.evidence import Evidence

COPIED = (
    "step", "examples", "scores", "losses", "flags", "seconds", "evaluation_seconds", "stage_seconds",
    "trainable_parameters", "total_parameters", "peak_memory_bytes", "examples_per_task",
    "checkpoint", "checkpoint_bytes", "checkpoint_sha256", "place", "pid",
)  # fmt: skip
"""Fields that are copied unchanged from a report to its row."""


class RowWriter(Protocol):
    """What the driver needs of `results.store.Writer`."""

    @property
    def durable_seq(self) -> int:
        """The highest `seq` that is on the disk."""
        ...

    @property
    def due(self) -> bool:
        """Whether a commit now makes no more files than groups of half a second do."""
        ...

    def append(self, table: str, row: Mapping[str, Any], evidence: Evidence | None = None) -> int:
        """Append a row, a report with its evidence; returns its `seq`."""
        ...

    def barrier(self) -> int:
        """Make every appended row durable now; returns `durable_seq`."""
        ...


class Waiting(NamedTuple):
    """A start that is handed to Tune once its row is durable."""

    seq: int
    assignment: Assignment
    message: str
    """What the person who watches is told then; empty: nothing."""


class Recorder:
    """Issues assignments and takes results, and records both. Implements `hpo.driver.tune.Desk`."""

    def __init__(
        self,
        sweep: Sweep,
        writer: RowWriter,
        shelf: Shelf,
        monitor: Monitor,
        placement: Placement,
        tell: Callable[[str], None] = lambda message: None,
        whole_gpus: WholeGpus | None = None,
    ) -> None:
        """`tell` receives messages for the person who watches the sweep. `whole_gpus`: None where trials share no
        GPU."""
        self._sweep = sweep
        self._writer = writer
        self._shelf = shelf
        self._monitor = monitor
        self._placement = placement
        self._tell = tell
        self._whole_gpus = whole_gpus or WholeGpus(Resources(), look, tell)
        self._ledger = Ledger()
        """Built from every appended row, durable or not."""
        self._open: dict[str, dict[str, Start]] = {}
        """Tune's id -> the attempts that have not ended in this Tune trial: attempt id -> its start."""
        self._waiting: deque[Waiting] = deque()
        """Starts that Tune has not got yet, in the order of their rows."""
        self._untidy: dict[int, int] = {}
        """Trial whose checkpoints are to be tidied -> the seq of the row that must be durable before."""
        self._full: str | None = None
        """The message about a full disk, once a trial has met one."""

    def recall(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Continue after the stored rows `events`, and write the end rows that a dead driver left unwritten."""
        for row in events:
            self._ledger.feed(row)
        self._shelf.recall(self._ledger)
        for trial, attempt, verdict in self._sweep.unwritten_ends:
            self._close(trial, attempt, verdict)
        self._writer.barrier()
        self._shelf.tidy(self._ledger)
        self.settle()  # waits: a failed trial that is tried again must not lose its new checkpoints to this

    def settle(self) -> None:
        """Make all rows durable, and delete what they no longer name."""
        self._writer.barrier()
        self._tidy()
        for problem in self._shelf.tidied():
            self._tell(f"checkpoints that nothing needs were not deleted ({problem}); `hpo gc` deletes them")

    @property
    def closed(self) -> bool:
        """No trial will be issued any more."""
        return (self._sweep.halted or self._sweep.finished) and not self._waiting

    @property
    def fault(self) -> str | None:
        """Why the search must stop, as more trials would fail the same way; None: it need not."""
        return self._full or self._placement.fault

    @property
    def running(self) -> tuple[str, ...]:
        """Tune's ids of the Tune trials with an attempt that has not ended."""
        return tuple(self._open)

    def issue(self) -> list[Assignment]:
        """The next attempt that may begin: a list of its one assignment. Empty: none now, and none ever if `closed`."""
        self._tidy()
        if not self._waiting and not self._start():
            return []
        if self._waiting[0].seq > self._writer.durable_seq:
            if self._writer.due or len(self._waiting) == sum(map(len, self._open.values())):
                self._writer.barrier()
            else:
                while self._start():  # what else starts now shares the commit
                    pass
                return []
        waiting = self._waiting.popleft()
        if waiting.message:
            self._tell(waiting.message)
        return [waiting.assignment]

    def _start(self) -> bool:
        """Start the next attempt: append its row, and let it wait until that is durable. Returns whether there is
        one."""
        self._sweep.workers = self._placement.workers
        held_up = self.fault or self._whole_gpus.waiting
        start = None if held_up else self._sweep.next(self._placement.resting)
        if start is None:
            return False
        endings = self._sweep.records[start.trial].endings
        alone = self._whole_gpus.needed(endings.memory)
        shared = alone and not endings.losses  # then the trial was lost to its neighbours, not to a place
        avoid = () if shared else self._placement.avoid(start.trial, endings.places)
        loss = self._ledger.loss(start.trial)
        again = f"trial {start.trial} was lost ({loss}); issued again as attempt {start.attempt}"
        seq = self._append(
            "trials",
            trial=start.trial,
            attempt=start.attempt,
            event="start",
            origin=start.origin,
            searcher=start.searcher,
            config=json.dumps(start.config),
            config_id=start.config_id,
            params=json.dumps(start.params),
            seed=start.seed,
            replicate=start.replicate,
        )
        assignment = Assignment(start.trial, start.attempt, start.config, start.seed, alone, avoid)
        if alone:
            self._whole_gpus.started(assignment.id)
        self._open[assignment.id] = {assignment.id: start}
        self._waiting.append(Waiting(seq, assignment, "" if loss is None else again))
        return True

    def result(self, tune_id: str, results: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Take the results of one step of a worker, one for each attempt. Returns for each whether it continues."""
        return [self._result(tune_id, result) for result in results]

    def _result(self, tune_id: str, result: Mapping[str, Any]) -> bool:
        attempt = attempt_id(result["trial"], result["attempt"])
        if result["kind"] == "declined":
            return self._declined(tune_id, attempt, result)
        exits = bool(result.get("exits"))  # such a process must continue: it exits in its next step
        if attempt not in self._open.get(tune_id, {}):
            return exits  # the attempt has ended here; its worker does not know yet
        if result["kind"] == "failure":
            self._failed(tune_id, attempt, result)
            return exits
        if result["kind"] == "paused" or result.get("paused"):
            reason = "its machine leaves the cluster" if exits else "asked to pause"
            self._finish(tune_id, attempt, Ending("driver", reason, str(result["place"])))
            return exits
        return self._report(tune_id, attempt, result)

    def lost(self, tune_id: str, reason: str, error: str) -> None:
        """End the attempts of a Tune trial as lost: its process died, or never started."""
        place = self._placement.place_of(tune_id)
        for attempt, start in list(self._open.get(tune_id, {}).items()):
            cause = "driver" if self._placement.left(tune_id) else cause_of_death(error)
            ending = Ending(cause, reason, place, self._shelf.reached(start.trial))
            self._finish(tune_id, attempt, ending, error)
        self._placement.gone(tune_id)

    def take_back(self, tune_id: str, reason: str) -> None:
        """End the attempts of a Tune trial that has got no process yet, at no cost to their trials."""
        self._waiting = deque(waiting for waiting in self._waiting if waiting.assignment.id != tune_id)
        for attempt in list(self._open.get(tune_id, ())):
            self._finish(tune_id, attempt, Ending("driver", reason))

    def abandon(self, reason: str) -> None:
        """End all attempts as paused at their last checkpoint, as the launch stops at once. None counts as lost."""
        self._waiting.clear()
        for tune_id, attempts in list(self._open.items()):
            for attempt in list(attempts):
                self._finish(tune_id, attempt, Ending("driver", reason))
        self.settle()

    def _failed(self, tune_id: str, attempt: str, result: Mapping[str, Any]) -> None:
        """End an attempt that raised an error; a full disk has to stop the search (`fault`)."""
        trial, reason, place = int(result["trial"]), str(result["reason"]), str(result["place"])
        ending = Ending(result["cause"], reason, place, self._shelf.reached(trial))
        if ending.cause == "disk":
            self._full = f"trial {trial} on {host_of(place)}: {reason}"
        self._finish(tune_id, attempt, ending, result["error"])

    def _declined(self, tune_id: str, attempt: str, result: Mapping[str, Any]) -> bool:
        """Take back the trial of a worker that does not begin it. Returns whether the worker idles."""
        if attempt in self._open.get(tune_id, {}):
            self._finish(tune_id, attempt, Ending("driver", f"not begun on {result['place']}"))
            self._placement.declined(int(result["trial"]))
        return not self.closed and self._placement.idles(tune_id, str(result["place"]), self.running)

    def _report(self, tune_id: str, attempt: str, report: Mapping[str, Any]) -> bool:
        start = self._open[tune_id][attempt]
        value = math.nan if report["overall"] is None else float(report["overall"])
        diverged = bool(report["diverged"]) or not math.isfinite(value)
        value = math.nan if diverged else value
        self._placement.reported(tune_id, start.trial, str(report["place"]))
        step = report["step"]
        verdict = self._sweep.report(start.trial, start.attempt, step, value, diverged=diverged, row=report)
        row = {name: report.get(name) for name in COPIED} | {"overall": value, "diverged": diverged}
        evidence = None if diverged else report.get("evidence")
        self._append("reports", evidence, trial=start.trial, attempt=start.attempt, verdict=verdict.action, **row)
        if verdict.action == "continue":
            return True
        self._take(tune_id, attempt)
        if verdict.state in KEPT_STATES and evidence:
            self._shelf.take(start.trial, evidence)
        self._close(start.trial, start.attempt, verdict)
        return False

    def _take(self, tune_id: str, attempt: str) -> Start:
        """Remove an attempt from the open ones of its Tune trial."""
        self._whole_gpus.ended(attempt)
        start = self._open[tune_id].pop(attempt)
        if not self._open[tune_id]:
            del self._open[tune_id]
        return start

    def _finish(self, tune_id: str, attempt: str, ending: Ending, error: str | None = None) -> None:
        """End an attempt that returned no report. The sweep decides what becomes of its trial."""
        start = self._take(tune_id, attempt)
        verdict = self._sweep.end(start.trial, start.attempt, ending)
        if verdict.state in INTERRUPTIONS:
            end = EndRow(start.trial, start.attempt, str(verdict.state), verdict.reason, None)
            self._append_end(end, error, ending)
        else:
            self._close(start.trial, start.attempt, verdict, error, ending)
        losses = self._sweep.records[start.trial].endings.losses
        self._placement.ended(start.trial, ending, losses, verdict.state == "failed", self.running)

    def _close(
        self, trial: int, attempt: int, verdict: Verdict, error: str | None = None, ending: Ending | None = None
    ) -> None:
        """End a trial: write its end row and the rows of trials whose kept weights it displaces. Files are deleted once
        these are durable."""
        end = EndRow(trial, attempt, str(verdict.state), verdict.reason, self._ledger.trials[trial].checkpoint)
        own, *displaced = self._shelf.end_rows(self._ledger, end)
        self._untidy[trial] = self._append_end(own, error, ending)
        for row in displaced:
            self._untidy[row.trial] = self._append_end(row)

    def _tidy(self) -> None:
        """Delete the weights that no row names any longer, of trials whose last such row is durable."""
        durable = self._writer.durable_seq
        if ready := [trial for trial, seq in self._untidy.items() if seq <= durable]:
            self._shelf.tidy(self._ledger, ready)
            for trial in ready:
                del self._untidy[trial]

    def _append_end(self, end: EndRow, error: str | None = None, ending: Ending | None = None) -> int:
        """Append an end row; returns its seq."""
        observed = {} if ending is None else {name: getattr(ending, name) for name in ("cause", "place", "reached")}
        return self._append(
            "trials",
            trial=end.trial,
            attempt=end.attempt,
            event="end",
            state=end.state,
            reason=end.reason,
            error=error,
            checkpoint=end.checkpoint,
            **observed,
        )

    def _append(self, table: str, evidence: Evidence | None = None, **row: Any) -> int:
        row |= {"time": time.time(), "host": host()} | ({"pid": os.getpid()} if table == "trials" else {})
        seq = self._writer.append(table, row, evidence)
        self._ledger.feed(row)
        self._monitor.expect(seq, row)
        return seq
