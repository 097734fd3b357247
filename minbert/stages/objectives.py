"""Objectives of the stages: each turns rows into a batch, encodes it and returns a loss.

An objective holds the rows that it reads and its own parameters (NLI's classifier, MLM's output layer). They are
trained with the encoder and discarded at the end of the stage.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.data.batches import bi_encode, cross_encode, pack
from minbert.data.nli import LABELS
from minbert.data.tokens import TaskFile
from minbert.encoder.base import Base
from minbert.encoder.bert import Bert
from minbert.encoder.noise import Noise, dropout
from minbert.encoder.packed import Packed
from minbert.encoder.poolings import POOLINGS, owners
from minbert.stages.losses import corrupt, known_duplicates, mnrl, tied_cross_entropy

INITIAL_STD = 0.02
"""Standard deviation of BERT's initial weights (Devlin et al. 2019, code)."""


@dataclass(frozen=True)
class StageContext:
    """Inputs of an objective's constructor."""

    base: Base
    file: TaskFile
    """The rows that the stage reads."""
    generator: torch.Generator
    """Generator of the objective's initial parameters."""


class Objective(nn.Module):
    """Loss of a stage over its rows."""

    def __init__(self, context: StageContext, max_length: int) -> None:
        super().__init__()
        vocabulary = context.base.vocabulary
        self.file = context.file
        self.limit = min(max_length, context.base.config.max_position_embeddings)
        self.cls, self.sep = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")

    @property
    def size(self) -> int:
        """Rows R of the stage."""
        return len(self.file.labels)

    def loss(self, encoder: Bert, rows: list[int], noise: Noise, draws: np.random.Generator) -> Tensor:
        """Mean loss of a batch of rows, a scalar; `draws` is a generator for this step alone."""
        raise NotImplementedError


class Inference(Objective):
    """NLI (`multi_extended`, section 4): softmax(W h_cls + b) on [CLS] premise [SEP] hypothesis [SEP]."""

    def __init__(self, context: StageContext, max_length: int) -> None:
        super().__init__(context, max_length)
        self.classifier = _linear(context.base.config.hidden_size, len(LABELS), context.generator)

    def loss(self, encoder: Bert, rows: list[int], noise: Noise, draws: np.random.Generator) -> Tensor:
        packed = pack(cross_encode(self.file, rows, self.limit, self.cls, self.sep)).to(_device(encoder))
        states = encoder(packed, noise, first_only=True)  # [B, D]
        logits = self.classifier(dropout(states, noise.head, noise.generator))  # [B, 3]
        labels = torch.from_numpy(self.file.labels[rows]).long().to(logits.device)
        return F.cross_entropy(logits.float(), labels)


class Ranking(Objective):
    """MNRL (`beyond_bert`, section 4) on pairs that mean the same, each text encoded by itself."""

    def __init__(self, context: StageContext, max_length: int, scale: float, pooling: str) -> None:
        super().__init__(context, max_length)
        self.scale, self.pooling = scale, pooling

    def loss(self, encoder: Bert, rows: list[int], noise: Noise, draws: np.random.Generator) -> Tensor:
        sequences = bi_encode(self.file, rows, self.limit, self.cls, self.sep)
        packed = pack(sequences).to(_device(encoder))
        if self.pooling == "cls":
            states = encoder(packed, noise, first_only=True)  # [2 B, D]
        else:
            tokens = encoder(packed, noise)  # [N, D]
            pooled = POOLINGS[self.pooling](tokens, owners(packed.positions), len(sequences))
            states = pooled.index_select(0, packed.place)
        anchors, positives = states.split(len(rows))
        texts = [ids.tobytes() for ids, _ in sequences]
        same = torch.from_numpy(known_duplicates(texts[: len(rows)], texts[len(rows) :]))
        return mnrl(anchors, positives, self.scale, same.to(states.device))


class MaskedLanguage(Objective):
    """MLM (Devlin et al. 2019): LN(gelu(W h + b)) E^T + c at the chosen pieces, E the encoder's word embeddings.

    W, b, c and the normalisation come from the base where its file has them. Otherwise they get BERT's initial values.
    """

    def __init__(self, context: StageContext, max_length: int, mask_rate: float) -> None:
        super().__init__(context, max_length)
        config = context.base.config
        self.mask_rate = mask_rate
        self.pieces = len(context.base.vocabulary)
        self.mask = context.base.vocabulary.index("[MASK]")
        self.transform = _linear(config.hidden_size, config.hidden_size, context.generator)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))  # c [V]
        if (head := pretrained_head(context.base)) is not None:
            self.load_state_dict(head)

    def loss(self, encoder: Bert, rows: list[int], noise: Noise, draws: np.random.Generator) -> Tensor:
        packed = pack(bi_encode(self.file, rows, self.limit, self.cls, self.sep))
        ids = packed.ids.numpy()
        special = (ids == self.cls) | (ids == self.sep)
        shown, chosen = corrupt(ids, special, self.mask_rate, self.pieces, self.mask, draws)
        return self.masked_loss(encoder, replace(packed, ids=torch.from_numpy(shown)), chosen, ids[chosen], noise)

    def masked_loss(
        self, encoder: Bert, shown: Packed, chosen: NDArray[np.int64], targets: NDArray[np.int64], noise: Noise
    ) -> Tensor:
        """Mean cross-entropy of the pieces `targets` [M] at the indices `chosen` [M] of a corrupted batch."""
        device = _device(encoder)
        states = encoder(shown.to(device), noise).index_select(0, torch.from_numpy(chosen).to(device))  # [M, D]
        states = self.norm(F.gelu(self.transform(states)))
        labels = torch.from_numpy(targets).to(device)
        return tied_cross_entropy(states, encoder.embeddings.word.weight, self.bias, labels)


def pretrained_head(base: Base) -> dict[str, Tensor] | None:
    """Tensors of the MLM output layer in a base's file, by our names; None where the file lacks any of them."""
    if base.path is None:
        return None
    prefix = "cls.predictions."
    names = {
        "transform.weight": (f"{prefix}transform.dense.weight",),
        "transform.bias": (f"{prefix}transform.dense.bias",),
        "norm.weight": (f"{prefix}transform.LayerNorm.weight", f"{prefix}transform.LayerNorm.gamma"),
        "norm.bias": (f"{prefix}transform.LayerNorm.bias", f"{prefix}transform.LayerNorm.beta"),
        "bias": (f"{prefix}bias", f"{prefix}decoder.bias"),
    }
    with safe_open(base.path / "model.safetensors", framework="pt") as file:
        stored = set(file.keys())
        sources = {ours: next((name for name in theirs if name in stored), None) for ours, theirs in names.items()}
        if None in sources.values():
            return None
        return {ours: file.get_tensor(theirs).float() for ours, theirs in sources.items()}


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with BERT's initial weights, drawn without touching the global generator."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        layer.weight.normal_(0.0, INITIAL_STD, generator=generator)
        layer.bias.zero_()
    return layer


def _device(encoder: Bert) -> torch.device:
    return encoder.embeddings.word.weight.device
