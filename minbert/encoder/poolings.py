"""From token states to one state a sequence (Reimers and Gurevych 2019, section 3; `exploration` 5.3.3, 2c).

    cls      h_[CLS]
    mean     sum_t h_t / T       over the T real tokens of the sequence, [CLS] and [SEP] included
    max      max_t h_t           each dimension apart, over the same tokens
    pooler   tanh(W h_[CLS] + b) BERT's own pooler (Devlin et al. 2019), which next-sentence prediction trained

Tokens are packed, so there is no padding to leave out: `owner` says which sequence a token belongs to. The first three
are functions of token states; the pooler has weights and belongs to a head, which applies it to the [CLS] states.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from minbert.encoder.packed import Packed

Pooling = Callable[[Tensor, Tensor, int], Tensor]
"""States [N, D], the owner [N] of each token and the number B of sequences to pooled states [B, D]."""


def owners(positions: Tensor) -> Tensor:
    """The sequence 0..B-1 that each packed token belongs to [N], from its position in its sequence [N]."""
    return (positions == 0).cumsum(0) - 1


def cls(states: Tensor, owner: Tensor, count: int) -> Tensor:
    """The state of each sequence's first token, [B, D]; tokens of a sequence stand together, in the owners' order."""
    numbers = torch.arange(count, device=owner.device, dtype=owner.dtype)
    return states.index_select(0, torch.searchsorted(owner.contiguous(), numbers))


def mean(states: Tensor, owner: Tensor, count: int) -> Tensor:
    """The mean state of each sequence's tokens, [B, D], in float32 at least: sums of bf16 lose digits."""
    x = _precise(states)
    sums = x.new_zeros(count, x.shape[-1]).index_add(0, owner, x)
    lengths = x.new_zeros(count).index_add(0, owner, x.new_ones(len(x)))
    return sums / lengths[:, None]


def maximum(states: Tensor, owner: Tensor, count: int) -> Tensor:
    """The largest value of each dimension over each sequence's tokens, [B, D]; equal ones share the gradient."""
    start = states.new_full((count, states.shape[-1]), -torch.inf)
    return start.scatter_reduce(0, owner[:, None].expand_as(states), states, "amax")


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Pooler(nn.Module):
    """tanh(W x + b) of [CLS] states [B, D]: the base's own layer to begin with, else a fresh one, N(0, 0.02)."""

    def __init__(self, width: int, weights: tuple[Tensor, Tensor] | None, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)
        with torch.no_grad():
            if weights is None:
                self.linear.weight.normal_(0.0, 0.02, generator=generator)
                self.linear.bias.zero_()
            else:
                self.linear.weight.copy_(weights[0])
                self.linear.bias.copy_(weights[1])

    def forward(self, states: Tensor) -> Tensor:
        return torch.tanh(self.linear(states))


POOLINGS: dict[str, Pooling] = {"cls": cls, "mean": mean, "max": maximum}
"""Poolings of token states by name."""

TOKENS = {"cls": "cls", "pooler": "cls", "mean": "mean", "max": "max"}
"""Every pooling that an encoding may name, and the entry of POOLINGS whose states its head takes."""


def pooled(wanted: Collection[str], packed: Packed, encode: Callable[[bool], Tensor]) -> dict[str, Tensor]:
    """A state [B, D] of every sequence, in the order given, for each wanted entry of POOLINGS.

    `encode` gives the last hidden states: [N, D], or with True those of the [CLS] tokens alone, in the order given.
    """
    if set(wanted) == {"cls"}:
        return {"cls": encode(True)}
    states = encode(False)
    owner, count = owners(packed.positions), len(packed.place)
    return {name: POOLINGS[name](states, owner, count).index_select(0, packed.place) for name in wanted}
