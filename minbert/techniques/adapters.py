"""Adapters: which part of the encoder is trained: all of it, none of it, or low-rank additions to frozen layers.

    none            the encoder as it is, trained
    frozen          the encoder as it is, untrained
    lora, dora      W' = W + (alpha / r) B A, and W' with rows of trained length (`minbert.encoder.lowrank`), in all
                    layers or in the top ones
    pal             BL(h) = LN(h' + SA(h) + TS(h)), one low-rank branch TS for each task beside every layer

An adapter changes a newly loaded encoder in place and decides what is trained, so a new adapter touches only this file.
It also says how many of the lowest layers are frozen layers, untrained and without dropout. Their output depends on the
text alone, so `minbert.training.frozen` caches it.
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
from minbert.encoder.traits import Traits
from minbert.fields import ConfigError, branch, choice, integer, number, subset
from minbert.techniques.work import Trained, low_rank

TARGETS = ("query", "key", "value", "output", "up", "down")
"""Linear layers of an encoder layer, in the order in which they act."""


class Adapter(Protocol):
    """Adapter: its hyperparameters, and how it changes an encoder."""

    kind: ClassVar[str]
    per_task: ClassVar[bool]
    """Whether each task's batch needs a forward pass of its own, with `Adapted.task` set."""
    trains_encoder: ClassVar[bool]
    """Whether any part of the encoder is trained, additions included."""

    @property
    def rates(self) -> tuple[str, ...]:
        """Fields of `Optimizer` with the learning rates of the encoder's trained weights and of what is added to it."""

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        """Change a new encoder, and heads where the adapter reaches them, in place, and set every `requires_grad`.

        The generator draws the initial weights of the additions.
        """

    def shares(self, parameter: str) -> bool:
        """Whether several tasks use the encoder parameter of this name; False: it belongs to one task."""

    def adds(self, parameter: str) -> bool:
        """Whether the adapter added the encoder parameter of this name; False: it belongs to the base."""

    def frozen_layers(self, layers: int) -> int:
        """Number of lowest layers, of `layers` in all, that are untrained and have no dropout.

        If there are any, the embeddings are frozen with them.
        """

    def trained(self, base: Traits, tasks: int) -> Trained:
        """The trained part of an encoder with these traits, for so many tasks."""

    def check(self, layers: int, name: str) -> None:
        """Check that the adapter fits the encoder `name`, which has `layers` layers. Raises ConfigError."""


class AdapterDefaults:
    """Default answers: a trained encoder, shared parameters of the base, no frozen layers, no condition."""

    trains_encoder: ClassVar[bool] = True

    def shares(self, parameter: str) -> bool:
        return True

    def adds(self, parameter: str) -> bool:
        return False

    def frozen_layers(self, layers: int) -> int:
        return 0

    def check(self, layers: int, name: str) -> None:
        return


@dataclass(frozen=True)
class NoAdapter(AdapterDefaults):
    """Full fine-tuning: the encoder as it is, all of it trained."""

    kind: ClassVar[str] = "none"
    per_task: ClassVar[bool] = False
    rates: ClassVar[tuple[str, ...]] = ("encoder_lr",)

    def trained(self, base: Traits, tasks: int) -> Trained:
        return Trained(layers=True, words=True)

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        encoder.requires_grad_(True)
        heads.requires_grad_(True)


@dataclass(frozen=True)
class Frozen(AdapterDefaults):
    """Frozen encoder: only the heads (the last linear layers) are trained."""

    kind: ClassVar[str] = "frozen"
    per_task: ClassVar[bool] = False
    trains_encoder: ClassVar[bool] = False
    rates: ClassVar[tuple[str, ...]] = ()

    dropout: str = choice("off", "on")
    """Whether the encoder has dropout in training; the heads have theirs in any case."""

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        encoder.requires_grad_(False)
        heads.requires_grad_(True)

    def frozen_layers(self, layers: int) -> int:
        return layers if self.dropout == "off" else 0

    def trained(self, base: Traits, tasks: int) -> Trained:
        return Trained(still=base.layers)


class AdaptedLayers(Protocol):
    """Choice of the encoder layers that get low-rank additions."""

    kind: ClassVar[str]

    def lowest(self, layers: int) -> int:
        """Index from 0 of the lowest layer with additions, of `layers` in all."""

    def frozen_layers(self, layers: int) -> int:
        """Number of lowest layers that are untrained and have no dropout; see `Adapter.frozen_layers`."""

    def check(self, layers: int, name: str) -> None:
        """Check that the choice fits the encoder `name`, which has `layers` layers. Raises ConfigError."""


@dataclass(frozen=True)
class AllLayers:
    """Additions in every layer of the encoder."""

    kind: ClassVar[str] = "all"

    def lowest(self, layers: int) -> int:
        return 0

    def frozen_layers(self, layers: int) -> int:
        return 0

    def check(self, layers: int, name: str) -> None:
        return


@dataclass(frozen=True)
class TopLayers:
    """Additions in the top layers alone: the layers below them and the embeddings stay as they are."""

    kind: ClassVar[str] = "top"
    count: int = integer(1, 1, 48)
    """Number of layers from the top; below the number of the encoder's layers."""
    dropout: str = choice("off", "on")
    """Whether the layers below and the embeddings have dropout in training."""

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
"""Choices of the layers that get low-rank additions, by name."""


