"""The BERT encoder (Devlin et al. 2019), on packed tokens.

A batch of B sequences is one row of N tokens without padding. Linear layers and normalisations see real tokens only;
attention stays within each sequence (`minbert.encoder.attention`).

    x = LN(e_word + e_position + e_segment);   x = LN(x + Attention(x));   x = LN(x + W_2 gelu(W_1 x))

Letters: B sequences, N packed tokens, T longest sequence, D hidden, H heads, F intermediate.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from minbert.encoder.attention import attention
from minbert.encoder.noise import SILENT, Noise, dropout
from minbert.encoder.packed import Packed
from minbert.encoder.words import WordEmbedding


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
        """Branch that an adapter adds: from the layer's input [M, D] to a term [M, D] before the last normalisation."""

    def forward(self, x: Tensor, batch: Packed, noise: Noise, first_only: bool) -> Tensor:
        """Hidden states [N, D] to [N, D]; with `first_only` to [B, D], those of the [CLS] tokens alone."""
        rows = inputs = x.index_select(0, batch.first) if first_only else x  # [M, D], M = B or N
        queries, keys, values = self.query(rows), self.key(x), self.value(x)
        attended = self.output(attention(queries, keys, values, self.heads, batch, noise))
        rows = self.attention_norm(rows + dropout(attended, noise.hidden, noise.generator))
        inner = dropout(self.down(F.gelu(self.up(rows))), noise.hidden, noise.generator)
        if self.parallel is not None:
            inner = inner + self.parallel(inputs)
        return self.norm(rows + inner)  # type: ignore[no-any-return]


class Bert(nn.Module):
    """BERT encoder: embeddings and layers, from a packed batch to its last hidden states."""

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
        frozen_layers: int = 0,
        start: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [N, D] in the order of packing.

        With `first_only` the last layer is computed for the [CLS] tokens alone: [B, D], in the order in which the
        sequences were given. `offset` [N, D] is added to the word embeddings, for penalties that perturb them. The
        lowest `frozen_layers` layers have no dropout, nor have the embeddings if there are any such layers. `start`
        [N, D] holds the states that `lowest` gives for those layers: only the layers above them are computed.
        """
        x: Tensor = self.embeddings(batch, SILENT if frozen_layers else noise, offset) if start is None else start
        last = len(self.layers) - 1
        for index in range(0 if start is None else frozen_layers, len(self.layers)):
            layer_noise = SILENT if index < frozen_layers else noise
            x = self.layers[index](x, batch, layer_noise, first_only and index == last)
        return x.index_select(0, batch.place) if first_only else x

    def lowest(self, batch: Packed, count: int) -> Tensor:
        """States [N, D] after the lowest `count` layers, without dropout."""
        x: Tensor = self.embeddings(batch, SILENT, None)
        for index in range(count):
            x = self.layers[index](x, batch, SILENT, False)
        return x
