"""Task heads: from encoder states to the outputs of a task.

    linear   W features + b,   features of a pair (u, v): [u;v], u + v, [u;v;u*v], [u;v;|u-v|]
    cosine   5 relu(cos)  or  2.5 (cos + 1)  of u' and v', both through one linear layer
             (`exploration`, `beyond_bert`; the linear layer is `multi_extended`'s baseline)

A head takes [B, D] for a sequence a row, or u and v [B, D] each for a bi-encoded pair, and returns [B, C].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.bert import Noise, dropout
from minbert.schema import choice
from minbert.tasks import Task

FEATURES: dict[str, tuple[int, Callable[[Tensor, Tensor], Tensor]]] = {
    "concat": (2, lambda u, v: torch.cat([u, v], dim=-1)),
    "sum": (1, lambda u, v: u + v),
    "product": (3, lambda u, v: torch.cat([u, v, u * v], dim=-1)),
    "difference": (3, lambda u, v: torch.cat([u, v, (u - v).abs()], dim=-1)),
}
"""Pair features by name: width in multiples of D, and the function of u and v [B, D]."""

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda cosine: torch.relu(cosine),
    "shift": lambda cosine: 0.5 * (cosine + 1.0),
}
"""Maps of a cosine in [-1, 1] to [0, 1], scaled to the label range afterwards."""


@dataclass(frozen=True)
class HeadContext:
    """What a head is built from."""

    task: Task
    width: int
    """Hidden size D."""
    paired: bool
    """Whether it receives u and v (bi-encoding)."""
    generator: torch.Generator


class LinearModule(nn.Module):
    """Dropout, then one linear layer on the features."""

    def __init__(self, context: HeadContext, features: str) -> None:
        super().__init__()
        multiple, combine = FEATURES[features]
        self.features = combine if context.paired else None
        self.linear = nn.Linear((multiple if context.paired else 1) * context.width, context.task.classes)
        with torch.no_grad():
            self.linear.weight.normal_(0.0, 0.02, generator=context.generator)
            # A regression starts at the middle of its range: from 0 the first steps only move the mean.
            middle = (context.task.low + context.task.high) / 2 if context.task.kind == "regression" else 0.0
            self.linear.bias.fill_(middle)

    def forward(self, states: tuple[Tensor, ...], noise: Noise) -> Tensor:
        x = self.features(*states) if self.features else states[0]
        return cast(Tensor, self.linear(dropout(x, noise.head, noise.generator)))


class CosineModule(nn.Module):
    """The cosine of both sentences after a shared linear layer, which starts as the identity."""

    def __init__(self, context: HeadContext, transform: str) -> None:
        super().__init__()
        self.linear = nn.Linear(context.width, context.width)
        self.transform = TRANSFORMS[transform]
        self.low, self.span = context.task.low, context.task.high - context.task.low
        with torch.no_grad():
            nn.init.eye_(self.linear.weight)
            self.linear.bias.zero_()

    def forward(self, states: tuple[Tensor, ...], noise: Noise) -> Tensor:
        u, v = (self.linear(dropout(state, noise.head, noise.generator)) for state in states)
        return (self.low + self.span * self.transform(F.cosine_similarity(u, v)))[:, None]


class Head(Protocol):
    """A head's hyperparameters."""

    kind: ClassVar[str]

    def build(self, context: HeadContext) -> nn.Module: ...


@dataclass(frozen=True)
class LinearHead:
    """One linear layer on the [CLS] state, or on features of both sentences' states."""

    kind: ClassVar[str] = "linear"
    features: str = choice("concat", "sum", "product", "difference")
    """Pair features; used by bi-encoding alone."""

    def build(self, context: HeadContext) -> nn.Module:
        return LinearModule(context, self.features)


@dataclass(frozen=True)
class CosineHead:
    """The cosine of both sentences, scaled to the label range; for bi-encoded regression."""

    kind: ClassVar[str] = "cosine"
    transform: str = choice("relu", "shift")
    """5 relu(cos), or 2.5 (cos + 1), for labels in [0, 5]."""

    def build(self, context: HeadContext) -> nn.Module:
        return CosineModule(context, self.transform)


HEADS: dict[str, type] = {kind.kind: kind for kind in (LinearHead, CosineHead)}
