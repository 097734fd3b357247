"""The BERT encoder (Devlin et al. 2019), on packed tokens.

A batch of B sequences is one row of N tokens without padding: every linear layer and normalisation sees real tokens
only. The sequences lie in order of length, and attention alone lays runs of similar length out as [b, T] and masks
what is not there.

    x = LN(e_word + e_position + e_segment);   x = LN(x + Attention(x));   x = LN(x + W_2 gelu(W_1 x))

Letters: B sequences, N packed tokens, T longest sequence, D hidden, H heads, F intermediate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.words import WordEmbedding


@dataclass(frozen=True)
class BertConfig:
    """Shape of a BERT-family encoder, as in its `config.json`."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


@dataclass(frozen=True)
class Run:
    """b neighbouring sequences of similar length, at most T."""

    tokens: slice
    """Their tokens among the N."""
    sequences: slice
    """Their places among the B, in order of length."""
    slots: Tensor
    """Index of each of their tokens in the padded layout, sequence * T + position."""
    mask: Tensor
    """Additive attention mask [b, 1, 1, T]: 0 at tokens, -inf at padding."""


@dataclass(frozen=True)
class Packed:
    """B sequences laid end to end, in order of length."""

    ids: Tensor
    """Word-piece ids [N]."""
    positions: Tensor
    """Position of each token in its sequence [N]."""
    segments: Tensor
    """Segment (0 first sentence, 1 second) of each token [N]."""
    first: Tensor
    """Index of each sequence's [CLS], in order of length [B]."""
    place: Tensor
    """Where each sequence, as it was given, stands in the order of length [B]."""
    runs: tuple[Run, ...]
    """The sequences in runs of similar length."""

    def to(self, device: torch.device) -> Packed:
        if device.type == "cpu":
            return self

        def move(value: Tensor) -> Tensor:
            return value.pin_memory().to(device, non_blocking=True)

        runs = tuple(replace(run, slots=move(run.slots), mask=move(run.mask)) for run in self.runs)
        tensors = ("ids", "positions", "segments", "first", "place")
        return Packed(**{name: move(getattr(self, name)) for name in tensors}, runs=runs)


@dataclass(frozen=True)
class Noise:
    """The randomness of one forward pass: the generator that draws dropout masks, and their rates."""

    generator: torch.Generator | None
    """None in evaluation: no dropout."""
    hidden: float
    """Dropout rate of hidden states."""
    attention: float
    """Dropout rate of attention probabilities."""
    head: float
    """Dropout rate of head inputs."""


SILENT = Noise(None, 0.0, 0.0, 0.0)
"""No randomness at all: evaluation."""


def dropout(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Inverted dropout with an explicit generator; the identity without one or at rate 0.

    The mask comes from 16 random bits an element (rates are rounded to 1 / 65536), four elements to a draw: on a CPU
    that is some ten times faster than drawing Bernoulli numbers.
    """
    if generator is None or rate == 0.0:
        return x
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
    words.random_(-(2**63), None, generator=generator)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = (bits >= round(rate * 2**16) - 2**15).to(x.dtype)
    return x * keep.mul_(1.0 / (1.0 - rate))


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalised."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.word = WordEmbedding(config.vocab_size, width)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.segment = nn.Embedding(config.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, batch: Packed, noise: Noise, offset: Tensor | None) -> Tensor:
        words = self.word(batch.ids)  # [N, D]
        if offset is not None:
            words = words + offset
        x = self.norm(words + self.position(batch.positions) + self.segment(batch.segments))
        return dropout(x, noise.hidden, noise.generator)


class Layer(nn.Module):
    """One encoder layer. Its six linear layers are the targets that adapters name."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.parallel: nn.Module | None = None
        """What an adapter adds beside the layer: [M, D] of its input to [M, D] before the last normalisation."""

    def forward(self, x: Tensor, batch: Packed, noise: Noise, first_only: bool) -> Tensor:
        """Hidden states [N, D] to [N, D], or to [B, D] of the [CLS] tokens alone with `first_only`."""
        rows = given = x.index_select(0, batch.first) if first_only else x  # [M, D], M = B or N
        attended = self.output(self._attend(x, rows, batch, noise, first_only))
        rows = self.attention_norm(rows + dropout(attended, noise.hidden, noise.generator))
        inner = dropout(self.down(F.gelu(self.up(rows))), noise.hidden, noise.generator)
        if self.parallel is not None:
            inner = inner + self.parallel(given)
        return self.norm(rows + inner)  # type: ignore[no-any-return]

    def _attend(self, x: Tensor, rows: Tensor, batch: Packed, noise: Noise, first_only: bool) -> Tensor:
        queries, keys, values = self.query(rows), self.key(x), self.value(x)
        mixed = []
        for run in batch.runs:
            place = run.sequences if first_only else run.tokens
            q = self._split(queries[place], None if first_only else run)
            k, v = self._split(keys[run.tokens], run), self._split(values[run.tokens], run)  # [b, H, T, D / H]
            # Explicit products: on CPUs scaled_dot_product_attention with dropout is slower at these lengths.
            weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + run.mask, dim=-1)
            weights = dropout(weights, noise.attention, noise.generator).to(v.dtype)
            flat = (weights @ v).transpose(1, 2).reshape(-1, x.shape[-1])  # [b T or b, D]
            mixed.append(flat if first_only else flat.index_select(0, run.slots))
        return torch.cat(mixed)

    def _split(self, x: Tensor, run: Run | None) -> Tensor:
        """Tokens of a run [n, D] to [b, H, T, D / H], zeros where there is no token; without a run T = 1."""
        if run is None:
            return x.view(len(x), 1, self.heads, -1).transpose(1, 2)
        count, longest = run.mask.shape[0], run.mask.shape[-1]
        if len(x) < count * longest:
            x = x.new_zeros(count * longest, x.shape[-1]).index_copy(0, run.slots, x)
        return x.view(count, longest, self.heads, -1).transpose(1, 2)


class Bert(nn.Module):
    """Embeddings and layers; the output is the last hidden states."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        batch: Packed,
        noise: Noise = SILENT,
        *,
        offset: Tensor | None = None,
        first_only: bool = False,
        still: int = 0,
        start: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [N, D]; with `first_only` those of the [CLS] tokens [B, D], in the order that sequences
        were given in, computed without the rest.

        `offset` [N, D] is added to the word embeddings (SMART's perturbation). The lowest `still` layers, and where
        there are any the embeddings, have no dropout. `start` [N, D] are the states that `lowest` gives for them: only
        the layers above are computed.
        """
        x: Tensor = self.embeddings(batch, SILENT if still else noise, offset) if start is None else start
        last = len(self.layers) - 1
        for index in range(0 if start is None else still, len(self.layers)):
            x = self.layers[index](x, batch, SILENT if index < still else noise, first_only and index == last)
        return x.index_select(0, batch.place) if first_only else x

    def lowest(self, batch: Packed, count: int) -> Tensor:
        """States [N, D] after the lowest `count` layers, without dropout."""
        x: Tensor = self.embeddings(batch, SILENT, None)
        for index in range(count):
            x = self.layers[index](x, batch, SILENT, False)
        return x
