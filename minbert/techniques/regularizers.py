"""Penalties added to the loss of one task.

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

R-Drop (Wu et al. 2021), for two passes with other dropout masks, outputs z and z', class probabilities p and q:

    L = (NLL(z) + NLL(z')) / 2 + alpha * mean_i d(z_i, z'_i)
    d = (KL(p || q) + KL(q || p)) / 2 for classes,   (z - z')^2 for a score

The paper adds the two NLL where this takes their mean, as its authors' published example does: the task's loss keeps
its size beside those of other tasks, and alpha here is half the paper's. Without dropout L is the plain loss.

FGM, adversarial training on word embeddings (Miyato et al. 2017, section 3), for each sequence w [n, D]:

    L = loss(w) + loss(w + r),   r = epsilon * g / ||g||_2,   g = the gradient of loss(w) with respect to w

with one norm over all n D numbers of a sequence, r a constant in the gradient, and the same dropout masks in all
passes. The paper normalises the embeddings, so that training cannot make r small against them; here they stay those of
the encoder, as is usual with BERT. Of a pair encoded apart each sentence is a sequence of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from minbert.fields import integer, number
from minbert.techniques.penalty import (
    Added,
    Divergence,
    Forward,
    Pass,
    Penalty,
    PenaltyContext,
    Stateless,
    squared_error,
    symmetric_kl,
)


class Regularizer(Protocol):
    """The hyperparameters of a penalty on one task, which has a pass of its own."""

    kind: ClassVar[str]
    """Also the label of its values in reports."""
    moves_words: ClassVar[bool]
    """Whether it perturbs word embeddings: its passes begin there, never at cached features of a frozen encoder."""

    def build(self, context: PenaltyContext) -> Penalty | None:
        """The working form for one task of a trial; None where there is no penalty."""
        ...


@dataclass(frozen=True)
class NoRegularizer:
    """No penalty."""

    kind: ClassVar[str] = "none"
    moves_words: ClassVar[bool] = False

    def build(self, context: PenaltyContext) -> Penalty | None:
        return None


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
    """The smoothness term, a scalar without its weight lambda; `outputs` [B, C] are those of the unperturbed pass."""
    target = outputs.detach()
    delta = torch.randn(shape, generator=generator, device=outputs.device) * noise_std  # [N, D]
    for _ in range(steps):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(forward(delta), target), delta)
        with torch.no_grad():
            ascended = delta + step_size * gradient
            delta = ascended / (ascended.abs().amax(dim=-1, keepdim=True) + epsilon)
    return divergence(forward(delta.detach()), outputs)


@dataclass(frozen=True)
class Smart(Stateless):
    """SMART's smoothness penalty."""

    kind: ClassVar[str] = "smart"
    moves_words: ClassVar[bool] = True
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

    def penalty(self, pass_: Pass) -> Added:
        """lambda_s times the smoothness term; all its passes draw the step's own dropout masks."""
        term = smart(
            pass_.forward,
            pass_.outputs,
            pass_.words,
            pass_.divergence,
            pass_.generator("noise"),
            steps=self.steps,
            epsilon=self.epsilon,
            noise_std=self.noise_std,
            step_size=self.step_size,
        )
        return Added(self.weight * term)


DISAGREEMENTS: dict[str, Divergence] = {
    "classification": lambda a, b: symmetric_kl(a, b) / 2,
    "regression": squared_error,
}
"""R-Drop's d, averaged over rows, for each kind of task."""


@dataclass(frozen=True)
class RDrop(Stateless):
    """R-Drop: two passes with other dropout masks shall agree; one forward and one backward pass more."""

    kind: ClassVar[str] = "rdrop"
    moves_words: ClassVar[bool] = False
    weight: float = number(1.0, 0.0, 100.0, open_low=True)
    """Weight alpha of the disagreement; half of the paper's, which adds both passes' losses."""

    def penalty(self, pass_: Pass) -> Added:
        """alpha times the disagreement, and the second pass's loss."""
        again = pass_.forward(masks="rdrop")
        return Added(self.weight * DISAGREEMENTS[pass_.task.kind](pass_.outputs, again), pass_.loss(again))


def steepest(gradient: Tensor, bounds: Tensor, norm: float) -> Tensor:
    """norm * g / ||g||_2 for each sequence [N, D]; 0 where its gradient is 0.

    `gradient` [N, D] with respect to the words; `bounds` [S + 1] the first token of each sequence and the end of the
    last one.
    """
    lengths = bounds.diff().long()  # [S]
    numbers = torch.arange(len(lengths), device=lengths.device)
    sequence = torch.repeat_interleave(numbers, lengths, output_size=len(gradient))  # [N], each token's sequence
    # In float64: the squares of a small gradient would vanish in float32.
    squares = gradient.new_zeros(len(lengths), dtype=torch.float64)
    norms = squares.index_add_(0, sequence, gradient.double().square().sum(1)).sqrt()  # [S]
    scale = torch.where(norms > 0, norm / norms, 0.0)
    return (gradient.double() * scale[sequence][:, None]).to(gradient.dtype)


@dataclass(frozen=True)
class FGM(Stateless):
    """The loss on word embeddings moved up the loss's own gradient; two forward and two backward passes more."""

    kind: ClassVar[str] = "fgm"
    moves_words: ClassVar[bool] = True
    norm: float = number(1.0, 0.0, 100.0, open_low=True)
    """epsilon, the 2-norm of each sequence's perturbation."""

    def penalty(self, pass_: Pass) -> Added:
        """The loss on the moved embeddings."""
        offset = torch.zeros(pass_.words, device=pass_.outputs.device, requires_grad=True)
        # A pass of its own: in the step's pass the offset would stay a leaf, and take a backward pass through a frozen
        # encoder once more.
        (gradient,) = torch.autograd.grad(pass_.loss(pass_.forward(offset)), offset)
        return Added(pass_.loss(pass_.forward(steepest(gradient, pass_.bounds, self.norm))))


REGULARIZERS: dict[str, type[Regularizer]] = {kind.kind: kind for kind in (NoRegularizer, Smart, RDrop, FGM)}
"""Penalties that each task has or has not."""
