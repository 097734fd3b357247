"""Packed batch: B sequences laid end to end without padding, in order of length, and their runs of similar length.

Letters: B sequences, N packed tokens, T longest sequence.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """Run: b neighbouring sequences of similar length, at most T tokens each."""

    tokens: slice
    """Their tokens among the N packed tokens."""
    sequences: slice
    """Their indices among the B sequences in order of length."""
    slots: Tensor
    """Index of each of their tokens in the padded layout, sequence * T + position."""
    mask: Tensor
    """Additive attention mask [b, 1, 1, T]: 0 at tokens, -inf at padding."""


@dataclass(frozen=True)
class Packed:
    """Packed batch: B sequences laid end to end, in order of length."""

    ids: Tensor
    """Word-piece ids [N]."""
    positions: Tensor
    """Position of each token in its sequence [N]."""
    segments: Tensor
    """Segment (0 first sentence, 1 second) of each token [N]."""
    first: Tensor
    """Index of each sequence's [CLS] token [B], in order of length."""
    place: Tensor
    """Index in the order of length [B] of each sequence, in the order in which sequences were given."""
    runs: tuple[Run, ...]
    """Runs that together hold all sequences."""

    @functools.cached_property
    def bounds(self) -> Tensor:
        """Index of each sequence's first token, then the end of the last sequence [B + 1], int32."""
        return torch.cat([self.first, self.first.new_full((1,), len(self.ids))]).int()

    @property
    def longest(self) -> int:
        """Number of tokens of the longest sequence."""
        return max(run.mask.shape[-1] for run in self.runs)

    def to(self, device: torch.device) -> Packed:
        """The batch on a device; a copy to a GPU does not wait for it."""
        if device.type == "cpu":
            return self

        def move(value: Tensor) -> Tensor:
            return value.pin_memory().to(device, non_blocking=True)

        runs = tuple(replace(run, slots=move(run.slots), mask=move(run.mask)) for run in self.runs)
        tensors = ("ids", "positions", "segments", "first", "place")
        return Packed(**{name: move(getattr(self, name)) for name in tensors}, runs=runs)
