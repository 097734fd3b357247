"""Dropout with an explicit generator: a trial's masks depend on its seed and step alone, wherever it runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Noise:
    """The randomness of one forward pass: the generator that draws dropout masks, and their rates."""

    generator: torch.Generator | None
    """None in evaluation: no dropout."""
    hidden: float
    """Dropout rate of hidden states."""
    attention: float
    """Dropout rate of attention probabilities."""
    head: float
    """Dropout rate of head inputs."""


SILENT = Noise(None, 0.0, 0.0, 0.0)
"""No randomness at all: evaluation."""


def dropout(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Inverted dropout with an explicit generator; the identity without one or at rate 0.

    The mask comes from 16 random bits an element (rates are rounded to 1 / 65536), four elements to a draw: on a CPU
    that is some ten times faster than drawing Bernoulli numbers.
    """
    if generator is None or rate == 0.0:
        return x
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep, scale = (bits >= round(rate * 2**16) - 2**15).to(x.dtype), 1.0 / (1.0 - rate)
    if x.dtype == torch.float32:
        return x * keep.mul_(scale)
    return x * keep * scale  # in 16 bits the factor itself would be rounded, the same way everywhere
