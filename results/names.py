"""Parameter names: from the store's name to the path in the configuration.

The store and Optuna put the branch into a parameter's name (`adapter.lora/rank`), because two branches may give one
parameter different domains. People read and write the parameter's path in the configuration (`adapter/rank`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any


@functools.cache  # a sweep has tens of names, and asks for each once per trial
def path_of(name: str) -> str:
    """The path of a parameter: `adapter/rank` for `adapter.lora/rank`.

    Each part of the name loses its `.branch`. After a double slash the path starts at the root of the configuration:
    `optimizer/encoder_lr` for `adapter.lora//optimizer/encoder_lr`.
    """
    relative = name.rpartition("//")[2]
    return "/".join(part.partition(".")[0] for part in relative.split("/"))


def by_path(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """One trial's drawn parameters by path. A trial takes one branch of each kind, so no two names share a path."""
    return {path_of(name): value for name, value in parameters.items()}
