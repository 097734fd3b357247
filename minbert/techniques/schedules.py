"""Schedules: learning-rate factors and loss weights of tasks as functions of progress.

Progress is the share of the budget used, examples / max_t in [0, 1]. A schedule written in epochs divides the
budget into E of them: e = floor(progress E), at most E - 1. A trial that ends early has then followed a prefix of its
schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from minbert.fields import integer, number


def epoch(progress: float, epochs: int) -> int:
    """Epoch e (from 0) at a progress in [0, 1], if the budget is divided into `epochs` epochs."""
    return min(math.floor(progress * epochs), epochs - 1)


def ramp(progress: float, warmup: float) -> float:
    """Linear warm-up factor: 0 at the start, 1 from `warmup` on."""
    return 1.0 if warmup == 0 else min(1.0, progress / warmup)


class Schedule(Protocol):
    """Schedule of the learning rate."""

    kind: ClassVar[str]

    def factor(self, progress: float) -> float:
        """Factor in [0, 1] of the peak learning rate at a progress in [0, 1]."""
        ...


@dataclass(frozen=True)
class Constant:
    """Constant schedule: the peak rate after warm-up."""

    kind: ClassVar[str] = "constant"
    warmup: float = number(0.0, 0.0, 0.9)
    """Share of the budget over which the rate rises from 0."""

    def factor(self, progress: float) -> float:
        return ramp(progress, self.warmup)


@dataclass(frozen=True)
class Linear:
    """Linear schedule: after warm-up, a straight line down to 0 at the end of the budget."""

    kind: ClassVar[str] = "linear"
    warmup: float = number(0.1, 0.0, 0.9)
    """Share of the budget over which the rate rises from 0."""

    def factor(self, progress: float) -> float:
        return min(ramp(progress, self.warmup), max(0.0, (1.0 - progress) / (1.0 - self.warmup)))


@dataclass(frozen=True)
class Cosine:
    """Cosine schedule: after warm-up, half a cosine down to 0 at the end of the budget."""

    kind: ClassVar[str] = "cosine"
    warmup: float = number(0.1, 0.0, 0.9)
    """Share of the budget over which the rate rises from 0."""

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return ramp(progress, self.warmup)
        decayed = min(1.0, (progress - self.warmup) / (1.0 - self.warmup))
        return 0.5 * (1.0 + math.cos(math.pi * decayed))


SCHEDULES: dict[str, type[Schedule]] = {kind.kind: kind for kind in (Constant, Linear, Cosine)}
"""Learning-rate schedules by name."""


class Taper(Protocol):
    """Taper: schedule of one task's loss weight."""

    kind: ClassVar[str]

    def value(self, progress: float) -> float:
        """Loss weight, at least 0, at a progress in [0, 1]."""
        ...


@dataclass(frozen=True)
class Flat:
    """Constant loss weight w."""

    kind: ClassVar[str] = "constant"
    weight: float = number(1.0, 0.0, 100.0)
    """Weight w."""

    def value(self, progress: float) -> float:
        return self.weight


@dataclass(frozen=True)
class Inverse:
    """Inverse taper: w / (e + 1) at epoch e, as in `multi_extended`, equation 1, for SST with w = 0.5."""

    kind: ClassVar[str] = "inverse"
    weight: float = number(0.5, 0.0, 100.0)
    """Weight w in the first epoch."""
    epochs: int = integer(10, 1, 1000)
    """Number of epochs E that the budget is divided into."""

    def value(self, progress: float) -> float:
        return self.weight / (epoch(progress, self.epochs) + 1)


@dataclass(frozen=True)
class Logarithmic:
    """Logarithmic taper: w / (log(e + 1) + 1) at epoch e, as in `multi_extended`, equation 1, for STS with w = 1."""

    kind: ClassVar[str] = "logarithmic"
    weight: float = number(1.0, 0.0, 100.0)
    """Weight w in the first epoch."""
    epochs: int = integer(10, 1, 1000)
    """Number of epochs E that the budget is divided into."""

    def value(self, progress: float) -> float:
        return self.weight / (math.log(epoch(progress, self.epochs) + 1) + 1)


TAPERS: dict[str, type[Taper]] = {kind.kind: kind for kind in (Flat, Inverse, Logarithmic)}
"""Tapers of a task's loss weight by name."""
