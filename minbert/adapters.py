"""What of the encoder is trained: all of it, none of it, or low-rank additions to frozen layers.

    LoRA (Hu et al. 2021):  W x + (alpha / r) B A x,   A Gaussian, B zero, W frozen

An adapter changes a freshly loaded encoder in place, so a new one touches only this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.bert import Bert, dropout
from minbert.schema import integer, number, subset

TARGETS = ("query", "key", "value", "output", "up", "down")
"""The linear layers of an encoder layer, in the order in which they act."""


@dataclass(frozen=True)
class NoAdapter:
    """The encoder as it is, fully fine-tuned."""

    kind: ClassVar[str] = "none"

    def build(self, encoder: Bert, generator: torch.Generator) -> None:
        encoder.requires_grad_(True)


@dataclass(frozen=True)
class Frozen:
    """The encoder as it is and stays: only the heads (the last linear layers) learn."""

    kind: ClassVar[str] = "frozen"

    def build(self, encoder: Bert, generator: torch.Generator) -> None:
        encoder.requires_grad_(False)


class LoRALinear(nn.Module):
    """A frozen linear layer and its trainable low-rank addition."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.rate = rate
        self.generator: torch.Generator | None = None
        """Draws the dropout masks; set for a training pass, None elsewhere."""
        # Kaiming-uniform bound of the reference implementations, 1 / sqrt(d_in), as a Gaussian's deviation.
        down = torch.randn(rank, base.in_features, generator=generator) / math.sqrt(base.in_features)
        self.down = nn.Parameter(down)  # A [r, d_in]
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))  # B [d_out, r]

    def forward(self, x: Tensor) -> Tensor:
        """[*, d_in] to [*, d_out]."""
        inner = dropout(x, self.rate, self.generator)
        return cast(Tensor, self.base(x)) + F.linear(F.linear(inner, self.down), self.up) * self.scale

    def merged(self) -> Tensor:
        """The weight of the equivalent plain layer, W + (alpha / r) B A [d_out, d_in]."""
        return self.base.weight + self.scale * self.up @ self.down


@dataclass(frozen=True)
class LoRA:
    """Low-rank additions to the chosen linear layers of every encoder layer; the encoder itself is frozen."""

    kind: ClassVar[str] = "lora"
    rank: int = integer(8, 1, 1024)
    """Rank r; parameters added per layer = r (d_in + d_out)."""
    alpha: float = number(16.0, 0.0, 1024.0, open_low=True)
    """Numerator alpha of the scale alpha / r."""
    dropout: float = number(0.0, 0.0, 0.9)
    """Dropout rate of the addition's input."""
    targets: tuple[str, ...] = subset(("query", "value"), *TARGETS)
    """Linear layers that receive an addition."""

    def build(self, encoder: Bert, generator: torch.Generator) -> None:
        encoder.requires_grad_(False)
        for layer in encoder.layers:
            for name in self.targets:
                base = cast(nn.Linear, getattr(layer, name))
                setattr(layer, name, LoRALinear(base, self.rank, self.alpha, self.dropout, generator))


ADAPTERS: dict[str, type] = {kind.kind: kind for kind in (NoAdapter, Frozen, LoRA)}