@dataclass(frozen=True)
class LoRA(AdapterDefaults):
    """LoRA: low-rank additions to chosen linear layers of encoder layers; the encoder itself is frozen."""

    kind: ClassVar[str] = "lora"
    per_task: ClassVar[bool] = False
    module: ClassVar[type[LoRALinear]] = LoRALinear
    """Class of the module that replaces a linear layer."""

    rank: int = integer(8, 1, 1024)
    """Rank r; parameters added per layer = r (d_in + d_out)."""
    alpha: float | None = number(None, 0.0, 1024.0, open_low=True)
    """Numerator alpha of the scale alpha / r; null: 2 r, so that the scale stays 2 at every rank."""
    dropout: float = number(0.0, 0.0, 0.9)
    """Dropout rate of the addition's input."""
    targets: tuple[str, ...] = subset(TARGETS, *TARGETS)
    """Linear layers that get an addition; all of them score above query and value alone (`benchmarks/README.md`)."""
    bias: str = choice("none", "adapted", "all")
    """Biases that are trained too: those of the adapted layers, or all of the encoder (lora_only and all in peft)."""
    heads: str = choice("full", "lora")
    """How heads are trained: full trains them as they are; lora freezes their linear layers as initialised, trains an
    addition to each (`multi_extended` 4: "we adapt attention weights and the last linear layers"), and their biases as
    `bias` says."""
    rest: str = choice("frozen", "trained")
    """Whether embeddings and normalisations, which get no addition, are trained. `multi_extended` leaves them
    "untouched", which means trained: they are 23.9 of BERT's 109.5 million parameters, and 21.73 % are trained at r = 1
    (table 8)."""
    layers: AdaptedLayers = branch(LAYERS, AllLayers())
    """Encoder layers that get additions."""

    def __post_init__(self) -> None:
        beyond_top = {"bias": ("all", "none or adapted"), "rest": ("trained", "frozen")}
        for name, (value, accepted) in beyond_top.items():
            if self.layers.kind == "top" and getattr(self, name) == value:
                raise ConfigError(
                    f"`adapter/{name}` {value} trains the embeddings and the layers below, which `adapter/layers/kind` "
                    f"top leaves as they are; use {accepted}, or layers of kind all."
                )

    @property
    def rates(self) -> tuple[str, ...]:
        only_added = self.bias == "none" and self.rest == "frozen"
        return ("adapter_lr",) if only_added else ("adapter_lr", "encoder_lr")

    @property
    def numerator(self) -> float:
        """Numerator alpha of the scale, 2 r if none is set."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def check(self, layers: int, name: str) -> None:
        self.layers.check(layers, name)

    def adds(self, parameter: str) -> bool:
        return parameter.rpartition(".")[2] in ("down", "up", "magnitude")  # a plain layer's end in weight or bias

    def frozen_layers(self, layers: int) -> int:
        return self.layers.frozen_layers(layers)

    def trained(self, base: Traits, tasks: int) -> Trained:
        lowest = self.layers.lowest(base.layers)
        # Inputs and outputs of the adapted layers: the feed-forward layers are between D and 4 D, the others D and D.
        ends = [(5 if name in ("up", "down") else 2) * base.width for name in self.targets]
        return Trained(
            still=lowest,
            words=self.rest == "trained",
            added=(base.layers - lowest) * self.rank * sum(ends),
            multiplications=(base.layers - lowest) * sum(low_rank(self.rank, total) for total in ends),
        )

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
        adapted = self.module(getattr(parent, name), self.rank, self.numerator, self.dropout, generator)
        if self.bias != "none" and adapted.base.bias is not None:
            adapted.base.bias.requires_grad_(True)
        setattr(parent, name, adapted)


@dataclass(frozen=True)
class DoRA(LoRA):
    """DoRA: LoRA for the direction of each output feature's weights, and a trained length (Liu et al. 2024).

    Parameters added per layer = r (d_in + d_out) + d_out.
    """

    kind: ClassVar[str] = "dora"
    module: ClassVar[type[LoRALinear]] = DoRALinear


@dataclass(frozen=True)
class PAL(AdapterDefaults):
    """PAL: one low-rank branch for each task beside every encoder layer, LN(h' + SA(h) + TS(h)) (`pal_lora` 4.1).

    Parameters added per layer and task = r (2 D + 1) + D.
    """

    kind: ClassVar[str] = "pal"
    per_task: ClassVar[bool] = True

    rank: int = integer(2, 1, 1024)
    """Rank r of a branch; 2 was the best of 2, 10 and 100 in the paper."""
    dropout: Mapping[str, float] = fields.per_task(number(0.1, 0.0, 0.9))
    """Dropout rate of each task's TS(h); the paper chooses 0.2 to 0.05, lower for tasks with more data."""
    encoder: str = choice("trained", "frozen")
    """Whether the encoder that all tasks share is trained too, as in Stickland and Murray 2019."""

    @property
    def rates(self) -> tuple[str, ...]:
        return ("adapter_lr", "encoder_lr") if self.encoder == "trained" else ("adapter_lr",)

    def build(self, encoder: Bert, heads: nn.ModuleDict, tasks: Sequence[str], generator: torch.Generator) -> None:
        encoder.requires_grad_(self.encoder == "trained")
        heads.requires_grad_(True)
        rates = {task: self.dropout[task] for task in tasks}
        for layer in encoder.layers:
            layer.parallel = TaskBranches(encoder.config.hidden_size, self.rank, rates, generator)

    def shares(self, parameter: str) -> bool:
        return not self.adds(parameter)

    def adds(self, parameter: str) -> bool:
        return ".parallel." in parameter

    def trained(self, base: Traits, tasks: int) -> Trained:
        is_trained = self.encoder == "trained"
        return Trained(
            layers=is_trained,
            words=is_trained,
            added=tasks * base.layers * (self.rank * (2 * base.width + 1) + base.width),
            multiplications=base.layers * low_rank(self.rank, 2 * base.width),
        )


ADAPTERS: dict[str, type[Adapter]] = {kind.kind: kind for kind in (NoAdapter, Frozen, LoRA, DoRA, PAL)}
"""Adapters by name."""
