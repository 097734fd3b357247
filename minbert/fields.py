"""Strict loading of nested dictionaries into frozen dataclasses.

A technique is a dataclass, a family a table from kind to dataclass, and `{"kind": "lora", "rank": 8}` one member.
Every field carries its rule, so that one place checks every value and every error names the parameter, the rule,
the value found and what would be accepted. Some rules depend on the tasks of a run, which `load` is given: a value for
every task, one of the tasks, the tasks in an order.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

T = TypeVar("T")

Tasks = Mapping[str, object]
"""The tasks of a run: name -> declaration (`minbert.tasks.Task`), which only the defaults of fields look into."""

NO_TASKS: Tasks = MappingProxyType({})


class ConfigError(ValueError):
    """A configuration that cannot be trained, found before any compute."""


@dataclass(frozen=True)
class Usual:
    """The usual values of a number. Others are legal, and `unusual` names those below `low` or above `most`."""

    low: float
    high: float
    most: float
    above: str
    """What happens above `most`: "rates above 1e-2 diverge as a rule"."""


def number(default: float, low: float, high: float, *, open_low: bool = False, usual: Usual | None = None) -> Any:
    """A float field in [low, high], or in (low, high] with `open_low`; `usual` is for `unusual`."""
    rule = {"rule": "number", "low": low, "high": high, "open": open_low, "usual": usual}
    return dataclasses.field(default=default, metadata=rule)


def integer(default: int, low: int, high: int) -> Any:
    """An integer field in [low, high]."""
    return dataclasses.field(default=default, metadata={"rule": "integer", "low": low, "high": high})


def choice(default: str, *others: str) -> Any:
    """A field with one of a few names."""
    return dataclasses.field(default=default, metadata={"rule": "choice", "choices": (default, *others)})


def subset(default: Sequence[str], *choices: str) -> Any:
    """A field with a non-empty list of distinct names."""
    return dataclasses.field(default=tuple(default), metadata={"rule": "subset", "choices": choices})


def task_choice() -> Any:
    """A field with the name of one task of the run; by default the first."""
    return dataclasses.field(kw_only=True, metadata={"rule": "task_choice"})


def task_order() -> Any:
    """A field with all tasks of the run in an order of choice; a list of some is completed by the others as declared.

    By default the order of declaration.
    """
    return dataclasses.field(kw_only=True, metadata={"rule": "task_order"})


def branch(family: Mapping[str, type], default: Any) -> Any:
    """A field that holds one technique of a family."""
    return dataclasses.field(default=default, metadata={"rule": "branch", "family": family})


def group(cls: type) -> Any:
    """A field that holds a record of further fields."""
    return dataclasses.field(default_factory=cls, metadata={"rule": "group", "cls": cls})


def per_task(rule: Any, default: Callable[[Any], object] | None = None) -> Any:
    """A field with one value of `rule` for every task of the run.

    `default` gives a task's default from its declaration; None: the default of `rule`, whatever the task.
    """
    return dataclasses.field(
        kw_only=True,
        metadata={"rule": "per_task", "inner": rule.metadata, "default": default or (lambda task: rule.default)},
    )


def unknown(what: str, found: object, expected: Iterable[str]) -> ConfigError:
    """The error for a name that is not there, with the nearest one that is."""
    names = sorted(expected)
    accepted = f"Expected one of: {', '.join(names)}." if names else "There is none here."
    return ConfigError(f"Unknown {what} `{found}`.{_nearest(found, names)} {accepted}")


def _unknown_task(found: object, path: str, tasks: Tasks) -> ConfigError:
    """The error for a name that is no task of the run: a slip, or a task that the run does not train."""
    return ConfigError(
        f"Unknown task `{found}` in `{path}`.{_nearest(found, tasks)} This run has the tasks {', '.join(tasks)}; "
        "leave the setting out, or name the task in `--tasks`."
    )


def _nearest(found: object, names: Iterable[str]) -> str:
    last = {name.rpartition("/")[2]: name for name in names}  # a common path would make any two names alike
    near = difflib.get_close_matches(str(found).rpartition("/")[2], last, n=1, cutoff=0.5)
    return f" Did you mean `{last[near[0]]}`?" if near else ""


def load(cls: type[T], value: object, path: str = "", tasks: Tasks = NO_TASKS) -> T:
    """Build `cls` from a dictionary over the tasks of a run; absent fields take their defaults.

    Errors name parameters from `path` on. A class without fields over tasks needs none. Raises ConfigError.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"`{path or 'configuration'}` must be a dictionary, found {value!r}.")
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            known = [*fields, *(["kind"] if hasattr(cls, "kind") else [])]
            raise unknown("parameter", _join(path, str(name)), (_join(path, field) for field in known))
    given = {name: _value(fields[name].metadata, item, tasks, _join(path, name)) for name, item in value.items()}
    over_tasks = {name: field.metadata for name, field in fields.items() if field.metadata["rule"] in OVER_TASKS}
    if over_tasks and not tasks:
        raise ConfigError(f"`{_join(path, min(over_tasks))}` needs the tasks of a run, at least one; found none.")
    return cls(**{**{name: OVER_TASKS[meta["rule"]](meta, tasks) for name, meta in over_tasks.items()}, **given})


OVER_TASKS: Mapping[str, Callable[[Mapping[str, Any], Tasks], object]] = {
    "task_choice": lambda meta, tasks: next(iter(tasks)),
    "task_order": lambda meta, tasks: tuple(tasks),
    "per_task": lambda meta, tasks: {name: meta["default"](task) for name, task in tasks.items()},
}
"""Rules that depend on the tasks of a run -> the default of such a field."""


