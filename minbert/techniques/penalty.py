"""What a penalty may use, and what it gives: the seam between a technique and the training loop.

A technique is the frozen record of its hyperparameters. `build(context)` makes its working form for one trial, a
`Penalty`. For every pass of a step the training loop hands it a `Pass` and adds to the task's loss what it returns;
after every update of the weights it calls `after_update`. What a technique needs over time, such as a teacher, lives in
its `Penalty`, and checkpoints hold its `state_dict`.

Letters: B rows, S sequences, N packed tokens, D hidden, C classes (1 for a score).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.encoder.packed import Packed
from minbert.tasks import Task

STEP_MASKS = "dropout"
"""Random stream of the dropout masks of a step's own pass."""

Divergence = Callable[[Tensor, Tensor], Tensor]
"""Distance between outputs [B, C] of two passes: a scalar, 0 where they agree."""


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """mean_i KL(p_i || q_i) + KL(q_i || p_i) for logits [B, C]."""
    log_p, log_q = F.log_softmax(a.float(), dim=-1), F.log_softmax(b.float(), dim=-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).mean()


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """mean_i (a_i - b_i)^2 for scores [B, 1]."""
    return (a.float() - b.float()).square().mean()


DIVERGENCES: dict[str, Divergence] = {
    "classification": symmetric_kl,
    "regression": squared_error,
}
"""The divergence for each kind of task."""


class Forward(Protocol):
    """Another pass over the rows of a step's pass, with the same weights."""

    def __call__(self, offset: Tensor | None = None, masks: str = STEP_MASKS) -> Tensor:
        """Outputs [B, C] of the task.

        `offset` [N, D] is added to the word embeddings. `masks` names the random stream of the dropout masks: by
        default the step's own masks are drawn again, another name draws other masks.
        """
        ...


@dataclass(frozen=True)
class Pass:
    """One task's rows in a pass of a step."""

    task: Task
    outputs: Tensor
    """Outputs [B, C] of the step's own pass, with their graph."""
    labels: Tensor
    """Labels [B]."""
    loss: Callable[[Tensor], Tensor]
    """Mean loss, a scalar, of outputs [B, C] against the labels, as the task's head defines it."""
    forward: Forward
    generator: Callable[[str], torch.Generator]
    """A generator at the start of the named random stream of this step and task."""
    packed: Packed | None
    """The pass's tokens; None where it starts from cached features of a frozen encoder."""
    width: int
    """Hidden size D."""
    teacher: Tensor | None = None
    """The outputs [B, C] of the penalty's own `teacher`, without graph; None where it has none."""

    @property
    def divergence(self) -> Divergence:
        """The divergence for the task's kind."""
        return DIVERGENCES[self.task.kind]

    @property
    def words(self) -> torch.Size:
        """Shape [N, D] of the word embeddings."""
        return torch.Size((len(self._tokens.ids), self.width))

    @property
    def bounds(self) -> Tensor:
        """The first token of each packed sequence, and the end of the last one [S + 1]."""
        return self._tokens.bounds

    @property
    def _tokens(self) -> Packed:
        assert self.packed is not None, "a technique that reads words must set `moves_words`"
        return self.packed


class Added(NamedTuple):
    """What a technique adds to the loss of a task."""

    penalty: Tensor
    """Weighted penalty, a scalar; loss balances do not change it."""
    second_loss: Tensor | None = None
    """The task's loss, a scalar, in a second pass of equal standing: the mean of both passes becomes its loss."""


@dataclass(frozen=True)
class PenaltyContext:
    """What a penalty is built from."""

    model: nn.Module
    """The model in training, on its device."""
    trained: Mapping[str, nn.Parameter]
    """Its trained parameters by name."""


class Penalty(ABC):
    """The working form of a technique in one trial; without state unless it says otherwise."""

    teacher: nn.Module | None = None
    """A copy of the model whose outputs each `Pass` brings, computed with the step's own dropout masks."""

    @abstractmethod
    def penalty(self, pass_: Pass) -> Added:
        """What is added to the loss of the pass's task."""

    def after_update(self) -> None:
        """Called after every update of the weights."""
        return

    def state_dict(self) -> dict[str, Tensor]:
        """All that a later `load_state_dict` needs to go on from here, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state_dict` with the names of this one's."""
        return


class Stateless(Penalty):
    """A technique whose record of hyperparameters is its working form too."""

    def build(self, context: PenaltyContext) -> Self:
        return self
