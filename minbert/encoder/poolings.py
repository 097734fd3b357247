"""Poolings of token states to one state per sequence (Reimers and Gurevych 2019, 3; `exploration` 5.3.3, 2c).

    cls      h_[CLS]
    mean     sum_t h_t / T       over the T real tokens of the sequence, [CLS] and [SEP] included
    max      max_t h_t           for each dimension by itself, over the same tokens
    pooler   tanh(W h_[CLS] + b) BERT's own pooler (Devlin et al. 2019), trained by next-sentence prediction

Tokens are packed without padding: `owner` says which sequence each token belongs to. The first three are functions of
token states; the pooler has weights and belongs to a head, which applies it to the [CLS] states.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from minbert.encoder.packed import Packed

Pooling = Callable[[Tensor, Tensor, int], Tensor]
"""Function from states [N, D], the owner [N] of each token and the number B of sequences to pooled states [B, D]."""


def owners(positions: Tensor) -> Tensor:
    """Sequence 0..B-1 that each packed token belongs to [N], from the token's position in its sequence [N]."""
    return (positions == 0).cumsum(0) - 1


def cls(states: Tensor, owner: Tensor, count: int) -> Tensor:
    """State of each sequence's first token [B, D]; `owner` must ascend."""
    sequences = torch.arange(count, device=owner.device, dtype=owner.dtype)
    return states.index_select(0, torch.searchsorted(owner.contiguous(), sequences))


def mean(states: Tensor, owner: Tensor, count: int) -> Tensor:
    """Mean state of each sequence's tokens [B, D], in float32 or more: sums in bf16 lose digits."""
    x = _precise(states)
    sums = x.new_zeros(count, x.shape[-1]).index_add(0, owner, x)
    lengths = x.new_zeros(count).index_add(0, owner, x.new_ones(len(x)))
    return sums / lengths[:, None]


def maximum(states: Tensor, owner: Tensor, count: int) -> Tensor:
    """Largest value of each dimension over each sequence's tokens [B, D]; equal values share the gradient."""
    start = states.new_full((count, states.shape[-1]), -torch.inf)
    return start.scatter_reduce(0, owner[:, None].expand_as(states), states, "amax")


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Pooler(nn.Module):
    """Pooler: tanh(W x + b) of [CLS] states [B, D]. It starts as the base's own layer, else with weights N(0, 0.02)."""

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

TOKEN_POOLING = {"cls": "cls", "pooler": "cls", "mean": "mean", "max": "max"}
"""For every pooling that an encoding may name, the entry of POOLINGS whose states its head takes."""


def pooled(names: Collection[str], packed: Packed, encode: Callable[[bool], Tensor]) -> dict[str, Tensor]:
    """Pooled states [B, D] under each of the named POOLINGS, sequences in the order in which they were given.

    `encode` returns the last hidden states [N, D]; with True those of the [CLS] tokens [B, D], in the order given.
    """
    if set(names) == {"cls"}:
        return {"cls": encode(True)}
    states = encode(False)
    owner, count = owners(packed.positions), len(packed.place)
    return {name: POOLINGS[name](states, owner, count).index_select(0, packed.place) for name in names}
