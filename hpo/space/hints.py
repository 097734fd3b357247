"""Hints for a parameter that the configuration refuses: the parameter that was probably meant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hpo.space.tree import Leaf, Nested, flatten


def hint(leaf: Leaf, config: Nested, tasks: Collection[str]) -> str:
    """A sentence that says what to write instead of a refused leaf, with a space in front; empty if nothing is known.

    `config` is the complete configuration of the leaf's branch without the leaf.
    """
    value = _value(config, leaf.path)
    if isinstance(value, Mapping):
        return _as_dictionary(leaf, value, tasks)
    if leaf.path in flatten(config):
        return ""
    path = meant(leaf.path, flatten(config))
    if path is None:
        return ""
    if leaf.conditions:
        return f' A branch names a parameter elsewhere by its absolute path, with a leading slash: "/{path}".'
    return elsewhere(leaf.path, path)


def _as_dictionary(leaf: Leaf, value: Mapping[str, Any], tasks: Collection[str]) -> str:
    """The hint where the space has a single value and the configuration a dictionary."""
    if "kind" in value:
        return f" In a space write Kind({value['kind']}={{...}}, ...)."
    if set(value) & set(tasks):
        return f" In a space write PerTask({leaf.domain!r}): one value for each task."
    return ""


def kinds_above(leaf: Leaf, config: Nested) -> dict[str, str]:
    """Path -> kind, for the kinds of a complete configuration above a leaf that is in none of their branches."""
    above: dict[str, str] = {}
    parts = leaf.path.split("/")[:-1]
    for length in range(1, len(parts) + 1):
        path = "/".join(parts[:length])
        value = _value(config, path)
        if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
            above[f"{path}/kind"] = value["kind"]
    return {path: kind for path, kind in above.items() if path not in dict(leaf.conditions) and path != leaf.path}


def elsewhere(wrong: str, path: str) -> str:
    """A sentence that names the right path of a parameter."""
    return f" The parameter `{wrong.rpartition('/')[2]}` is `{path}`."


def meant(wrong: str, paths: Iterable[str]) -> str | None:
    """The path that a wrong path ends with, or the only path with the same last part; None if there is neither."""
    candidates = [path for path in paths if path != wrong]
    ends = [path for path in candidates if wrong.endswith(f"/{path}")]
    if ends:
        return max(ends, key=len)
    last = wrong.rpartition("/")[2]
    namesakes = [path for path in candidates if path.rpartition("/")[2] == last and last != "kind"]
    return namesakes[0] if len(namesakes) == 1 else None


def _value(config: Nested, path: str) -> Any:
    value: Any = config
    for key in path.split("/"):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value
