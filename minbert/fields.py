"""Strict loading of nested dictionaries into frozen dataclasses.

A technique is a dataclass. A family is a table from kind to dataclass; `{"kind": "lora", "rank": 8}` selects one.
Every field has a rule, so one place checks every value, and every error names the parameter, the rule, the value found
and what would be accepted. Some rules depend on the run, an argument of `load`: a value for every task, one of the
tasks, the tasks in an order, a default that fits the base encoder.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

Tasks = Mapping[str, object]
"""The tasks of a run: name -> declaration (`minbert.tasks.Task`), which only default values depend on."""


@dataclass(frozen=True)
class Run:
    """Facts of a run that default values depend on."""

    tasks: Tasks = dataclasses.field(default_factory=dict)
    base: Any = None
    """Traits of the base encoder (`minbert.encoder.traits.Traits`); None: every field has its own default."""


NO_RUN = Run()
"""Run of a class whose fields do not depend on any."""


class ConfigError(ValueError):
    """A configuration that cannot be trained, found before any compute."""


@dataclass(frozen=True)
class Usual:
    """Usual values of a number, from `low` to `high`.

    Other values are legal; `unusual` reports those below `low` or above `most`.
    """

    low: float
    high: float
    most: float
    """Largest value without a note; at least `high`."""
    above: str
    """What happens above `most`, for example "rates above 1e-2 diverge as a rule"."""


def number(
    default: float | None, low: float, high: float, *, open_low: bool = False, usual: Usual | None = None
) -> Any:
    """A float field in [low, high], or in (low, high] with `open_low`; `usual` are the values without a note.

    With `default` None the field may also be null, which stands for a value that depends on other fields.
    """
    rule = {"rule": "number", "low": low, "high": high, "open": open_low, "usual": usual, "null": default is None}
    return dataclasses.field(default=default, metadata=rule)


def integer(default: int, low: int, high: int) -> Any:
    """An integer field in [low, high]."""
    return dataclasses.field(default=default, metadata={"rule": "integer", "low": low, "high": high})


def choice(default: str, *others: str) -> Any:
    """A field with one of several names; the first is the default."""
    return dataclasses.field(default=default, metadata={"rule": "choice", "choices": (default, *others)})


def subset(default: Sequence[str], *choices: str) -> Any:
    """A field with a non-empty list of distinct names from `choices`."""
    return dataclasses.field(default=tuple(default), metadata={"rule": "subset", "choices": choices})


def task_choice() -> Any:
    """A field with the name of one task of the run; the first is the default."""
    return dataclasses.field(kw_only=True, metadata={"rule": "task_choice"})


def task_order() -> Any:
    """A field with all tasks of the run in some order; the default is the order of declaration.

    A list of some tasks is completed by the others in declared order.
    """
    return dataclasses.field(kw_only=True, metadata={"rule": "task_order"})


def branch(family: Mapping[str, type], default: Any) -> Any:
    """A field that holds one technique of a family."""
    return dataclasses.field(default=default, metadata={"rule": "branch", "family": family})


def group(cls: type) -> Any:
    """A field that holds a dataclass of further fields."""
    return dataclasses.field(default_factory=cls, metadata={"rule": "group", "cls": cls})


def per_task(rule: Any, default: Callable[[Any, Run], object] | None = None) -> Any:
    """A field with one value for every task of the run, each checked by `rule`.

    `default` computes a task's default from its declaration and the run; None: every task has the default of `rule`.
    """
    return dataclasses.field(
        kw_only=True,
        metadata={"rule": "per_task", "inner": rule.metadata, "default": default or (lambda task, run: rule.default)},
    )


def by_base(rule: Any, default: Callable[[Any], object]) -> Any:
    """A field checked by `rule` whose default is computed from the traits of the run's base encoder.

    Without a base the field has the default of `rule`.
    """
    return dataclasses.field(default=rule.default, metadata={**rule.metadata, "by_base": default})


def unknown(what: str, found: object, expected: Iterable[str]) -> ConfigError:
    """Error for an unknown name; it lists the expected names and suggests the nearest one."""
    names = sorted(expected)
    accepted = f"Expected one of: {', '.join(names)}." if names else "There is none here."
    return ConfigError(f"Unknown {what} `{found}`.{_nearest(found, names)} {accepted}")


def _unknown_task(found: object, path: str, tasks: Tasks) -> ConfigError:
    """Error for a name that is no task of the run: a misspelling, or a task that the run does not train."""
    return ConfigError(
        f"Unknown task `{found}` in `{path}`.{_nearest(found, tasks)} This run has the tasks {', '.join(tasks)}; "
        "leave the setting out, or name the task in `--tasks`."
    )


def _nearest(found: object, names: Iterable[str]) -> str:
    """Suggestion of the most similar name; empty where none is similar."""
    by_last_part = {name.rpartition("/")[2]: name for name in names}  # a common path would make all names similar
    matches = difflib.get_close_matches(str(found).rpartition("/")[2], by_last_part, n=1, cutoff=0.5)
    return f" Did you mean `{by_last_part[matches[0]]}`?" if matches else ""


def load(cls: type[T], value: object, path: str = "", run: Run = NO_RUN) -> T:
    """Build the dataclass `cls` from a dictionary for a run; absent fields take their defaults.

    `path` is the path of `value` in the configuration, for errors. The run needs tasks only where a field depends on
    them. Raises ConfigError.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"`{path or 'configuration'}` must be a dictionary, found {value!r}.")
    fields = _fields(cls)  # type: ignore[arg-type]
    for name in value:
        if name not in fields:
            expected = [*fields, *(["kind"] if hasattr(cls, "kind") else [])]
            raise unknown("parameter", _join(path, str(name)), (_join(path, field) for field in expected))
    loaded = {name: _value(fields[name].metadata, item, run, _join(path, name)) for name, item in value.items()}
    over_tasks = [name for name, field in fields.items() if field.metadata["rule"] in OVER_TASKS]
    if over_tasks and not run.tasks:
        raise ConfigError(f"`{_join(path, min(over_tasks))}` needs the tasks of a run, at least one; found none.")
    absent = {name: field.metadata for name, field in fields.items() if name not in loaded}
    return cls(**loaded, **{name: _default(meta, run, _join(path, name)) for name, meta in absent.items()
                            if _depends(meta, run)})  # fmt: skip


