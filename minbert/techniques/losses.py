"""Losses of a head's outputs against labels.

    cross-entropy        mean_i -log softmax(z_i)[y_i]
    squared error        mean_i ((z_i - y_i) / u)^2,   u the label unit
    cosine embedding     mean_i 1 - cos_i                where the pair is similar,
                                max(0, cos_i - margin)   where it is not
                         (`exploration` 4.3 and 5.3.3, as torch.nn.CosineEmbeddingLoss)

Each is a mean over the B rows of a batch, computed in the type of its outputs (float32 from every head).

The label unit u of a regression is the standard deviation of its training labels (`unit_variance`), so that an
uninformed prediction has a loss of about 1, as in a classification. In label units (`raw`, the papers' form) STS-B's
gradient outweighs those of the other tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from minbert.tasks import Task


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of logits [B, C] against class numbers [B]."""
    return F.cross_entropy(outputs, labels.long())


def squared_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of scores [B, 1] against labels [B]."""
    return F.mse_loss(outputs.squeeze(-1), labels.to(outputs.dtype))


REGRESSION_LOSSES = ("unit_variance", "raw")
"""Units that a regression's loss may have, the default first."""


def label_unit(task: Task, labels: NDArray[np.floating[Any]], regression_loss: str) -> float:
    """Unit u of a task's loss: the standard deviation of its training labels [R], or 1.

    It is 1 for a classification, in `raw` losses, and where all labels are equal.
    """
    if task.kind != "regression" or regression_loss == "raw":
        return 1.0
    return float(np.std(labels.astype(np.float64))) or 1.0


def cosine_embedding(cosines: Tensor, similar: Tensor, margin: float) -> Tensor:
    """Mean cosine-embedding loss of cosines [B] in [-1, 1], given whether each pair is similar [B], bool."""
    return torch.where(similar, 1.0 - cosines, torch.relu(cosines - margin)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "classification": cross_entropy,
    "regression": squared_error,
}
"""Loss of outputs [B, C] against labels [B] for each kind of task; a head may have a loss of its own instead."""


def task_loss(task: Task, outputs: Tensor, labels: Tensor, unit: float = 1.0) -> Tensor:
    """Mean loss of outputs [B, C] against labels [B], by the task's kind; of a regression in the label unit `unit`."""
    return LOSSES[task.kind](outputs, labels) / unit**2
