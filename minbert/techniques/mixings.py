"""How tasks are mixed: which tasks give a batch to the next optimiser step, and which of their rows.

    p_i proportional to (w_i N_i)^alpha;   annealed: alpha falls from `start` to `end`, epoch by epoch
    an epoch of summed losses: S = m min_k floor(N_k / B_k) steps of one batch of every task

Summed losses follow `multi_extended` (one batch of every task a step; an epoch ends with the smallest task) and
`exploration` (m times as many steps); round robin, the exponents, annealing and up-weights w_i follow `beyond_bert`
(after Stickland and Murray 2019); one task after the other follows `pal_lora`. A choice at step t is a function of
(seed, t, progress): an order of tasks has no state.
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
    """p_i proportional to (w_i N_i)^alpha over the tasks of `sizes`, shape [K], sum 1; w_i is 1 by default."""
    weighed = [(upweight or {}).get(task, 1.0) * size for task, size in sizes.items()]
    logs = alpha * np.log(np.array(weighed, dtype=np.float64))
    weights = np.exp(logs - logs.max())
    return np.asarray(weights / weights.sum())


def annealed_alpha(e: int, start: float, end: float, epochs: int) -> float:
    """alpha = start - (start - end) e / (E - 1) for epochs e = 0..E-1; `start` where E = 1.

    `beyond_bert` counts epochs from 1 and writes e - 1.
    """
    return start if epochs == 1 else start - (start - end) * e / (epochs - 1)


def epoch_steps(sizes: Mapping[str, int], batch_size: Mapping[str, int], multiplier: int) -> int:
    """S = m min_k floor(N_k / B_k) steps, at least 1."""
    return max(1, multiplier * min(size // batch_size[task] for task, size in sizes.items()))


@dataclass(frozen=True)
class Mix:
    """What an order of tasks is built from."""

    sizes: Mapping[str, int]
    """Training rows N_i of each task, in task order."""
    seed: int
    batch_size: Mapping[str, int] = field(default_factory=dict)
    """Rows B_i of each task in one batch."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.sizes)


class TaskOrder(ABC):
    """The tasks that give a batch to each step, and where their batches begin."""

    @abstractmethod
    def tasks(self, step: int, progress: float) -> tuple[str, ...]:
        """The tasks of optimiser step `step` (from 0) at a progress in [0, 1]."""

    def position(self, task: str, step: int, consumed: int) -> int:
        """Where this step's batch begins in the task's endless training order (`minbert.data.batches.training_rows`).

        By default right after the `consumed` rows that the task has used.
        """
        return consumed


class Mixing(Protocol):
    """The hyperparameters of a mixing."""

    kind: ClassVar[str]

    @property
    def combine(self) -> Combine:
        """How the tasks' gradients become one."""
        ...

    @property
    def balance(self) -> Balancing:
        """How the tasks' losses are weighed."""
        ...

    def trains(self, task: str) -> bool:
        """Whether the task is ever drawn."""
        ...

    def build(self, mix: Mix) -> TaskOrder: ...


class MixingDefaults:
    """Answers of a mixing that does not give its own."""

    def trains(self, task: str) -> bool:
        return True


class OneTaskAStep(MixingDefaults):
    """Base of mixings with one task a step: there is nothing to combine or to balance."""

    combine = Sum()
    balance = NoBalance()


@dataclass(frozen=True)
class _Summed(TaskOrder):
    names: tuple[str, ...]

    def tasks(self, step: int, progress: float) -> tuple[str, ...]:
        return self.names


