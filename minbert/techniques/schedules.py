"""Values that change with progress: learning-rate factors and loss weights of a task.

Progress is the share of the budget used, examples / max_t in [0, 1]. A schedule written in epochs divides the
budget into E of them: e = floor(progress E), at most E - 1, so that a trial stopped early has still followed the
prefix of its schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from minbert.fields import integer, number


def epoch(progress: float, epochs: int) -> int:
    """Epoch e (from 0) at a progress in [0, 1], when the whole budget is `epochs` of them."""
    return min(math.floor(progress * epochs), epochs - 1)


def ramp(progress: float, warmup: float) -> float:
    """Linear warm-up factor: 0 at the start, 1 from `warmup` on."""
    return 1.0 if warmup == 0 else min(1.0, progress / warmup)


class Schedule(Protocol):
    """A learning-rate factor in [0, 1]."""

    def factor(self, progress: float) -> float: ...


@dataclass(frozen=True)
class Constant:
    """The full rate after warm-up."""

    kind: ClassVar[str] = "constant"
    warmup: float = number(0.0, 0.0, 0.9)
    """Share of the budget over which the rate rises from 0."""

    def factor(self, progress: float) -> float:
        return ramp(progress, self.warmup)


@dataclass(frozen=True)
class Linear:
    """Down to 0 at the end of the budget, in a straight line after warm-up."""

    kind: ClassVar[str] = "linear"
    warmup: float = number(0.1, 0.0, 0.9)
    """Share of the budget over which the rate rises from 0."""

    def factor(self, progress: float) -> float:
        return min(ramp(progress, self.warmup), max(0.0, (1.0 - progress) / (1.0 - self.warmup)))


@dataclass(frozen=True)
class Cosine:
    """Down to 0 at the end of the budget, along half a cosine after warm-up."""

    kind: ClassVar[str] = "cosine"
    warmup: float = number(0.1, 0.0, 0.9)
    """Share of the budget over which the rate rises from 0."""

    def factor(self, progress: float) -> float:
        if progress < self.warmup:
            return ramp(progress, self.warmup)
        done = min(1.0, (progress - self.warmup) / (1.0 - self.warmup))
        return 0.5 * (1.0 + math.cos(math.pi * done))


SCHEDULES: dict[str, type] = {kind.kind: kind for kind in (Constant, Linear, Cosine)}


class Taper(Protocol):
    """A loss weight of one task, not negative."""

    def value(self, progress: float) -> float: ...


@dataclass(frozen=True)
class Flat:
    """w, whatever the progress."""

    kind: ClassVar[str] = "constant"
    weight: float = number(1.0, 0.0, 100.0)
    """Weight w."""

    def value(self, progress: float) -> float:
        return self.weight


@dataclass(frozen=True)
class Inverse:
    """w / (e + 1) at epoch e: `multi_extended`, equation 1, for SST with w = 0.5."""

    kind: ClassVar[str] = "inverse"
    weight: float = number(0.5, 0.0, 100.0)
    """Weight w in the first epoch."""
    epochs: int = integer(10, 1, 1000)
    """Number of epochs E that the budget is divided into."""

    def value(self, progress: float) -> float:
        return self.weight / (epoch(progress, self.epochs) + 1)


@dataclass(frozen=True)
class Logarithmic:
    """w / (log(e + 1) + 1) at epoch e: `multi_extended`, equation 1, for STS with w = 1."""

    kind: ClassVar[str] = "logarithmic"
    weight: float = number(1.0, 0.0, 100.0)
    """Weight w in the first epoch."""
    epochs: int = integer(10, 1, 1000)
    """Number of epochs E that the budget is divided into."""

    def value(self, progress: float) -> float:
        return self.weight / (math.log(epoch(progress, self.epochs) + 1) + 1)


TAPERS: dict[str, type] = {kind.kind: kind for kind in (Flat, Inverse, Logarithmic)}
