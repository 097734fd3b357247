"""Penalties on every task that keep the weights close to where they have been.

The Bregman proximal point (Jiang et al. 2020, equation 5, with the momentum of section 3.2):

    mu * mean_i l(f(x_i, theta), f(x_i, teacher)),   teacher <- (1 - beta) theta + beta teacher after every update

with l the symmetric KL divergence for classes and the squared error for a score. Both passes draw the same dropout
masks, so that the penalty is 0 while teacher and model agree.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from minbert.fields import number
from minbert.techniques.penalty import Added, Pass, Penalty, PenaltyContext


class Proximal(Protocol):
    """The hyperparameters of a penalty on every task."""

    kind: ClassVar[str]
    """Also the label of its values in reports."""

    def build(self, context: PenaltyContext) -> Penalty | None:
        """The working form for one trial; None where there is no penalty."""
        ...


@dataclass(frozen=True)
class NoProximal:
    """No proximal point."""

    kind: ClassVar[str] = "none"

    def build(self, context: PenaltyContext) -> Penalty | None:
        return None


@dataclass(frozen=True)
class Bregman:
    """The momentum Bregman proximal point, on every task of a step."""

    kind: ClassVar[str] = "bregman"
    weight: float = number(1.0, 0.0, 100.0, open_low=True)
    """Weight mu of the penalty."""
    momentum: float = number(0.99, 0.0, 0.9999)
    """beta: share of the teacher that stays at an update; 0 makes the teacher the model of the step before."""

    def build(self, context: PenaltyContext) -> Penalty:
        return MomentumTeacher(self.weight, self.momentum, context)


class MomentumTeacher(Penalty):
    """The divergence from a running mean of the weights."""

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
        """The teacher's weights by the names of the model's trained ones."""
        assert self.teacher is not None
        return {name: value for name, value in self.teacher.named_parameters() if name in self.trained}

    @torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state[name])


@torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
def follow(teacher: Mapping[str, Tensor], model: Mapping[str, Tensor], momentum: float) -> None:
    """teacher <- (1 - beta) theta + beta teacher, in place, over parameters by name."""
    torch._foreach_lerp_(list(teacher.values()), [model[name].detach() for name in teacher], 1.0 - momentum)


PROXIMALS: dict[str, type[Proximal]] = {kind.kind: kind for kind in (NoProximal, Bregman)}
"""Penalties on every task that hold an update back."""
