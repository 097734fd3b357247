"""The options of a launch in a TOML file, so that a sweep can be kept in version control.

    space = "full"
    data = "../shared/data/cs224n"
    trials = 24
    settings = ["adapter/kind=lora"]

Keys are the fields of `Launch` and `ResourceRequest`. Paths are relative to the working directory, as on the command
line.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from hpo.cluster.resources import ResourceRequest
from hpo.launch.request import Launch, LaunchError, check_names

NAMES = tuple(
    field.name
    for field in (*fields(Launch), *fields(ResourceRequest))
    if field.name not in ("resources", "trainer")  # a file must not choose which code runs
)
"""Keys that a file may have."""


def read(path: Path) -> dict[str, Any]:
    """The options of a file by name. Raises LaunchError for a file that is missing or no TOML, and for an unknown
    key, which names the accepted ones."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LaunchError(f"`config`: cannot read {path}: {error.strerror}.") from error
    except ValueError as error:  # no TOML, or no UTF-8
        raise LaunchError(f"`config`: {path} is no TOML file: {error}.") from error
    try:
        check_names(values, NAMES)
    except LaunchError as error:
        raise LaunchError(f"{path}: {error}") from error
    return values


def text_of(launch: Launch) -> str:
    """The options of a launch as a TOML file; those that are not set are left out. Raises LaunchError for a space that
    is a tree, which no file can hold."""
    if not isinstance(launch.space, str | Path):
        raise LaunchError("`space`: only a space with a name or a .py file can be written to a file.")
    values = {name: getattr(launch.resources if hasattr(launch.resources, name) else launch, name) for name in NAMES}
    lines = [f"{name} = {_toml(value)}\n" for name, value in values.items() if value is not None and value != ()]
    return "".join(lines)


def _toml(value: Any) -> str:
    """A text, a number or a list of texts in TOML."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str | Path):
        return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