OVER_TASKS: Mapping[str, Callable[[Mapping[str, Any], Run], object]] = {
    "task_choice": lambda meta, run: next(iter(run.tasks)),
    "task_order": lambda meta, run: tuple(run.tasks),
    "per_task": lambda meta, run: {name: meta["default"](task, run) for name, task in run.tasks.items()},
}
"""Rules that depend on the tasks of a run: rule -> function from the field's metadata and the run to the default."""


def _depends(meta: Mapping[str, Any], run: Run) -> bool:
    """Whether the default of a field depends on the run."""
    return meta["rule"] in OVER_TASKS or meta["rule"] == "group" or ("by_base" in meta and run.base is not None)


def _default(meta: Mapping[str, Any], run: Run, path: str) -> object:
    """The default of a field that depends on the run."""
    if meta["rule"] == "group":
        return load(meta["cls"], {}, path, run)
    return meta["by_base"](run.base) if "by_base" in meta else OVER_TASKS[meta["rule"]](meta, run)


def unusual(record: object, path: str = "") -> dict[str, str]:
    """Notes by path on numbers of a loaded dataclass that are legal and outside their usual values."""
    notes: dict[str, str] = {}
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        meta = field.metadata
        value, field_path = getattr(record, field.name), _join(path, field.name)
        values = {field_path: value}
        if meta.get("rule") == "per_task":
            meta, values = meta["inner"], {_join(field_path, task): item for task, item in value.items()}
        for item_path, item in values.items():
            if dataclasses.is_dataclass(item):
                notes |= unusual(item, item_path)
            elif (usual := meta.get("usual")) is not None and item is not None and not usual.low <= item <= usual.most:
                above = f"{usual.above}; " if item > usual.most else ""
                notes[item_path] = f"`{item_path}` = {item!r}: {above}usual are {usual.low:g} to {usual.high:g}"
    return notes


