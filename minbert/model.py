"""The multitask model: one shared encoder, one head a task, all tasks of a step in one packed forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.adapters import LoRALinear
from minbert.base import Base
from minbert.batches import Sequences, pack
from minbert.bert import SILENT, Bert, Noise, Packed
from minbert.config import Config
from minbert.data import TaskFile
from minbert.heads import HeadContext
from minbert.randomness import derive
from minbert.regularizers import DIVERGENCES
from minbert.tasks import Task


@dataclass(frozen=True)
class TaskBatch:
    """Rows of one task, ready for the encoder."""

    task: str
    sequences: Sequences
    labels: Tensor
    """Labels [B]; NaN where there is none."""


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices natively."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported: bool = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return supported


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """The type that linear layers compute in."""
    wanted = precision == "bf16" or (precision == "auto" and native_bf16(device))
    return torch.bfloat16 if wanted else torch.float32


class MultitaskModel(nn.Module):
    """The shared encoder with every task's head."""

    def __init__(self, config: Config, base: Base, tasks: dict[str, Task], seed: int) -> None:
        super().__init__()
        self.config = config
        self.tasks = tasks
        self.cls, self.sep = base.vocabulary.index("[CLS]"), base.vocabulary.index("[SEP]")
        self.dtype = torch.float32
        """What linear layers compute in; see `arithmetic`."""
        self.limit = min(config.max_length, base.config.max_position_embeddings)
        self.encoder: Bert = base.load()
        generator = torch.Generator().manual_seed(derive(seed, "adapter"))
        config.adapter.build(self.encoder, generator)
        self.heads = nn.ModuleDict()
        for name, task in tasks.items():
            generator = torch.Generator().manual_seed(derive(seed, "head", name))
            encoding = config.encoding[name]
            context = HeadContext(task, base.config.hidden_size, encoding.paired, generator)
            self.heads[name] = encoding.head.build(context)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that are trained, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def batch(self, task: str, file: TaskFile, rows: Sequence[int]) -> TaskBatch:
        """Put rows of a task's file together as its encoding says."""
        sequences = self.config.encoding[task].sequences(file, rows, self.limit, self.cls, self.sep)
        return TaskBatch(task, sequences, torch.from_numpy(file.labels[rows]))

    def forward(self, batches: Sequence[TaskBatch], noise: Noise = SILENT) -> list[Tensor]:
        """Outputs [B, C] of each batch in float32."""
        packed = pack([sequence for batch in batches for sequence in batch.sequences]).to(self.device)
        return self.outputs(packed, batches, noise)

    def outputs(
        self, packed: Packed, batches: Sequence[TaskBatch], noise: Noise = SILENT, offset: Tensor | None = None
    ) -> list[Tensor]:
        """As `forward`, for sequences already packed; `offset` [N, D] is added to their word embeddings."""
        for module in self.encoder.modules():
            if isinstance(module, LoRALinear):
                module.generator = noise.generator
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            states = self.encoder(packed, noise, offset=offset, first_only=True)  # [B, D]
            outputs, start = [], 0
            for batch in batches:
                parts = 2 if self.config.encoding[batch.task].paired else 1
                rows = len(batch.sequences) // parts
                pieces = states[start : start + len(batch.sequences)].float().split(rows)
                outputs.append(cast(Tensor, self.heads[batch.task](pieces, noise)).float())
                start += len(batch.sequences)
        return outputs

    def noise(self, generator: torch.Generator) -> Noise:
        """The configured dropout rates with a generator."""
        rates = self.config.dropout
        return Noise(generator, rates.hidden, rates.attention, rates.head)

    def loss(self, task: str, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of outputs [B, C] against labels [B]: cross-entropy for classes, squared error for a score."""
        if self.tasks[task].kind == "classification":
            return F.cross_entropy(outputs, labels.long())
        return F.mse_loss(outputs.squeeze(-1), labels)

    def total(self, losses: dict[str, Tensor], penalties: dict[str, Tensor], progress: float) -> Tensor:
        """sum_k taper_k(progress) (loss_k + penalty_k): a taper weighs all that its task contributes."""
        terms = [
            self.config.taper[task].value(progress) * (loss + penalties.get(task, 0.0)) for task, loss in losses.items()
        ]
        return torch.stack(terms).sum()

    def step_losses(
        self, batches: Sequence[TaskBatch], generator_of: Callable[[str], torch.Generator]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each task's loss and each regularised task's weighted penalty, all differentiable.

        `generator_of(stream)` gives a generator at the start of one of this step's streams.
        """
        losses: dict[str, Tensor] = {}
        penalties: dict[str, Tensor] = {}
        plain = [batch for batch in batches if not self.config.regularizer[batch.task].active]
        regularized = [batch for batch in batches if self.config.regularizer[batch.task].active]
        if plain:
            outputs = self(plain, self.noise(generator_of("dropout")))
            for batch, output in zip(plain, outputs, strict=True):
                losses[batch.task] = self._batch_loss(batch, output)
        for batch in regularized:
            losses[batch.task], penalties[batch.task] = self._regularized(batch, generator_of)
        return losses, penalties

    def _batch_loss(self, batch: TaskBatch, output: Tensor) -> Tensor:
        return self.loss(batch.task, output, batch.labels.to(self.device, non_blocking=True))

    def _regularized(self, batch: TaskBatch, generator_of: Callable[[str], torch.Generator]) -> tuple[Tensor, Tensor]:
        """Loss and penalty of one task; all its passes share one set of dropout masks: only the noise differs."""
        packed = pack(batch.sequences).to(self.device)

        def forward(offset: Tensor | None) -> Tensor:
            noise = self.noise(generator_of(f"dropout/{batch.task}"))
            return self.outputs(packed, [batch], noise, offset)[0]

        output = forward(None)
        shape = torch.Size((packed.ids.shape[0], self.encoder.config.hidden_size))
        divergence = DIVERGENCES[self.tasks[batch.task].kind]
        regularizer = self.config.regularizer[batch.task]
        penalty = regularizer.penalty(forward, output, shape, divergence, generator_of(f"noise/{batch.task}"))
        return self._batch_loss(batch, output), penalty
