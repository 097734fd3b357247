"""The configuration of one trial: strict, complete, versioned.

A configuration is a nested dictionary in files and spaces and a frozen dataclass in code. Paths read `adapter/rank`.
Absent fields take their defaults; the stored form is always complete and carries `config_version`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minbert.augmentation.augmentations import AUGMENTATIONS, NoAugmentation
from minbert.fields import ConfigError, Usual, branch, choice, dump, group, integer, load, number, per_task
from minbert.stages.stages import Stages
from minbert.tasks import TASKS, Task
from minbert.techniques.adapters import ADAPTERS, Adapter, Frozen, NoAdapter
from minbert.techniques.encodings import ENCODINGS, Encoding, check_frozen, check_shared, default_encoding
from minbert.techniques.heads import SHARED_HEADS, NoSharedHead
from minbert.techniques.mixings import SAMPLERS, Summed
from minbert.techniques.optimizer import Optimizer
from minbert.techniques.regularizers import PROXIMALS, REGULARIZERS, NoProximal, NoRegularizer, Regularizer
from minbert.techniques.schedules import TAPERS, Flat, Taper

CONFIG_VERSION = 4


def _limit_per_task(nested: dict[str, Any]) -> dict[str, Any]:
    """Version 1 had one `max_length` for all tasks."""
    limit = nested.pop("max_length", None)
    return nested if limit is None else nested | {"max_length": dict.fromkeys(TASKS, limit)}


def _dropout_in_a_frozen_encoder(nested: dict[str, Any]) -> dict[str, Any]:
    """Version 2 trained heads with the frozen encoder's dropouts on."""
    adapter = nested.get("adapter")
    if not isinstance(adapter, Mapping) or adapter.get("kind") != "frozen":
        return nested
    return nested | {"adapter": {"dropout": "on", **adapter}}


def _rate_of_uncertainty(nested: dict[str, Any]) -> dict[str, Any]:
    """Version 3 trained uncertainty weights at the heads' rate."""
    mixing, optimizer = nested.get("mixing"), nested.get("optimizer")
    balance = mixing.get("balance") if isinstance(mixing, Mapping) else None
    if not isinstance(mixing, Mapping) or not isinstance(balance, Mapping) or balance.get("kind") != "uncertainty":
        return nested
    rate = optimizer.get("head_lr") if isinstance(optimizer, Mapping) else None
    given = {"lr": Optimizer().head_lr if rate is None else rate}
    return nested | {"mixing": {**mixing, "balance": {**given, **balance}}}


MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _limit_per_task,
    2: _dropout_in_a_frozen_encoder,
    3: _rate_of_uncertainty,
}
"""From a version to the next one: old trials stay predictable."""


HALF = Usual(0.0, 0.5, 0.5, "a rate above 0.5 drops more than it leaves")


