"""B sequences laid end to end without padding, in order of length, and their runs of similar length.

Letters: B sequences, N packed tokens, T longest sequence.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """b neighbouring sequences of similar length, at most T."""

    tokens: slice
    """Their tokens among the N."""
    sequences: slice
    """Their places among the B, in order of length."""
    slots: Tensor
    """Index of each of their tokens in the padded layout, sequence * T + position."""
    mask: Tensor
    """Additive attention mask [b, 1, 1, T]: 0 at tokens, -inf at padding."""


@dataclass(frozen=True)
class Packed:
    """B sequences laid end to end, in order of length."""

    ids: Tensor
    """Word-piece ids [N]."""
    positions: Tensor
    """Position of each token in its sequence [N]."""
    segments: Tensor
    """Segment (0 first sentence, 1 second) of each token [N]."""
    first: Tensor
    """Index of each sequence's [CLS], in order of length [B]."""
    place: Tensor
    """Where each sequence, as it was given, stands in the order of length [B]."""
    runs: tuple[Run, ...]
    """The sequences in runs of similar length."""

    @functools.cached_property
    def bounds(self) -> Tensor:
        """Where each sequence begins, and the end of the last one [B + 1], int32."""
        return torch.cat([self.first, self.first.new_full((1,), len(self.ids))]).int()

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(run.mask.shape[-1] for run in self.runs)

    def to(self, device: torch.device) -> Packed:
        if device.type == "cpu":
            return self

        def move(value: Tensor) -> Tensor:
            return value.pin_memory().to(device, non_blocking=True)

        runs = tuple(replace(run, slots=move(run.slots), mask=move(run.mask)) for run in self.runs)
        tensors = ("ids", "positions", "segments", "first", "place")
        return Packed(**{name: move(getattr(self, name)) for name in tensors}, runs=runs)
