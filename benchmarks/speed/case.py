"""What a case is, and how a step is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

WARM_UP = 3
"""Steps before the clock starts: allocations, caches, the optimiser's state."""

Unit = Literal["examples/s", "ms a step", "s", "MiB", "GFLOP/s a process"]

TOTALS: tuple[Unit, ...] = ("examples/s",)
"""Units that add up over processes that run together; of the others the mean is shown."""


@dataclass(frozen=True)
class Options:
    """What one process is told."""

    data: str | None
    """Folder in the class format; None: the sample corpus."""
    base_size: str
    """Folder of the BERT-base sized checkpoint; empty where no chosen case needs it."""
    steps: int
    """Fewest steps inside the clock."""
    seconds: float
    """Fewest seconds inside the clock."""
    process: int
    """Number among those that run together, from 0: the seed."""


Measure = Callable[[], Mapping[str, Any]]
"""Runs with the clock on; `value` in the case's unit, other entries are told beside it."""

Side = Callable[[Options], Measure]
"""Loads and warms up."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    """For --only."""
    what: str
    """The row's first cell."""
    unit: Unit
    goal: str
    ours: Side
    rival: Side
    against: str
    """What `rival` is, in words."""
    why_not: Callable[[], str | None] = lambda: None
    """Why this machine, or this version, cannot measure it; None: it can."""
    foreign: bool = False
    """Whether the rival needs `transformers`."""
    base_size: bool = False
    """Whether it needs the BERT-base sized checkpoint."""
    minilm: bool = True
    """Whether it needs the packaged encoder."""
    processes: tuple[int | None, int | None] = (None, None)
    """Processes of ours and of the rival; None: as many as --processes says."""
    rival_environment: Mapping[str, str] = field(default_factory=dict)


def synchronise() -> None:
    """Wait for the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(step: Callable[[], object], steps: int, seconds: float = 0.0) -> tuple[int, float]:
    """Steps taken and seconds they took: at least so many of both."""
    synchronise()
    begun, taken = time.perf_counter(), 0
    while taken < steps or time.perf_counter() - begun < seconds:
        step()
        taken += 1
    synchronise()
    return taken, time.perf_counter() - begun


def warm(step: Callable[[], object]) -> None:
    for _ in range(WARM_UP):
        step()
    synchronise()


def gpu_peak() -> dict[str, float]:
    """Peak of the GPU's allocator in MiB, where there is a GPU."""
    import torch

    return {"GPU MiB": torch.cuda.max_memory_allocated() / 2**20} if torch.cuda.is_available() else {}
