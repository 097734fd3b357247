"""Listing of a pinned space for a dry run: varied parameters, fixed parameters, and the defaults that are taken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hpo.space.tree import Leaf, Nested, flatten
from search_spaces.domains import OneOf


def describe(space: Sequence[Leaf], pins: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per parameter: name, path, domain as text, when it exists, type. Pins outside the space come last."""
    rows = []
    for leaf in (*space, *pins_outside(space, pins)):
        when = ", ".join(f"{path} = {kind}" for path, kind in leaf.conditions)
        kind = "fixed" if leaf.constant else type(leaf.domain).__name__
        rows.append({"name": leaf.name, "path": leaf.path, "domain": str(leaf.domain), "when": when, "type": kind})
    return rows


def pins_outside(space: Sequence[Leaf], pins: Mapping[str, Any]) -> list[Leaf]:
    """The pins of parameters that are in no leaf, as leaves with one value."""
    leaf_paths = {leaf.path for leaf in space}
    outside = [path for path in pins if not any(f"{path}/".startswith(f"{inside}/") for inside in leaf_paths)]
    return [Leaf(path, path, OneOf(pins[path])) for path in outside]


def defaults_taken(space: Sequence[Leaf], pins: Mapping[str, Any], branches: Iterable[Nested]) -> dict[str, Any]:
    """Configuration path -> default value, for all fields that no trial varies and no pin sets.

    `branches` are the complete configurations of all branches. The path of a field in a branch names the branch, as in
    `adapter.lora/bias`.
    """
    taken: dict[str, Any] = {}
    varied = {leaf.path for leaf in space} | pins.keys()
    for config in branches:
        for path, value in flatten(config).items():
            if not any(path == leaf_path or path.startswith(f"{leaf_path}/") for leaf_path in varied):
                taken.setdefault(_with_branches(path, config), value)
    taken.pop("config_version", None)
    return dict(sorted(taken.items()))


def _with_branches(path: str, config: Mapping[str, Any]) -> str:
    """The path with the configuration's kinds: adapter/rank is adapter.lora/rank if the adapter is of kind lora."""
    parts, node = [], config
    *parents, key = path.split("/")
    for parent in parents:
        node = node[parent]
        kind = node.get("kind") if key != "kind" or parent != parents[-1] else None
        parts.append(f"{parent}.{kind}" if isinstance(kind, str) else parent)
    return "/".join([*parts, key])
