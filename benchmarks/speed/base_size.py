"""Encoder of BERT-base's size with random weights, as a folder in Hugging Face layout that both sides load.

The shape is that of `transformers.BertConfig()`; the weights are drawn from N(0, 0.02), as BERT is initialised. The
vocabulary is that of the packaged encoder. If that is not installed, it consists of the most frequent words of the
training text, which gives about as many word pieces.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from minbert.data.files import read_corpus
from minbert.encoder.base import BaseEncoderError, find_base

SHAPE = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}


def write(folder: Path, data: str | None) -> Path:
    """Write the encoder into `folder`; returns the folder."""
    config = {"model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu", "layer_norm_eps": 1e-12,
              "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, **SHAPE}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    try:
        source = find_base().path
        assert source is not None
        shutil.copy(source / "vocab.txt", folder)
    except BaseEncoderError:
        (folder / "vocab.txt").write_text("\n".join(words(data)) + "\n", encoding="utf-8")
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, shape in shapes():
        if name.endswith("bias"):
            tensors[name] = torch.zeros(shape)
        elif "LayerNorm" in name:
            tensors[name] = torch.ones(shape)
        else:
            tensors[name] = torch.randn(shape, generator=generator) * 0.02
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor."""
    width, inner = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    tables = {"word": "vocab_size", "position": "max_position_embeddings", "token_type": "type_vocab_size"}
    for name, rows in tables.items():
        yield f"embeddings.{name}_embeddings.weight", (SHAPE[rows], width)
    linear = {f"attention.self.{name}": (width, width) for name in ("query", "key", "value")}
    linear |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width)}
    linear |= {"output.dense": (width, inner)}
    modules = {"pooler.dense": (width, width)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(SHAPE["num_hidden_layers"]):
        modules |= {f"encoder.layer.{layer}.{name}": shape for name, shape in linear.items()}
        norms += [f"encoder.layer.{layer}.{name}.LayerNorm" for name in ("attention.output", "output")]
    for name, shape in modules.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]
    for name in norms:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)


def words(data: str | None) -> list[str]:
    """A vocabulary from the training text: special tokens, characters, then words, the most frequent first."""
    corpus = read_corpus(data)
    counts: Counter[str] = Counter()
    for (_, file), rows in corpus.rows.items():
        if file == "train":
            counts.update(word for texts in rows.texts for text in texts for word in re.findall(r"\w+", text.lower()))
    characters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *characters, *(f"##{character}" for character in characters)]
    pieces = list(dict.fromkeys([*pieces, *(word for word, _ in counts.most_common(SHAPE["vocab_size"]))]))
    pieces = pieces[: SHAPE["vocab_size"]]
    return pieces + [f"[unused{number}]" for number in range(SHAPE["vocab_size"] - len(pieces))]
