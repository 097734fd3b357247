"""Optimiser: AdamW's settings and its groups of parameters.

Encoder, adapters and heads have learning rates of their own, and weight decay acts on matrices, not on vectors. With
layer-wise decay (Howard and Ruder 2018, discriminative fine-tuning) each layer learns more slowly than the layer above:

    lr_l = lr * layer_decay^(L - l),   l = L at the top layer, 0 at the embeddings

with lr the encoder's rate for weights of the base, the adapters' for what an adapter adds. Both default rates follow
the base: the wider and deeper it is, the smaller they are (`default_encoder_lr`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from minbert.encoder.traits import MINILM, Traits
from minbert.fields import Usual, branch, by_base, integer, number
from minbert.techniques.schedules import SCHEDULES, Linear, Schedule

LAYER = re.compile(r"encoder\.layers\.(\d+)\.")

ADAPTER_FACTOR = 10
"""Default rate of adapters against that of the base's weights: fresh, small additions bear larger steps. For BERT-base
it gives 5e-4, where the papers use 2e-4 to 1e-3."""


def default_encoder_lr(base: Traits) -> float:
    """Default learning rate of a base's weights: 2e-4 (384 / width)^1.5 (6 / layers)^0.5, in [1e-5, 5e-4].

    That is 2e-4 for MiniLM with 6 layers (`benchmarks/README.md`), 5e-5 for BERT-base (2e-5 to 5e-5 in Devlin et al.
    2019, A.3) and 2.3e-5 for BERT-large. The exponents join these sizes; nothing else speaks for them.
    """
    rate = 2e-4 * (MINILM.width / base.width) ** 1.5 * (MINILM.layers / base.layers) ** 0.5
    return float(f"{min(5e-4, max(1e-5, rate)):.1e}")


def default_adapter_lr(base: Traits) -> float:
    """Default learning rate of adapters in a base, a multiple of that of its weights."""
    return float(f"{ADAPTER_FACTOR * default_encoder_lr(base):.1e}")


@dataclass(frozen=True)
class Optimizer:
    """Settings of AdamW (Loshchilov and Hutter 2019); its betas are 0.9 and 0.999."""

    encoder_lr: float = by_base(
        number(default_encoder_lr(MINILM), 0.0, 1.0, open_low=True,
               usual=Usual(1e-6, 1e-3, 1e-2, "rates above 1e-2 diverge as a rule")),
        default_encoder_lr,
    )  # fmt: skip
    """Peak learning rate of the base's trained weights."""
    adapter_lr: float = by_base(
        number(default_adapter_lr(MINILM), 0.0, 1.0, open_low=True,
               usual=Usual(1e-5, 1e-2, 5e-2, "rates above 5e-2 diverge as a rule")),
        default_adapter_lr,
    )  # fmt: skip
    """Peak learning rate of what an adapter adds to the encoder: low-rank matrices, lengths, branches."""
    head_lr: float = number(
        5e-4, 0.0, 1.0, open_low=True, usual=Usual(1e-5, 1e-2, 5e-2, "rates above 5e-2 diverge as a rule")
    )
    """Peak learning rate of the heads."""
    layer_decay: float = number(1.0, 0.0, 1.0, open_low=True)
    """Factor of each encoder layer's learning rate against the layer above it; 1: all layers learn at one rate."""
    weight_decay: float = number(0.01, 0.0, 1.0)
    """Decoupled weight decay; biases and normalisations have none."""
    clip_norm: float = number(1.0, 0.0, 1e6, open_low=True)
    """Largest 2-norm of the whole gradient."""
    accumulation: int = integer(1, 1, 1024)
    """Number of draws of batches whose mean gradient makes one update."""
    schedule: Schedule = branch(SCHEDULES, Linear())
    """Schedule of the learning-rate factor over the budget."""


def depth(name: str) -> int:
    """Layer l of an encoder parameter of this name: 0 for the embeddings, 1 for the lowest layer."""
    match = LAYER.match(name)
    return int(match[1]) + 1 if match else 0


def parameter_groups(
    parameters: Mapping[str, nn.Parameter],
    settings: Optimizer,
    layers: int,
    balance_lr: float = 0.0,
    is_added: Callable[[str], bool] = lambda name: False,
) -> list[dict[str, Any]]:
    """AdamW's groups of trained parameters, each with its `peak` learning rate and weight decay.

    `parameters` by name, `layers` is L, `balance_lr` the peak rate of a loss balance's parameters (`balance.<name>`).
    `is_added` says of an encoder parameter's name whether an adapter added it.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, value in parameters.items():
        rate = settings.head_lr
        if name.startswith("encoder."):
            rate = settings.adapter_lr if is_added(name) else settings.encoder_lr
            rate *= settings.layer_decay ** (layers - depth(name))
        elif name.startswith("balance."):
            rate = balance_lr
        decays = value.ndim > 1 and not name.startswith("balance.")
        decay = settings.weight_decay if decays else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "peak": rate, "weight_decay": decay})
        group["params"].append(value)
    return list(groups.values())
