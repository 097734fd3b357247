"""Losses of a head's outputs against labels.

    cross-entropy        mean_i -log softmax(z_i)[y_i]
    squared error        mean_i (z_i - y_i)^2
    cosine embedding     mean_i 1 - cos_i                where the pair is similar,
                                max(0, cos_i - margin)   where it is not
                         (`exploration` 4.3 and 5.3.3, as torch.nn.CosineEmbeddingLoss)

Each is a mean over the B rows of a batch, computed in the type of its outputs (float32 from every head).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from minbert.tasks import Task


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, C] against class numbers [B]."""
    return F.cross_entropy(outputs, labels.long())


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of scores [B, 1] against labels [B], in squared label units."""
    return F.mse_loss(outputs.squeeze(-1), labels.to(outputs.dtype))


def cosine_embedding(cosines: Tensor, similar: Tensor, margin: float) -> Tensor:
    """Mean cosine-embedding loss of cosines [B] in [-1, 1], given whether each pair is similar [B], bool."""
    return torch.where(similar, 1.0 - cosines, torch.relu(cosines - margin)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "classification": cross_entropy,
    "regression": squared_error,
}
"""Loss of outputs [B, C] against labels [B] for each kind of task; a head may have a loss of its own instead."""


def task_loss(task: Task, outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean loss of outputs [B, C] against labels [B], by the task's kind."""
    return LOSSES[task.kind](outputs, labels)
