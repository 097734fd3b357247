"""What of the encoder is trained: all of it, none of it, or low-rank additions to frozen layers.

    none, frozen    the encoder as it is, trained or not
    lora, dora      W' = W + (alpha / r) B A, and W' with rows of trained length (`minbert.encoder.lowrank`), in all
                    layers or in the top ones
    pal             BL(h) = LN(h' + SA(h) + TS(h)), one low-rank branch TS for each task beside every layer

An adapter changes a freshly loaded encoder in place and decides what is trained, so a new one touches only this file.
It also says how many of the lowest layers are frozen layers: untrained and without dropout, a function of the text
alone, whose results `minbert.training.frozen` caches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import nn

from minbert import fields
from minbert.encoder.bert import Bert
from minbert.encoder.lowrank import DoRALinear, LoRALinear, TaskBranches
from minbert.fields import ConfigError, branch, choice, integer, number, subset

TARGETS = ("query", "key", "value", "output", "up", "down")
"""The linear layers of an encoder layer, in the order in which they act."""


class Adapter(Protocol):
    """One of the classes below."""

    kind: ClassVar[str]
    per_task: ClassVar[bool]
    """Whether each task's batch needs a pass of its own, with `Adapted.task` set."""
    trains_encoder: ClassVar[bool]
    """Whether anything of the encoder is trained, additions included."""

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        """Change a fresh encoder, and heads where the adapter reaches them, in place; set every `requires_grad`."""

    def shares(self, parameter: str) -> bool:
        """Whether several tasks use the encoder's parameter of this name; False: it belongs to one task."""

    def frozen_layers(self, layers: int) -> int:
        """Number of the encoder's lowest layers that are untrained and have no dropout, of `layers` in all; where there
        are any the embeddings belong to them."""

    def check(self, layers: int, name: str) -> None:
        """Refuse the encoder `name` of `layers` layers where the adapter does not fit it. Raises ConfigError."""


class AdapterDefaults:
    """Answers of an adapter that does not give its own."""

    trains_encoder: ClassVar[bool] = True

    def shares(self, parameter: str) -> bool:
        return True

    def frozen_layers(self, layers: int) -> int:
        return 0

    def check(self, layers: int, name: str) -> None:
        return


@dataclass(frozen=True)
class NoAdapter(AdapterDefaults):
    """The encoder as it is, fully fine-tuned."""

    kind: ClassVar[str] = "none"
    per_task: ClassVar[bool] = False

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        encoder.requires_grad_(True)
        heads.requires_grad_(True)


@dataclass(frozen=True)
class Frozen(AdapterDefaults):
    """The encoder as it is and stays: only the heads (the last linear layers) learn."""

    kind: ClassVar[str] = "frozen"
    per_task: ClassVar[bool] = False
    trains_encoder: ClassVar[bool] = False

    dropout: str = choice("off", "on")
    """Whether the encoder's own dropouts are on while the heads learn; heads have theirs either way."""

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        encoder.requires_grad_(False)
        heads.requires_grad_(True)

    def frozen_layers(self, layers: int) -> int:
        return layers if self.dropout == "off" else 0


class AdaptedLayers(Protocol):
    """The encoder layers that low-rank additions reach."""

    kind: ClassVar[str]

    def lowest(self, layers: int) -> int:
        """Number of the lowest of `layers` layers that has additions, from 0."""

    def frozen_layers(self, layers: int) -> int:
        """Number of lowest layers that are untrained and have no dropout; see `Adapter.frozen_layers`."""

    def check(self, layers: int, name: str) -> None:
        """Refuse the encoder `name` of `layers` layers where the choice does not fit it. Raises ConfigError."""


@dataclass(frozen=True)
class AllLayers:
    """Every layer of the encoder."""

    kind: ClassVar[str] = "all"

    def lowest(self, layers: int) -> int:
        return 0

    def frozen_layers(self, layers: int) -> int:
        return 0

    def check(self, layers: int, name: str) -> None:
        return


@dataclass(frozen=True)
class TopLayers:
    """The top layers alone: the layers below them and the embeddings stay as they are."""

    kind: ClassVar[str] = "top"
    count: int = integer(1, 1, 48)
    """Layers from the top; fewer than the encoder has."""
    dropout: str = choice("off", "on")
    """Whether the dropouts of the layers below and of the embeddings are on in training."""

    def lowest(self, layers: int) -> int:
        return layers - self.count

    def frozen_layers(self, layers: int) -> int:
        return self.lowest(layers) if self.dropout == "off" else 0

    def check(self, layers: int, name: str) -> None:
        if self.count >= layers:
            raise ConfigError(
                f"`adapter/layers/count` must be below {layers}, the layers of {name}, found {self.count}; "
                "for additions in every layer `adapter/layers/kind` is all."
            )


LAYERS: dict[str, type[AdaptedLayers]] = {kind.kind: kind for kind in (AllLayers, TopLayers)}
"""The layers that low-rank additions reach."""


