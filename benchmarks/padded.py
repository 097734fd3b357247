"""Padded encoder: our trial with the encoder of `transformers` instead of ours.

Everything else is the same, also the initial weights of the heads.

    with in_place_of_ours():
        train(config, data, state)
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig as TheirConfig
from transformers import BertModel

from minbert.encoder.base import tensor_names
from minbert.encoder.bert import Bert, BertConfig
from minbert.encoder.noise import SILENT, Noise
from minbert.encoder.packed import Packed


@contextlib.contextmanager
def in_place_of_ours() -> Iterator[None]:
    """A context in which loaded encoders are padded encoders."""
    with mock.patch("minbert.encoder.base.Bert", PaddedBert):
        yield


class PaddedBert(Bert):
    """Encoder with our parameters, computed by `BertModel` on sequences padded to the longest of their batch.

    Dropout masks come from torch's global generator. Gradients of word embeddings are computed by torch, without our
    shortcut.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.embeddings.word.take = lambda ids: None  # type: ignore[method-assign]

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
        """See `Bert.forward`. Raises ValueError for frozen layers, an offset or a start: the comparison uses none."""
        if frozen_layers or offset is not None or start is not None:
            raise ValueError(
                "The padded encoder is trained as a whole and without perturbations: `frozen_layers` must be 0, "
                "`offset` and `start` None."
            )
        lengths = batch.bounds.diff().tolist()
        ids, segments = (
            pad_sequence(list(values.split(lengths)), batch_first=True)  # type: ignore[no-untyped-call]
            for values in (batch.ids, batch.segments)
        )
        real = torch.arange(ids.shape[1]) < batch.bounds.diff()[:, None]  # [B, T]
        model = _transformers(self.config, noise.hidden, noise.attention).train(noise.generator is not None)
        names = tensor_names(self.config)
        ours = {names[name]: value for name, value in self.named_parameters()}
        inputs = {"input_ids": ids, "attention_mask": real.long(), "token_type_ids": segments}
        states: Tensor = torch.func.functional_call(model, ours, kwargs=inputs).last_hidden_state  # [B, T, D]
        return states[:, 0].index_select(0, batch.place) if first_only else states[real]


@functools.cache
def _transformers(config: BertConfig, hidden: float, attention: float) -> Any:
    """A `BertModel` of this shape with these dropout rates; its own weights are never used."""
    shape = TheirConfig(**vars(config), hidden_dropout_prob=hidden, attention_probs_dropout_prob=attention)
    return BertModel(shape, add_pooling_layer=False)