def dump(value: object) -> Any:
    """JSON form of a loaded value: nested dictionaries, in which `kind` comes first."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            **({"kind": value.kind} if hasattr(value, "kind") else {}),
            **{name: dump(getattr(value, name)) for name in _fields(type(value))},
        }
    if isinstance(value, Mapping):
        return {key: dump(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _value(meta: Mapping[str, Any], value: object, run: Run, path: str) -> Any:
    """Check a value against the rule of its field and return it in the field's type. Raises ConfigError."""
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
            if not isinstance(value, str) or value not in run.tasks:
                raise _unknown_task(value, path, run.tasks)
            return value
        case "task_order":
            return _task_order(value, run.tasks, path)
        case "group":
            return load(meta["cls"], value, path, run)
        case "branch":
            return _branch(meta["family"], value, run, path)
        case "per_task":
            return _per_task(meta, value, run, path)
    raise AssertionError(meta["rule"])


def _number(meta: Mapping[str, Any], value: object, path: str) -> float | int | None:
    if value is None and meta.get("null"):
        return None
    whole = meta["rule"] == "integer"
    accepted = f"{'an integer' if whole else 'a number'} from {meta['low']} to {meta['high']}"
    if meta.get("open"):
        accepted = f"a number above {meta['low']} and at most {meta['high']}"
    accepted += ", or null" if meta.get("null") else ""
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
    """The named tasks, then the others in declared order."""
    first = _names(value, tasks, path)
    for name in first:
        if name not in tasks:
            raise _unknown_task(name, path, tasks)
    return (*first, *(name for name in tasks if name not in first))


def _names(value: object, expected: Iterable[str], path: str) -> list[str]:
    """Distinct names, in order, from a list or from one text joined by `+`."""
    items = value.split("+") if isinstance(value, str) else value
    names = [item for item in items if isinstance(item, str)] if isinstance(items, Sequence) else []
    if not names or len(names) != len(items) or len(set(names)) != len(names):  # type: ignore[arg-type]
        raise ConfigError(
            f"`{path}` must be a non-empty list of distinct names, found {value!r}. "
            f"Expected some of: {', '.join(expected)}."
        )
    return names


def _branch(family: Mapping[str, type], value: object, run: Run, path: str) -> object:
    if not isinstance(value, Mapping) or "kind" not in value:
        raise ConfigError(
            f"`{path}` must be a dictionary with `kind`, found {value!r}. Kinds: {', '.join(sorted(family))}; "
            f"as a setting {path}/kind={min(family)}."
        )
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in family:
        raise unknown(f"kind of `{path}`:" if "/" in path else path, kind, family)
    parameters = {name: item for name, item in value.items() if name != "kind"}
    _check_owner(family, kind, sorted(map(str, parameters)), path)
    return load(family[kind], parameters, path, run)


def _check_owner(family: Mapping[str, type], kind: str, names: Sequence[str], path: str) -> None:
    """Check that no parameter of a branch belongs to another kind of its family. Raises ConfigError."""
    own = {"kind", *_fields(family[kind])}
    of_family = own.union(*map(_fields, family.values()))
    for name in (name for name in names if name not in own):
        meant = name if name in of_family else next(iter(difflib.get_close_matches(name, sorted(of_family), n=1)), None)
        owners = [owner for owner, cls in family.items() if meant in _fields(cls)]
        if meant not in own and owners:
            where = f"Unknown parameter `{path}/{name}` where `{path}/kind` is {kind}"
            belongs = f": it belongs to {', '.join(owners)}."
            near = f". Did you mean `{path}/{meant}`, which belongs to {', '.join(owners)}?"
            raise ConfigError(f"{where}{belongs if meant == name else near} "
                              f"Give the kind as well: {path}/kind={owners[0]}.")  # fmt: skip


@functools.cache
def _fields(cls: type) -> Mapping[str, dataclasses.Field[Any]]:
    """A dataclass's fields by name. Kept, because a launch loads thousands of configurations."""
    return {field.name: field for field in dataclasses.fields(cls)}


def _per_task(meta: Mapping[str, Any], value: object, run: Run, path: str) -> dict[str, Any]:
    tasks = run.tasks
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"`{path}` must be a dictionary over the tasks {', '.join(tasks)}, found {value!r}; "
            f"as a setting for one task {path}/{next(iter(tasks))}=..."
        )
    for name in value:
        if name not in tasks:
            raise _unknown_task(name, path, tasks)
    return {
        name: (_value(meta["inner"], value[name], run, _join(path, name)) if name in value
               else meta["default"](task, run))
        for name, task in tasks.items()
    }
