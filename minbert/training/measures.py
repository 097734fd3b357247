"""Measures of a trial between reports: mean losses and seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class LossMeans:
    """Mean losses by label since the last report. Sums stay on the device, so that adding does not wait for it."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    """Sum of the losses by label, scalars."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of losses in each sum."""

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add scalar losses, by label."""
        for label, loss in losses.items():
            value = loss.detach()
            self.sums[label] = self.sums[label] + value if label in self.sums else value
            self.counts[label] = self.counts.get(label, 0) + 1

    def means(self) -> dict[str, float]:
        """Mean by label."""
        return {label: float(value) / self.counts[label] for label, value in self.sums.items()}

    def finite(self) -> bool:
        """Whether all sums are finite; this waits for the device."""
        return all(math.isfinite(value) for value in self.sums.values())

    def clear(self) -> None:
        """Drop all sums, after a report."""
        self.sums, self.counts = {}, {}

    @staticmethod
    def of(sums: Mapping[str, float], counts: Mapping[str, int], device: torch.device) -> LossMeans:
        """Means that continue from stored sums and counts."""
        return LossMeans({label: torch.tensor(value, device=device) for label, value in sums.items()}, dict(counts))


class Clock:
    """Clock of a trial: seconds over all of its attempts."""

    def __init__(self, stages: float = 0.0) -> None:
        """`stages`: seconds of the stages before training."""
        self.stages = stages
        self.evaluation = 0.0
        """Seconds of evaluation, a part of `total`."""
        self._before = 0.0
        self._begun = time.monotonic()

    def total(self) -> float:
        """Seconds of training and evaluation so far."""
        return self._before + time.monotonic() - self._begun

    def resume(self, stages: float, total: float, evaluation: float) -> None:
        """Continue from a checkpoint's seconds."""
        self.stages, self.evaluation = stages, evaluation
        self._before, self._begun = total, time.monotonic()
