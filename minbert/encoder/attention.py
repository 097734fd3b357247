"""Attention within each packed sequence: softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, equation 1).

    by runs    sequences of similar length are padded to [b, T], and the padding is masked
    flash      one variable-length kernel over all tokens (Dao 2023), without padding or stored attention weights

The kernel computes in 16 bits on GPUs and has no dropout: training with dropout of attention probabilities uses runs.
Letters as in `minbert.encoder.bert`; M queries: M = N for all tokens, M = B for the [CLS] tokens alone.
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
    """torch's variable-length attention; None where this version of torch lacks it."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return cast(Kernel, varlen_attn)  # returns one tensor by default


def flash_fits(query: Tensor, heads: int, rate: float) -> bool:
    """Whether the kernel can compute this: queries [M, D] in `heads` heads, dropout at `rate`."""
    size = query.shape[-1] // heads
    halved = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and halved and rate == 0.0 and size % 8 == 0 and size <= 256 and kernel() is not None


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, batch: Packed, noise: Noise) -> Tensor:
    """Attention [M, D] of queries [M, D] over keys and values [N, D]; M = B: each sequence's first token asks."""
    rate = noise.attention if noise.generator is not None else 0.0
    if flash_fits(query, heads, rate):
        return flash(query, key, value, heads, batch)
    return by_runs(query, key, value, heads, batch, noise)


def flash(query: Tensor, key: Tensor, value: Tensor, heads: int, batch: Packed) -> Tensor:
    """Attention as one kernel over all tokens; shapes as in `attention`."""
    q, k, v = (x.view(len(x), heads, -1) for x in (query, key, value))
    bounds, longest, first_only = batch.bounds, batch.longest, len(query) < len(key)
    query_bounds = torch.arange(len(bounds), dtype=torch.int32, device=bounds.device) if first_only else bounds
    varlen = kernel()
    assert varlen is not None
    return varlen(q, k, v, query_bounds, bounds, 1 if first_only else longest, longest).reshape(query.shape)


def by_runs(query: Tensor, key: Tensor, value: Tensor, heads: int, batch: Packed, noise: Noise) -> Tensor:
    """Attention run by run, with dropout of the probabilities; shapes as in `attention`."""
    first_only, outputs = len(query) < len(key), []
    for run in batch.runs:
        queries = run.sequences if first_only else run.tokens
        q = _split(query[queries], heads, None if first_only else run)
        k, v = _split(key[run.tokens], heads, run), _split(value[run.tokens], heads, run)  # [b, H, T, D / H]
        # Explicit products: on CPUs scaled_dot_product_attention with dropout is slower at these lengths.
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + run.mask, dim=-1)
        weights = dropout(weights, noise.attention, noise.generator).to(v.dtype)
        flat = (weights @ v).transpose(1, 2).reshape(-1, query.shape[-1])  # [b T or b, D]
        outputs.append(flat if first_only else flat.index_select(0, run.slots))
    return torch.cat(outputs)


def _split(x: Tensor, heads: int, run: Run | None) -> Tensor:
    """Tokens of a run [n, D] to [b, H, T, D / H], zeros at padding; without a run each token is a sequence, T = 1."""
    if run is None:
        return x.view(len(x), 1, heads, -1).transpose(1, 2)
    count, longest = run.mask.shape[0], run.mask.shape[-1]
    if len(x) < count * longest:
        x = x.new_zeros(count * longest, x.shape[-1]).index_copy(0, run.slots, x)
    return x.view(count, longest, heads, -1).transpose(1, 2)
