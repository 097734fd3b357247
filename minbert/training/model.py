"""Multitask model: one shared encoder and a head for each task; one pass may hold batches of several tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minbert.config import Config
from minbert.data.batches import TaskBatch, in_order_of_packing, pack
from minbert.data.tokens import TaskFile
from minbert.encoder.base import Base
from minbert.encoder.bert import Bert
from minbert.encoder.lowrank import Adapted
from minbert.encoder.noise import SILENT, Noise
from minbert.encoder.packed import Packed
from minbert.encoder.poolings import TOKEN_POOLING, pooled
from minbert.randomness import derive
from minbert.tasks import Task
from minbert.techniques.encodings import sharing
from minbert.techniques.heads import HeadContext
from minbert.training.frozen import FrozenPart, Reading, caching


@dataclass(frozen=True)
class PassInput:
    """Input of a pass over batches: their tokens, or cached features of the encoder's frozen part."""

    packed: Packed | None
    """Packed tokens; None where `pooled` replaces them."""
    start: Tensor | None = None
    """Token states [N, D] after the frozen layers, in the order of packing; None: the pass begins at the tokens."""
    pooled: tuple[Tensor, ...] = ()
    """Each batch's pooled states [S, D] where the whole encoder is frozen; else empty."""


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported: bool = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return supported


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """Type that linear layers compute in for a configured precision: float32, bf16 or auto."""
    bf16 = precision == "bf16" or (precision == "auto" and native_bf16(device))
    return torch.bfloat16 if bf16 else torch.float32


