"""Regularisers: penalties added to the loss of one task.

SMART's smoothness-inducing adversarial regularisation (Jiang et al. 2020, equation 2):

    lambda * mean_i max_delta l(f(x_i + delta), f(x_i)),   delta on the word embeddings

with l the symmetric KL divergence for classes and the squared error for a score. `steps` gradient ascents approach the
maximum. They start from Gaussian noise of deviation sigma, and each is normalised per token as in the module
`smart_pytorch` that the papers used: delta = (delta + eta g) / (max|delta + eta g| + epsilon). So max|delta| is about
1, and sigma and eta decide at most the direction. With the papers' values they hardly do: near 0 the divergence's
gradient is proportional to the noise, and eta times it is far smaller than the noise (about 6e-5 of it on the packaged
MiniLM, `benchmarks/smart.py`). The penalty is then that of a random direction of size 1; a larger eta turns it towards
the worst direction. In bf16 the outputs' rounding is larger than the effect of noise of deviation sigma, and makes that
gradient far larger: a smaller eta has the same effect there, and a space that varies eta should fix `precision`.

Size 1 is not small: the entries of MiniLM's word embeddings have a root mean square of 0.056. With a `radius` R > 0 the
search for delta runs in units of R times that root mean square, over the tokens of the pass: delta = R rms u, with u as
delta above, so that max|delta| is about R rms. R = 0 is the papers' form.

R-Drop (Wu et al. 2021), for two passes with different dropout masks, outputs z and z', class probabilities p and q:

    L = (NLL(z) + NLL(z')) / 2 + alpha * mean_i d(z_i, z'_i)
    d = (KL(p || q) + KL(q || p)) / 2 for classes,   (z - z')^2 for a score

The paper adds the two NLL. Here, as in its authors' published example, L has their mean: the task's loss keeps its size
against those of other tasks, and alpha here is half the paper's. Without dropout L is the plain loss.

FGM, adversarial training on word embeddings (Miyato et al. 2017, section 3), for each sequence w [n, D]:

    L = loss(w) + loss(w + r),   r = epsilon * g / ||g||_2,   g = the gradient of loss(w) with respect to w

with one norm over all n D numbers of a sequence, r a constant in the gradient, and the same dropout masks in all
passes. The paper normalises the embeddings, so that training cannot make r small against them; here they stay those of
the encoder, as is usual with BERT. In a pair encoded apart each sentence is a sequence of its own.
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
    squared_difference,
    symmetric_kl,
)
from minbert.techniques.work import Passes


class Regularizer(Protocol):
    """Hyperparameters of a penalty on one task; such a task has a forward pass of its own."""

    kind: ClassVar[str]
    """Name of the technique, also the label of its values in reports."""
    moves_words: ClassVar[bool]
    """Whether it perturbs word embeddings: its passes then begin there, not at cached features of a frozen encoder."""

    @property
    def passes(self) -> Passes:
        """Further passes of its task's batch through the encoder."""
        ...

    def build(self, context: PenaltyContext) -> Penalty | None:
        """Penalty on one task of a trial; None where there is none."""
        ...


@dataclass(frozen=True)
class NoRegularizer:
    """No penalty."""

    kind: ClassVar[str] = "none"
    moves_words: ClassVar[bool] = False
    passes: ClassVar[Passes] = Passes()

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
    size: Tensor | float = 1.0,
) -> Tensor:
    """SMART's smoothness term, a scalar without the weight lambda; `outputs` [B, C] are those of the unperturbed pass.

    `shape` [N, D] of the word embeddings; `noise_std` is sigma, `step_size` eta, `size` the unit of the perturbation.
    """
    target = outputs.detach()
    delta = torch.randn(shape, generator=generator, device=outputs.device) * noise_std  # [N, D], in units of `size`
    for _ in range(steps):
        delta.requires_grad_()
        (gradient,) = torch.autograd.grad(divergence(forward(size * delta), target), delta)
        with torch.no_grad():
            ascended = delta + step_size * gradient
            delta = ascended / (ascended.abs().amax(dim=-1, keepdim=True) + epsilon)
    return divergence(forward(size * delta.detach()), outputs)


