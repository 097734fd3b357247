"""Dataclasses from JSON: each field must have the type that it declares, an error names the field by its path.

Understood are text, numbers, `X | None`, `Mapping[str, X]`, `Sequence[X]`, tuples, dataclasses and `Any`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints


class FieldError(ValueError):
    """A field that is missing, or of another type than it must be."""


Loaded = TypeVar("Loaded")


def from_json(cls: type[Loaded], values: Any, path: str = "") -> Loaded:
    """A dataclass from a JSON object; fields that it does not have are ignored."""
    if not isinstance(values, Mapping):
        raise FieldError(f"`{path}` must be an object, not {values!r}")
    hints = get_type_hints(cls)
    given: dict[str, Any] = {}
    for declared in fields(cls):  # type: ignore[arg-type]
        where = f"{path}.{declared.name}" if path else declared.name
        if declared.name in values:
            given[declared.name] = _value(hints[declared.name], values[declared.name], where)
        elif declared.default is MISSING and declared.default_factory is MISSING:
            raise FieldError(f"it lacks `{where}`")
    try:
        return cls(**given)
    except ValueError as error:  # the dataclass's own rules
        raise FieldError(str(error)) from error


def _value(hint: Any, value: Any, path: str) -> Any:
    """A JSON value as the type that a field declares."""
    kind, arguments = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        return from_json(hint, value, path)  # type: ignore[arg-type]
    if type(None) in arguments:
        return None if value is None else _value(arguments[0], value, path)
    if kind is Mapping:
        json_value(dict, value, path)
        return {name: _value(arguments[1], item, f"{path}.{name}") for name, item in value.items()}
    if kind in (tuple, Sequence):
        json_value(list, value, path)
        items = [_value(arguments[0], item, f"{path}.{place}") for place, item in enumerate(value)]
        if kind is tuple and Ellipsis not in arguments and len(items) != len(arguments):
            raise FieldError(f"`{path}` must be a list of {len(arguments)}, not {value!r}")
        return tuple(items) if kind is tuple else items
    return value if hint is Any else json_value(hint, value, path)


_WORDS: Mapping[type, str] = {str: "text", int: "an integer", float: "a number", dict: "an object", list: "a list"}


def json_value(kind: type, value: Any, path: str) -> Any:
    """The value, if it is of this JSON type; every integer is a number."""
    fits = (int, float) if kind is float else kind
    if not isinstance(value, fits) or isinstance(value, bool):
        raise FieldError(f"`{path}` must be {_WORDS[kind]}, not {value!r}")
    return value
