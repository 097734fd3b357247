"""The multitask model: one shared encoder, one head a task, the tasks of a step in as few packed passes as can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from minbert.encoder.poolings import TOKENS, pooled
from minbert.randomness import derive
from minbert.tasks import Task
from minbert.techniques.encodings import sharing
from minbert.techniques.heads import HeadContext
from minbert.techniques.regularizers import DIVERGENCES, Bregman
from minbert.training.frozen import FrozenPart, Reading, wanted

GeneratorOf = Callable[[str], torch.Generator]
"""A generator at the start of one of a step's streams."""


@dataclass(frozen=True)
class Given:
    """What a pass over some batches starts from: their tokens, or what is kept of the encoder's frozen part."""

    packed: Packed | None
    """The tokens; None where `pooled` stands for them."""
    start: Tensor | None = None
    """Token states [N, D] after the frozen layers, in the order of packing."""
    pooled: tuple[Tensor, ...] = ()
    """Each batch's pooled states [S, D], where the whole encoder is frozen."""


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

    def __init__(
        self,
        config: Config,
        base: Base,
        tasks: dict[str, Task],
        seed: int,
        encoder: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`encoder`: its weights after the stages before training; None takes the base's."""
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
        """What linear layers compute in; see `arithmetic`."""
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
        self.still = config.adapter.still(len(self.encoder.layers))
        """Lowest layers, the embeddings with them, that are frozen and have no dropout."""
        self.origin = None if config.stages.chain() else base.sha256
        """Identity of the frozen weights; None where stages changed them."""
        self.keeps = bool(self.still) and wanted()
        self.part: FrozenPart | None = None
        """What is still, from the first pass on: by then the model is on its device and has its arithmetic."""

    @property
    def device(self) -> torch.device:
        return self.encoder.embeddings.norm.weight.device

    def trainable(self) -> dict[str, nn.Parameter]:
        """Parameters that are trained, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def shared_and_rest(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Trained parameters that several tasks use, and those of one: heads and branches beside the layers."""
        shared: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, value in self.trainable().items():
            common = name.startswith(("encoder.", "shared_head.")) and ".parallel." not in name
            (shared if common else rest).append(value)
        return shared, rest

    def balanced_parameters(self, task: str) -> list[nn.Parameter]:
        """Where a task's gradient is measured: the encoder's last trained layer, or its head where none is trained."""
        for layer in reversed(self.encoder.layers):
            chosen = [value for value in layer.parameters() if value.requires_grad]
            if chosen:
                return chosen
        return list(self.heads[task].parameters())

    def batch(self, task: str, file: TaskFile, rows: Sequence[int] | NDArray[np.integer[Any]]) -> TaskBatch:
        """Put rows of a task's file together as its encoding says."""
        chosen = np.asarray(rows, dtype=np.int64)
        return TaskBatch(task, file, chosen, torch.from_numpy(file.labels[chosen]), self.readings[task].sequences)

    def forward(self, batches: Sequence[TaskBatch], noise: Noise = SILENT) -> list[Tensor]:
        """Outputs [B, C] of each batch in float32, all in one pass."""
        return self.outputs(self.given(batches), batches, noise)

    def given(self, batches: Sequence[TaskBatch]) -> Given:
        """Packed tokens of all batches, or what is kept of their frozen part, on the model's device."""
        part = self._frozen_part(batches)
        if part is None:
            return Given(self._pack(batches))
        kept = [torch.from_numpy(part.states(batch, self.readings[batch.task])) for batch in batches]
        if part.whole:
            return Given(None, pooled=tuple(self._move(states) for states in kept))
        packed = pack([sequence for batch in batches for sequence in batch.sequences])
        start = torch.cat(kept).index_select(0, in_order_of_packing(packed))
        return Given(packed.to(self.device), start=self._move(start))

    def _frozen_part(self, batches: Sequence[TaskBatch]) -> FrozenPart | None:
        """What is kept for a pass over batches; a penalty that perturbs word embeddings needs the pass from them on."""
        if not self.keeps or any(self.config.regularizer[batch.task].active for batch in batches):
            return None
        if self.part is None or self.part.dtype != self.dtype:
            self.part = FrozenPart(self.encoder, self.still, self.origin, self.dtype)
        return self.part

    def _pack(self, batches: Sequence[TaskBatch]) -> Packed:
        return pack([sequence for batch in batches for sequence in batch.sequences]).to(self.device)

    def _move(self, value: Tensor) -> Tensor:
        return value if self.device.type == "cpu" else value.pin_memory().to(self.device, non_blocking=True)

    def outputs(
        self, given: Given, batches: Sequence[TaskBatch], noise: Noise = SILENT, offset: Tensor | None = None
    ) -> list[Tensor]:
        """As `forward`, from what is given of the batches; `offset` [N, D] is added to their word embeddings."""
        for module in self.adapted:
            module.generator = noise.generator
            module.task = batches[0].task if len(batches) == 1 else None
        outputs = []  # heads are small, and a score in bf16 would lie on a grid of 1/64: float32
        for batch, states in zip(batches, given.pooled or self._pool(given, batches, noise, offset), strict=True):
            shared = self.shared_head if batch.task in self.sharing else None
            parts = states.split(len(batch.rows))  # type: ignore[no-untyped-call]
            outputs.append(cast(Tensor, self.heads[batch.task](parts, noise, shared)))
        return outputs

    def _pool(
        self, given: Given, batches: Sequence[TaskBatch], noise: Noise, offset: Tensor | None
    ) -> Iterator[Tensor]:
        """Each batch's pooled states [S, D], its sequences in the order given."""
        packed = given.packed
        assert packed is not None, "states are kept for batches without a perturbation alone"
        poolings = [TOKENS[self.config.encoding[batch.task].pooling] for batch in batches]

        def encode(first_only: bool) -> Tensor:
            states: Tensor = self.encoder(
                packed, noise, offset=offset, first_only=first_only, still=self.still, start=given.start
            )
            return states

        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            states = pooled(set(poolings), packed, encode)
        start = 0
        for batch, pooling in zip(batches, poolings, strict=True):
            yield states[pooling][start : start + len(batch.sequences)]
            start += len(batch.sequences)

    def noise(self, generator: torch.Generator) -> Noise:
        """The configured dropout rates with a generator."""
        rates = self.config.dropout
        return Noise(generator, rates.hidden, rates.attention, rates.head)

    def loss(self, task: str, outputs: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of outputs [B, C] against labels [B], as the task's head defines it."""
        return self.config.encoding[task].head.loss(self.tasks[task], outputs, labels)

    def totals(
        self, losses: Mapping[str, Tensor], penalties: Mapping[str, Tensor], progress: float
    ) -> dict[str, Tensor]:
        """taper_k(progress) (loss_k + penalties_k): a taper weighs all that its task contributes."""
        totals = {}
        for task, loss in losses.items():
            own = [value for name, value in penalties.items() if name.partition("/")[2] == task]
            totals[task] = self.config.taper[task].value(progress) * sum(own, loss)
        return totals

    def step_losses(
        self, batches: Sequence[TaskBatch], generator_of: GeneratorOf, teacher: MultitaskModel | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each task's loss, and weighted penalties by `<regulariser>/<task>`, all differentiable."""
        losses: dict[str, Tensor] = {}
        penalties: dict[str, Tensor] = {}
        for group in self._passes(batches):
            stream = "dropout" if len(group) > 1 else f"dropout/{group[0].task}"
            given = self.given(group)
            outputs = self.outputs(given, group, self.noise(generator_of(stream)))
            for batch, output in zip(group, outputs, strict=True):
                labels = batch.labels.to(self.device, non_blocking=True)
                losses[batch.task] = self.loss(batch.task, output, labels)
            if teacher is not None:
                penalties |= self._proximal(teacher, given, group, outputs, self.noise(generator_of(stream)))
            if len(group) == 1 and self.config.regularizer[group[0].task].active:
                penalties[f"smart/{group[0].task}"] = self._smoothness(given, group[0], outputs[0], generator_of)
        return losses, penalties

    def _passes(self, batches: Sequence[TaskBatch]) -> Iterator[list[TaskBatch]]:
        """Batches that share a pass: all, but those that are regularised or have parts of the encoder of their own.

        Where every task is differentiated by itself none do: each backward pass would go through all rows.
        """
        apart = self.config.adapter.per_task or self.config.mixing.combine.several
        together = []
        for batch in batches:
            if apart or self.config.regularizer[batch.task].active:
                yield [batch]
            else:
                together.append(batch)
        if together:
            yield together

    def _proximal(
        self,
        teacher: MultitaskModel,
        given: Given,
        group: Sequence[TaskBatch],
        outputs: Sequence[Tensor],
        noise: Noise,
    ) -> dict[str, Tensor]:
        """mu l(f(x), teacher(x)) for each task; `noise` draws the masks of the model's own pass again."""
        assert isinstance(self.config.proximal, Bregman)
        teacher.dtype = self.dtype
        with torch.no_grad():
            targets = teacher.outputs(given, group, noise)
        weight = self.config.proximal.weight
        return {
            f"bregman/{batch.task}": weight * DIVERGENCES[self.tasks[batch.task].kind](output, target)
            for batch, output, target in zip(group, outputs, targets, strict=True)
        }

    def _smoothness(self, given: Given, batch: TaskBatch, output: Tensor, generator_of: GeneratorOf) -> Tensor:
        """The smoothness penalty; all its passes draw the same dropout masks: only the offset differs."""

        def forward(offset: Tensor | None) -> Tensor:
            noise = self.noise(generator_of(f"dropout/{batch.task}"))
            return self.outputs(given, [batch], noise, offset)[0]

        assert given.packed is not None
        shape = torch.Size((given.packed.ids.shape[0], self.encoder.config.hidden_size))
        divergence = DIVERGENCES[self.tasks[batch.task].kind]
        regularizer = self.config.regularizer[batch.task]
        return regularizer.penalty(forward, output, shape, divergence, generator_of(f"noise/{batch.task}"))


def _generator(seed: int, *stream: str) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *stream))
