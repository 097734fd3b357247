"""Files of a model as other libraries read them: safetensors and JSON, nothing pickled.

config.json, model.safetensors            the plain encoder under the names of `transformers.BertModel`, in float32
model.safetensors.sha256                  its checksum, which `find_base` compares
vocab.txt, tokenizer.json, ...            the tokeniser
1_Pooling/config.json, modules.json       the pooling for `sentence-transformers`, where the base names one
adapter_config.json, adapter_model...     LoRA and DoRA as `peft` stores them
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save as serialized
from tokenizers import processors
from torch import Tensor

from minbert.data.tokens import word_piece
from minbert.encoder.base import POOLING_FILE, POOLING_MODES, Base, tensor_names
from minbert.encoder.bert import BertConfig
from minbert.techniques.adapters import LoRA

PEFT_PREFIX = "base_model.model."
"""What `peft` puts before the names of a model's tensors."""

PEFT_LEAVES = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "lora_magnitude_vector"}
"""Last part of an addition's name here -> in the files of `peft`."""


def write_encoder(weights: Mapping[str, Tensor], base: Base, hidden: float, attention: float, folder: Path) -> None:
    """Write a plain encoder: its weights by our names, the base's pooler if it has one, configuration, checksum.

    `hidden` and `attention` are the dropout rates of its training.
    """
    names = tensor_names(base.config)
    tensors = {names[ours]: value for ours, value in weights.items()}
    if pooler := base.pooler():
        tensors |= {"pooler.dense.weight": pooler[0], "pooler.dense.bias": pooler[1]}
    path = folder / "model.safetensors"
    save(tensors, path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    (folder / f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        **asdict(base.config),
        "hidden_dropout_prob": hidden,
        "attention_probs_dropout_prob": attention,
        "pad_token_id": base.vocabulary.index("[PAD]"),
    }
    write_json(folder / "config.json", config)


def write_tokenizer(base: Base, folder: Path) -> None:
    """Write the vocabulary and the tokeniser, which gives [CLS] a [SEP], and [CLS] a [SEP] b [SEP] for a pair."""
    (folder / "vocab.txt").write_text("\n".join(base.vocabulary) + "\n", encoding="utf-8")
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tokenizer = word_piece(base.vocabulary, base.lowercase)
    tokenizer.add_special_tokens(list(special))
    sep, cls = (("[SEP]", base.vocabulary.index("[SEP]")), ("[CLS]", base.vocabulary.index("[CLS]")))
    tokenizer.post_processor = processors.BertProcessing(sep, cls)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": base.lowercase,
        "model_max_length": base.config.max_position_embeddings,
        **{f"{name.strip('[]').lower()}_token": name for name in special},
    }
    write_json(folder / "tokenizer_config.json", settings)


def write_pooling(base: Base, folder: Path) -> None:
    """Write the pooling of a sentence encoder; nothing for a base that names none."""
    if base.pooling == "cls":
        return
    modes = {mode: pooling == base.pooling for mode, pooling in POOLING_MODES.items()}
    path = folder / POOLING_FILE
    path.parent.mkdir()
    write_json(path, {"word_embedding_dimension": base.config.hidden_size, **modes})
    parts = (("", "Transformer"), (path.parent.name, "Pooling"))
    modules = [
        {"idx": index, "name": str(index), "path": where, "type": f"sentence_transformers.models.{kind}"}
        for index, (where, kind) in enumerate(parts)
    ]
    write_json(folder / "modules.json", modules)


def peft_names(additions: list[str], config: BertConfig) -> dict[str, str]:
    """Names in the files of `peft`, by the model's names of the additions to its encoder."""
    theirs, names = tensor_names(config), {}
    for name in additions:
        module, _, leaf = name.removeprefix("encoder.").rpartition(".")
        names[name] = f"{PEFT_PREFIX}{theirs[f'{module}.bias'].removesuffix('bias')}{PEFT_LEAVES[leaf]}"
    return names


def write_adapter(adapter: LoRA, additions: Mapping[str, Tensor], config: BertConfig, folder: Path) -> None:
    """Write LoRA's or DoRA's additions to an encoder, given by the model's names, as `peft` does."""
    folder.mkdir()
    names = peft_names(list(additions), config)
    save({names[ours]: value for ours, value in additions.items()}, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": None,  # the folder above; where it lies only its reader knows
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.numerator,
        "lora_dropout": adapter.dropout,
        "use_dora": adapter.kind == "dora",
        "bias": "none",  # trained biases are part of the plain encoder
        "target_modules": sorted({name.removeprefix(PEFT_PREFIX).rpartition(".lora_")[0] for name in names.values()}),
    }
    write_json(folder / "adapter_config.json", settings)


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors in float32 as a safetensors file, with the permissions of any new file."""
    plain = {name: value.detach().float().contiguous() for name, value in tensors.items()}
    # `transformers` refuses files without this entry. `save_file` would make a file that only its owner can read.
    path.write_bytes(serialized(plain, metadata={"format": "pt"}))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented."""
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
