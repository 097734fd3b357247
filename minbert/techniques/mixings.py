"""Mixings: which tasks give a batch to the next draw, and where in their rows it begins.

    p_i proportional to (w_i N_i)^alpha;   annealed: alpha falls from `start` to `end`, epoch by epoch
    an epoch of summed losses: S = m min_k floor(N_k / B_k) steps of one batch of every task

A draw is one choice of batches; `optimizer/accumulation` of them make an optimiser step, by default one. Summed losses
follow `multi_extended` (one batch of every task per step; an epoch ends with the smallest task) and `exploration` (m
times as many steps); round robin, the exponents, annealing and up-weights w_i follow `beyond_bert` (after Stickland and
Murray 2019); one task after the other follows `pal_lora`. The tasks of draw t are a function of (seed, t, progress), so
a task order has no state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from minbert.fields import branch, integer, number, per_task, task_choice, task_order
from minbert.randomness import numpy_generator
from minbert.techniques.balances import BALANCES, Balancing, NoBalance
from minbert.techniques.combiners import COMBINERS, Combine, Sum
from minbert.techniques.schedules import epoch


def probabilities(
    sizes: Mapping[str, int], alpha: float, upweight: Mapping[str, float] | None = None
) -> NDArray[np.float64]:
    """Probabilities p_i proportional to (w_i N_i)^alpha of the tasks in `sizes`, [K], sum 1; w_i is 1 by default."""
    weighed = [(upweight or {}).get(task, 1.0) * size for task, size in sizes.items()]
    logs = alpha * np.log(np.array(weighed, dtype=np.float64))
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def annealed_alpha(e: int, start: float, end: float, epochs: int) -> float:
    """Exponent alpha = start - (start - end) e / (E - 1) in epoch e = 0..E-1; `start` where E = 1.

    `beyond_bert` counts epochs from 1 and writes e - 1.
    """
    return start if epochs == 1 else start - (start - end) * e / (epochs - 1)


def _by_name(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(names, values.tolist(), strict=True))


def epoch_steps(sizes: Mapping[str, int], batch_size: Mapping[str, int], multiplier: int) -> int:
    """Steps S = m min_k floor(N_k / B_k) of an epoch of summed losses, at least 1."""
    return max(1, multiplier * min(size // batch_size[task] for task, size in sizes.items()))


@dataclass(frozen=True)
class Mix:
    """Arguments that a task order is built from."""

    sizes: Mapping[str, int]
    """Training rows N_i of each task, in task order."""
    seed: int
    """Seed of the trial."""
    batch_size: Mapping[str, int] = field(default_factory=dict)
    """Rows B_i of each task in one batch."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tasks, in task order."""
        return tuple(self.sizes)


class TaskOrder(ABC):
    """Task order: the tasks that give a batch to each draw, and where in their rows these batches begin."""

    @abstractmethod
    def tasks(self, draw: int, progress: float) -> tuple[str, ...]:
        """Tasks of draw number `draw` (from 0) at a progress in [0, 1]."""

    def position(self, task: str, draw: int, consumed: int) -> int:
        """Where this draw's batch begins in the task's endless training order (`minbert.data.batches.training_rows`).

        By default directly after the `consumed` rows that the task has used.
        """
        return consumed


class Mixing(Protocol):
    """Hyperparameters of a mixing."""

    kind: ClassVar[str]

    @property
    def combine(self) -> Combine:
        """Gradient combiner: how the tasks' gradients become one."""
        ...

    @property
    def balance(self) -> Balancing:
        """Loss balance: how the tasks' losses are weighed."""
        ...

    def trains(self, task: str) -> bool:
        """Whether the task ever gives a batch."""
        ...

    def batches(self, mix: Mix) -> dict[str, float]:
        """Mean number of batches of each task in a draw, over the whole budget."""
        ...

    def build(self, mix: Mix) -> TaskOrder:
        """Task order of one trial."""
        ...


class MixingDefaults:
    """Default answers: every task is trained."""

    def trains(self, task: str) -> bool:
        return True


