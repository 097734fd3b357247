"""Attention of packed sequences, each to itself: softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, equation 1).

    by runs    sequences of similar length are laid out as [b, T] and what is not there is masked
    flash      one variable-length kernel over all tokens (Dao 2023), which lays nothing out and keeps no weights

The kernel is there for bf16 on GPUs, and has no dropout: training with dropout of attention probabilities goes by runs.
Letters as in `minbert.encoder.bert`; M = N tokens ask, or M = B where only the [CLS] tokens do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from minbert.encoder.noise import Noise, dropout
from minbert.encoder.packed import Packed, Run

Kernel = Callable[..., Tensor]


@functools.cache
def kernel() -> Kernel | None:
    """torch's variable-length attention; None in versions that have none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return cast(Kernel, varlen_attn)  # a tensor, unless more is asked for


def flash_fits(query: Tensor, heads: int, rate: float) -> bool:
    """Whether the kernel can compute this: queries [M, D] in `heads` heads, dropout at `rate`."""
    size = query.shape[-1] // heads
    halved = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and halved and rate == 0.0 and size % 8 == 0 and size <= 256 and kernel() is not None


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, batch: Packed, noise: Noise) -> Tensor:
    """Queries [M, D], keys and values [N, D] to [M, D]; M = B stands for the first token of each sequence."""
    rate = noise.attention if noise.generator is not None else 0.0
    if flash_fits(query, heads, rate):
        return flash(query, key, value, heads, batch)
    return by_runs(query, key, value, heads, batch, noise)


def flash(query: Tensor, key: Tensor, value: Tensor, heads: int, batch: Packed) -> Tensor:
    """In one kernel."""
    q, k, v = (x.view(len(x), heads, -1) for x in (query, key, value))
    bounds, longest, first_only = batch.bounds, batch.longest, len(query) < len(key)
    asking = torch.arange(len(bounds), dtype=torch.int32, device=bounds.device) if first_only else bounds
    varlen = kernel()
    assert varlen is not None
    return varlen(q, k, v, asking, bounds, 1 if first_only else longest, longest).reshape(query.shape)


def by_runs(query: Tensor, key: Tensor, value: Tensor, heads: int, batch: Packed, noise: Noise) -> Tensor:
    """Run by run, with dropout of the probabilities."""
    first_only, mixed = len(query) < len(key), []
    for run in batch.runs:
        place = run.sequences if first_only else run.tokens
        q = _split(query[place], heads, None if first_only else run)
        k, v = _split(key[run.tokens], heads, run), _split(value[run.tokens], heads, run)  # [b, H, T, D / H]
        # Explicit products: on CPUs scaled_dot_product_attention with dropout is slower at these lengths.
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + run.mask, dim=-1)
        weights = dropout(weights, noise.attention, noise.generator).to(v.dtype)
        flat = (weights @ v).transpose(1, 2).reshape(-1, query.shape[-1])  # [b T or b, D]
        mixed.append(flat if first_only else flat.index_select(0, run.slots))
    return torch.cat(mixed)


def _split(x: Tensor, heads: int, run: Run | None) -> Tensor:
    """Tokens of a run [n, D] to [b, H, T, D / H], zeros where there is no token; without a run T = 1."""
    if run is None:
        return x.view(len(x), 1, heads, -1).transpose(1, 2)
    count, longest = run.mask.shape[0], run.mask.shape[-1]
    if len(x) < count * longest:
        x = x.new_zeros(count * longest, x.shape[-1]).index_copy(0, run.slots, x)
    return x.view(count, longest, heads, -1).transpose(1, 2)
