"""Proximal penalties: on every task, they keep the weights close to those of earlier steps.

The Bregman proximal point (Jiang et al. 2020, equation 5, with the momentum of section 3.2):

    mu * mean_i l(f(x_i, theta), f(x_i, teacher)),   teacher <- (1 - beta) theta + beta teacher after every update

with l the symmetric KL divergence for classes and the squared error for a score. Both passes draw the same dropout
masks, so that the penalty is 0 as long as teacher and model agree.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from minbert.fields import number
from minbert.techniques.averages import follow
from minbert.techniques.penalty import Added, Pass, Penalty, PenaltyContext
from minbert.techniques.work import Passes


class Proximal(Protocol):
    """Hyperparameters of a penalty on every task."""

    kind: ClassVar[str]
    """Name of the technique, also the label of its values in reports."""
    passes: ClassVar[Passes]
    """Further passes of every task's batch through the encoder."""
    means: ClassVar[int]
    """Number of running means of the trained weights that it updates after every update of them."""

    def build(self, context: PenaltyContext) -> Penalty | None:
        """Penalty of one trial; None where there is none."""
        ...


@dataclass(frozen=True)
class NoProximal:
    """No proximal penalty."""

    kind: ClassVar[str] = "none"
    passes: ClassVar[Passes] = Passes()
    means: ClassVar[int] = 0

    def build(self, context: PenaltyContext) -> Penalty | None:
        return None


@dataclass(frozen=True)
class Bregman:
    """Momentum Bregman proximal point, a penalty on every task of a step."""

    kind: ClassVar[str] = "bregman"
    passes: ClassVar[Passes] = Passes(forward=1)
    means: ClassVar[int] = 1
    weight: float = number(1.0, 0.0, 100.0, open_low=True)
    """Weight mu of the penalty."""
    momentum: float = number(0.99, 0.0, 0.9999)
    """beta, share of the old teacher in the new one; at 0 the teacher equals the model, and the penalty is 0."""

    def build(self, context: PenaltyContext) -> Penalty:
        return MomentumTeacher(self.weight, self.momentum, context)


class MomentumTeacher(Penalty):
    """Bregman penalty: divergence from a teacher whose weights are a running mean of the model's."""

    def __init__(self, weight: float, momentum: float, context: PenaltyContext) -> None:
        self.weight, self.momentum = weight, momentum
        self.trained = context.trained
        # The copy owns the trained parameters and shares the frozen ones.
        frozen = {id(value): value for value in context.model.parameters() if not value.requires_grad}
        self.teacher = copy.deepcopy(context.model, frozen).requires_grad_(False)

    def penalty(self, pass_: Pass) -> Added:
        assert pass_.teacher is not None
        return Added(self.weight * pass_.divergence(pass_.outputs, pass_.teacher))

    def after_update(self) -> None:
        follow(self.state_dict(), self.trained, self.momentum)

    def state_dict(self) -> dict[str, Tensor]:
        """Teacher's weights, by the names of the model's trained parameters."""
        assert self.teacher is not None
        return {name: value for name, value in self.teacher.named_parameters() if name in self.trained}

    @torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])


PROXIMALS: dict[str, type[Proximal]] = {kind.kind: kind for kind in (NoProximal, Bregman)}
"""Proximal penalties by name."""
