"""Case of the speed benchmark, and the timing of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

WARM_UP = 3
"""Steps before the clock starts. They fill caches and allocate memory and the optimiser's state."""

Unit = Literal["examples/s", "ms a step", "s", "MiB", "GFLOP/s a process"]

TOTALS: tuple[Unit, ...] = ("examples/s",)
"""Units whose values are summed over processes that run together; values of other units are averaged."""


@dataclass(frozen=True)
class Options:
    """Options of one process."""

    data: str | None
    """Folder in the class format; None: the sample corpus."""
    base_size: str
    """Folder of the encoder of BERT-base's size; empty if no selected case needs it."""
    steps: int
    """Smallest number of timed steps."""
    seconds: float
    """Smallest number of timed seconds."""
    process: int
    """Number of the process among those that run together, from 0; also its seed."""


Measure = Callable[[], Mapping[str, Any]]
"""Function that runs the timed part; returns `value`, in the case's unit, and further measurements to print."""

Side = Callable[[Options], Measure]
"""Function that loads and warms up; returns the timed part."""


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    """Name of the case, for --only."""
    what: str
    """Description, the row's first cell."""
    unit: Unit
    goal: str
    ours: Side
    rival: Side
    against: str
    """Description of the rival."""
    why_not: Callable[[], str | None] = lambda: None
    """Returns the reason why this machine or version cannot measure the case; None if it can."""
    foreign: bool = False
    """Whether the rival needs `transformers`."""
    base_size: bool = False
    """Whether the case needs the encoder of BERT-base's size."""
    minilm: bool = True
    """Whether the case needs the packaged encoder."""
    processes: tuple[int | None, int | None] = (None, None)
    """Number of our processes and of the rival's; None: --processes."""
    rival_environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of the rival's processes."""


def synchronise() -> None:
    """Wait until the GPU has finished, if there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(step: Callable[[], object], steps: int, seconds: float = 0.0) -> tuple[int, float]:
    """Run at least `steps` steps and `seconds` seconds; returns the number of steps and the seconds that they took."""
    synchronise()
    begun, taken = time.perf_counter(), 0
    while taken < steps or time.perf_counter() - begun < seconds:
        step()
        taken += 1
    synchronise()
    return taken, time.perf_counter() - begun


def warm(step: Callable[[], object]) -> None:
    """Run WARM_UP steps."""
    for _ in range(WARM_UP):
        step()
    synchronise()


def gpu_peak() -> dict[str, float]:
    """Peak of the GPU's allocator in MiB; empty without a GPU."""
    import torch

    return {"GPU MiB": torch.cuda.max_memory_allocated() / 2**20} if torch.cuda.is_available() else {}
