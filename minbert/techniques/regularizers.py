"""Penalties added to a task's loss.

SMART's smoothness-inducing adversarial regularisation (Jiang et al. 2020, equation 2):

    lambda * mean_i max_delta l(f(x_i + delta), f(x_i)),   delta on the word embeddings

with l the symmetric KL divergence for classes and the squared error for a score. The maximum is approached by `steps`
gradient ascents from Gaussian noise of deviation sigma, each normalised per token as in the module `smart_pytorch`
that the papers used: delta = (delta + eta g) / (max|delta + eta g| + epsilon), so that max|delta| is about 1, and
sigma and eta decide at most its direction. With the papers' values they hardly do: near 0 the divergence's gradient is
proportional to the noise and so small that eta times it is far below the noise (some 6e-5 of it on the packaged MiniLM,
`benchmarks/smart.py`), and the penalty is that of a random direction of size 1. A larger eta turns it to the worst one.
In bf16 the outputs' rounding is larger than what noise of sigma moves, and makes that gradient far larger: a smaller
eta does the same there, and a space that asks for eta should fix `precision`.

The Bregman proximal point of the same paper (equation 5, with the momentum of section 3.2) keeps an update close to
where the model has been:

    mu * mean_i l(f(x_i, theta), f(x_i, teacher)),   teacher <- (1 - beta) theta + beta teacher after every update

Both passes draw the same dropout masks, so that the penalty is 0 while teacher and model agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from minbert.fields import integer, number

Forward = Callable[[Tensor | None], Tensor]
"""Outputs [B, C] of the task for an offset [N, D] of its word embeddings, with the step's own dropout masks."""

Divergence = Callable[[Tensor, Tensor], Tensor]
"""How far outputs [B, C] moved: a scalar, 0 where they did not."""


def symmetric_kl(a: Tensor, b: Tensor) -> Tensor:
    """mean_i KL(p_i || q_i) + KL(q_i || p_i) for logits [B, C]."""
    log_p, log_q = F.log_softmax(a.float(), dim=-1), F.log_softmax(b.float(), dim=-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1).mean()


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """mean_i (a_i - b_i)^2 for scores [B, 1]."""
    return (a.float() - b.float()).square().mean()


DIVERGENCES: dict[str, Divergence] = {
    "classification": symmetric_kl,
    "regression": squared_error,
}


def smart(
    forward: Forward,
    outputs: Tensor,
    shape: torch.Size,
    divergence: Divergence,
    generator: torch.Generator,
    *,
    steps: int,
    epsilon: float,
    noise_std: float,
    step_size: float,
) -> Tensor:
    """The penalty, a scalar without its weight lambda; `outputs` [B, C] are those of the unperturbed pass."""
    target = outputs.detach()
    delta = torch.randn(shape, generator=generator, device=outputs.device) * noise_std  # [N, D]
    for _ in range(steps):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(forward(delta), target), delta)
        with torch.no_grad():
            ascended = delta + step_size * gradient
            delta = ascended / (ascended.abs().amax(dim=-1, keepdim=True) + epsilon)
    return divergence(forward(delta.detach()), outputs)


class Regularizer(Protocol):
    """A penalty's hyperparameters."""

    active: bool
    """Whether there is a penalty at all."""

    def penalty(
        self, forward: Forward, outputs: Tensor, shape: torch.Size, divergence: Divergence, generator: torch.Generator
    ) -> Tensor: ...


@dataclass(frozen=True)
class NoRegularizer:
    """No penalty."""

    kind: ClassVar[str] = "none"
    active: ClassVar[bool] = False


@dataclass(frozen=True)
class Smart:
    """SMART's smoothness penalty."""

    kind: ClassVar[str] = "smart"
    active: ClassVar[bool] = True
    weight: float = number(1.0, 0.0, 100.0, open_low=True)
    """Weight lambda_s of the penalty."""
    steps: int = integer(1, 1, 10)
    """Number of ascent steps; each costs one more forward and backward pass."""
    epsilon: float = number(1e-6, 0.0, 1.0, open_low=True)
    """epsilon, which keeps the normalisation away from 0."""
    noise_std: float = number(1e-5, 0.0, 1.0, open_low=True)
    """sigma, deviation of the initial noise."""
    step_size: float = number(1e-3, 0.0, 1e6, open_low=True)
    """eta, step size of the ascent."""

    def penalty(
        self, forward: Forward, outputs: Tensor, shape: torch.Size, divergence: Divergence, generator: torch.Generator
    ) -> Tensor:
        """lambda_s times the smoothness term, a scalar."""
        return self.weight * smart(
            forward,
            outputs,
            shape,
            divergence,
            generator,
            steps=self.steps,
            epsilon=self.epsilon,
            noise_std=self.noise_std,
            step_size=self.step_size,
        )


@dataclass(frozen=True)
class NoProximal:
    """No proximal point."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True)
class Bregman:
    """The momentum Bregman proximal point, on every task of a step."""

    kind: ClassVar[str] = "bregman"
    weight: float = number(1.0, 0.0, 100.0, open_low=True)
    """Weight mu of the penalty."""
    momentum: float = number(0.99, 0.0, 0.9999)
    """beta: share of the teacher that stays at an update; 0 makes the teacher the model of the step before."""


REGULARIZERS: dict[str, type] = {kind.kind: kind for kind in (NoRegularizer, Smart)}
"""Penalties that each task has or has not."""

PROXIMALS: dict[str, type] = {kind.kind: kind for kind in (NoProximal, Bregman)}
"""Penalties that hold the whole model back."""


@torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
def follow(teacher: Mapping[str, Tensor], model: Mapping[str, Tensor], momentum: float) -> None:
    """teacher <- (1 - beta) theta + beta teacher, in place, over parameters by name."""
    torch._foreach_lerp_(list(teacher.values()), [model[name].detach() for name in teacher], 1.0 - momentum)
