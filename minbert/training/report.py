"""Report of a trial, and the state that a trial starts from, next to its configuration and data."""

from __future__ import annotations

import contextlib
import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from minbert.training import checkpoints
from minbert.training.evidence import Evidence


@dataclass(frozen=True)
class Report:
    """Report: scores and costs of a trial at a milestone, at a pause, or when it diverges."""

    step: int
    """Milestone in examples: the one reached; at a pause the last one reported; at a divergence the next one."""
    examples: int
    """Number of training rows used so far."""
    scores: dict[str, float]
    """Score of each task on the milestone's `search` rows; see `State.report_rows`."""
    overall: float
    """Overall score on the same rows; NaN for a diverged or paused trial."""
    losses: dict[str, float]
    """Means since the last report, by label: `<task>` the task's training loss, `<kind>/<task>` its weighted penalty
    (`smart/sst`), `weight/<task>` the factor of its loss, `conflicts` the number of task pairs with opposed gradients
    in a draw, `pairs` the number of all task pairs in a draw."""
    seconds: float
    """Seconds of training and evaluation so far, over all attempts, without the stages before training."""
    evaluation_seconds: float
    """Seconds of evaluation, a part of `seconds`."""
    flags: tuple[str, ...]
    """Notes: `constant:<task>`, an undefined correlation counted as 0; `best:<milestone>`, the weights of an
    earlier report."""
    trainable_parameters: int
    """Number of trained parameters."""
    total_parameters: int
    """Number of all parameters of the model."""
    peak_memory_bytes: int
    """Peak memory in bytes of the device's allocator, or of the process on a CPU."""
    examples_per_task: dict[str, int]
    """Number of training rows used so far, by task."""
    stage_seconds: float = 0.0
    """Seconds of compute of the stages before training; trials that share a cached result report the same number."""
    checkpoint: str = ""
    """Folder of the checkpoint; empty for a diverged trial and for a pause in the stages before training."""
    checkpoint_bytes: int = 0
    """Size in bytes of the checkpoint's weights."""
    checkpoint_sha256: str = ""
    """SHA-256 of the checkpoint's weights."""
    diverged: bool = False
    """Whether a loss or score was not finite."""
    paused: bool = False
    """Whether the trial paused at the request of `should_pause`."""
    evidence: Evidence = field(default_factory=dict, repr=False, compare=False)
    """The predictions that the scores come from; empty for a diverged or paused trial."""

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values, NaN included, without its evidence."""
        values = asdict(replace(self, evidence={}))
        del values["evidence"]
        return {**values, "flags": list(self.flags)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Report:
        """Report from the values of `to_dict`."""
        return Report(**{**values, "flags": tuple(values["flags"])})


def before_the_first_step(milestone: int = 0, *, paused: bool = False, stage_seconds: float = 0.0) -> Report:
    """Report of a trial that pauses (`milestone` 0) or diverges (the first milestone) in the stages before training."""
    return Report(
        step=milestone, examples=0, scores={}, overall=math.nan, losses={}, seconds=0.0, evaluation_seconds=0.0,
        flags=(), trainable_parameters=0, total_parameters=0, peak_memory_bytes=0, examples_per_task={},
        diverged=not paused, paused=paused, stage_seconds=stage_seconds,
    )  # fmt: skip


@dataclass(frozen=True)
class State:
    """State that a trial starts from: its seed, milestones and checkpoints."""

    seed: int
    """Seed of all randomness in the trial."""
    milestones: tuple[int, ...]
    """Milestones, numbers of examples at which the trial reports, ascending; the last one is its budget max_t."""
    directory: Path
    """Folder of the trial's checkpoints."""
    attempt: int = 0
    """Number of earlier attempts of the trial; a part of its checkpoints' names."""
    checkpoint: Path | None = None
    """Checkpoint to continue from; None: the trial starts from the base."""
    report_rows: tuple[Mapping[str, int], ...] = ()
    """For each milestone: task -> number of its first `search` rows that the report is scored on. No number is lower
    than at an earlier milestone. Empty: all rows, at every milestone."""

    def rows_at(self, milestone: int) -> Mapping[str, int]:
        """Number of `search` rows that the report at a milestone is scored on, by task; an absent task uses all."""
        return dict(zip(self.milestones, self.report_rows, strict=True))[milestone] if self.report_rows else {}

    @staticmethod
    def fresh(
        seed: int,
        milestones: Sequence[int],
        directory: Path,
        attempt: int = 0,
        report_rows: Sequence[Mapping[str, int]] = (),
    ) -> State:
        """State of a new trial. Raises ValueError for milestones that do not ascend from at least 1."""
        if not milestones or list(milestones) != sorted(set(milestones)) or milestones[0] < 1:
            raise ValueError(f"`milestones` must ascend from at least 1, found {list(milestones)}.")
        return State(seed, tuple(milestones), Path(directory), attempt, report_rows=tuple(report_rows))

    @staticmethod
    def resume(checkpoint: Path, milestones: Sequence[int], directory: Path, attempt: int) -> State:
        """State of a trial that continues from a complete checkpoint, with its seed and the rows of its reports.

        Raises TrialCheckpointError, also for a checkpoint whose reports were scored in another way.
        """
        trial, _ = checkpoints.read_trial(checkpoint)
        if trial["format"] != checkpoints.FORMAT:
            raise checkpoints.TrialCheckpointError(
                f"{checkpoint} has format {trial['format']}: the version that wrote it scored reports on other rows. "
                f"It can still predict; a trial continues only from format {checkpoints.FORMAT}."
            )
        if trial["milestones"] != list(milestones):
            raise checkpoints.TrialCheckpointError(
                f"{checkpoint} was trained with milestones {trial['milestones']}, not {list(milestones)}."
            )
        rows = tuple(trial["report_rows"])
        return State(trial["seed"], tuple(milestones), Path(directory), attempt, Path(checkpoint), rows)


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak of memory, because a warm process may have run other trials before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # works on Linux only; elsewhere the peak covers the life of the process
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes since the last reset: of the device's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: KiB, on macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
