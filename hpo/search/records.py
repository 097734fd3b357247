"""Searchers and schedulers as plain data: `{"name": "asha", "eta": 3, "grace": 740}`, strictly read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, fields
from typing import Any, ClassVar, Protocol, TypeVar

from minbert.fields import unknown


class Entry(Protocol):
    """An entry of a family: a frozen dataclass, the record of its settings."""

    name: ClassVar[str]
    """By which records, options and messages call it."""
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=Entry)


def from_record(family: Mapping[str, type[T]], noun: str, record: Mapping[str, Any]) -> T:
    """The entry of a family that a record describes; absent settings take their defaults.

    `noun` names the family in errors. Raises ValueError for an unknown name, an unknown setting or a bad value.
    """
    if not isinstance(record, Mapping) or not isinstance(record.get("name"), str):
        raise ValueError(f"A {noun} must be a dictionary with `name`, not {record!r}. Names: {', '.join(family)}.")
    name = record["name"]
    if name not in family:
        raise unknown(noun, name, family)
    settings = {setting: value for setting, value in record.items() if setting != "name"}
    accepted = [field.name for field in fields(family[name])]
    for setting in settings:
        if setting not in accepted:
            raise unknown(f"setting of {noun} `{name}`:", setting, accepted)
    return family[name](**settings)


def to_record(entry: Entry) -> dict[str, Any]:
    """The record from which `from_record` makes an equal entry."""
    return {"name": entry.name, **asdict(entry)}


def check_integer(name: str, value: object, least: int) -> None:
    """Raise ValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, not {value!r}.")
