"""Loss balances: weights of the tasks' losses that are learned in training.

uncertainty (Kendall et al. 2018, equations 7 and 10), s_k = log sigma_k^2 learned with the model:
    regression      L / (2 sigma^2) + log sigma = exp(-s) L / 2 + s / 2
    classification  L / sigma^2 + log sigma     = exp(-s) L + s / 2
GradNorm (Chen et al. 2018, equations 1 and 2, algorithm 1), w_k moved so that all tasks train at similar rates:
    G_k = w_k |grad_W L_k|,   r_k = (L_k / L_k(0)) / mean_j (L_j / L_j(0)),   target_k = mean(G) r_k^alpha, a constant
    L_grad = sum_k |G_k - target_k|,   so   dL_grad / dw_k = sign(G_k - target_k) |grad_W L_k|
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from minbert.fields import number
from minbert.tasks import Task

FLOOR = 1e-3
"""Smallest GradNorm weight before renormalisation, so that every task keeps a weight above 0."""

START = 20
"""Number of a task's first losses whose mean is GradNorm's L(0). A single loss is too noisy: a small first batch
without error would give its task all the weight for the whole trial."""

TINY = 1e-12
"""Smallest initial loss that GradNorm divides by: a margin loss can start at 0."""


def uncertain(loss: Tensor, log_variance: Tensor, *, regression: bool) -> Tensor:
    """Loss under a learned noise level, exp(-s) L (halved for a regression) + s / 2; scalars.

    For a constant L the best s is log L for a regression and log 2L for a classification.
    """
    return torch.exp(-log_variance) * loss * (0.5 if regression else 1.0) + log_variance / 2


def gradnorm_targets(norms: Tensor, losses: Tensor, initial: Tensor, alpha: float) -> Tensor:
    """GradNorm's targets mean(G) r_k^alpha [K] from weighted gradient norms G, losses and initial losses, each [K]."""
    ratios = losses / initial.clamp_min(TINY)
    return norms.mean() * (ratios / ratios.mean().clamp_min(TINY)) ** alpha


def gradnorm_step(weights: Tensor, norms: Tensor, targets: Tensor, rate: float, total: Tensor | float) -> Tensor:
    """GradNorm's weights after one step of gradient descent on L_grad: positive, [K], of sum `total`.

    `weights` w, `norms` |grad_W L| of the unweighted losses, `targets`: each [K].
    """
    gradient = torch.sign(weights * norms - targets) * norms
    moved = (weights - rate * gradient).clamp_min(FLOOR)
    return moved * (total / moved.sum())


