"""All cases: those for a CPU and those for a GPU."""

from __future__ import annotations

from benchmarks.speed import around, costs, gpu, peak, training
from benchmarks.speed.case import Case

ON_A_CPU: tuple[Case, ...] = (*training.CASES, *peak.CASES, *around.CASES, *costs.CASES)
ON_A_GPU: tuple[Case, ...] = gpu.CASES


def find(name: str) -> Case:
    """The case called `name`, which must exist."""
    return next(case for case in (*ON_A_CPU, *ON_A_GPU) if case.name == name)
