"""Exported models: one directory that `transformers` loads and `python -m minbert predict` predicts with.

    config.json, model.safetensors, vocab.txt, ...    the plain encoder and its tokeniser (`minbert.training.portable`)
    adapter/                                          form peft: what the adapter adds, as `peft` stores it
    minbert.json, minbert.safetensors                 tasks, configuration, and every other tensor: the heads
    README.md                                         the model card

The directory is a base encoder too: `--base DIR` begins a training from it. What an adapter adds to the encoder takes
one of three forms:

    merged   part of the plain encoder's weights (`minbert.encoder.lowrank.merge`)
    peft     in `adapter/`; the plain encoder is without it
    own      in `minbert.safetensors`; the plain encoder is without it
"""

from __future__ import annotations

import contextlib
import copy
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from minbert.config import Config
from minbert.disk import sync
from minbert.encoder.base import Base, find_base
from minbert.encoder.lowrank import merge
from minbert.fields import unknown
from minbert.tasks import Task
from minbert.techniques.adapters import LoRA, NoAdapter
from minbert.training.model import MultitaskModel
from minbert.training.portable import (
    peft_names,
    save,
    write_adapter,
    write_encoder,
    write_json,
    write_pooling,
    write_tokenizer,
)

RECORD = "minbert.json"
"""File that marks a directory as an exported model."""

TENSORS = "minbert.safetensors"
"""File of the tensors outside the plain encoder."""

ADAPTER = Path("adapter")
"""Folder of what an adapter adds, in form peft."""

FORMAT = 1
"""Format of RECORD that this version writes and reads."""

MERGED, PEFT, OWN = FORMS = ("merged", "peft", "own")
"""Forms of what an adapter adds."""


class ExportError(ValueError):
    """A model cannot be exported as requested, or an exported one cannot be read."""


@dataclass(frozen=True)
class Origin:
    """Where exported weights come from."""

    base: Mapping[str, str]
    """Name and SHA-256 of the base encoder that the training began from."""
    data: str
    """Fingerprint of the training data."""
    seed: int
    examples: Mapping[str, int]
    """Training rows used, by task."""

    @classmethod
    def of(cls, trial: Mapping[str, Any]) -> Origin:
        """The origin of a checkpoint, from its `trial.json`."""
        return cls(trial["base"], trial["data"], trial["seed"], trial["consumed"])


# --- writing ---------------------------------------------------------------------------------------------------------


def check_target(directory: Path, *, overwrite: bool = False) -> None:
    """Check that an export may be written to `directory`. Raises ExportError.

    Only an exported model is ever replaced, and only with `overwrite`.
    """
    if directory.is_dir() and any(directory.iterdir()) and not (overwrite and is_exported(directory)):
        remedy = "add --overwrite to replace it" if is_exported(directory) else "only an exported model can be replaced"
        raise ExportError(f"{directory} must be new or empty, and it holds files; name another directory ({remedy}).")
    if blocked := next((path for path in (directory, *directory.parents) if path.is_file()), None):
        raise ExportError(f"{directory} must be a directory, new or empty; {blocked} is a file.")


def check_form(config: Config, form: str) -> None:
    """Check that a configuration's adapter can take this form. Raises ExportError or ConfigError."""
    if form not in FORMS:
        raise unknown("adapter form", form, FORMS)
    kind = config.adapter.kind
    if form == PEFT and not isinstance(config.adapter, LoRA):
        raise ExportError(
            f"adapter form {PEFT} is for `adapter/kind` lora and dora; found {kind}, which `peft` does not have. "
            f"Accepted for {kind}: {OWN if config.adapter.per_task else MERGED}."
        )
    if form == MERGED and config.adapter.per_task:
        raise ExportError(
            f"adapter form {MERGED} needs an encoder that equals a plain BERT; found `adapter/kind` {kind}, whose "
            f"branches beside the layers no weights of a plain BERT replace. Accepted for {kind}: {OWN}, which "
            "`python -m minbert predict` reads."
        )


