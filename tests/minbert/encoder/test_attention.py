"""Attention within packed sequences: both ways to compute it agree, and the kernel is used where it fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minbert.data.batches import pack
from minbert.encoder import attention as module
from minbert.encoder.attention import attention, by_runs, flash, flash_fits, kernel
from minbert.encoder.noise import SILENT, Noise
from minbert.encoder.packed import Packed

HEADS, WIDTH = 4, 32
LENGTHS = (7, 2, 30, 31, 3, 3, 12)


@pytest.fixture
def batch() -> Packed:
    return pack([(np.arange(length, dtype=np.int32), length) for length in LENGTHS])


def states(batch: Packed, first_only: bool) -> list[Tensor]:
    """Queries, keys and values."""
    generator = torch.Generator().manual_seed(0)
    rows = [len(batch.first) if first_only else len(batch.ids), len(batch.ids), len(batch.ids)]
    return [torch.randn(count, WIDTH, generator=generator).requires_grad_() for count in rows]


def per_sequence(query: Tensor, key: Tensor, value: Tensor, starts: list[int], query_starts: list[int]) -> Tensor:
    """Reference: torch's attention, one sequence after the other; tensors [N, H, d]."""
    outputs = []
    for place in range(len(starts) - 1):
        q = query[query_starts[place] : query_starts[place + 1]]
        k, v = (x[starts[place] : starts[place + 1]] for x in (key, value))
        q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        outputs.append(F.scaled_dot_product_attention(q, k, v).transpose(0, 1))
    return torch.cat(outputs)


def varlen(query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int) -> Tensor:
    """`varlen_attn` as torch documents it, on a CPU."""
    for x, bounds, longest in ((query, cu_q, max_q), (key, cu_k, max_k)):
        assert x.ndim == 3 and x.shape[1:] == (HEADS, WIDTH // HEADS)
        assert bounds.dtype == torch.int32 and int(bounds[0]) == 0 and int(bounds[-1]) == len(x)
        assert longest == int(bounds.diff().max())
    return per_sequence(query, key, value, cu_k.tolist(), cu_q.tolist())


def gradients(output: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    target = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    return list(torch.autograd.grad((output.float() * target.to(output.device)).sum(), inputs))


@pytest.mark.parametrize("first_only", [False, True])
def test_runs_and_the_kernel_equal_one_sequence_at_a_time(
    first_only: bool, batch: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "kernel", lambda: varlen)
    inputs = states(batch, first_only)
    starts = batch.bounds.tolist()
    query_starts = list(range(len(starts))) if first_only else starts
    split = [x.view(len(x), HEADS, -1) for x in inputs]
    expected = per_sequence(*split, starts, query_starts).reshape(len(inputs[0]), WIDTH)
    expected_gradients = gradients(expected, inputs)
    for actual in (by_runs(*inputs, HEADS, batch, SILENT), flash(*inputs, HEADS, batch)):
        assert (actual - expected).abs().max() < 1e-6
        for mine, plain in zip(gradients(actual, inputs), expected_gradients, strict=True):
            assert (mine - plain).abs().max() < 1e-5


def test_bounds_are_those_of_the_sequences(batch: Packed) -> None:
    assert batch.bounds.diff().tolist() == sorted(LENGTHS)
    assert batch.longest == max(LENGTHS)


def test_a_cpu_goes_by_runs(batch: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kernel", lambda: pytest.fail("the kernel has no form for a CPU"))
    inputs = [x.bfloat16() for x in states(batch, False)]
    assert torch.equal(attention(*inputs, HEADS, batch, SILENT), by_runs(*inputs, HEADS, batch, SILENT))


class OnCuda:
    """A tensor on a GPU, reduced to what `flash_fits` reads."""

    is_cuda = True

    def __init__(self, dtype: torch.dtype, width: int) -> None:
        self.dtype, self.shape = dtype, (3, width)


@pytest.mark.parametrize(
    ("dtype", "width", "rate", "available", "fits"),
    [
        (torch.bfloat16, 384, 0.0, True, True),
        (torch.bfloat16, 384, 0.1, True, False),  # the kernel has no dropout
        (torch.float32, 384, 0.0, True, False),
        (torch.bfloat16, 12 * 4, 0.0, True, False),  # heads of 4
        (torch.bfloat16, 384, 0.0, False, False),  # an older torch
    ],
)
def test_the_kernel_is_taken_where_it_can_be(
    dtype: torch.dtype, width: int, rate: float, available: bool, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "kernel", lambda: varlen if available else None)
    query: Any = OnCuda(dtype, width)
    assert flash_fits(query, 12, rate) is fits


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernel needs a GPU")
@pytest.mark.parametrize("first_only", [False, True])
def test_the_kernel_equals_runs_on_a_gpu(first_only: bool, batch: Packed) -> None:
    if kernel() is None:
        pytest.skip("this torch has no variable-length attention")
    device = torch.device("cuda")
    inputs = [x.detach().to(device, torch.bfloat16).requires_grad_() for x in states(batch, first_only)]
    moved = batch.to(device)
    assert flash_fits(inputs[0], HEADS, 0.0)
    actual = attention(*inputs, HEADS, moved, SILENT)
    expected = by_runs(*inputs, HEADS, moved, Noise(None, 0.0, 0.0, 0.0))
    assert (actual - expected).abs().max() < 2e-2
    for mine, plain in zip(gradients(actual, inputs), gradients(expected, inputs), strict=True):
        assert (mine - plain).abs().max() < 5e-2 * max(1.0, float(plain.abs().max()))
