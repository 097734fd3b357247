"""Averages of the weights over the last steps, which reports score and a trial returns (Polyak and Juditsky 1992).

    mean_n = d_n mean_(n-1) + (1 - d_n) theta_n,   d_n = min(decay, (n - 1) / n),   n = 1, 2, ... updates averaged

So the average is the plain mean of all weights until 1 / (1 - decay) of them are in it, then an exponential one. It
begins after the share `start` of the budget; before that, reports score the weights themselves. Training itself goes on
with theta: an average changes no step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from minbert.fields import number


@torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
def follow(mean: Mapping[str, Tensor], model: Mapping[str, Tensor], decay: float) -> None:
    """Update mean <- (1 - decay) theta + decay mean in place, over parameters by name."""
    torch._foreach_lerp_(list(mean.values()), [model[name].detach() for name in mean], 1.0 - decay)


class WeightMean:
    """Running average of one trial's weights."""

    def __init__(self, decay: float, start: float) -> None:
        self.decay, self.start = decay, start
        self.count = 0
        """Number n of updates averaged."""
        self.values: dict[str, Tensor] = {}
        """The average by parameter name; empty before the first update averaged."""

    def update(self, weights: Mapping[str, Tensor], progress: float) -> None:
        """Take the weights after an update; `progress` is the share of the budget used by then."""
        if progress <= self.start:
            return
        self.count += 1
        if self.count == 1:
            self.values = {name: value.detach().clone() for name, value in weights.items()}
        else:
            follow(self.values, weights, min(self.decay, (self.count - 1) / self.count))

    def restore(self, values: Mapping[str, Tensor], count: int) -> None:
        """Continue from the average and the count of a checkpoint."""
        self.values, self.count = dict(values), count


class Averaging(Protocol):
    """Hyperparameters of an average of the weights."""

    kind: ClassVar[str]

    @property
    def means(self) -> float:
        """Running means of the trained weights that a step updates, averaged over the budget."""
        ...

    def build(self) -> WeightMean | None:
        """Average of one trial; None where there is none."""
        ...


@dataclass(frozen=True)
class NoAverage:
    """No average: reports score the weights of the last step."""

    kind: ClassVar[str] = "none"
    means: ClassVar[float] = 0.0

    def build(self) -> WeightMean | None:
        return None


@dataclass(frozen=True)
class Exponential:
    """Exponential average of the weights after each step."""

    kind: ClassVar[str] = "exponential"
    decay: float = number(0.99, 0.0, 0.99999, open_low=True)
    """Share of the old average in the new one; about the last 1 / (1 - decay) steps count."""
    start: float = number(0.0, 0.0, 0.99)
    """Share of the budget after which the average begins."""

    @property
    def means(self) -> float:
        return 1.0 - self.start

    def build(self) -> WeightMean:
        return WeightMean(self.decay, self.start)


AVERAGES: dict[str, type[Averaging]] = {kind.kind: kind for kind in (NoAverage, Exponential)}
"""Averages of the weights by name."""
