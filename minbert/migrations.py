"""Migrations of stored configurations from earlier versions to the current one, one version at a time.

A migration states in its own constants what a version meant, so later changes of the code do not affect it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from minbert.fields import ConfigError

CONFIG_VERSION = 5
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


MIGRATIONS: dict[int, Callable[[Nested, Collection[str]], Nested]] = {
    1: _limit_per_task,
    2: _dropout_in_a_frozen_encoder,
    3: _rate_of_uncertainty,
    4: _tasks_of_the_run,
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