def unusual(record: object, path: str = "") -> dict[str, str]:
    """A sentence for each number of a loaded record, by path, that is legal and rarely meant."""
    sentences: dict[str, str] = {}
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        meta = field.metadata
        value, here = getattr(record, field.name), _join(path, field.name)
        named = {here: value}
        if meta.get("rule") == "per_task":
            meta, named = meta["inner"], {_join(here, name): item for name, item in value.items()}
        for where, item in named.items():
            if dataclasses.is_dataclass(item):
                sentences |= unusual(item, where)
            elif (usual := meta.get("usual")) is not None and not usual.low <= item <= usual.most:
                above = f"{usual.above}; " if item > usual.most else ""
                sentences[where] = f"`{where}` = {item!r}: {above}usual are {usual.low:g} to {usual.high:g}"
    return sentences


def dump(value: object) -> Any:
    """The JSON form of a loaded value: nested dictionaries, with `kind` first in a branch."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            **({"kind": value.kind} if hasattr(value, "kind") else {}),
            **{field.name: dump(getattr(value, field.name)) for field in dataclasses.fields(value)},
        }
    if isinstance(value, Mapping):
        return {key: dump(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _value(meta: Mapping[str, Any], value: object, tasks: Tasks, path: str) -> Any:
    """Check one value against the rule of its field and return it in its own type."""
    match meta["rule"]:
        case "number" | "integer":
            return _number(meta, value, path)
        case "choice":
            if not isinstance(value, str) or value not in meta["choices"]:
                raise unknown(f"value of `{path}`:", value, meta["choices"])
            return value
        case "subset":
            return _subset(meta["choices"], value, path)
        case "task_choice":
            if not isinstance(value, str) or value not in tasks:
                raise _unknown_task(value, path, tasks)
            return value
        case "task_order":
            return _task_order(value, tasks, path)
        case "group":
            return load(meta["cls"], value, path, tasks)
        case "branch":
            return _branch(meta["family"], value, tasks, path)
        case "per_task":
            return _per_task(meta, value, tasks, path)
    raise AssertionError(meta["rule"])


def _number(meta: Mapping[str, Any], value: object, path: str) -> float | int:
    whole = meta["rule"] == "integer"
    accepted = f"{'an integer' if whole else 'a number'} from {meta['low']} to {meta['high']}"
    if meta.get("open"):
        accepted = f"a number above {meta['low']} and at most {meta['high']}"
    legal = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (not whole or value == int(value))
        and meta["low"] <= value <= meta["high"]
        and not (meta.get("open") and value == meta["low"])
    )
    if not legal:
        raise ConfigError(f"`{path}` must be {accepted}, found {value!r}.")
    assert isinstance(value, int | float)
    return int(value) if whole else float(value)


def _subset(choices: Sequence[str], value: object, path: str) -> tuple[str, ...]:
    names = _names(value, choices, path)
    for name in names:
        if name not in choices:
            raise unknown(f"name in `{path}`:", name, choices)
    return tuple(name for name in choices if name in names)


def _task_order(value: object, tasks: Tasks, path: str) -> tuple[str, ...]:
    first = _names(value, tasks, path)
    for name in first:
        if name not in tasks:
            raise _unknown_task(name, path, tasks)
    return (*first, *(name for name in tasks if name not in first))


def _names(value: object, expected: Iterable[str], path: str) -> list[str]:
    """Distinct names in the order in which they are given: a list, or one text joined by `+`."""
    given = value.split("+") if isinstance(value, str) else value
    names = [name for name in given if isinstance(name, str)] if isinstance(given, Sequence) else []
    if not names or len(names) != len(given) or len(set(names)) != len(names):  # type: ignore[arg-type]
        raise ConfigError(
            f"`{path}` must be a non-empty list of distinct names, found {value!r}. "
            f"Expected some of: {', '.join(expected)}."
        )
    return names


def _branch(family: Mapping[str, type], value: object, tasks: Tasks, path: str) -> object:
    if not isinstance(value, Mapping) or "kind" not in value:
        raise ConfigError(
            f"`{path}` must be a dictionary with `kind`, found {value!r}. Kinds: {', '.join(sorted(family))}; "
            f"as a setting {path}/kind={min(family)}."
        )
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in family:
        raise unknown(path.split("/")[0], kind, family)
    own = _fields(family[kind]) | {"kind"}
    for name in sorted(map(str, value.keys() - own)):
        known = own.union(*map(_fields, family.values()))
        meant = name if name in known else next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)
        owners = [other for other, cls in family.items() if meant in _fields(cls)]
        if meant not in own and owners:
            where = f"Unknown parameter `{path}/{name}` where `{path}/kind` is {kind}"
            belongs = f": it belongs to {', '.join(owners)}."
            near = f". Did you mean `{path}/{meant}`, which belongs to {', '.join(owners)}?"
            raise ConfigError(f"{where}{belongs if meant == name else near} "
                              f"Give the kind as well: {path}/kind={owners[0]}.")  # fmt: skip
    return load(family[kind], {name: item for name, item in value.items() if name != "kind"}, path, tasks)


def _fields(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def _per_task(meta: Mapping[str, Any], value: object, tasks: Tasks, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"`{path}` must be a dictionary over the tasks {', '.join(tasks)}, found {value!r}; "
            f"as a setting for one task {path}/{next(iter(tasks))}=..."
        )
    for name in value:
        if name not in tasks:
            raise _unknown_task(name, path, tasks)
    return {
        name: _value(meta["inner"], value[name], tasks, _join(path, name)) if name in value else meta["default"](task)
        for name, task in tasks.items()
    }