@dataclass(frozen=True)
class LoRA(AdapterDefaults):
    """Low-rank additions to the chosen linear layers of encoder layers; the encoder itself is frozen."""

    kind: ClassVar[str] = "lora"
    per_task: ClassVar[bool] = False
    module: ClassVar[type[LoRALinear]] = LoRALinear
    """What takes the place of a linear layer."""

    rank: int = integer(8, 1, 1024)
    """Rank r; parameters added per layer = r (d_in + d_out)."""
    alpha: float = number(16.0, 0.0, 1024.0, open_low=True)
    """Numerator alpha of the scale alpha / r."""
    dropout: float = number(0.0, 0.0, 0.9)
    """Dropout rate of the addition's input."""
    targets: tuple[str, ...] = subset(("query", "value"), *TARGETS)
    """Linear layers that receive an addition."""
    bias: str = choice("none", "adapted", "all")
    """Biases that train besides: those of the adapted layers, or all of the encoder (lora_only and all in peft)."""
    heads: str = choice("full", "lora")
    """full trains the heads as they are; lora freezes their linear layers as initialised and trains an addition to
    each (`multi_extended` 4: "we adapt attention weights and the last linear layers"), their biases as `bias` says."""
    rest: str = choice("frozen", "trained")
    """What no addition reaches, the embeddings and normalisations. `multi_extended` leaves them "untouched", which its
    21.73 % of trained parameters at r = 1 (table 8) show to mean trained: they are 23.9 of BERT's 109.5 million."""
    layers: AdaptedLayers = branch(LAYERS, AllLayers())
    """Encoder layers that receive additions."""

    def __post_init__(self) -> None:
        reaching = {"bias": ("all", "none or adapted"), "rest": ("trained", "frozen")}
        for name, (value, instead) in reaching.items():
            if self.layers.kind == "top" and getattr(self, name) == value:
                raise ConfigError(
                    f"`adapter/{name}` {value} trains the embeddings and the layers below, which `adapter/layers/kind` "
                    f"top leaves as they are; use {instead}, or layers of kind all."
                )

    def check(self, layers: int, name: str) -> None:
        self.layers.check(layers, name)

    def frozen_layers(self, layers: int) -> int:
        return self.layers.frozen_layers(layers)

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        self.check(len(encoder.layers), "this encoder")
        encoder.requires_grad_(False)
        heads.requires_grad_(True)
        for layer in encoder.layers[self.layers.lowest(len(encoder.layers)) :]:
            for name in self.targets:
                self._adapt(layer, name, generator)
        if self.heads == "lora":
            for parent in list(heads.modules()):
                for name in [name for name, child in parent.named_children() if isinstance(child, nn.Linear)]:
                    self._adapt(parent, name, generator)
        if self.bias == "all":
            for name, parameter in encoder.named_parameters():
                if name.endswith("bias"):
                    parameter.requires_grad_(True)
        if self.rest == "trained":
            for module in encoder.modules():
                if isinstance(module, nn.Embedding | nn.LayerNorm):
                    module.requires_grad_(True)

    def _adapt(self, parent: nn.Module, name: str, generator: torch.Generator) -> None:
        adapted = self.module(getattr(parent, name), self.rank, self.alpha, self.dropout, generator)
        if self.bias != "none" and adapted.base.bias is not None:
            adapted.base.bias.requires_grad_(True)
        setattr(parent, name, adapted)


@dataclass(frozen=True)
class DoRA(LoRA):
    """LoRA for the direction of each output feature's weights, and a trained length besides (Liu et al. 2024).

    Parameters added per layer = r (d_in + d_out) + d_out.
    """

    kind: ClassVar[str] = "dora"
    module: ClassVar[type[LoRALinear]] = DoRALinear


@dataclass(frozen=True)
class PAL(AdapterDefaults):
    """One low-rank branch for each task beside every encoder layer, LN(h' + SA(h) + TS(h)) (`pal_lora` 4.1).

    Parameters added per layer and task = r (2 D + 1) + D.
    """

    kind: ClassVar[str] = "pal"
    per_task: ClassVar[bool] = True

    rank: int = integer(2, 1, 1024)
    """Rank r of a branch; 2 was the best of 2, 10 and 100 in the paper."""
    dropout: Mapping[str, float] = fields.per_task(number(0.1, 0.0, 0.9))
    """Dropout rate of each task's TS(h); the paper's choice falls with the size of the task's data, 0.2 to 0.05."""
    encoder: str = choice("frozen", "trained")
    """Whether the encoder that all tasks share learns as well."""

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        encoder.requires_grad_(self.encoder == "trained")
        heads.requires_grad_(True)
        rates = {task: self.dropout[task] for task in tasks}
        for layer in encoder.layers:
            layer.parallel = TaskBranches(encoder.config.hidden_size, self.rank, rates, generator)

    def shares(self, parameter: str) -> bool:
        return ".parallel." not in parameter


ADAPTERS: dict[str, type[Adapter]] = {kind.kind: kind for kind in (NoAdapter, Frozen, LoRA, DoRA, PAL)}
