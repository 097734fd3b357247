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

A domain says what may be varied, its prior where good values are expected:

    Float(1e-5, 1e-3, log=True, prior=1e-4)      a normal around 1e-4, truncated to the domain, on its (log) scale
    Float(0.0, 0.3, prior=0.1, sigma=0.5)        sigma in units of the (log) range; 10 is uniform for all purposes
    OneOf("last", "best", weights=(3, 1))        the share of each choice, in their order
    Kind(none={}, lora={...}, weights={"none": 3, "lora": 1})    the share of each branch
    OneOf("cls", "mean", "max", weights=0.9)     the share of the default, whatever it is; the others have equal shares

What is left out follows the default configuration of the sweep's base and tasks, under the kinds of the domain's
branch: the centre is the default, sigma is 0.2, and the default of a choice has 0.5. So a domain without a centre or
without a weight for each choice must contain the default.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

KEY = re.compile(r"[A-Za-z0-9_-]+")
"""Pattern for keys, branches and tasks. `/` and `.` are excluded: they separate the parts of a parameter's name."""


SIGMA = 0.2
"""Default width of a numeric prior: standard deviation of the normal, in units of the (log) range."""


class SpaceError(ValueError):
    """A search space, or a value pinned in it, cannot be used; the message says which part and why."""


def _number(domain: str, field: str, value: Any, *, integer: bool) -> None:
    typed = isinstance(value, int) if integer else isinstance(value, int | float)
    if isinstance(value, bool) or not typed or not math.isfinite(value):
        expected = "an integer" if integer else "a finite number"
        raise SpaceError(f"{domain}: `{field}` must be {expected}, not {value!r}.")


def _prior(domain: Float | Int) -> None:
    """Raise SpaceError for a centre outside the domain or a sigma that is not above 0."""
    name, low, high = type(domain).__name__, domain.low, domain.high
    if domain.prior is not None:
        _number(name, "prior", domain.prior, integer=isinstance(domain, Int))
        if not low <= domain.prior <= high:
            raise SpaceError(f"{name}: `prior` must be within {domain.extent}, not {domain.prior!r}.")
    if domain.sigma is not None:
        _number(name, "sigma", domain.sigma, integer=False)
        if domain.sigma <= 0:
            raise SpaceError(f"{name}: `sigma` must be above 0, in units of the {'log ' * domain.log}range, not "
                             f"{domain.sigma!r}.")


def _about(domain: Float | Int) -> str:
    """The prior of a range as people read it, with a comma in front; empty without one."""
    if domain.prior is None:
        return ""
    return f", about {domain.prior:g}" + ("" if domain.sigma in (None, SIGMA) else f" (sigma {domain.sigma:g})")


def _written(domain: Float | Int, arguments: Mapping[str, Any]) -> str:
    """A range as it is written in a space: its ends, then the arguments that are set."""
    texts = [f"{domain.low!r}", f"{domain.high!r}"]
    texts += [f"{name}={value!r}" for name, value in arguments.items() if value]
    texts += [f"{name}={value!r}" for name in ("prior", "sigma") if (value := getattr(domain, name)) is not None]
    return f"{type(domain).__name__}({', '.join(texts)})"


def _share(name: str, weights: Any) -> float | None:
    """The default's share, if `weights` is one number. Raises SpaceError."""
    if not isinstance(weights, int | float):
        return None
    _number(name, "weights", weights, integer=False)
    if not 0 < weights < 1:
        raise SpaceError(f"{name}: `weights` as one number is the default's share, above 0 and below 1, not "
                         f"{weights!r}.")
    return float(weights)


def _shares(name: str, weights: Any, choices: Sequence[str]) -> tuple[float, ...]:
    """The weights of choices, one each, in their order. Raises SpaceError."""
    for weight in weights:
        _number(name, "weights", weight, integer=False)
        if weight <= 0:
            raise SpaceError(f"{name}: `weights` must be above 0, not {weight!r}; leave out a choice instead.")
    if len(weights) != len(choices):
        raise SpaceError(f"{name}: `weights` must have one number for each of its {len(choices)} choices "
                         f"({', '.join(choices)}), not {len(weights)}.")
    return tuple(float(weight) for weight in weights)


