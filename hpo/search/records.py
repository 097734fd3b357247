"""Searchers and schedulers as plain data, such as `{"name": "asha", "eta": 3, "grace": 740}`. Reading is strict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, asdict, fields
from typing import Any, ClassVar, Protocol, TypeVar

from minbert.fields import unknown


class Entry(Protocol):
    """A searcher or scheduler: a frozen dataclass whose fields are its settings."""

    name: ClassVar[str]
    """Name in records, options and messages."""
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=Entry)


def from_record(family: Mapping[str, type[T]], noun: str, record: Mapping[str, Any]) -> T:
    """The entry of a family that a record describes; settings that it leaves out take their defaults.

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
            owners = [other for other, entry in family.items() if setting in {field.name for field in fields(entry)}]
            if owners:
                raise ValueError(
                    f"The {noun} `{name}` has no setting `{setting}`, which belongs to {', '.join(owners)}. "
                    f"Settings of `{name}`: {', '.join(accepted) or 'none'}."
                )
            raise unknown(f"setting of {noun} `{name}`:", setting, accepted)
    return family[name](**settings)


def to_record(entry: Entry) -> dict[str, Any]:
    """The record of an entry; `from_record` makes an equal entry from it."""
    return {"name": entry.name, **asdict(entry)}


def check_number(name: str, value: object, low: float, high: float) -> None:
    """Raise ValueError unless `value` is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"`{name}` must be a number from {low:g} to {high:g}, not {value!r}.")


def check_integer(name: str, value: object, least: int) -> None:
    """Raise ValueError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` must be an integer of at least {least}, not {value!r}.")
