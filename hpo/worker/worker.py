"""The process that trains: a Tune trainable which stays warm from trial to trial.

Tune's idea of a step is one report here: `step()` is one `next()` of the training generator. What it returns to Tune is
a list of results, one for each assignment that the Tune trial carries: today one. What must hold (each has a test):

* `setup` and `reset_config` only remember the assignment. Tune may start a process for a trial that another process
  already runs, and throw it away; so building, resuming and writing wait for the first `step`.
* A result never says `done`, and an exception never leaves `step`: a trial that raises returns a last result of kind
  "failure" with its traceback. Only a dying process is an error for Tune.
* A failure says whether the place (a full disk) is at fault and not the trial: then the sweep pauses.
* After running out of memory, or a device error, the process is not to be trusted: it returns the failure, is told to
  continue, and exits in the next `step`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import traceback
from collections.abc import Iterator
from typing import Any

from ray.tune import Trainable

from hpo.cluster.memory import limit_memory
from hpo.cluster.pause import Poll
from hpo.cluster.processes import host
from hpo.worker.job import OUT_OF_MEMORY, Job, Reported, assignments_from_json
from hpo.worker.logs import TrialLog

RESULT = "hpo"
"""Key of our results, a JSON list, among those that Tune adds."""

EXIT_CODE = 17
"""Exit code of a process that ran out of memory: tells a chosen end from a crash in Ray's logs."""

log = logging.getLogger("hpo")


class Worker(Trainable):
    """Runs one assignment after the other in one process."""

    def setup(self, config: dict[str, Any]) -> None:
        self._reports: Iterator[Reported] | None = None
        self._log: TrialLog | None = None
        self._condemned = False
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
        self._pause = Poll(self._job.pause_key, self._assignment.id)

    def step(self) -> dict[str, Any]:
        if self._condemned:
            os._exit(EXIT_CODE)
        try:
            if self._reports is None and self._pause():
                return self._result("paused")  # asked to stop before it began: there is nothing to write
            return self._result("report", **self._next().to_dict())
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever a trial raises is its result, not ours
            return self._failure(error)

    def _next(self) -> Reported:
        if self._reports is None:
            self._reports = self._begin()
        report = next(self._reports, None)
        if report is None:
            raise RuntimeError("training ended without a report at its last milestone")
        return report

    def _begin(self) -> Iterator[Reported]:
        job, assignment = self._job, self._assignment
        self._log = TrialLog(job.log(assignment.trial))
        self._log.open()
        log.info("trial %d, attempt %d, on %s, process %d", assignment.trial, assignment.attempt, host(), os.getpid())
        limit_memory(job.memory_limit)
        reports: Iterator[Reported] = job.module().train(job, assignment, self._pause)
        return reports

    def _failure(self, error: BaseException) -> dict[str, Any]:
        text = "".join(traceback.format_exception(error))
        self._condemned = is_fatal(error)
        error.__traceback__ = None  # the frames of the failed step hold its tensors
        log.error("trial %d failed: %s", self._assignment.trial, text)
        reason = OUT_OF_MEMORY if is_out_of_memory(error) else f"{type(error).__name__}: {error}"
        place = is_of_the_place(error)
        return self._result("failure", error=text, reason=reason, fatal=self._condemned, place=place)

    def _result(self, kind: str, **values: Any) -> dict[str, Any]:
        about = {"trial": self._assignment.trial, "attempt": self._assignment.attempt}
        return {RESULT: json.dumps([about | {"kind": kind, "host": host(), "pid": os.getpid()} | values])}

    def cleanup(self) -> None:
        self._close()

    def _close(self) -> None:
        """Give back what the trial held; the process, its libraries, data and base weights stay."""
        reports, self._reports = self._reports, None
        if reports is not None and hasattr(reports, "close"):
            reports.close()
        if self._log is not None:
            self._log.close()
            self._log = None


MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
DEVICE_ERROR = ("cuda error", "device-side assert", "cublas_status", "cudnn_status", "nccl error")


def is_out_of_memory(error: BaseException) -> bool:
    """Python's own error, or one of torch's, which are RuntimeErrors known by their text."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in MEMORY_WORDS)
    )


PLACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})
"""Error numbers of a disk that is full or gone."""


def is_of_the_place(error: BaseException | None) -> bool:
    """Whether a trial failed because of the disk: every other trial would fail too, and none of them is to blame.

    Libraries in Rust raise errors of their own, with the number in their text.
    """
    while error is not None:
        words = re.search(r"\(os error (\d+)\)", str(error))
        if (int(words[1]) if words else getattr(error, "errno", None)) in PLACE:
            return True
        error = error.__cause__ or error.__context__
    return False


def is_fatal(error: BaseException) -> bool:
    """After these the process may be damaged: memory exhausted, or a device in an error state."""
    return is_out_of_memory(error) or (
        isinstance(error, RuntimeError) and any(words in str(error).lower() for words in DEVICE_ERROR)
    )
