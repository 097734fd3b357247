"""The name of a parameter for people, from the name that the store keeps.

The store's `params` column names the branch of each parameter, as Optuna knows it (`adapter.lora/rank`), so that two
branches may give one parameter different domains. People read and write the path in the configuration (`adapter/rank`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def path_of(name: str) -> str:
    """`adapter/rank` of `adapter.lora/rank`; `optimizer/encoder_lr` of `adapter.lora//optimizer/encoder_lr`.

    Each part of a name loses its `.branch`; what follows a double slash is a path from the root of the configuration.
    """
    relative = name.rpartition("//")[2]
    return "/".join(part.partition(".")[0] for part in relative.split("/"))


def by_path(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The drawn parameters of one trial under their paths. A trial has one branch of a kind, so no two paths meet."""
    return {path_of(name): value for name, value in parameters.items()}