class OneTaskAStep(MixingDefaults):
    """Base class of mixings with one task per draw: there is nothing to combine or to balance."""

    combine = Sum()
    balance = NoBalance()


@dataclass(frozen=True)
class _Summed(TaskOrder):
    names: tuple[str, ...]

    def tasks(self, draw: int, progress: float) -> tuple[str, ...]:
        return self.names


@dataclass(frozen=True)
class _Epochs(_Summed):
    sizes: Mapping[str, int]
    batch_size: Mapping[str, int]
    steps: int

    def position(self, task: str, draw: int, consumed: int) -> int:
        size, batch = self.sizes[task], self.batch_size[task]
        passes = -(-self.steps * batch // size)  # permutations that one epoch begins; the last one may be cut short
        epoch, step = divmod(draw, self.steps)
        return epoch * passes * size + step * batch


@dataclass(frozen=True)
class Summed(MixingDefaults):
    """Summed losses: every draw has one batch of every task, and their losses are summed."""

    kind: ClassVar[str] = "summed"
    multiplier: int = integer(0, 0, 1000)
    """Epoch length m: every task begins a new permutation after m min_k floor(N_k / B_k) draws. With m = 1 an epoch
    skips most of a large task, with m = 3 it repeats a small one; 0: every task goes through all its rows."""
    combine: Combine = branch(COMBINERS, Sum())
    """Gradient combiner: how the tasks' gradients become one."""
    balance: Balancing = branch(BALANCES, NoBalance())
    """Loss balance: weights of the tasks' losses that are learned in training."""

    def build(self, mix: Mix) -> TaskOrder:
        if self.multiplier == 0:
            return _Summed(mix.names)
        steps = epoch_steps(mix.sizes, mix.batch_size, self.multiplier)
        return _Epochs(mix.names, mix.sizes, mix.batch_size, steps)

    def batches(self, mix: Mix) -> dict[str, float]:
        return dict.fromkeys(mix.names, 1.0)


@dataclass(frozen=True)
class _RoundRobin(TaskOrder):
    names: tuple[str, ...]

    def tasks(self, draw: int, progress: float) -> tuple[str, ...]:
        return (self.names[draw % len(self.names)],)


@dataclass(frozen=True)
class RoundRobin(OneTaskAStep):
    """Round robin: the tasks in turn, one per draw."""

    kind: ClassVar[str] = "round_robin"

    def build(self, mix: Mix) -> TaskOrder:
        return _RoundRobin(mix.names)

    def batches(self, mix: Mix) -> dict[str, float]:
        return dict.fromkeys(mix.names, 1 / len(mix.names))


def _upweight() -> Any:
    return per_task(number(1.0, 0.0, 1000.0, open_low=True))


@dataclass(frozen=True)
class _Powers(TaskOrder):
    mix: Mix
    upweight: Mapping[str, float]
    start: float
    end: float
    epochs: int = 1
    steps_per_epoch: int = 0

    def probabilities(self, draw: int, progress: float) -> NDArray[np.float64]:
        if self.steps_per_epoch:
            e = min(draw // self.steps_per_epoch, self.epochs - 1)
        else:
            e = epoch(progress, self.epochs)
        return probabilities(self.mix.sizes, annealed_alpha(e, self.start, self.end, self.epochs), self.upweight)

    def tasks(self, draw: int, progress: float) -> tuple[str, ...]:
        names, p = self.mix.names, self.probabilities(draw, progress)
        return (names[int(numpy_generator(self.mix.seed, "mixing", draw).choice(len(names), p=p))],)


@dataclass(frozen=True)
class Alpha(OneTaskAStep):
    """Random task per draw, with probability p_i proportional to (w_i N_i)^alpha."""

    kind: ClassVar[str] = "alpha"
    alpha: float = number(0.5, 0.0, 10.0)
    """Exponent: 0 uniform, 0.5 square root, 1 proportional to size; above 1 favours the largest task further."""
    upweight: Mapping[str, float] = _upweight()
    """Factor w_i on each task's size; `beyond_bert` uses 2, 4 and 8 for small tasks. At alpha 0 it has no effect."""

    def build(self, mix: Mix) -> TaskOrder:
        return _Powers(mix, self.upweight, self.alpha, self.alpha)

    def batches(self, mix: Mix) -> dict[str, float]:
        return _by_name(mix.names, probabilities(mix.sizes, self.alpha, self.upweight))


@dataclass(frozen=True)
class Annealed(OneTaskAStep):
    """As `alpha`, with an exponent that falls from epoch to epoch: from proportional towards uniform."""

    kind: ClassVar[str] = "annealed"
    start: float = number(1.0, 0.0, 10.0)
    """Exponent in the first epoch."""
    end: float = number(0.2, 0.0, 10.0)
    """Exponent in the last epoch."""
    epochs: int = integer(10, 1, 1000)
    """Number of epochs E over which the exponent falls."""
    steps_per_epoch: int = integer(0, 0, 1_000_000)
    """Draws of batches in an epoch (1,800 and 3,600 in `beyond_bert`); the last epoch has no end. 0 divides the budget
    into E epochs of equal length."""
    upweight: Mapping[str, float] = _upweight()
    """Factor w_i on each task's size."""

    def build(self, mix: Mix) -> TaskOrder:
        return _Powers(mix, self.upweight, self.start, self.end, self.epochs, self.steps_per_epoch)

    def batches(self, mix: Mix) -> dict[str, float]:
        """Every epoch counts alike, also where `steps_per_epoch` gives the last one more draws or none."""
        alphas = [annealed_alpha(e, self.start, self.end, self.epochs) for e in range(self.epochs)]
        every = [probabilities(mix.sizes, alpha, self.upweight) for alpha in alphas]
        return _by_name(mix.names, np.mean(every, axis=0))


@dataclass(frozen=True)
class _Sequential(TaskOrder):
    names: tuple[str, ...]
    ends: tuple[float, ...]
    """Progress at which each task ends, rising to 1."""

    def tasks(self, draw: int, progress: float) -> tuple[str, ...]:
        index = int(np.searchsorted(self.ends, progress, side="right"))
        return (self.names[min(index, len(self.names) - 1)],)


@dataclass(frozen=True)
class Sequential(OneTaskAStep):
    """One task after the other, each for its share of the budget, as `pal_lora` trains with a frozen encoder.

    A trial that ends early has not seen the last tasks at all.
    """

    kind: ClassVar[str] = "sequential"
    order: Sequence[str] = task_order()
    """Tasks from first to last; tasks that the list leaves out follow in the order of declaration."""
    alpha: float = number(1.0, 0.0, 10.0)
    """Exponent of the shares N_i^alpha: 1 gives every task as many passes, 0 as many examples."""

    def build(self, mix: Mix) -> TaskOrder:
        return _Sequential(tuple(self.order), tuple(np.cumsum(self._shares(mix)).tolist()))

    def batches(self, mix: Mix) -> dict[str, float]:
        # The shares are of examples: a task with small batches gives more of them.
        draws = self._shares(mix) / np.array([mix.batch_size[name] for name in self.order])
        return _by_name(self.order, draws / draws.sum())

    def _shares(self, mix: Mix) -> NDArray[np.float64]:
        """Shares of the budget, in the order of the tasks."""
        return probabilities({name: mix.sizes[name] for name in self.order}, self.alpha)


@dataclass(frozen=True)
class Single(OneTaskAStep):
    """One task alone, as in the papers' single-task studies."""

    kind: ClassVar[str] = "single"
    task: str = task_choice()
    """The task that is trained; every other task is only evaluated."""

    def trains(self, task: str) -> bool:
        return task == self.task

    def build(self, mix: Mix) -> TaskOrder:
        return _Summed((self.task,))

    def batches(self, mix: Mix) -> dict[str, float]:
        return {name: float(name == self.task) for name in mix.names}


MIXINGS: dict[str, type[Mixing]] = {
    kind.kind: kind for kind in (Summed, RoundRobin, Alpha, Annealed, Sequential, Single)
}
"""Mixings by name."""