class Balance(nn.Module):
    """Loss balance of one trial: weighs losses. The optimiser updates its parameters, `update` its buffers."""

    lr = 0.0
    """Peak learning rate of its parameters; 0 where it has none."""

    def weigh(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weighed losses, by task in the same order."""
        return losses

    def update(self, losses: Mapping[str, Tensor], shared_of: Mapping[str, Sequence[nn.Parameter]]) -> None:
        """Update the weights from a draw's unweighted losses, before the backward pass; their graph is kept.

        `shared_of` gives the shared parameters on which each task's gradient is measured. Tasks that are not in
        `losses` keep their weights.
        """

    def factors(self) -> dict[str, Tensor]:
        """Present factor of each task's loss, scalars on the balance's device; empty without a balance."""
        return {}


class _Uncertain(Balance):
    def __init__(self, tasks: Sequence[Task], lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.regression = {task.name: task.kind == "regression" for task in tasks}
        # One parameter per task: the optimiser skips parameters without gradient, so an absent task's does not move.
        self.log_variance = nn.ParameterDict({task.name: nn.Parameter(torch.zeros(())) for task in tasks})

    def weigh(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: uncertain(loss, self.log_variance[name], regression=self.regression[name])
            for name, loss in losses.items()
        }

    def factors(self) -> dict[str, Tensor]:
        return {
            name: torch.exp(-value.detach()) * (0.5 if self.regression[name] else 1.0)
            for name, value in self.log_variance.items()
        }


class _GradNorm(Balance):
    weights: Tensor
    initial: Tensor
    begun: Tensor

    def __init__(self, tasks: Sequence[Task], alpha: float, rate: float) -> None:
        super().__init__()
        self.alpha, self.rate = alpha, rate
        self.index = {task.name: place for place, task in enumerate(tasks)}
        self.register_buffer("weights", torch.ones(len(tasks)))  # w [K]
        self.register_buffer("initial", torch.zeros(len(tasks)))  # L(0) [K], the mean of a task's first losses
        self.register_buffer("begun", torch.zeros(len(tasks)))  # number of losses that L(0) is the mean of [K]

    def weigh(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: loss * self.weights[self.index[name]] for name, loss in losses.items()}

    def update(self, losses: Mapping[str, Tensor], shared_of: Mapping[str, Sequence[nn.Parameter]]) -> None:
        indices = [self.index[name] for name in losses]
        absent = [index for index in self.index.values() if index not in indices]
        # A slice where all tasks are present in order: then no indices are copied to a device.
        present: list[int] | slice = slice(None) if indices == [*self.index.values()] else indices
        norms = torch.stack([gradient_norm(loss, shared_of[name]) for name, loss in losses.items()])
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        # New tensors, not in place: the graph of the weighed losses still holds the old ones.
        initial, begun, weights = self.initial.clone(), self.begun.clone(), self.weights.clone()
        early = (begun[present] < START).float()
        begun[present] += early
        initial[present] += early * (values - initial[present]) / begun[present]
        targets = gradnorm_targets(weights[present] * norms, values, initial[present], self.alpha)
        total = len(weights) - sum(weights[index] for index in absent)  # the weights of all tasks sum to K
        weights[present] = gradnorm_step(weights[present], norms, targets, self.rate, total)
        self.initial, self.begun, self.weights = initial, begun, weights

    def factors(self) -> dict[str, Tensor]:
        return dict(zip(self.index, self.weights.unbind(), strict=True))


def gradient_norm(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """2-norm of a loss's gradient over the parameters; 0 where it depends on none of them. The graph is kept."""
    if not parameters or not loss.requires_grad:
        return torch.zeros((), device=loss.device)
    gradients = torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients if gradient is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros((), device=loss.device)


class Balancing(Protocol):
    """Hyperparameters of a loss balance."""

    kind: ClassVar[str]
    measures_gradients: ClassVar[bool]
    """Whether every task's loss has a further backward pass through the last trained layer."""

    def build(self, tasks: Sequence[Task]) -> Balance:
        """Loss balance of one trial over the run's tasks."""
        ...


@dataclass(frozen=True)
class NoBalance:
    """No balance: the losses as they are."""

    kind: ClassVar[str] = "none"
    measures_gradients: ClassVar[bool] = False

    def build(self, tasks: Sequence[Task]) -> Balance:
        return Balance()


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty weighting: each loss is divided by a learned noise variance."""

    kind: ClassVar[str] = "uncertainty"
    measures_gradients: ClassVar[bool] = False
    lr: float = number(0.01, 0.0, 1.0, open_low=True)
    """Peak learning rate of the log variances. AdamW moves them by about that much per step, and a few hundred steps
    have to take them from 0 to the logarithm of a loss."""

    def build(self, tasks: Sequence[Task]) -> Balance:
        return _Uncertain(tasks, self.lr)


@dataclass(frozen=True)
class GradNorm:
    """GradNorm: weights of sum K that bring the tasks' gradient norms and training rates together."""

    kind: ClassVar[str] = "gradnorm"
    measures_gradients: ClassVar[bool] = True
    alpha: float = number(1.5, 0.0, 3.0)
    """Restoring force alpha: 0 aims at equal norms, more favours tasks that lag behind; the paper uses 1.5 on NYUv2."""
    lr: float = number(0.001, 0.0, 1.0, open_low=True)
    """Learning rate of gradient descent on the weights, which takes one step per draw of batches. A step is this rate
    times a gradient norm: with norms above 10, a rate above 0.01 moves the weights from one bound to the other."""

    def build(self, tasks: Sequence[Task]) -> Balance:
        return _GradNorm(tasks, self.alpha, self.lr)


BALANCES: dict[str, type[Balancing]] = {kind.kind: kind for kind in (NoBalance, Uncertainty, GradNorm)}
"""Loss balances by name."""
