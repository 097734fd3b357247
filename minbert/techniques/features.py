"""Pair features and cosines: functions of both sentences' states u and v that have no weights.

    cos(u, v) = u . v / (max(|u|, e) max(|v|, e)),   e = 1e-8 (`beyond_bert` 4)

Features are the input of a linear layer, a transformed cosine is a prediction, and a score may be added to an output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from minbert.tasks import Task


def cosine(u: Tensor, v: Tensor) -> Tensor:
    """Cosine of states u and v [B, D], row by row: [B, 1] in float32."""
    return F.cosine_similarity(u.float(), v.float(), eps=1e-8)[:, None]


def add_score(outputs: Tensor, score: Tensor) -> Tensor:
    """Outputs [B, C] with a score [B, 1] added: to the output itself (C = 1) or to the logit of class 1 (C = 2)."""
    assert outputs.shape[-1] <= 2, outputs.shape
    return outputs + F.pad(score, (outputs.shape[-1] - 1, 0))


def has_score(task: Task) -> bool:
    """Whether `add_score` fits the task: a regression or two classes."""
    return task.classes <= 2


@dataclass(frozen=True)
class Features:
    """Pair features: the input of a linear head for a sentence pair."""

    multiple: int
    """Number of D-wide parts."""
    extra: int
    """Number of further features."""
    combine: Callable[[Tensor, Tensor], Tensor]
    """Function from u and v [B, D] to the features [B, multiple D + extra]."""

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
"""Maps of a cosine in [-1, 1] to [0, 1], by name; the head scales the result to the label range."""
