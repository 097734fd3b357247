"""The configuration of one trial over the tasks of its run: strict, complete, versioned.

A configuration is a nested dictionary in files and search spaces, and a frozen dataclass in code. A path reads
`adapter/rank`. Absent fields take their defaults; those of a task may depend on its declaration. The stored form is
always complete, holds settings of the run's tasks alone, and has a `config_version`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minbert.augmentation.augmentations import AUGMENTATIONS, Augmentation, NoAugmentation
from minbert.encoder.traits import Traits
from minbert.fields import ConfigError, Run, Usual, branch, choice, dump, group, integer, load, number, per_task
from minbert.migrations import CONFIG_VERSION, migrate
from minbert.stages.stages import Stages
from minbert.tasks import Task
from minbert.techniques.adapters import ADAPTERS, Adapter, NoAdapter
from minbert.techniques.averages import AVERAGES, Averaging, NoAverage
from minbert.techniques.encodings import ENCODINGS, Encoding, check_frozen, check_shared, default_encoding
from minbert.techniques.heads import SHARED_HEADS, NoSharedHead, SharedHead
from minbert.techniques.losses import REGRESSION_LOSSES
from minbert.techniques.mixings import MIXINGS, Mixing, Summed
from minbert.techniques.optimizer import Optimizer
from minbert.techniques.proximals import PROXIMALS, NoProximal, Proximal
from minbert.techniques.regularizers import REGULARIZERS, NoRegularizer, Regularizer
from minbert.techniques.schedules import TAPERS, Flat, Taper

HALF = Usual(0.0, 0.5, 0.5, "a rate above 0.5 drops more than it leaves")
"""Usual dropout rates."""


@dataclass(frozen=True)
class Dropout:
    """Dropout rates."""

    hidden: float = number(0.0, 0.0, 0.9, usual=HALF)
    """Rate of the encoder's hidden states; in short runs 0 was better than 0.1 (`benchmarks/README.md`)."""
    attention: float = number(0.0, 0.0, 0.9, usual=HALF)
    """Rate of the attention probabilities; above 0 no fused kernel computes attention on a GPU."""
    head: float = number(0.1, 0.0, 0.9, usual=HALF)
    """Rate of the heads' inputs."""


@dataclass(frozen=True)
class Config:
    """Everything that decides a trial's result, besides its seed, budget, data and base encoder."""

    adapter: Adapter = branch(ADAPTERS, NoAdapter())
    """The trained part of the encoder."""
    stages: Stages = group(Stages)
    """Stages of training before the multitask training."""
    augmentation: Augmentation = branch(AUGMENTATIONS, NoAugmentation())
    """Training rows added to those of the files."""
    encoding: Mapping[str, Encoding] = per_task(branch(ENCODINGS, None), default_encoding)
    """Sequences, pooling and head of each task."""
    shared_head: SharedHead = branch(SHARED_HEADS, NoSharedHead())
    """A layer that all pair tasks share; its output is added to that of each task's own head (`beyond_bert`)."""
    mixing: Mixing = branch(MIXINGS, Summed())
    """Which tasks give a batch to a step."""
    regression_loss: str = choice(*REGRESSION_LOSSES)
    """Unit of the labels in the loss of a regression: unit_variance, their standard deviation; raw, as they are."""
    batch_size: Mapping[str, int] = per_task(integer(16, 1, 4096), lambda task, run: 32 if task.search_rows else 16)
    """Rows of a task in one batch; by default 32 for a task with `search_rows`, a large one, else 16."""
    taper: Mapping[str, Taper] = per_task(branch(TAPERS, Flat()))
    """Weight of each task's loss, its penalty included, over the course of the budget."""
    regularizer: Mapping[str, Regularizer] = per_task(branch(REGULARIZERS, NoRegularizer()))
    """Penalty added to the loss of each task."""
    average: Averaging = branch(AVERAGES, NoAverage())
    """Average of the weights over steps, which reports score and the trial returns."""
    proximal: Proximal = branch(PROXIMALS, NoProximal())
    """Penalty on every task that keeps the model close to its earlier self."""
    optimizer: Optimizer = group(Optimizer)
    """Learning rates, schedule and weight decay."""
    dropout: Dropout = group(Dropout)
    """Dropout rates."""
    precision: str = choice("auto", "bf16", "float32")
    """Arithmetic of the linear layers; auto is bf16 where the machine computes it natively, else float32."""
    max_length: Mapping[str, int] = per_task(integer(128, 8, 512), lambda task, run: task.max_length)
    """Longest sequence of each task in word pieces, special tokens included; longer ones are cut."""
    selection: str = choice("last", "best")
    """Weights that a trial reports and saves: the current ones, or those of its best report so far."""

    @staticmethod
    def from_dict(nested: Mapping[str, Any], tasks: Mapping[str, Task], base: Traits | None = None) -> Config:
        """Load a nested dictionary strictly over the tasks of a run; absent fields take their defaults.

        Some defaults follow the base encoder; `base` None: those of the packaged MiniLM. Raises ConfigError.
        """
        config = load(Config, migrate(nested, tasks), run=Run(tasks, base))
        for name, task in tasks.items():
            config.encoding[name].check(task)
        return config

    def changed(self, pairs: Iterable[str], tasks: Mapping[str, Task], base: Traits | None = None) -> Config:
        """A copy with `path=value` settings changed. Raises ConfigError."""
        return Config.from_dict(merge(self.to_dict(), settings(pairs)), tasks, base)

    def check(self, tasks: Mapping[str, Task]) -> None:
        """Check that the configuration is for these tasks and can train them. Raises ConfigError."""
        if self.encoding.keys() != tasks.keys():
            raise ConfigError(
                f"The configuration must be loaded over the run's tasks {', '.join(tasks)}; it was loaded over "
                f"{', '.join(self.encoding)}."
            )
        check_shared(self.shared_head, self.encoding, tasks)
        trained = {name: task for name, task in tasks.items() if self.mixing.trains(name)}
        if trained and not self.adapter.trains_encoder:
            check_frozen(self.encoding, trained)
        if trained and not any(self.taper[name].value(0.0) for name in trained):
            raise ConfigError(f"`taper`: each of {', '.join(trained)} has weight 0; expected at least one above 0.")

    def to_dict(self) -> dict[str, Any]:
        """The complete configuration as a nested dictionary of JSON values."""
        return {"config_version": CONFIG_VERSION, **dump(self)}

    def flat(self) -> dict[str, Any]:
        """Values by path, for example `adapter/rank`."""
        return flatten(self.to_dict())


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of a nested dictionary by path."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        path = f"{prefix}/{name}" if prefix else name
        flat.update(flatten(value, path) if isinstance(value, Mapping) else {path: value})
    return flat


def settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Nested dictionary from `path=value` pairs; a value that is not JSON is a string. Raises ConfigError."""
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
        parent = nested
        for name in parents:
            parent = parent.setdefault(name, {})
            if not isinstance(parent, dict):
                raise ConfigError(
                    f"A setting must not lie inside the value of another; found {pair!r}, and another setting gives "
                    f"`{name}` a value."
                )
        parent[leaf] = value
    return nested


def merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """`first` changed by `second`; where a branch's `kind` changes, its old parameters are dropped."""
    if "kind" in second and second["kind"] != first.get("kind"):
        return dict(second)
    merged = dict(first)
    for name, value in second.items():
        old = merged.get(name)
        merged[name] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
