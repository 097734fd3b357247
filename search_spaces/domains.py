"""Domains: the five words of a search space. They are plain data without Optuna or the model.

    Float(low, high, log)   a real number                 Kind(name={...}, ...)  a choice that owns parameters
    Int(low, high, ...)     an integer                    PerTask(node)          the same node for every declared task
    OneOf(a, b, ...)        a labelled choice of JSON values, also of lists and dicts

A space is a dict with the configuration's keys and domains as leaves. A branch of a `Kind` owns its parameters, so an
illegal combination cannot be written. A parameter elsewhere in the configuration may exist in one branch only, or need
a different domain in every branch: full fine-tuning bears more dropout than LoRA. Then each branch names the parameter
by its absolute path, with a leading slash:

    "adapter": Kind(none={"/optimizer/encoder_lr": Float(5e-5, 5e-4, log=True), "/dropout/hidden": Float(0.0, 0.3)},
                    lora={"/optimizer/adapter_lr": Float(3e-4, 3e-3, log=True), "/dropout/hidden": Float(0.0, 0.1)})
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Union

KEY = re.compile(r"[A-Za-z0-9_-]+")
"""Pattern for keys, branches and tasks. `/` and `.` are excluded: they separate the parts of a parameter's name."""


class SpaceError(ValueError):
    """A search space, or a value pinned in it, cannot be used; the message says which part and why."""


def _number(domain: str, field: str, value: Any, *, integer: bool) -> None:
    typed = isinstance(value, int) if integer else isinstance(value, int | float)
    if isinstance(value, bool) or not typed or not math.isfinite(value):
        expected = "an integer" if integer else "a finite number"
        raise SpaceError(f"{domain}: `{field}` must be {expected}, not {value!r}.")


def _ordered(domain: str, low: float, high: float, log: bool) -> None:
    if low > high:
        raise SpaceError(f"{domain}: `low` must be at most `high`, but {low!r} > {high!r}.")
    if log and low <= 0:
        raise SpaceError(f"{domain}: with log=True `low` must be above 0, not {low!r}.")


