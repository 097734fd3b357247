"""The report of a trial, and the state that it starts from besides its configuration and data."""

from __future__ import annotations

import contextlib
import math
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from minbert.training import checkpoints


@dataclass(frozen=True)
class Report:
    """Scores and costs of a trial at a milestone, at a pause, or when it diverges."""

    step: int
    """Nominal milestone in examples; of a pause the last milestone passed, of a divergence the next one."""
    examples: int
    """Training rows used so far."""
    scores: dict[str, float]
    """Score of each task on the search rows."""
    overall: float
    """Overall score on the search rows; NaN for a diverged or paused trial."""
    losses: dict[str, float]
    """Means since the last report: `<task>` its training loss, `<kind>/<task>` its weighted penalties (`smart/sst`),
    `weight/<task>` the factor of its loss, `conflicts` pairs of tasks whose gradients opposed each other in a step,
    `pairs` all pairs of tasks in a step."""
    seconds: float
    """Seconds of training and evaluation so far, over all attempts; without the stages before training."""
    evaluation_seconds: float
    """Seconds of them spent on evaluation."""
    flags: tuple[str, ...]
    """Notes such as `constant:sts`: an undefined correlation counted as 0."""
    trainable_parameters: int
    total_parameters: int
    peak_memory_bytes: int
    """Peak of the device's allocator, or of the process on a CPU."""
    examples_per_task: dict[str, int]
    """Training rows used so far, by task."""
    stage_seconds: float = 0.0
    """Seconds of compute of the stages before training; all trials that share a cached result name the same ones."""
    checkpoint: str = ""
    """Folder of the checkpoint; empty for a diverged trial."""
    checkpoint_bytes: int = 0
    checkpoint_sha256: str = ""
    """Size and SHA-256 of the checkpoint's weights."""
    diverged: bool = False
    """Whether a loss or score was not finite."""
    paused: bool = False
    """Whether the trial stopped at the request of `should_pause`."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, NaN included."""
        return {**asdict(self), "flags": list(self.flags)}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Report:
        return Report(**{**values, "flags": tuple(values["flags"])})


def before_the_first_step(milestone: int = 0, *, paused: bool = False, stage_seconds: float = 0.0) -> Report:
    """The report of a trial that ends during the stages before training: paused, or diverged before a milestone."""
    return Report(
        step=milestone, examples=0, scores={}, overall=math.nan, losses={}, seconds=0.0, evaluation_seconds=0.0,
        flags=(), trainable_parameters=0, total_parameters=0, peak_memory_bytes=0, examples_per_task={},
        diverged=not paused, paused=paused, stage_seconds=stage_seconds,
    )  # fmt: skip


@dataclass(frozen=True)
class State:
    """The start of a trial: its seed, milestones and checkpoints."""

    seed: int
    """Seed of all randomness in the trial."""
    milestones: tuple[int, ...]
    """Examples at which it reports, ascending; the last one is its budget max_t."""
    directory: Path
    """Folder of its checkpoints."""
    attempt: int = 0
    """Number of earlier starts of the trial; a part of its checkpoints' names."""
    checkpoint: Path | None = None
    """Checkpoint to continue from."""

    @staticmethod
    def fresh(seed: int, milestones: Sequence[int], directory: Path, attempt: int = 0) -> State:
        """A trial from its beginning. Raises ValueError for milestones that do not ascend from above 0."""
        if not milestones or list(milestones) != sorted(set(milestones)) or milestones[0] < 1:
            raise ValueError(f"`milestones` must ascend from at least 1, found {list(milestones)}.")
        return State(seed, tuple(milestones), Path(directory), attempt)

    @staticmethod
    def resume(checkpoint: Path, milestones: Sequence[int], directory: Path, attempt: int) -> State:
        """A trial from a complete checkpoint, with that checkpoint's seed. Raises TrialCheckpointError."""
        trial, _ = checkpoints.read_trial(checkpoint)
        if trial["milestones"] != list(milestones):
            raise checkpoints.TrialCheckpointError(
                f"{checkpoint} was trained with milestones {trial['milestones']}, not {list(milestones)}."
            )
        return State(trial["seed"], tuple(milestones), Path(directory), attempt, Path(checkpoint))


def reset_peak_memory(device: torch.device) -> None:
    """Reset the peak: a warm process has run other trials before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # Linux alone; elsewhere the peak is that of the process's life
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Peak bytes since the last reset: of the device's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: KiB, on macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