class MultitaskModel(nn.Module):
    """Multitask model: the shared encoder with every task's head."""

    def __init__(
        self,
        config: Config,
        base: Base,
        tasks: dict[str, Task],
        seed: int,
        encoder: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`encoder` holds the encoder's weights after the stages before training; None: the base's weights."""
        super().__init__()
        config.check(tasks)
        self.config = config
        self.tasks = tasks
        cls, sep = base.vocabulary.index("[CLS]"), base.vocabulary.index("[SEP]")
        longest = base.config.max_position_embeddings
        self.readings = {
            name: Reading(config.encoding[name], min(config.max_length[name], longest), cls, sep) for name in tasks
        }
        self.dtype = torch.float32
        """Type that linear layers compute in; see `arithmetic`."""
        self.encoder: Bert = base.load()
        if encoder is not None:
            self.encoder.load_state_dict(encoder)
        self.heads = nn.ModuleDict()
        pooler = base.pooler()
        for name, task in tasks.items():
            encoding = config.encoding[name]
            context = HeadContext(
                task, base.config.hidden_size, encoding.paired, _generator(seed, "head", name), encoding.pooling, pooler
            )
            self.heads[name] = encoding.head.build(context)
        self.shared_head = config.shared_head.build(base.config.hidden_size, _generator(seed, "shared_head"))
        self.sharing = sharing(tasks)
        config.adapter.build(self.encoder, self.heads, tuple(tasks), _generator(seed, "adapter"))
        self.adapted = [module for module in self.modules() if isinstance(module, Adapted)]
        self.frozen_layers = config.adapter.frozen_layers(len(self.encoder.layers))
        """Number of lowest layers that are untrained and without dropout; if any, the embeddings are so too."""
        self.frozen_weights = None if config.stages.chain() else base.sha256
        """SHA-256 of the base, which identifies the frozen weights; None where stages changed them."""
        self.caches_features = bool(self.frozen_layers) and caching()
        """Whether passes use cached features of the frozen layers."""
        self.frozen_part: FrozenPart | None = None
        """Frozen part of the encoder, created at the first pass, when the model is on its device with its dtype."""

    @property
    def device(self) -> torch.device:
        return self.encoder.embeddings.norm.weight.device

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trained parameters by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def shared_and_unshared(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Trained parameters that several tasks use, and those that one task uses."""
        shared: list[nn.Parameter] = []
        unshared: list[nn.Parameter] = []
        for name, value in self.trainable().items():
            (shared if self._is_shared(name) else unshared).append(value)
        return shared, unshared

    def _is_shared(self, name: str) -> bool:
        in_encoder = name.startswith("encoder.") and self.config.adapter.shares(name)
        return in_encoder or name.startswith("shared_head.")

    def balanced_parameters(self, task: str) -> list[nn.Parameter]:
        """Parameters on which a loss balance measures a task's gradient.

        They are those of the encoder's last trained layer, or of the task's head if no layer is trained.
        """
        for layer in reversed(self.encoder.layers):
            chosen = [value for value in layer.parameters() if value.requires_grad]
            if chosen:
                return chosen
        return list(self.heads[task].parameters())

    def batch(self, task: str, file: TaskFile, rows: Sequence[int] | NDArray[np.integer[Any]]) -> TaskBatch:
        """Batch of rows of a task's file, encoded as the configuration says."""
        chosen = np.asarray(rows, dtype=np.int64)
        return TaskBatch(task, file, chosen, torch.from_numpy(file.labels[chosen]), self.readings[task].sequences)

    def forward(self, batches: Sequence[TaskBatch], noise: Noise = SILENT) -> list[Tensor]:
        """Outputs [B, C] of each batch in float32, all in one pass."""
        return self.outputs(self.input(batches), batches, noise)

    def input(self, batches: Sequence[TaskBatch]) -> PassInput:
        """Input of a pass over batches on the model's device: packed tokens, or cached features of the frozen part."""
        part = self._frozen_part(batches)
        if part is None:
            return PassInput(_packed(batches).to(self.device))
        cached = [torch.from_numpy(part.states(batch, self.readings[batch.task])) for batch in batches]
        if part.whole:
            return PassInput(None, pooled=tuple(self._move(states) for states in cached))
        packed = _packed(batches)
        start = torch.cat(cached).index_select(0, in_order_of_packing(packed))
        return PassInput(packed.to(self.device), start=self._move(start))

    def _frozen_part(self, batches: Sequence[TaskBatch]) -> FrozenPart | None:
        """Frozen part whose features a pass over batches uses; None where the pass begins at the tokens."""
        if not self.caches_features or any(self.config.regularizer[batch.task].moves_words for batch in batches):
            return None
        if self.frozen_part is None or self.frozen_part.dtype != self.dtype:
            self.frozen_part = FrozenPart(self.encoder, self.frozen_layers, self.frozen_weights, self.dtype)
        return self.frozen_part

    def _move(self, value: Tensor) -> Tensor:
        return value if self.device.type == "cpu" else value.pin_memory().to(self.device, non_blocking=True)

    def outputs(
        self, inputs: PassInput, batches: Sequence[TaskBatch], noise: Noise = SILENT, offset: Tensor | None = None
    ) -> list[Tensor]:
        """Outputs as in `forward`, from the batches' input; `offset` [N, D] is added to their word embeddings."""
        for module in self.adapted:
            module.generator = noise.generator
            module.task = batches[0].task if len(batches) == 1 else None
        outputs = []  # heads compute in float32: they are small, and scores in bf16 would be multiples of 1/64
        for batch, states in zip(batches, inputs.pooled or self._pool(inputs, batches, noise, offset), strict=True):
            shared = self.shared_head if batch.task in self.sharing else None
            parts = states.split(len(batch.rows))  # type: ignore[no-untyped-call]
            outputs.append(cast(Tensor, self.heads[batch.task](parts, noise, shared)))
        return outputs

    def _pool(
        self, inputs: PassInput, batches: Sequence[TaskBatch], noise: Noise, offset: Tensor | None
    ) -> Iterator[Tensor]:
        """Pooled states [S, D] of each batch, its sequences in the order of the batch."""
        packed = inputs.packed
        assert packed is not None and (offset is None or inputs.start is None), "an offset needs a pass from the tokens"
        poolings = [TOKEN_POOLING[self.config.encoding[batch.task].pooling] for batch in batches]

        def encode(first_only: bool) -> Tensor:
            states: Tensor = self.encoder(
                packed,
                noise,
                offset=offset,
                first_only=first_only,
                frozen_layers=self.frozen_layers,
                start=inputs.start,
            )
            return states

        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            states = pooled(set(poolings), packed, encode)
        start = 0
        for batch, pooling in zip(batches, poolings, strict=True):
            yield states[pooling][start : start + len(batch.sequences)]
            start += len(batch.sequences)

    def noise(self, generator: torch.Generator) -> Noise:
        """Noise with the configured dropout rates and masks from `generator`."""
        rates = self.config.dropout
        return Noise(generator, rates.hidden, rates.attention, rates.head)

    def loss(self, task: str, outputs: Tensor, labels: Tensor, unit: float = 1.0) -> Tensor:
        """Mean loss of outputs [B, C] against labels [B], as the task's head defines it; `unit` is the label unit."""
        return self.config.encoding[task].head.loss(self.tasks[task], outputs, labels, unit)


def _packed(batches: Sequence[TaskBatch]) -> Packed:
    """The sequences of all batches, packed, on the CPU."""
    return pack([sequence for batch in batches for sequence in batch.sequences])


def _generator(seed: int, *stream: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *stream))