def write(
    model: MultitaskModel,
    base: Base,
    origin: Origin,
    directory: Path,
    *,
    form: str = MERGED,
    card: str = "",
    overwrite: bool = False,
) -> None:
    """Export a model, whole or not at all: `directory` appears, complete and on the disk, by one renaming.

    `base` is the encoder that the model was built from, `card` the text of README.md. Raises ExportError.
    """
    check_target(directory, overwrite=overwrite)
    check_form(model.config, form)
    model = copy.deepcopy(model).cpu()
    if form == MERGED:
        merge(model)
    plain, rest = _parted(model)
    with _replacing(directory) as folder:
        write_encoder(plain, base, model.config.dropout.hidden, model.config.dropout.attention, folder)
        write_tokenizer(base, folder)
        write_pooling(base, folder)
        if isinstance(model.config.adapter, LoRA) and form == PEFT:
            additions = {name: rest.pop(name) for name in _additions(model)}
            write_adapter(model.config.adapter, additions, base.config, folder / ADAPTER)
        save(rest, folder / TENSORS)
        write_json(folder / RECORD, _described(model, origin, form))
        (folder / "README.md").write_text(card, encoding="utf-8")


def _additions(model: MultitaskModel) -> list[str]:
    """Names of the parameters that the adapter added to the encoder."""
    names = [name for name, _ in model.named_parameters() if name.startswith("encoder.")]
    return [name for name in names if model.config.adapter.adds(name)]


def _parted(model: MultitaskModel) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tensors of the plain encoder, by their names in it, and all others, by their names in the model."""
    plain: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    added = set(_additions(model))
    for name, value in model.named_parameters():
        if name.startswith("encoder.") and name not in added:
            plain[name.removeprefix("encoder.").replace(".base.", ".")] = value  # the frozen layer of an adapted one
        else:
            rest[name] = value
    return plain, rest


def _described(model: MultitaskModel, origin: Origin, form: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "adapter_form": form,
        "arithmetic": str(model.dtype).removeprefix("torch."),
        "origin": asdict(origin),
        "tasks": {name: asdict(task) for name, task in model.tasks.items()},
        "config": model.config.to_dict(),
    }


@contextlib.contextmanager
def _replacing(directory: Path) -> Iterator[Path]:
    """A new folder beside `directory`, which takes its place if the context ends without an error."""
    directory = directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        yield new
        for path in (*new.rglob("*"), new):
            sync(path)
        if directory.exists():
            directory.rename(old)
        try:
            new.rename(directory)
        except OSError:
            if old.exists():
                old.rename(directory)
            raise
        sync(directory.parent)


# --- reading ---------------------------------------------------------------------------------------------------------


def is_exported(directory: Path) -> bool:
    """Whether a directory holds an exported model."""
    return (directory / RECORD).is_file()


def read(directory: Path) -> tuple[MultitaskModel, Base]:
    """Model of an exported directory on the CPU, and its encoder as a base. Raises ExportError, BaseEncoderError."""
    record = _record(directory)
    try:
        form, tasks = record["adapter_form"], {name: _task(values) for name, values in record["tasks"].items()}
        config = Config.from_dict(record["config"], tasks)
        arithmetic = {"float32": torch.float32, "bfloat16": torch.bfloat16}[record["arithmetic"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{directory / RECORD} is damaged: {type(error).__name__} {error}.") from error
    base = find_base(str(directory.absolute()))
    model = MultitaskModel(replace(config, adapter=NoAdapter()) if form == MERGED else config, base, tasks, seed=0)
    tensors = _tensors(directory / TENSORS)
    if form == PEFT:
        stored = _tensors(directory / ADAPTER / "adapter_model.safetensors")
        names = peft_names(_additions(model), base.config)
        tensors |= {ours: stored[theirs] for ours, theirs in names.items() if theirs in stored}
    if tensors.keys() != _parted(model)[1].keys():
        raise ExportError(f"{directory} does not hold the tensors that its {RECORD} describes.")
    model.load_state_dict(tensors, strict=False)
    model.dtype = arithmetic
    return model, base


def _record(directory: Path) -> dict[str, Any]:
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        found = record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{directory / RECORD} cannot be read: {error}.") from error
    if found != FORMAT:
        raise ExportError(f"{directory / RECORD} has format {found}; this version reads format {FORMAT}.")
    return dict(record)


def _task(values: Mapping[str, Any]) -> Task:
    """A task from its JSON, in which tuples are lists."""
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return Task(**plain)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ExportError(f"{path} is missing or damaged: {error}.") from error
