"""Poolings against each sequence alone, `sentence_transformers` and `transformers`; the base's own pooler."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from minbert.data.batches import Sequences, pack
from minbert.data.tokens import word_piece
from minbert.encoder import base as base_module
from minbert.encoder.base import Base, BaseEncoderError, find_base
from minbert.encoder.noise import SILENT
from minbert.encoder.poolings import POOLINGS, Pooler, owners
from minbert.tasks import TASKS
from minbert.techniques.encodings import Single
from minbert.techniques.heads import HeadContext

WIDTH = 8
SAMPLE = Path(base_module.__file__).parent.parent / "sample" / "sts-train.csv"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Poolings ------------------------------------------------------------------------------------------------------------

LENGTHS = (1, 2, 2, 5, 9)


def tokens() -> tuple[Tensor, Tensor, list[Tensor]]:
    """Token states [N, D], their owners, and the states of each sequence apart."""
    parts = [torch.randn(length, WIDTH, generator=generator(length + index)) for index, length in enumerate(LENGTHS)]
    owner = owners(torch.cat([torch.arange(length) for length in LENGTHS]))
    return torch.cat(parts), owner, parts


def test_owners_number_the_sequences() -> None:
    assert tokens()[1].tolist() == [index for index, length in enumerate(LENGTHS) for _ in range(length)]


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_equal_each_sequence_pooled_alone(name: str) -> None:
    packed, owner, parts = tokens()
    alone = {"cls": lambda x: x[0], "mean": lambda x: x.mean(0), "max": lambda x: x.max(0).values}[name]
    actual, apart = packed.clone().requires_grad_(), [part.clone().requires_grad_() for part in parts]
    ours, expected = POOLINGS[name](actual, owner, len(parts)), torch.stack([alone(part) for part in apart])
    assert torch.allclose(ours, expected, atol=1e-6)
    weights = torch.randn(ours.shape)
    (gradient,) = torch.autograd.grad((ours * weights).sum(), actual)
    assert torch.allclose(gradient, torch.cat(torch.autograd.grad((expected * weights).sum(), apart)), atol=1e-6)


@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_of_bf16_states_are_those_of_the_rounded_values(name: str) -> None:
    packed, owner, parts = tokens()
    rounded = packed.bfloat16()
    exact = POOLINGS[name](rounded.float(), owner, len(parts))
    assert torch.equal(POOLINGS[name](rounded, owner, len(parts)).float(), exact)


def test_a_fresh_pooler_and_a_given_one() -> None:
    x, weight, bias = torch.randn(4, WIDTH), torch.randn(WIDTH, WIDTH), torch.randn(WIDTH)
    given, fresh = Pooler(WIDTH, (weight, bias), generator()), Pooler(200, None, generator())
    assert torch.allclose(given(x), torch.tanh(x @ weight.T + bias), atol=1e-6)
    assert given.linear.weight.data_ptr() != weight.data_ptr() and given.linear.weight.requires_grad
    assert abs(fresh.linear.weight.std().item() - 0.02) < 1e-3 and not fresh.linear.bias.any()
    assert torch.equal(fresh.linear.weight, Pooler(200, None, generator()).linear.weight)


@pytest.fixture(scope="module")
def minilm() -> Base:
    try:
        return find_base()
    except BaseEncoderError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))[:12]
    return [row[column] for row in rows for column in ("sentence1", "sentence2")]


def encode(base: Base, texts: list[str]) -> Sequences:
    tokenizer = word_piece(base.vocabulary, base.lowercase)
    cls, sep = base.vocabulary.index("[CLS]"), base.vocabulary.index("[SEP]")
    encoded = [np.array([cls, *tokenizer.encode(t, add_special_tokens=False).ids, sep], np.int32) for t in texts]
    return [(ids, len(ids)) for ids in encoded]


def test_the_pooler_equals_transformers(minilm: Base, sentences: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertModel.from_pretrained(minilm.path).eval()
    tokenizer = transformers.BertTokenizerFast.from_pretrained(minilm.path)
    weights = minilm.pooler()
    assert weights is not None
    width = minilm.config.hidden_size
    head = Single(pooling="pooler").head.build(HeadContext(TASKS["sst"], width, False, generator(), "pooler", weights))
    with torch.no_grad():
        expected = reference(**tokenizer(sentences, padding=True, return_tensors="pt")).pooler_output
        first = minilm.load()(pack(encode(minilm, sentences)), first_only=True)
        assert head.pooler is not None
        assert (head.pooler(first) - expected).abs().max() < 1e-4
        linear = {
            name.removeprefix("linear."): value for name, value in head.named_parameters() if "pooler" not in name
        }
        assert (head((first,), SILENT) - F.linear(expected, **linear)).abs().max() < 1e-4


@pytest.mark.slow  # imports sentence-transformers
@pytest.mark.parametrize("name", POOLINGS)
def test_poolings_equal_sentence_transformers(name: str, minilm: Base, sentences: list[str]) -> None:
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertModel.from_pretrained(minilm.path).eval()
    encoded = transformers.BertTokenizerFast.from_pretrained(minilm.path)(sentences, padding=True, return_tensors="pt")
    pooling = modules.Pooling(minilm.config.hidden_size, pooling_mode=name)
    with torch.no_grad():
        hidden = reference(**encoded).last_hidden_state
        given = {"token_embeddings": hidden, "attention_mask": encoded.attention_mask}
        expected = pooling(given)["sentence_embedding"]
        batch = pack(encode(minilm, sentences))
        actual = POOLINGS[name](minilm.load()(batch), owners(batch.positions), len(sentences))
    assert (actual.index_select(0, batch.place) - expected).abs().max() < 1e-4


# The base's pooler ---------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tiny: Base, tmp_path: Path) -> Path:
    """The tiny encoder in Hugging Face layout with prefixed names and a pooler."""
    (tmp_path / "config.json").write_text(json.dumps({**vars(tiny.config), "model_type": "bert"}))
    (tmp_path / "vocab.txt").write_text("\n".join(tiny.vocabulary))
    names, width = base_module.tensor_names(tiny.config), tiny.config.hidden_size
    tensors = {f"bert.{names[name]}": value for name, value in tiny.load().state_dict().items()}
    pooler = {"bert.pooler.dense.weight": torch.randn(width, width), "bert.pooler.dense.bias": torch.randn(width)}
    save_file(tensors | pooler, tmp_path / "model.safetensors")
    return tmp_path


def test_a_base_gives_its_own_pooler_where_it_has_one(directory: Path, tiny: Base) -> None:
    actual = find_base(str(directory)).pooler()
    tensors = load_file(directory / "model.safetensors")
    assert actual is not None and tiny.pooler() is None
    assert torch.equal(actual[0], tensors["bert.pooler.dense.weight"])
    assert torch.equal(actual[1], tensors["bert.pooler.dense.bias"])
    save_file({name: value for name, value in tensors.items() if "pooler" not in name}, directory / "model.safetensors")
    assert find_base(str(directory)).pooler() is None


def test_a_damaged_pooler_is_refused_when_the_base_is_found(directory: Path) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "bert.pooler.dense.bias": torch.zeros(7)}, file)
    with pytest.raises(BaseEncoderError, match=r"`pooler.dense.bias` has shape \[7\], config.json says \[32\]"):
        find_base(str(directory))
    save_file({name: value for name, value in tensors.items() if name != "bert.pooler.dense.bias"}, file)
    with pytest.raises(BaseEncoderError, match="lacks the tensor `pooler.dense.bias`"):
        find_base(str(directory))