@dataclass(frozen=True)
class Float:
    """A real number x, low <= x <= high; with `log`, log x is drawn uniformly."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _number("Float", "low", self.low, integer=False)
        _number("Float", "high", self.high, integer=False)
        _ordered("Float", self.low, self.high, self.log)

    def __str__(self) -> str:
        return f"{self.low:g} .. {self.high:g}{' (log)' if self.log else ''}"


@dataclass(frozen=True)
class Int:
    """An integer x, low <= x <= high, in steps of `step` from `low`; with `log` (step 1), log x is drawn uniformly."""

    low: int
    high: int
    step: int = 1
    log: bool = False

    def __post_init__(self) -> None:
        for field in ("low", "high", "step"):
            _number("Int", field, getattr(self, field), integer=True)
        _ordered("Int", self.low, self.high, self.log)
        if self.step < 1 or (self.high - self.low) % self.step:
            raise SpaceError(f"Int: `step` must be at least 1 and divide high - low = {self.high - self.low}, "
                             f"not {self.step}.")
        if self.log and self.step != 1:
            raise SpaceError(f"Int: `step` must be 1 with log=True, not {self.step}.")

    def __str__(self) -> str:
        return f"{self.low} .. {self.high}{f' step {self.step}' * (self.step > 1)}{' (log)' if self.log else ''}"


def same(a: Any, b: Any) -> bool:
    """Whether two JSON values are equal: true is not 1, but 16 is 16.0."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def _json(value: Any) -> Any:
    """A copy of `value` through JSON: tuples become lists. Raises SpaceError if `value` is not JSON."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise SpaceError(f"OneOf: a value must be JSON (number, text, true/false, null, list, dict), "
                         f"not {value!r}: {error}.") from None
    except RecursionError:
        raise SpaceError("OneOf: a value is nested too deeply to be JSON.") from None


def _label(value: Any) -> str:
    """Label of a value: query+value for a list of texts, 3/32/2 for a dict of numbers, else JSON."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "+".join(value)
    if isinstance(value, dict) and value and all(isinstance(item, int | float) for item in value.values()):
        return "/".join(json.dumps(item) for item in value.values())
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True, init=False)
class OneOf:
    """A choice between JSON values. Optuna and the store know composite values (lists, dicts) by their labels.

    OneOf(8, 16, 32)
    OneOf(("query", "value"), ("query", "key"))                  labels query+value, query+key
    OneOf(labels={"small": {"sst": 3, "qqp": 32, "sts": 2}})     explicit labels
    """

    values: tuple[Any, ...]
    labels: tuple[str, ...]

    def __init__(self, *values: Any, labels: Mapping[str, Any] | None = None) -> None:
        if values and labels is not None:
            raise SpaceError("OneOf: give values or labels={label: value}, not both.")
        pairs = [(_label(value), value) for value in map(_json, values)]
        pairs = pairs if labels is None else [(str(label), _json(value)) for label, value in labels.items()]
        if not pairs:
            raise SpaceError("OneOf: expected at least one value, found none.")
        for index, (label, value) in enumerate(pairs):
            for earlier_label, earlier in pairs[:index]:
                if same(value, earlier):
                    raise SpaceError(f"OneOf: every value may be given once, but {value!r} is given twice.")
                if label == earlier_label:
                    raise SpaceError(f"OneOf: {earlier!r} and {value!r} have the same label {label!r}; "
                                     "name them with labels={label: value}.")
        object.__setattr__(self, "values", tuple(value for _, value in pairs))
        object.__setattr__(self, "labels", tuple(label for label, _ in pairs))

    @property
    def choices(self) -> tuple[Any, ...]:
        """The choices that Optuna and the store know: the values, or their labels if any value is composite."""
        composite = any(isinstance(value, list | dict) for value in self.values)
        return self.labels if composite else self.values

    def value(self, choice: Any) -> Any:
        """The JSON value of a choice; a copy, so that callers cannot change the space. Raises SpaceError."""
        for candidate, value in zip(self.choices, self.values, strict=True):
            if same(candidate, choice):
                return _json(value)
        raise SpaceError(f"{choice!r} is none of the choices {', '.join(map(repr, self.choices))}.")

    def choice(self, value: Any) -> Any:
        """The choice of a JSON value. Raises SpaceError if the domain does not have the value."""
        for choice, candidate in zip(self.choices, self.values, strict=True):
            if same(candidate, _json(value)):
                return choice
        raise SpaceError(f"{value!r} is none of {', '.join(self.labels)}.")

    def __str__(self) -> str:
        return " | ".join(self.labels)

    def __repr__(self) -> str:
        """The domain as it is written in a space."""
        values = ", ".join(map(repr, self.values))
        if self.labels == tuple(map(_label, self.values)):
            return f"OneOf({values})"
        return f"OneOf(labels={dict(zip(self.labels, self.values, strict=True))!r})"


@dataclass(frozen=True, init=False)
class Kind:
    """A choice between branches. Field `kind` gets the branch's name; each branch is a tree of its own parameters."""

    branches: Mapping[str, Mapping[str, Node]]

    def __init__(self, /, **branches: Mapping[str, Node]) -> None:
        if not branches:
            raise SpaceError("Kind: expected at least one branch, e.g. Kind(none={}, lora={...}), found none.")
        for name, branch in branches.items():
            if not KEY.fullmatch(name):
                raise SpaceError(f"Kind: a branch name holds letters, digits, _ and -, not {name!r}.")
            if not isinstance(branch, Mapping):
                raise SpaceError(f"Kind: branch `{name}` must be a dict of its parameters, e.g. {name}={{}}, "
                                 f"not {branch!r}.")
            if "kind" in branch:
                raise SpaceError(f"Kind: branch `{name}` must not hold `kind`; the branch's name is its kind.")
        object.__setattr__(self, "branches", dict(branches))

    def __str__(self) -> str:
        return " | ".join(self.branches)


@dataclass(frozen=True, init=False)
class PerTask:
    """One node for every declared task, drawn separately: PerTask(OneOf(8, 16)) becomes sst, qqp, ...

    Keywords give some tasks another node: PerTask(OneOf(8, 16), qqp=OneOf(32, 64)).
    """

    node: Node
    overrides: Mapping[str, Node]

    def __init__(self, node: Node, /, **overrides: Node) -> None:
        object.__setattr__(self, "node", node)
        object.__setattr__(self, "overrides", dict(overrides))


Domain = Float | Int | OneOf
Node = Union[Float, Int, OneOf, Kind, PerTask, Mapping[str, "Node"]]  # noqa: UP007 (a recursive `|` cannot be evaluated)
