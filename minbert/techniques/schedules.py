"""Schedules: learning-rate factors and loss weights of tasks as functions of progress.

Progress is the share of the budget used, examples / max_t in [0, 1]. A schedule written in epochs divides the
budget into E of them: e = floor(progress E), at most E - 1. A trial that ends early has then followed a prefix of its
schedule.

A warm-up lasts `warmup_steps` optimiser steps: an optimiser needs steps, not a share of the budget, to get its moments
right. It takes at most the share `warmup_share` of the budget, and what a schedule does after the warm-up begins there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from minbert.fields import integer, number


def epoch(progress: float, epochs: int) -> int:
    """Epoch e (from 0) at a progress in [0, 1], if the budget is divided into `epochs` epochs."""
    return min(math.floor(progress * epochs), epochs - 1)


class Schedule(Protocol):
    """Schedule of the learning rate."""

    kind: ClassVar[str]

    @property
    def warmup_steps(self) -> int:
        """Number of optimiser steps over which the rate rises from 0."""
        ...

    @property
    def warmup_share(self) -> float:
        """Largest share of the budget that the warm-up takes."""
        ...

    def factor(self, progress: float, step: float) -> float:
        """Factor in [0, 1] of the peak learning rate at a progress in [0, 1], after `step` optimiser steps."""
        ...


def ramp(schedule: Schedule, progress: float, step: float) -> float:
    """Linear warm-up factor: from 0 to 1 over the schedule's steps, or over its share of the budget if that is less."""
    if schedule.warmup_steps == 0 or schedule.warmup_share == 0:
        return 1.0
    return min(1.0, max(step / schedule.warmup_steps, progress / schedule.warmup_share))


MOST_STEPS = 1_000_000
"""Largest number of warm-up steps. With it `warmup_share` alone decides: no budget has so many steps."""


@dataclass(frozen=True)
class Constant:
    """Constant schedule: the peak rate after warm-up."""

    kind: ClassVar[str] = "constant"
    warmup_steps: int = integer(0, 0, MOST_STEPS)
    """Optimiser steps over which the rate rises from 0."""
    warmup_share: float = number(0.05, 0.0, 0.9)
    """Largest share of the budget that the warm-up takes."""

    def factor(self, progress: float, step: float) -> float:
        return ramp(self, progress, step)


@dataclass(frozen=True)
class Linear:
    """Linear schedule: after warm-up, a straight line down to 0 at the end of the budget."""

    kind: ClassVar[str] = "linear"
    warmup_steps: int = integer(100, 0, MOST_STEPS)
    """Optimiser steps over which the rate rises from 0."""
    warmup_share: float = number(0.05, 0.0, 0.9)
    """Largest share of the budget that the warm-up takes; the decay begins there."""

    def factor(self, progress: float, step: float) -> float:
        return min(ramp(self, progress, step), max(0.0, (1.0 - progress) / (1.0 - self.warmup_share)))


@dataclass(frozen=True)
class Cosine:
    """Cosine schedule: after warm-up, half a cosine down to 0 at the end of the budget."""

    kind: ClassVar[str] = "cosine"
    warmup_steps: int = integer(100, 0, MOST_STEPS)
    """Optimiser steps over which the rate rises from 0."""
    warmup_share: float = number(0.05, 0.0, 0.9)
    """Largest share of the budget that the warm-up takes; the decay begins there."""

    def factor(self, progress: float, step: float) -> float:
        decayed = min(1.0, max(0.0, (progress - self.warmup_share) / (1.0 - self.warmup_share)))
        return min(ramp(self, progress, step), 0.5 * (1.0 + math.cos(math.pi * decayed)))


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
