"""What somebody probably meant by a parameter that the configuration refuses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from hpo.space.tree import Leaf, Nested, flatten


def hint(leaf: Leaf, config: Nested, tasks: Collection[str]) -> str:
    """The cure of a leaf that is refused: a sentence with a space in front, or nothing where none is known.

    `config` is the complete configuration of the leaf's branch without the leaf.
    """
    value = _value(config, leaf.path)
    if isinstance(value, Mapping):
        return _as_dictionary(leaf, value, tasks)
    if leaf.path in flatten(config):
        return ""
    known = meant(leaf.path, flatten(config))
    if known is None:
        return ""
    if leaf.conditions:
        return f' A branch names a parameter elsewhere by its absolute path, with a leading slash: "/{known}".'
    return elsewhere(leaf.path, known)


def _as_dictionary(leaf: Leaf, value: Mapping[str, Any], tasks: Collection[str]) -> str:
    """The cure where the space has a single value for what is a dictionary."""
    if "kind" in value:
        return f" In a space write Kind({value['kind']}={{...}}, ...)."
    if set(value) & set(tasks):
        return f" In a space write PerTask({leaf.domain!r}): one value for each task."
    return ""


def kinds_above(leaf: Leaf, config: Nested) -> dict[str, str]:
    """The kinds of a complete configuration that a leaf lies under without being in a branch of theirs."""
    above: dict[str, str] = {}
    parts = leaf.path.split("/")[:-1]
    for length in range(1, len(parts) + 1):
        path = "/".join(parts[:length])
        value = _value(config, path)
        if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
            above[f"{path}/kind"] = value["kind"]
    return {path: kind for path, kind in above.items() if path not in dict(leaf.conditions) and path != leaf.path}


def elsewhere(path: str, known: str) -> str:
    """The sentence that names where a parameter is."""
    return f" The parameter `{path.rpartition('/')[2]}` is `{known}`."


def meant(path: str, known: Iterable[str]) -> str | None:
    """The known path that `path` ends in, or the only one with the same last part; None: there is none."""
    paths = [other for other in known if other != path]
    ends = [other for other in paths if path.endswith(f"/{other}")]
    if ends:
        return max(ends, key=len)
    last = path.rpartition("/")[2]
    alike = [other for other in paths if other.rpartition("/")[2] == last and last != "kind"]
    return alike[0] if len(alike) == 1 else None


def _value(config: Nested, path: str) -> Any:
    value: Any = config
    for key in path.split("/"):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value