@dataclass(frozen=True)
class _Epochs(_Summed):
    sizes: Mapping[str, int]
    batch_size: Mapping[str, int]
    steps: int

    def position(self, task: str, step: int, consumed: int) -> int:
        size, batch = self.sizes[task], self.batch_size[task]
        passes = -(-self.steps * batch // size)  # permutations that one epoch begins, the last perhaps cut short
        done, inside = divmod(step, self.steps)
        return done * passes * size + inside * batch


@dataclass(frozen=True)
class Summed(MixingDefaults):
    """One batch of every task in every step; their losses are summed."""

    kind: ClassVar[str] = "summed"
    multiplier: int = integer(0, 0, 1000)
    """Epoch length m: every task begins a fresh permutation after m min_k floor(N_k / B_k) steps. With m = 1 an epoch
    leaves most of a large task unseen, with m = 3 it repeats a small one; 0 takes every task through all its rows."""
    combine: Combine = branch(COMBINERS, Sum())
    """How the tasks' gradients become one."""
    balance: Balancing = branch(BALANCES, NoBalance())
    """Loss weights that training finds by itself."""

    def build(self, mix: Mix) -> TaskOrder:
        if self.multiplier == 0:
            return _Summed(mix.names)
        steps = epoch_steps(mix.sizes, mix.batch_size, self.multiplier)
        return _Epochs(mix.names, mix.sizes, mix.batch_size, steps)


@dataclass(frozen=True)
class _RoundRobin(TaskOrder):
    names: tuple[str, ...]

    def tasks(self, step: int, progress: float) -> tuple[str, ...]:
        return (self.names[step % len(self.names)],)


@dataclass(frozen=True)
class RoundRobin(OneTaskAStep):
    """The tasks in turn, one a step."""

    kind: ClassVar[str] = "round_robin"

    def build(self, mix: Mix) -> TaskOrder:
        return _RoundRobin(mix.names)


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

    def probabilities(self, step: int, progress: float) -> NDArray[np.float64]:
        if self.steps_per_epoch:
            e = min(step // self.steps_per_epoch, self.epochs - 1)
        else:
            e = epoch(progress, self.epochs)
        return probabilities(self.mix.sizes, annealed_alpha(e, self.start, self.end, self.epochs), self.upweight)

    def tasks(self, step: int, progress: float) -> tuple[str, ...]:
        names, p = self.mix.names, self.probabilities(step, progress)
        return (names[int(numpy_generator(self.mix.seed, "mixing", step).choice(len(names), p=p))],)


@dataclass(frozen=True)
class Alpha(OneTaskAStep):
    """One task a step, drawn with p_i proportional to (w_i N_i)^alpha."""

    kind: ClassVar[str] = "alpha"
    alpha: float = number(0.5, 0.0, 10.0)
    """Exponent: 0 uniform, 0.5 square root, 1 proportional to size, more favours the largest task further."""
    upweight: Mapping[str, float] = _upweight()
    """Factor w_i on each task's size; 2, 4 and 8 for the small tasks in `beyond_bert`. At alpha 0 it has no effect."""

    def build(self, mix: Mix) -> TaskOrder:
        return _Powers(mix, self.upweight, self.alpha, self.alpha)


@dataclass(frozen=True)
class Annealed(OneTaskAStep):
    """As `alpha`, with the exponent falling from epoch to epoch: from proportional towards uniform."""

    kind: ClassVar[str] = "annealed"
    start: float = number(1.0, 0.0, 10.0)
    """Exponent in the first epoch."""
    end: float = number(0.2, 0.0, 10.0)
    """Exponent in the last epoch."""
    epochs: int = integer(10, 1, 1000)
    """Number of epochs E over which the exponent falls."""
    steps_per_epoch: int = integer(0, 0, 1_000_000)
    """Draws of batches in an epoch (1,800 and 3,600 in `beyond_bert`), the last one without end; 0 divides the budget
    into E epochs of equal length."""
    upweight: Mapping[str, float] = _upweight()
    """Factor w_i on each task's size."""

    def build(self, mix: Mix) -> TaskOrder:
        return _Powers(mix, self.upweight, self.start, self.end, self.epochs, self.steps_per_epoch)


@dataclass(frozen=True)
class _Sequential(TaskOrder):
    names: tuple[str, ...]
    ends: tuple[float, ...]
    """Progress at which each task ends, rising to 1."""

    def tasks(self, step: int, progress: float) -> tuple[str, ...]:
        place = int(np.searchsorted(self.ends, progress, side="right"))
        return (self.names[min(place, len(self.names) - 1)],)


@dataclass(frozen=True)
class Sequential(OneTaskAStep):
    """One task after the other, each for its share of the budget: `pal_lora` with a frozen encoder.

    A trial that is stopped early has not seen the last tasks at all.
    """

    kind: ClassVar[str] = "sequential"
    order: Sequence[str] = task_order()
    """The tasks from first to last; those that a list leaves out follow in the order of declaration."""
    alpha: float = number(1.0, 0.0, 10.0)
    """Exponent of the shares N_i^alpha: 1 gives every task equally many passes, 0 equally many examples."""

    def build(self, mix: Mix) -> TaskOrder:
        shares = probabilities({name: mix.sizes[name] for name in self.order}, self.alpha)
        return _Sequential(tuple(self.order), tuple(np.cumsum(shares).tolist()))


@dataclass(frozen=True)
class Single(OneTaskAStep):
    """One task alone: the papers' single-task studies."""

    kind: ClassVar[str] = "single"
    task: str = task_choice()
    """The task that is trained; every other one is only evaluated."""

    def trains(self, task: str) -> bool:
        return task == self.task

    def build(self, mix: Mix) -> TaskOrder:
        return _Summed((self.task,))


MIXINGS: dict[str, type] = {kind.kind: kind for kind in (Summed, RoundRobin, Alpha, Annealed, Sequential, Single)}
