"""What is computed from both sentences' states u and v before any weight.

    cos(u, v) = u . v / (max(|u|, e) max(|v|, e)),   e = 1e-8 (`beyond_bert` 4)

Features go into a linear layer, a transformed cosine is a prediction itself, and a score may be added to an output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from minbert.tasks import Task


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """cos(u, v) of states [B, D], row by row: [B, 1] in float32."""
    return F.cosine_similarity(u.float(), v.float(), eps=1e-8)[:, None]


def add_score(outputs: Tensor, score: Tensor) -> Tensor:
    """Add a score [B, 1] to outputs [B, C]: to the score (C = 1) or to the logit of class 1 (C = 2)."""
    assert outputs.shape[-1] <= 2, outputs.shape
    return outputs + F.pad(score, (outputs.shape[-1] - 1, 0))


def has_score(task: Task) -> bool:
    """Whether `add_score` makes sense: a regression, or a binary task."""
    return task.classes <= 2


@dataclass(frozen=True)
class Features:
    """What a linear head sees of a pair."""

    multiple: int
    """Number of D-wide parts."""
    extra: int
    """Numbers beside them."""
    combine: Callable[[Tensor, Tensor], Tensor]
    """From u and v [B, D] to the features."""

    def width(self, width: int) -> int:
        """Number of features for hidden size D."""
        return self.multiple * width + self.extra


FEATURES: dict[str, Features] = {
    "concat": Features(2, 0, lambda u, v: torch.cat([u, v], dim=-1)),
    "sum": Features(1, 0, lambda u, v: u + v),
    "product": Features(3, 0, lambda u, v: torch.cat([u, v, u * v], dim=-1)),
    "difference": Features(3, 0, lambda u, v: torch.cat([u, v, (u - v).abs()], dim=-1)),
    "cosine": Features(2, 1, lambda u, v: torch.cat([u, v, cosine(u, v)], dim=-1)),
}
"""Pair features by name."""

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda cosine: torch.relu(cosine),
    "shift": lambda cosine: 0.5 * (cosine + 1.0),
    "sigmoid": lambda cosine: torch.sigmoid(20.0 * cosine),
}
"""Maps of a cosine in [-1, 1] to [0, 1], scaled to the label range afterwards."""
