"""Migrations of stored configurations from earlier versions to the current one, one version at a time.

A migration states in its own constants what a version meant, so later changes of the code do not affect it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from minbert.fields import ConfigError

CONFIG_VERSION = 6
"""Version of newly stored configurations."""

Nested = dict[str, Any]
"""A nested dictionary of JSON values."""


def _limit_per_task(nested: Nested, tasks: Collection[str]) -> Nested:
    """From version 1, which had one `max_length` for all tasks."""
    limit = nested.pop("max_length", None)
    return nested if limit is None else nested | {"max_length": dict.fromkeys(tasks, limit)}


def _dropout_in_a_frozen_encoder(nested: Nested, tasks: Collection[str]) -> Nested:
    """From version 2, which trained heads with the frozen encoder's dropout on."""
    adapter = nested.get("adapter")
    if not isinstance(adapter, Mapping) or adapter.get("kind") != "frozen":
        return nested
    return nested | {"adapter": {"dropout": "on", **adapter}}


HEAD_LR_UNTIL_3 = 5e-4
"""Default learning rate of the heads up to version 3."""


def _rate_of_uncertainty(nested: Nested, tasks: Collection[str]) -> Nested:
    """From version 3, which trained uncertainty weights at the learning rate of the heads."""
    mixing, optimizer = nested.get("mixing"), nested.get("optimizer")
    balance = mixing.get("balance") if isinstance(mixing, Mapping) else None
    if not isinstance(mixing, Mapping) or not isinstance(balance, Mapping) or balance.get("kind") != "uncertainty":
        return nested
    rate = optimizer.get("head_lr") if isinstance(optimizer, Mapping) else None
    old_rate = {"lr": HEAD_LR_UNTIL_3 if rate is None else rate}
    return nested | {"mixing": {**mixing, "balance": {**old_rate, **balance}}}


TASKS_UNTIL_4 = frozenset({"sst", "qqp", "sts", "cfimdb"})
"""Tasks in every configuration of versions 1 to 4, whether its run trained them or not."""

PER_TASK_UNTIL_4 = (
    "encoding", "batch_size", "taper", "regularizer", "max_length", "adapter/dropout", "mixing/upweight", "mixing/order"
)  # fmt: skip
"""Paths of fields up to version 4 that hold a value for every task or a list of all tasks."""


def _tasks_of_the_run(nested: Nested, tasks: Collection[str]) -> Nested:
    """From version 4, which held settings of tasks that the run does not train."""
    for path in PER_TASK_UNTIL_4:
        nested = _without(nested, path.split("/"), TASKS_UNTIL_4 - set(tasks))
    return nested


def _without(nested: Nested, path: Sequence[str], names: Collection[str]) -> Nested:
    """Remove names from the dictionary or list at a path; unchanged where the path is absent."""
    key, *below = path
    value = nested.get(key)
    if below and isinstance(value, Mapping):
        return nested | {key: _without(dict(value), below, names)}
    if not below and isinstance(value, Mapping):
        return nested | {key: {name: item for name, item in value.items() if name not in names}}
    if not below and isinstance(value, list | tuple):
        return nested | {key: [name for name in value if name not in names]}
    return nested


DEFAULTS_UNTIL_5: Nested = {
    "regression_loss": "raw",
    "optimizer": {"encoder_lr": 1e-4, "schedule": {"kind": "linear"}},
    "dropout": {"hidden": 0.1, "attention": 0.1},
    "mixing": {"kind": "summed"},
}
"""Defaults up to version 5 that later versions changed or may change."""

BATCHES_UNTIL_5 = {"qqp": 32}
"""Default batch sizes up to version 5 of the tasks that had another one than 16."""

ENCODINGS_UNTIL_5 = {"sst": "single", "qqp": "cross", "sts": "cross", "cfimdb": "single"}
"""Default encodings up to version 5."""

KINDS_UNTIL_5: dict[str, Nested] = {
    "lora": {"alpha": 16.0, "targets": ["query", "value"]},
    "dora": {"alpha": 16.0, "targets": ["query", "value"]},
    "pal": {"rank": 2, "encoder": "frozen"},
    "smart": {"radius": 0.0},
    "gradnorm": {"lr": 0.025},
}
"""Defaults up to version 5 of parameters of a kind."""

WARMUP_UNTIL_5 = {"constant": 0.0, "linear": 0.1, "cosine": 0.1}
"""Default warm-up of each schedule up to version 5, as a share of the budget."""

ENDLESS_STEPS = 1_000_000
"""Warm-up steps that no budget reaches: the warm-up then lasts its share of the budget."""


def _older_defaults(nested: Nested, tasks: Collection[str]) -> Nested:
    """From version 5: losses in label units, [CLS], adapters at the encoder's rate, warm-up by shares of the budget."""
    batches = {task: BATCHES_UNTIL_5.get(task, 16) for task in tasks}
    nested = _filled(nested, DEFAULTS_UNTIL_5 | {"batch_size": batches, "encoding": {}})
    encodings = {task: {"kind": ENCODINGS_UNTIL_5[task]} for task in tasks if task in ENCODINGS_UNTIL_5}
    encodings |= {task: dict(given) for task, given in nested["encoding"].items()}
    nested["encoding"] = {task: {"pooling": "cls", **encoding} for task, encoding in encodings.items()}
    optimizer = dict(nested["optimizer"])
    schedule = dict(optimizer["schedule"])
    share = schedule.pop("warmup", WARMUP_UNTIL_5.get(schedule.get("kind", ""), 0.0))
    optimizer["schedule"] = {**schedule, "warmup_steps": ENDLESS_STEPS, "warmup_share": share}
    return _of_kinds(nested | {"optimizer": {"adapter_lr": optimizer["encoder_lr"], **optimizer}})


def _filled(nested: Nested, defaults: Nested) -> Nested:
    """The dictionary with absent values filled in; a branch of another or of no kind is left as it is."""
    filled = dict(nested)
    for name, default in defaults.items():
        value = nested.get(name, {} if isinstance(default, Mapping) else default)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            other = name in nested and "kind" in default and value.get("kind") != default["kind"]
            value = dict(value) if other else _filled(dict(value), dict(default))
        filled[name] = value
    return filled


def _of_kinds(nested: Nested) -> Nested:
    """The dictionary with the absent parameters of `KINDS_UNTIL_5` filled in, at every depth."""
    filled = {name: _of_kinds(dict(value)) if isinstance(value, Mapping) else value for name, value in nested.items()}
    kind = filled.get("kind")
    return {**KINDS_UNTIL_5.get(kind, {}), **filled} if isinstance(kind, str) else filled


MIGRATIONS: dict[int, Callable[[Nested, Collection[str]], Nested]] = {
    1: _limit_per_task,
    2: _dropout_in_a_frozen_encoder,
    3: _rate_of_uncertainty,
    4: _tasks_of_the_run,
    5: _older_defaults,
}
"""Version -> function that migrates to the next version, so that old trials can still predict."""


def migrate(nested: Mapping[str, Any], tasks: Collection[str]) -> Nested:
    """Migrate a stored configuration to the current version for the named tasks, and remove `config_version`.

    Raises ConfigError for a version that does not exist.
    """
    current = dict(nested)
    version = current.pop("config_version", CONFIG_VERSION)
    if not isinstance(version, int) or not 1 <= version <= CONFIG_VERSION:
        raise ConfigError(f"`config_version` must be an integer from 1 to {CONFIG_VERSION}, found {version!r}.")
    for step in range(version, CONFIG_VERSION):
        current = MIGRATIONS[step](current, tasks)
    return current
