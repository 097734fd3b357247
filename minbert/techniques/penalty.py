"""Penalty: the interface between the training loop and a technique that adds to a task's loss.

A technique is a frozen record of hyperparameters. Its `build(context)` makes a `Penalty` for one trial. The training
loop hands the `Penalty` a `Pass` for every forward pass of a step, adds the result to the task's loss, and calls
`after_update` after every update of the weights. State over time, such as a teacher, lives in the `Penalty`, and
checkpoints hold its `state_dict`.

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
"""Name of the random stream of dropout masks in a step's own pass."""

Divergence = Callable[[Tensor, Tensor], Tensor]
"""Function from the outputs [B, C] of two passes to their distance: a scalar, 0 where they agree."""


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """Symmetric KL divergence mean_i KL(p_i || q_i) + KL(q_i || p_i) of logits [B, C]."""
    log_p, log_q = F.log_softmax(a.float(), dim=-1), F.log_softmax(b.float(), dim=-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).mean()


def squared_difference(a: Tensor, b: Tensor) -> Tensor:
    """Squared difference mean_i (a_i - b_i)^2 of scores [B, 1]."""
    return (a.float() - b.float()).square().mean()


DIVERGENCES: dict[str, Divergence] = {
    "classification": symmetric_kl,
    "regression": squared_difference,
}
"""Divergence for each kind of task."""


class Forward(Protocol):
    """Function that runs a further forward pass over the rows of a step's pass, with the same weights."""

    def __call__(self, offset: Tensor | None = None, masks: str = STEP_MASKS) -> Tensor:
        """Outputs [B, C] of the task.

        `offset` [N, D] is added to the word embeddings. `masks` names the random stream of the dropout masks: the
        default draws the step's own masks again, another name draws other masks.
        """
        ...


@dataclass(frozen=True)
class Pass:
    """One task's part of a forward pass of a step."""

    task: Task
    """Task that the rows belong to."""
    outputs: Tensor
    """Outputs [B, C] of the step's own pass, with their graph."""
    labels: Tensor
    """Labels [B]."""
    loss: Callable[[Tensor], Tensor]
    """Mean loss, a scalar, of outputs [B, C] against the labels, as the task's head defines it."""
    forward: Forward
    """Runs further forward passes over the same rows."""
    generator: Callable[[str], torch.Generator]
    """Function from a random stream's name to a generator at its start, for this step and task."""
    packed: Packed | None
    """Tokens of the pass; None where it starts from cached features of a frozen encoder."""
    width: int
    """Hidden size D."""
    embed: Callable[[Tensor], Tensor]
    """Function from word pieces [N] to their word embeddings [N, D]."""
    unit: float = 1.0
    """Label units in which a regression's differences count as 1; see `minbert.techniques.losses.label_unit`."""
    teacher: Tensor | None = None
    """Outputs [B, C] of the penalty's `teacher`, without a graph; None where the penalty has no teacher."""

    @property
    def divergence(self) -> Divergence:
        """Divergence for the task's kind, of a regression in the unit of its loss."""
        return self.in_unit(DIVERGENCES[self.task.kind])

    def in_unit(self, divergence: Divergence) -> Divergence:
        """A divergence of outputs that are divided by `unit` first."""
        return lambda a, b: divergence(a / self.unit, b / self.unit)

    @property
    def words(self) -> torch.Size:
        """Shape [N, D] of the word embeddings."""
        return torch.Size((len(self._tokens.ids), self.width))

    @property
    def word_rms(self) -> Tensor:
        """Root mean square of the entries of the word embeddings, a scalar without a graph."""
        return self.embed(self._tokens.ids).detach().square().mean().sqrt()

    @property
    def bounds(self) -> Tensor:
        """Index of each packed sequence's first token, then the end of the last sequence [S + 1]."""
        return self._tokens.bounds

    @property
    def _tokens(self) -> Packed:
        assert self.packed is not None, "a technique that reads words must set `moves_words`"
        return self.packed


class Added(NamedTuple):
    """Terms that a technique adds to the loss of a task."""

    penalty: Tensor
    """Weighted penalty, a scalar; a loss balance does not change it."""
    second_loss: Tensor | None = None
    """Loss of a second pass, a scalar, or None: the mean of both passes' losses then becomes the task's loss."""


@dataclass(frozen=True)
class PenaltyContext:
    """Arguments that a penalty is built from."""

    model: nn.Module
    """Model in training, on its device."""
    trained: Mapping[str, nn.Parameter]
    """The model's trained parameters by name."""


class Penalty(ABC):
    """Penalty of one trial; a subclass with state gives `state_dict` and `load_state_dict`."""

    teacher: nn.Module | None = None
    """Copy of the model whose outputs, under the step's own dropout masks, each `Pass` holds; None: no teacher."""

    @abstractmethod
    def penalty(self, pass_: Pass) -> Added:
        """Terms to add to the loss of the pass's task."""

    def after_update(self) -> None:
        """Update the penalty's state; called after every update of the weights."""
        return

    def state_dict(self) -> dict[str, Tensor]:
        """State to continue from, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state_dict` that has the same names as this penalty's own."""
        return


class Stateless(Penalty):
    """Base class of techniques without state: the record of hyperparameters is also the `Penalty`."""

    def build(self, context: PenaltyContext) -> Self:
        return self
