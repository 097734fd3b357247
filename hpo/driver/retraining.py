"""A stored trial on its own: its configuration, and the command that trains it again without a search.

`python -m minbert train` with the same configuration, seed, milestones, data, base and threads does the same work: on
one CPU thread its scores at every milestone are those of the trial, bit by bit. A trial that was stopped at a rung
trains on to the full budget.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hpo.launch.record import record_of

if TYPE_CHECKING:
    from results.store import SweepFolder


def config_of(folder: SweepFolder, trial: int) -> dict[str, Any]:
    """The complete configuration of a trial in the present version. Raises StoreError for an unknown trial."""
    return config_from(_start(folder, trial)["config"], folder.tasks)


def config_from(text: str, tasks: Collection[str]) -> dict[str, Any]:
    """The complete configuration in the row of a start, as JSON, in the present version."""
    from minbert.migrations import CONFIG_VERSION, migrate

    return {"config_version": CONFIG_VERSION, **migrate(json.loads(text), tasks)}


def train_command(folder: SweepFolder, trial: int) -> str:
    """The command that trains a trial again, quoted for a shell. It settles every parameter in which the trial differs
    from the default configuration of its tasks and base. Raises StoreError for an unknown trial."""
    record, start = record_of(folder), _start(folder, trial)
    config = config_of(folder, trial)
    options = {
        "--data": record.data.folder,
        "--tasks": ",".join(record.tasks),
        "--base": record.base.asked,
        "--milestones": ",".join(map(str, record.milestones)),
        "--seed": str(start["seed"]),
        "--threads": str(record.resources.cpus_per_trial or 1),
        "--out": f"trained/{folder.name}-{trial}",
    }
    words = ["python", "-m", "minbert", "train"]
    words += [word for name, value in options.items() if value is not None for word in (name, value)]
    return shlex.join([*words, *(word for pair in _settings(record, config) for word in ("--set", pair))])


def _settings(record: Any, config: Mapping[str, Any]) -> list[str]:
    """`path=value` for each parameter that is not the default."""
    from minbert.config import Config
    from minbert.tasks import choose_tasks

    tasks, base = choose_tasks(record.tasks), record.base.traits
    whole = Config.from_dict(config, tasks, base)
    default = Config.from_dict({}, tasks, base)
    pairs = [f"{path}={_text(value)}" for path, value in _changes(whole.to_dict(), default.to_dict())]
    assert default.changed(pairs, tasks, base) == whole, "the settings give the trial's configuration"
    return pairs


def _changes(config: Mapping[str, Any], default: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of what differs from the default; of a branch with another kind everything, as `--set` drops the
    old branch's parameters."""
    if config.get("kind") != default.get("kind"):
        default = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            before = default.get(name)
            yield from _changes(value, before if isinstance(before, Mapping) else {}, f"{prefix}{name}/")
        elif name not in default or default[name] != value:
            yield prefix + name, value


def _text(value: Any) -> str:
    """A value as `--set` reads it: JSON, or a text that is no JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def _start(folder: SweepFolder, trial: int) -> dict[str, Any]:
    """The row of a trial's first start. Raises StoreError for an unknown trial."""
    from results.files import StoreError
    from results.rows import to_rows

    rows = [row for row in to_rows(folder.read("trials")) if row["event"] == "start"]
    for row in rows:
        if row["trial"] == trial:
            return row
    known = sorted({row["trial"] for row in rows})
    existing = f"It has trials {known[0]} to {known[-1]}." if known else "It has no trials yet."
    raise StoreError(f"No trial {trial} in sweep `{folder.name}`. {existing}")
