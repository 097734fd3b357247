"""How tasks are mixed: which tasks give a batch to the next optimiser step.

    p_i proportional to N_i^alpha;   annealed: alpha falls from `start` to `end` over the budget's epochs

Summed losses follow `multi_extended` (one batch of every task per step), round robin, the exponents and annealing
follow `beyond_bert` (after Stickland and Murray 2019). A choice at step t is a function of (seed, t): a sampler has
no state of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from minbert.randomness import numpy_generator
from minbert.schedules import epoch
from minbert.schema import integer, number


def probabilities(sizes: Mapping[str, int], alpha: float) -> NDArray[np.float64]:
    """p_i proportional to N_i^alpha over the tasks in order, shape [K], sum 1."""
    logs = alpha * np.log(np.array(list(sizes.values()), dtype=np.float64))
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def annealed_alpha(progress: float, start: float, end: float, epochs: int) -> float:
    """alpha = start - (start - end) (e - 1) / (E - 1) for epochs e = 1..E; `start` where E = 1."""
    if epochs == 1:
        return start
    return start - (start - end) * epoch(progress, epochs) / (epochs - 1)


class Sampler(Protocol):
    """Chooses the tasks of a step."""

    def tasks(self, step: int, progress: float) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Mix:
    """What a sampler is built from."""

    sizes: Mapping[str, int]
    """Training rows N_i of each task, in task order."""
    seed: int


@dataclass(frozen=True)
class _Summed:
    names: tuple[str, ...]

    def tasks(self, step: int, progress: float) -> tuple[str, ...]:
        return self.names


@dataclass(frozen=True)
class Summed:
    """One batch of every task in every step; their losses are summed."""

    kind: ClassVar[str] = "summed"

    def build(self, mix: Mix) -> Sampler:
        return _Summed(tuple(mix.sizes))


@dataclass(frozen=True)
class _RoundRobin:
    names: tuple[str, ...]

    def tasks(self, step: int, progress: float) -> tuple[str, ...]:
        return (self.names[step % len(self.names)],)


@dataclass(frozen=True)
class RoundRobin:
    """The tasks in turn, one a step."""

    kind: ClassVar[str] = "round_robin"

    def build(self, mix: Mix) -> Sampler:
        return _RoundRobin(tuple(mix.sizes))


@dataclass(frozen=True)
class _Powers:
    mix: Mix
    start: float
    end: float
    epochs: int

    def tasks(self, step: int, progress: float) -> tuple[str, ...]:
        p = probabilities(self.mix.sizes, annealed_alpha(progress, self.start, self.end, self.epochs))
        names = tuple(self.mix.sizes)
        return (names[int(numpy_generator(self.mix.seed, "mixing", step).choice(len(names), p=p))],)


@dataclass(frozen=True)
class Alpha:
    """One task a step, drawn with p_i proportional to N_i^alpha."""

    kind: ClassVar[str] = "alpha"
    alpha: float = number(0.5, 0.0, 1.0)
    """Exponent: 0 uniform, 0.5 square root, 1 proportional to size."""

    def build(self, mix: Mix) -> Sampler:
        return _Powers(mix, self.alpha, self.alpha, 1)


@dataclass(frozen=True)
class Annealed:
    """As `alpha`, with the exponent falling from epoch to epoch: from proportional towards uniform."""

    kind: ClassVar[str] = "annealed"
    start: float = number(1.0, 0.0, 1.0)
    """Exponent in the first epoch."""
    end: float = number(0.2, 0.0, 1.0)
    """Exponent in the last epoch."""
    epochs: int = integer(10, 1, 1000)
    """Number of epochs E that the budget is divided into."""

    def build(self, mix: Mix) -> Sampler:
        return _Powers(mix, self.start, self.end, self.epochs)


SAMPLERS: dict[str, type] = {kind.kind: kind for kind in (Summed, RoundRobin, Alpha, Annealed)}
