"""Gradient combiners: from the gradients of a step's task losses to one update.

    PCGrad (Yu et al. 2020, algorithm 1):  where g_i . g_j < 0,   g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j,   for j in
    random order; the update is sum_i g_i

Every projection stays in the span of the K task gradients. So each g_i is a vector of K coefficients, all inner
products come from the Gram matrix G_ij = g_i . g_j of K backward passes, and the update is one weighted sum: no
projection touches the P parameters. GSE (`exploration`, 5.3.2, 1c) takes a PCGrad step, then a step on the plain sum.

Surgery changes the gradients of shared parameters only. Heads and branches of single tasks get the plain sum's
gradient. Surgery on them would give the same: gradients that share no parameter do not conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = {"cpu": 1 << 16, "cuda": 1 << 22}
"""Columns of the gradients that are in float64 at once: on a CPU as many as its cache holds (six times as fast as
1 << 22), on a GPU enough for few kernels, of 32 MiB per task."""


def gram(gradients: Sequence[Tensor]) -> NDArray[np.float64]:
    """Inner products [K, K] of K gradients [P], summed in float64: a product near 0 must keep its sign."""
    products = torch.zeros(len(gradients), len(gradients), dtype=torch.float64, device=gradients[0].device)
    chunk = CHUNK.get(gradients[0].device.type, CHUNK["cuda"])
    for start in range(0, len(gradients[0]), chunk):
        columns = torch.stack([gradient[start : start + chunk] for gradient in gradients]).double()  # [K, <= chunk]
        products += columns @ columns.T
    return np.asarray(products.cpu().numpy())


def conflicts(products: NDArray[np.float64]) -> int:
    """Number of task pairs with a negative inner product, each pair counted once."""
    return int((np.triu(products, 1) < 0).sum())


def project(products: NDArray[np.float64], orders: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """PCGrad on coefficients: row i of the result [K, K] holds c, where g_i^PC = sum_j c_j g_j.

    `products` is the Gram matrix [K, K], `orders[i]` the order in which g_i is projected against the other tasks (i
    itself is skipped). Each projection is onto the normal plane of the other task's original gradient.
    """
    rows = np.eye(len(products))
    for i, order in enumerate(orders):
        for j in order:
            inner = products[j] @ rows[i]
            if j != i and inner < 0:  # never true for a zero gradient: its inner products are 0
                rows[i, j] -= inner / products[j, j]
    return rows


def sum_backward(losses: Mapping[str, Tensor]) -> None:
    """One backward pass of the plain sum; losses without a graph (untrained head, frozen encoder) are skipped."""
    trained = [loss for loss in losses.values() if loss.requires_grad]
    if trained:
        torch.stack(trained).sum().backward()  # type: ignore[no-untyped-call]


def pcgrad_backward(
    losses: Mapping[str, Tensor],
    shared: Sequence[Tensor],
    unshared: Sequence[Tensor],
    generator: np.random.Generator,
) -> dict[str, float]:
    """PCGrad: K backward passes with surgery on the shared parameters; returns how many task `pairs` there are, and
    how many of them are `conflicts`.

    With one task, or without shared parameters, it is one backward pass of the plain sum.
    """
    if len(losses) < 2 or not shared:
        sum_backward(losses)
        return {"conflicts": 0.0, "pairs": 0.0}
    flat: list[Tensor] = []  # K gradients [P]
    touched = [False] * len(shared)  # whether a loss depends on each parameter
    for number, loss in enumerate(losses.values()):
        gradients = _gradients(loss, (*shared, *unshared), keep=number < len(losses) - 1)
        flat.append(torch.cat([_or_zero(g, p).flatten() for g, p in zip(gradients, shared, strict=False)]))
        touched = [earlier or gradient is not None for earlier, gradient in zip(touched, gradients, strict=False)]
        for parameter, gradient in zip(unshared, gradients[len(shared) :], strict=True):
            if gradient is not None:
                _add(parameter, gradient)
    products = gram(flat)
    weights = project(products, [generator.permutation(len(flat)).tolist() for _ in flat]).sum(0)
    update = flat[0] * weights[0]
    for gradient, weight in zip(flat[1:], weights[1:], strict=True):
        update.add_(gradient, alpha=float(weight))
    pieces = update.split([parameter.numel() for parameter in shared])
    for parameter, piece, is_touched in zip(shared, pieces, touched, strict=True):
        if is_touched:
            _add(parameter, piece.view_as(parameter))
    return {"conflicts": float(conflicts(products)), "pairs": len(flat) * (len(flat) - 1) / 2}


def _gradients(loss: Tensor, parameters: Sequence[Tensor], *, keep: bool) -> tuple[Tensor | None, ...]:
    """Gradients of a loss; None for a parameter that it does not depend on. `keep`: whether the graph is kept."""
    if not loss.requires_grad:  # a head without parameters over a frozen encoder
        return (None,) * len(parameters)
    return torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)


def _or_zero(gradient: Tensor | None, parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if gradient is None else gradient


def _add(parameter: Tensor, gradient: Tensor) -> None:
    # Copied, not changed in place: autograd may return an expanded tensor, or one tensor for several parameters.
    parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient


@dataclass(frozen=True)
class Combiner:
    """Gradient combiner of one trial; it has no state."""

    phases: tuple[str, ...]
    """How each update of the weights from the same rows combines gradients: sum or pcgrad; one phase per update."""

    @property
    def surgeries(self) -> int:
        """Number of phases that hold each task's gradient apart and combine them."""
        return sum(phase != "sum" for phase in self.phases)

    def backward(
        self,
        losses: Mapping[str, Tensor],
        shared: Sequence[Tensor],
        unshared: Sequence[Tensor],
        generator: np.random.Generator | None,
        phase: int = 0,
    ) -> dict[str, float]:
        """Add the gradient of phase number `phase` to `.grad`, as `Tensor.backward` does; returns statistics by name.

        `losses` are scalars. Surgery changes the gradients of `shared`; `unshared` holds every other trained parameter.
        A parameter that no loss depends on keeps its `.grad`. The generator draws the order of the projections; the
        plain sum needs none.
        """
        if self.phases[phase] == "pcgrad":
            assert generator is not None
            return pcgrad_backward(losses, shared, unshared, generator)
        sum_backward(losses)
        return {}


class Combine(Protocol):
    """Choice of a gradient combiner."""

    kind: ClassVar[str]
    separate_backward: ClassVar[bool]
    """Whether each task's loss has a backward pass of its own."""

    def build(self) -> Combiner:
        """Combiner of one trial."""
        ...


@dataclass(frozen=True)
class Sum:
    """Plain sum: the gradient of the summed losses, in one backward pass."""

    kind: ClassVar[str] = "sum"
    separate_backward: ClassVar[bool] = False

    def build(self) -> Combiner:
        return Combiner(("sum",))


@dataclass(frozen=True)
class PCGrad:
    """PCGrad, gradient surgery: each task's gradient without the part that opposes another task's."""

    kind: ClassVar[str] = "pcgrad"
    separate_backward: ClassVar[bool] = True

    def build(self) -> Combiner:
        return Combiner(("pcgrad",))


@dataclass(frozen=True)
class GSE:
    """GSE, the gradient surgery experiment: a PCGrad step, then a step on the plain sum, both on the same rows."""

    kind: ClassVar[str] = "gse"
    separate_backward: ClassVar[bool] = True

    def build(self) -> Combiner:
        return Combiner(("pcgrad", "sum"))


COMBINERS: dict[str, type[Combine]] = {kind.kind: kind for kind in (Sum, PCGrad, GSE)}
"""Gradient combiners by name."""