@dataclass(frozen=True)
class Smart(Stateless):
    """SMART: smoothness penalty under the worst small change of the word embeddings."""

    kind: ClassVar[str] = "smart"
    moves_words: ClassVar[bool] = True
    weight: float = number(1.0, 0.0, 100.0, open_low=True)
    """Weight lambda_s of the penalty."""
    steps: int = integer(1, 1, 10)
    """Number of ascent steps; each costs one more forward pass, and a backward pass to the word embeddings."""
    epsilon: float = number(1e-6, 0.0, 1.0, open_low=True)
    """epsilon, which keeps the normalisation from dividing by 0."""
    noise_std: float = number(1e-5, 0.0, 1.0, open_low=True)
    """sigma, deviation of the initial noise."""
    step_size: float = number(1e-3, 0.0, 1e6, open_low=True)
    """eta, step size of the ascent."""
    radius: float = number(0.3, 0.0, 100.0)
    """R, largest entry of the perturbation against the word embeddings' root mean square; 0: the papers' size of 1."""

    @property
    def passes(self) -> Passes:
        return Passes(forward=self.steps + 1, to_words=self.steps, whole=1)

    def penalty(self, pass_: Pass) -> Added:
        """Penalty lambda_s times the smoothness term; all its passes draw the step's own dropout masks."""
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
            size=self.radius * pass_.word_rms if self.radius else 1.0,
        )
        return Added(self.weight * term)


DISAGREEMENTS: dict[str, Divergence] = {
    "classification": lambda a, b: symmetric_kl(a, b) / 2,
    "regression": squared_difference,
}
"""R-Drop's d, averaged over rows, for each kind of task."""


@dataclass(frozen=True)
class RDrop(Stateless):
    """R-Drop: penalty on the disagreement of two passes with different dropout masks."""

    kind: ClassVar[str] = "rdrop"
    moves_words: ClassVar[bool] = False
    passes: ClassVar[Passes] = Passes(forward=1, whole=1)
    weight: float = number(1.0, 0.0, 100.0, open_low=True)
    """Weight alpha of the disagreement; half of the paper's alpha, because the paper adds both passes' losses."""

    def penalty(self, pass_: Pass) -> Added:
        """Penalty alpha times the disagreement, and the second pass's loss."""
        second = pass_.forward(masks="rdrop")
        disagreement = pass_.in_unit(DISAGREEMENTS[pass_.task.kind])
        return Added(self.weight * disagreement(pass_.outputs, second), pass_.loss(second))


def steepest(gradient: Tensor, bounds: Tensor, norm: float) -> Tensor:
    """FGM's perturbation [N, D]: norm * g / ||g||_2 for each sequence, 0 where its gradient is 0.

    `gradient` [N, D] with respect to the word embeddings; `bounds` [S + 1] holds the index of each sequence's first
    token, then the end of the last sequence.
    """
    lengths = bounds.diff().long()  # [S]
    indices = torch.arange(len(lengths), device=lengths.device)
    sequence = torch.repeat_interleave(indices, lengths, output_size=len(gradient))  # [N], each token's sequence
    # In float64: the squares of a small gradient underflow in float32.
    squares = gradient.new_zeros(len(lengths), dtype=torch.float64)
    norms = squares.index_add_(0, sequence, gradient.double().square().sum(1)).sqrt()  # [S]
    scale = torch.where(norms > 0, norm / norms, 0.0)
    return (gradient.double() * scale[sequence][:, None]).to(gradient.dtype)


@dataclass(frozen=True)
class FGM(Stateless):
    """FGM: adversarial loss, on word embeddings moved along the loss's gradient."""

    kind: ClassVar[str] = "fgm"
    moves_words: ClassVar[bool] = True
    passes: ClassVar[Passes] = Passes(forward=2, to_words=1, whole=1)
    norm: float = number(1.0, 0.0, 100.0, open_low=True)
    """epsilon, the 2-norm of each sequence's perturbation."""

    def penalty(self, pass_: Pass) -> Added:
        """Loss on the moved embeddings."""
        offset = torch.zeros(pass_.words, device=pass_.outputs.device, requires_grad=True)
        # A further pass: an offset in the step's own pass would stay a leaf of its graph, and the step's backward pass
        # would then run through a frozen encoder too.
        (gradient,) = torch.autograd.grad(pass_.loss(pass_.forward(offset)), offset)
        return Added(pass_.loss(pass_.forward(steepest(gradient, pass_.bounds, self.norm))))


REGULARIZERS: dict[str, type[Regularizer]] = {kind.kind: kind for kind in (NoRegularizer, Smart, RDrop, FGM)}
"""Regularisers by name."""
