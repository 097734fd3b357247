"""Worker: the process that trains, a Tune trainable that runs one trial after the other.

A step of Tune is one report here: `step()` is one `next()` of the training generator. It returns a list of results to
Tune, one for each assignment of the Tune trial: today one. Rules, each with a test:

* `setup` and `reset_config` only store the assignment. Tune may start a process for a trial that another process
  already runs, and stop it at once. So nothing is built, resumed or written before the first `step`.
* A result never sets `done`, and `step` never raises: a trial that raises returns a last result of kind "failure" with
  its traceback. For Tune only the death of the process is an error.
* A failure says whose fault it is (`hpo.cluster.faults`), and every result where the process runs.
* A worker declines an assignment before it begins if its place gets no trials (`hpo.cluster.pause`), or if the trial
  was lost there before. While Tune continues it, it idles: so nobody else gets its device.
* After running out of memory, or after a device error, the process may be damaged; a process whose node leaves the
  cluster must not get another trial. It returns the failure or the pause, Tune continues it, and it exits in the next
  `step`.
"""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from numpy.typing import NDArray
from ray.tune import Trainable

from hpo.cluster.faults import cause_of, is_fatal, reason_of
from hpo.cluster.memory import limit_memory
from hpo.cluster.pause import Poll, is_closed
from hpo.cluster.places import place_of_trial
from hpo.cluster.processes import host
from hpo.worker.job import Job, Reported, assignments_from_json
from hpo.worker.logs import TrialLog

RESULT = "hpo"
"""Key under which a Tune result holds our results, a JSON list."""

EVIDENCE = "hpo_evidence"
"""Key under which a Tune result holds the evidence of our results, one mapping each. The driver takes it out: Tune
keeps the last result of every trial."""

EXIT_CODE = 17
"""Exit code of a process that ends itself: in Ray's logs it differs from a crash."""

IDLE = 1.0
"""Seconds between two results of a worker that has declined its assignment."""

log = logging.getLogger("hpo")


def results_of(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Our results in a Tune result, each with its `evidence` by task."""
    pairs = zip(json.loads(result[RESULT]), result[EVIDENCE], strict=True)
    return [{**values, "evidence": evidence} for values, evidence in pairs]


class Worker(Trainable):
    """A process that runs one assignment after the other."""

    def setup(self, config: dict[str, Any]) -> None:
        self._reports: Iterator[Reported] | None = None
        self._log: TrialLog | None = None
        self._exits = False
        self._assign(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close()
        self._assign(new_config)
        return True  # False would hang the sweep

    def _assign(self, config: dict[str, Any]) -> None:
        self._job = Job.from_json(config["job"])
        assignments = assignments_from_json(config["assignments"])
        assert len(assignments) == 1, f"a worker trains one trial at a time, not {len(assignments)}"
        self._assignment = assignments[0]
        self._place = place_of_trial(self._job.resources.gpus_per_trial)
        self._declined = False
        self._pause = Poll(self._job.pause_key, self._assignment.id, self._place)

    def step(self) -> dict[str, Any]:
        if self._exits:
            os._exit(EXIT_CODE)
        try:
            if self._reports is None:
                if self._pause():
                    self._exits = self._pause.leaves
                    return self._result("paused")  # it has not begun, so there is no checkpoint to write
                if self._declines():
                    return self._result("declined")
            report = self._next()
            values = report.to_dict()
            self._exits = bool(values.get("paused")) and self._pause.leaves
            return self._result("report", report.evidence, **values)
        except (Exception, SystemExit) as error:  # noqa: BLE001  any error of a trial is a result
            return self._failure(error)

    def _declines(self) -> bool:
        if self._declined:
            time.sleep(IDLE)
        else:
            self._declined = self._assignment.avoids(self._place) or is_closed(self._job.pause_key, self._place)
        return self._declined

    def _next(self) -> Reported:
        if self._reports is None:
            self._reports = self._begin()
        report = next(self._reports, None)
        if report is None:
            raise RuntimeError("training ended without a report at its last milestone")
        return report

    def _begin(self) -> Iterator[Reported]:
        job, assignment = self._job, self._assignment
        job.check_store()
        self._log = TrialLog(job.sweep, assignment.trial)
        self._log.open()
        log.info("trial %d, attempt %d, on %s, process %d", assignment.trial, assignment.attempt, host(), os.getpid())
        limit_memory(job.memory_limit)
        reports: Iterator[Reported] = job.module().train(job, assignment, self._pause)
        return reports

    def _failure(self, error: BaseException) -> dict[str, Any]:
        text = "".join(traceback.format_exception(error))
        self._exits = is_fatal(error)
        error.__traceback__ = None  # its frames hold the tensors of the failed step
        log.error("trial %d failed: %s", self._assignment.trial, text)
        return self._result("failure", error=text, reason=reason_of(error), cause=cause_of(error))

    def _result(self, kind: str, evidence: Mapping[str, NDArray[Any]] | None = None, **values: Any) -> dict[str, Any]:
        attempt = {"trial": self._assignment.trial, "attempt": self._assignment.attempt}
        process = {"place": self._place, "pid": os.getpid(), "exits": self._exits}
        result = attempt | {"kind": kind} | process | values
        return {RESULT: json.dumps([result]), EVIDENCE: [evidence or {}]}

    def cleanup(self) -> None:
        self._close()

    def _close(self) -> None:
        """Release what the trial held; libraries, data and base weights stay in the process for the next trial."""
        reports, self._reports = self._reports, None
        if reports is not None and hasattr(reports, "close"):
            reports.close()
        if self._log is not None:
            self._log.close()
            self._log = None
