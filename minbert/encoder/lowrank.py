"""Low-rank modules that adapters add to the layers of an encoder or a head.

    LoRA (Hu et al. 2021):                W' = W + s B A,   s = alpha / r
    DoRA (Liu et al. 2024, equation 5):   W' = m (W + s B A) / ||W + s B A||,   the norm constant in the gradient (4.3)
    PAL  (`pal_lora` 4.1, after Stickland and Murray 2019):   TS(h) = (h W_hr + b1) W_rh + b2, one for each task

W [d_out, d_in] is frozen. A [r, d_in] starts Gaussian, B [d_out, r] at zero, m [d_out] at the norms of W: a new module
changes no output. DoRA's norm is taken over each output feature's weights, as in its authors' code and in peft.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.encoder.noise import dropout


def lora_weight(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """W + s B A [d_out, d_in] of W [d_out, d_in], A [r, d_in], B [d_out, r]."""
    return weight + scale * up @ down


def row_norms(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """||W + s B A|| for every output feature [d_out], computed without forming the sum [d_out, d_in].

    For a row w of W and b of B: ||w + s A^T b||^2 = ||w||^2 + 2 s b . A w + s^2 b . A A^T b.
    """
    frozen = torch.linalg.vector_norm(weight, dim=1).square()
    cross = (up * (weight @ down.T)).sum(1)
    added = (up * (up @ (down @ down.T))).sum(1)
    total = frozen + 2 * scale * cross + scale**2 * added
    # A row of zeros has no direction: the smallest positive number in place of 0 keeps m / norm at 1 there.
    norms: Tensor = total.clamp_min(torch.finfo(total.dtype).tiny).sqrt()
    return norms


def dora_weight(weight: Tensor, down: Tensor, up: Tensor, scale: float, magnitude: Tensor) -> Tensor:
    """m (W + s B A) / ||W + s B A|| [d_out, d_in]; m [d_out], the other shapes as in `lora_weight`."""
    gain = magnitude / row_norms(weight, down, up, scale)
    return gain[:, None] * lora_weight(weight, down, up, scale)


class Adapted(nn.Module):
    """Base class of the modules that an adapter adds; the model sets both attributes before each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.generator: torch.Generator | None = None
        """Generator of a training pass's dropout masks; None in evaluation."""
        self.task: str | None = None
        """Task of the pass, for adapters with `per_task`; None where a pass holds several tasks."""


class LoRALinear(Adapted):
    """LoRA: a frozen linear layer with a trainable low-rank addition."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, rate: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.rate = rate
        # Standard deviation 1 / sqrt(d_in), which is the Kaiming-uniform bound of the reference implementations.
        down = torch.randn(rank, base.in_features, generator=generator) / math.sqrt(base.in_features)
        self.down = nn.Parameter(down)  # A [r, d_in]
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))  # B [d_out, r]

    def forward(self, x: Tensor) -> Tensor:
        """[*, d_in] to [*, d_out]."""
        return cast(Tensor, self.base(x)) + self._addition(dropout(x, self.rate, self.generator))

    def _addition(self, x: Tensor) -> Tensor:
        """s B A x."""
        return F.linear(F.linear(x, self.down), self.up) * self.scale

    def merged(self) -> Tensor:
        """The weight of the equivalent plain layer, W' [d_out, d_in]; its bias is `base.bias`."""
        return lora_weight(self.base.weight, self.down, self.up, self.scale)


class DoRALinear(LoRALinear):
    """DoRA: a frozen linear layer whose rows get a trainable length and a low-rank change of direction."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, rate: float, generator: torch.Generator) -> None:
        super().__init__(base, rank, alpha, rate, generator)
        self.magnitude = nn.Parameter(self._norms())  # m [d_out]

    def _norms(self) -> Tensor:
        # In float32 under autocast too: bf16 would round a gain near 1 to steps of 1 / 128.
        with torch.no_grad(), torch.autocast(self.up.device.type, enabled=False):
            return row_norms(self.base.weight, self.down, self.up, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        """[*, d_in] to [*, d_out].

        W x + b + (g - 1) W x' + g s B A x', where g = m / norm and x' is the input after dropout, as in peft.
        """
        frozen: Tensor = self.base(x)
        dropped = dropout(x, self.rate, self.generator)
        bias = self.base.bias
        if dropped is not x:
            plain = F.linear(dropped, self.base.weight)
        else:
            plain = frozen if bias is None else frozen - bias.to(frozen.dtype)
        gain = self.magnitude / self._norms()
        change = (gain - 1).to(frozen.dtype) * plain
        return frozen + change + gain.to(frozen.dtype) * self._addition(dropped)

    def merged(self) -> Tensor:
        """The weight of the equivalent plain layer, W' [d_out, d_in]; its bias is `base.bias`."""
        return dora_weight(self.base.weight, self.down, self.up, self.scale, self.magnitude)


class Branch(nn.Module):
    """PAL branch of one task: TS(h) = (h W_hr + b1) W_rh + b2; W_rh, b1 and b2 start at zero."""

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        with torch.no_grad():
            self.down.weight.normal_(0.0, width**-0.5, generator=generator)
            for parameter in (self.down.bias, self.up.weight, self.up.bias):
                parameter.zero_()

    def forward(self, h: Tensor) -> Tensor:
        """h [M, D] to TS(h) [M, D]."""
        return cast(Tensor, self.up(self.down(h)))


class TaskBranches(Adapted):
    """PAL branches beside an encoder layer, one per task; a pass uses the branch of its task."""

    def __init__(self, width: int, rank: int, rates: Mapping[str, float], generator: torch.Generator) -> None:
        super().__init__()
        self.rates = dict(rates)
        """Dropout rate of each task's TS(h)."""
        self.branches = nn.ModuleDict({task: Branch(width, rank, generator) for task in rates})

    def forward(self, h: Tensor) -> Tensor:
        """h [M, D], all of one task, to Dropout(TS(h)) [M, D]."""
        task = self.task
        assert task is not None, "an adapter with one branch per task needs `task` set, and a pass of one task"
        assert task in self.rates, f"no branch for task `{task}`; built for {', '.join(self.rates)}"
        return dropout(self.branches[task](h), self.rates[task], self.generator)


def merge(module: nn.Module) -> None:
    """Replace every LoRA or DoRA layer inside `module` by its equivalent plain layer, in place."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoRALinear):
                base = child.base
                plain = nn.Linear(base.in_features, base.out_features, device="meta")
                plain.weight = nn.Parameter(child.merged().detach(), requires_grad=False)
                plain.bias = base.bias
                setattr(parent, name, plain)