@dataclass(frozen=True)
class Dropout:
    """Dropout rates."""

    hidden: float = number(0.1, 0.0, 0.9, usual=HALF)
    """Hidden states of the encoder."""
    attention: float = number(0.1, 0.0, 0.9, usual=HALF)
    """Attention probabilities."""
    head: float = number(0.1, 0.0, 0.9, usual=HALF)
    """Head inputs."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a trial, besides its seed, budget, data and base encoder."""

    adapter: Adapter = branch(ADAPTERS, NoAdapter())
    """What of the encoder is trained."""
    stages: Stages = group(Stages)
    """What the encoder learns before the tasks."""
    augmentation: Any = branch(AUGMENTATIONS, NoAugmentation())
    """Training rows added to those of the files."""
    encoding: Mapping[str, Encoding] = per_task(
        branch(ENCODINGS, None), TASKS, {name: default_encoding(task) for name, task in TASKS.items()}
    )
    """Sequences, pooling and head of each task."""
    shared_head: Any = branch(SHARED_HEADS, NoSharedHead())
    """A layer that pair tasks share, added to each one's own head (`beyond_bert`)."""
    mixing: Any = branch(SAMPLERS, Summed())
    """Which tasks give a batch to a step."""
    batch_size: Mapping[str, int] = per_task(
        integer(16, 1, 4096), TASKS, {name: 32 if task.search_rows else 16 for name, task in TASKS.items()}
    )
    """Rows of a task in one batch."""
    taper: Mapping[str, Taper] = per_task(branch(TAPERS, None), TASKS, {name: Flat() for name in TASKS})
    """Weight over the budget of all that each task adds to the loss, its penalty included."""
    regularizer: Mapping[str, Regularizer] = per_task(
        branch(REGULARIZERS, None), TASKS, {name: NoRegularizer() for name in TASKS}
    )
    """Penalty added to each task's loss."""
    proximal: Any = branch(PROXIMALS, NoProximal())
    """Penalty on every task that holds an update back."""
    optimizer: Optimizer = group(Optimizer)
    dropout: Dropout = group(Dropout)
    precision: str = choice("auto", "bf16", "float32")
    """Arithmetic of the linear layers; auto is bf16 where the machine computes it natively."""
    max_length: Mapping[str, int] = per_task(
        integer(128, 8, 512), TASKS, {name: task.max_length for name, task in TASKS.items()}
    )
    """Longest sequence of each task in word pieces, special tokens included; longer ones are cut."""
    selection: str = choice("last", "best")
    """Weights that a trial answers with at a report: those it has then, or those of its best report so far."""

    def __post_init__(self) -> None:
        for name, task in TASKS.items():
            self.encoding[name].check(task)

    def check(self, tasks: Mapping[str, Task]) -> None:
        """Refuse what makes no sense for the tasks of a run. Raises ConfigError."""
        check_shared(self.shared_head, self.encoding, tasks)
        trained = {name: task for name, task in tasks.items() if self.mixing.trains(name)}
        if trained and isinstance(self.adapter, Frozen):
            check_frozen(self.encoding, trained)
        if trained and not any(self.taper[name].value(0.0) for name in trained):
            raise ConfigError(f"`taper`: each of {', '.join(trained)} has weight 0; expected at least one above 0.")

    @staticmethod
    def from_dict(nested: Mapping[str, Any]) -> Config:
        """Load a nested dictionary strictly; absent fields take their defaults. Raises ConfigError."""
        return load(Config, migrate(dict(nested)))

    def to_dict(self) -> dict[str, Any]:
        """The complete nested dictionary in JSON values."""
        return {"config_version": CONFIG_VERSION, **dump(self)}

    def flat(self) -> dict[str, Any]:
        """Every value by its path, for example `adapter/rank`."""
        return flatten(self.to_dict())


def migrate(nested: dict[str, Any]) -> dict[str, Any]:
    """Bring a stored configuration up to the current version and drop the version mark."""
    version = nested.pop("config_version", CONFIG_VERSION)
    if not isinstance(version, int) or not 1 <= version <= CONFIG_VERSION:
        raise ConfigError(f"`config_version` must be an integer from 1 to {CONFIG_VERSION}, found {version!r}.")
    for step in range(version, CONFIG_VERSION):
        nested = MIGRATIONS[step](nested)
    return nested


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionary to values by path."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        path = f"{prefix}/{name}" if prefix else name
        flat.update(flatten(value, path) if isinstance(value, Mapping) else {path: value})
    return flat


def settings(pairs: Iterable[str]) -> dict[str, Any]:
    """`path=value` pairs to a nested dictionary; values are JSON where they parse, else strings. Raises ConfigError."""
    nested: dict[str, Any] = {}
    for pair in pairs:
        path, sign, text = pair.partition("=")
        if not sign or not path.strip("/"):
            raise ConfigError(f"A setting must read path=value, for example adapter/rank=8; found {pair!r}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        *parents, leaf = path.strip("/").split("/")
        place = nested
        for name in parents:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigError(f"The setting {pair!r} lies inside a value that another setting gives.")
        place[leaf] = value
    return nested


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """`second` laid over `first`; where it changes a branch's `kind`, the old branch's parameters go."""
    if "kind" in second and second["kind"] != first.get("kind"):
        return dict(second)
    merged = dict(first)
    for name, value in second.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