def _weighed(labels: Sequence[str], weights: Sequence[float] | None, share: float | None) -> str:
    """Choices as people read them, with their shares: none 50 % | lora 50 %."""
    if weights is None or len(labels) == 1:
        return " | ".join(labels) + (f" (default {100 * share:.2g} %)" if share else "")
    total = sum(weights)
    return " | ".join(f"{label} {100 * weight / total:.2g} %" for label, weight in zip(labels, weights, strict=True))


def _ordered(domain: str, low: float, high: float, log: bool) -> None:
    if low > high:
        raise SpaceError(f"{domain}: `low` must be at most `high`, but {low!r} > {high!r}.")
    if log and low <= 0:
        raise SpaceError(f"{domain}: with log=True `low` must be above 0, not {low!r}.")


@dataclass(frozen=True)
class Float:
    """A real number x, low <= x <= high, on a linear or (`log`) a logarithmic scale."""

    low: float
    high: float
    log: bool = False
    prior: float | None = None
    """Centre of the prior: the mean of a normal on the domain's scale, truncated to the domain."""
    sigma: float | None = None
    """Standard deviation of that normal, in units of the (log) range."""

    def __post_init__(self) -> None:
        _number("Float", "low", self.low, integer=False)
        _number("Float", "high", self.high, integer=False)
        _ordered("Float", self.low, self.high, self.log)
        _prior(self)

    @property
    def extent(self) -> str:
        """The domain without its prior, as people read it."""
        return f"{self.low:g} .. {self.high:g}{' (log)' if self.log else ''}"

    def __str__(self) -> str:
        return f"{self.extent}{_about(self)}"

    def __repr__(self) -> str:
        """The domain as it is written in a space."""
        return _written(self, {"log": self.log})


@dataclass(frozen=True)
class Int:
    """An integer x, low <= x <= high, in steps of `step` from `low`, on a linear or (`log`, step 1) a log scale."""

    low: int
    high: int
    step: int = 1
    log: bool = False
    prior: int | None = None
    """Centre of the prior, as of a Float; each integer has the probability of the half steps around it."""
    sigma: float | None = None
    """Standard deviation of that normal, in units of the (log) range."""

    def __post_init__(self) -> None:
        for field in ("low", "high", "step"):
            _number("Int", field, getattr(self, field), integer=True)
        _ordered("Int", self.low, self.high, self.log)
        if self.step < 1 or (self.high - self.low) % self.step:
            raise SpaceError(f"Int: `step` must be at least 1 and divide high - low = {self.high - self.low}, "
                             f"not {self.step}.")
        if self.log and self.step != 1:
            raise SpaceError(f"Int: `step` must be 1 with log=True, not {self.step}.")
        _prior(self)
        if self.prior is not None and (self.prior - self.low) % self.step:
            raise SpaceError(f"Int: `prior` must be a number of steps of {self.step} above {self.low}, not "
                             f"{self.prior}.")

    @property
    def extent(self) -> str:
        """The domain without its prior, as people read it."""
        return f"{self.low} .. {self.high}{f' step {self.step}' * (self.step > 1)}{' (log)' if self.log else ''}"

    def __str__(self) -> str:
        return f"{self.extent}{_about(self)}"

    def __repr__(self) -> str:
        """The domain as it is written in a space."""
        return _written(self, {"step": self.step if self.step > 1 else None, "log": self.log})


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
    OneOf(8, 16, 32, weights=(1, 2, 1))                          the prior share of each choice, in any unit
    OneOf(8, 16, 32, weights=0.8)                                the prior share of the default
    """

    values: tuple[Any, ...]
    labels: tuple[str, ...]
    weights: tuple[float, ...] | None
    """Prior shares of the choices, in their order."""
    share: float | None
    """Prior share of the default configuration's choice, before it is known which one that is."""

    def __init__(
        self, *values: Any, labels: Mapping[str, Any] | None = None, weights: Sequence[float] | float | None = None
    ) -> None:
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
        object.__setattr__(self, "share", _share("OneOf", weights))
        weights = weights if self.share is None else None
        if isinstance(weights, str) or not (weights is None or isinstance(weights, Sequence)):
            raise SpaceError("OneOf: `weights` must be one number for each choice, in their order, or the default's "
                             f"share, not {weights!r}.")
        object.__setattr__(self, "weights", None if weights is None else _shares("OneOf", weights, self.labels))

    @property
    def choices(self) -> tuple[Any, ...]:
        """The choices that Optuna and the store know: the values, or their labels if any value is composite."""
        composite = any(isinstance(value, list | dict) for value in self.values)
        return self.labels if composite else self.values

    def value(self, choice: Any) -> Any:
        """The JSON value of a choice; a copy, so that callers cannot change the space. Raises SpaceError."""
        for candidate, value in zip(self.choices, self.values, strict=True):
            if same(candidate, choice):
                return _json(value) if isinstance(value, list | dict) else value
        raise SpaceError(f"{choice!r} is none of the choices {', '.join(map(repr, self.choices))}.")

    def choice(self, value: Any) -> Any:
        """The choice of a JSON value. Raises SpaceError if the domain does not have the value."""
        for choice, candidate in zip(self.choices, self.values, strict=True):
            if same(candidate, _json(value)):
                return choice
        raise SpaceError(f"{value!r} is none of {', '.join(self.labels)}.")

    def changed(self, values: Mapping[str, Any]) -> OneOf:
        """The choices of some labels, in their order, with new values (label -> value).

        Values that become equal are one choice, with the label of the first and the weights of all.
        """
        labels: dict[str, Any] = {}
        weights: dict[str, float] = {}
        for label, weight in zip(self.labels, self.weights or [1.0] * len(self.labels), strict=True):
            if label in values:
                first = next((other for other, value in labels.items() if same(value, values[label])), label)
                labels.setdefault(first, values[label])
                weights[first] = weights.get(first, 0.0) + weight
        return OneOf(labels=labels, weights=self.share if self.weights is None else tuple(weights.values()))

    @property
    def extent(self) -> str:
        """The domain without its prior, as people read it."""
        return " | ".join(self.labels)

    def __str__(self) -> str:
        return _weighed(self.labels, self.weights, self.share)

    def __repr__(self) -> str:
        """The domain as it is written in a space."""
        prior = self.share if self.weights is None else self.weights
        weights = "" if prior is None else f", weights={prior!r}"
        if self.labels == tuple(map(_label, self.values)):
            return f"OneOf({', '.join(map(repr, self.values))}{weights})"
        return f"OneOf(labels={dict(zip(self.labels, self.values, strict=True))!r}{weights})"


