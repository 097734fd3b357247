"""Dataclasses from JSON: each value must have the type that its field declares; errors name the field by its path.

Supported types: str, int, float, `X | None`, `Mapping[str, X]`, `Sequence[X]`, tuples, dataclasses and `Any`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints


class FieldError(ValueError):
    """A field is missing or has the wrong type."""


Loaded = TypeVar("Loaded")


def from_json(cls: type[Loaded], values: Any, path: str = "") -> Loaded:
    """A dataclass from a JSON object; names that are no field of it are ignored. Raises FieldError."""
    if not isinstance(values, Mapping):
        raise FieldError(f"`{path}` must be an object, not {values!r}")
    hints = get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for declared in fields(cls):  # type: ignore[arg-type]
        field_path = f"{path}.{declared.name}" if path else declared.name
        if declared.name in values:
            arguments[declared.name] = _value(hints[declared.name], values[declared.name], field_path)
        elif declared.default is MISSING and declared.default_factory is MISSING:
            raise FieldError(f"it lacks `{field_path}`")
    try:
        return cls(**arguments)
    except ValueError as error:  # the dataclass's own rules
        raise FieldError(str(error)) from error


def _value(hint: Any, value: Any, path: str) -> Any:
    """A JSON value, converted to the type that a field declares. Raises FieldError."""
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
        items = [_value(arguments[0], item, f"{path}.{index}") for index, item in enumerate(value)]
        if kind is tuple and Ellipsis not in arguments and len(items) != len(arguments):
            raise FieldError(f"`{path}` must be a list of {len(arguments)}, not {value!r}")
        return tuple(items) if kind is tuple else items
    return value if hint is Any else json_value(hint, value, path)


_NOUNS: Mapping[type, str] = {str: "text", int: "an integer", float: "a number", dict: "an object", list: "a list"}


def json_value(kind: type, value: Any, path: str) -> Any:
    """The value itself, if it has this JSON type (an integer is also a number). Raises FieldError if not."""
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise FieldError(f"`{path}` must be {_NOUNS[kind]}, not {value!r}")
    return value