@dataclass(frozen=True, init=False)
class Kind:
    """A choice between branches. Field `kind` gets the branch's name; each branch is a tree of its own parameters.

    `weights` gives every branch its prior share, in any unit, or the default's branch its share; so no branch can have
    this name.
    """

    branches: Mapping[str, Mapping[str, Node]]
    weights: Mapping[str, float] | None
    share: float | None
    """Prior share of the default configuration's branch, before it is known which one that is."""

    def __init__(self, /, *, weights: Mapping[str, Any] | float | None = None, **branches: Mapping[str, Node]) -> None:
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
        object.__setattr__(self, "share", _share("Kind", weights))
        weights = weights if self.share is None else None
        object.__setattr__(self, "weights", None if weights is None else self._checked(weights))

    def _checked(self, weights: Any) -> dict[str, float]:
        """The weights in the order of the branches. Raises SpaceError."""
        if not isinstance(weights, Mapping) or weights.keys() != self.branches.keys():
            found = ", ".join(map(str, weights)) if isinstance(weights, Mapping) else repr(weights)
            raise SpaceError("Kind: `weights` gives each branch its share and cannot be the name of a branch. Expected "
                             f"a dict with one number for each of {', '.join(self.branches)}, or one number, found "
                             f"{found or 'an empty one'}.")
        ordered = [weights[name] for name in self.branches]
        return dict(zip(self.branches, _shares("Kind", ordered, tuple(self.branches)), strict=True))

    @property
    def choice(self) -> OneOf:
        """The choice between the branches' names, with their weights."""
        return OneOf(*self.branches, weights=self.share if self.weights is None else tuple(self.weights.values()))

    def changed(self, branches: Mapping[str, Mapping[str, Node]]) -> Kind:
        """The kind with some of its branches, each with a new tree; branches keep their weights."""
        weights = self.share if self.weights is None else {name: self.weights[name] for name in branches}
        return Kind(weights=weights, **branches)

    def __str__(self) -> str:
        return str(self.choice)


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
