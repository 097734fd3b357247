"""The part of a search space that a sweep's tasks use.

A space names tasks: as keys (`encoding/qqp`), in composite choices (`batch_size` {"sst": 16, "qqp": 32}), as choices
(`task` sst | qqp). What only concerns declared tasks that a sweep does not have changes nothing in its trials, and a
sampler would waste its draws on it: it is left out, and a dry run says what that was. So one space serves any choice
of tasks. For a single task the same holds of all ways to mix several: they are one training. A name that is no declared
task stays, for `expand` and `check` to object to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from search_spaces.domains import Kind, Node, OneOf, PerTask, SpaceError, same

MIXING = "mixing"
"""The part of a configuration that only matters between tasks."""

_GONE = object()
"""What is left of a choice that was about absent tasks alone."""


class _NothingLeftError(SpaceError):
    """A parameter whose every choice is an absent task."""


def restrict(space: Mapping[str, Node], absent: Collection[str]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space without what only concerns `absent` tasks, and the names of all that was left out, sorted.

    A branch with a parameter that has nothing but absent tasks to choose from goes; SpaceError where no branch stays.
    """
    out: set[str] = set()
    kept = _tree(space, frozenset(absent), "", out)
    whole = (name for name in out if not any(name.startswith((f"{other}/", f"{other}.", f"{other}:")) for other in out))
    return kept, tuple(sorted(whole))


def of_tasks(flat: Mapping[str, Any], absent: Collection[str]) -> dict[str, Any]:
    """Values by path or name (`max_length/sst`, `encoding/sts.bi/pooling`) without those of absent tasks."""
    return {path: value for path, value in flat.items() if not set(absent) & set(re.split("[/.]", path))}


def alone(space: Mapping[str, Node]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space of a sweep with one task: without how tasks are mixed; and the names of all that was left out, sorted.

    With one task every sampler draws it, and there is nothing to combine or to balance.
    """
    out: set[str] = set()
    return _unmixed(space, "", out), tuple(sorted(out))


def _unmixed(tree: Mapping[str, Node], where: str, out: set[str]) -> dict[str, Node]:
    kept: dict[str, Node] = {}
    for key, child in tree.items():
        absolute = not where or key.startswith("/")
        name = f"{where}/{key}" if where else key
        if absolute and key.removeprefix("/").split("/")[0] == MIXING:
            out.add(name)
            kept |= _elsewhere(child, frozenset(), name, out)
        elif isinstance(child, Kind):
            kept[key] = Kind(**{kind: _unmixed(one, f"{name}.{kind}", out) for kind, one in child.branches.items()})
        elif isinstance(child, Mapping):
            kept[key] = _unmixed(child, name, out)
        else:
            kept[key] = child
    return kept


def _tree(tree: Mapping[str, Node], absent: frozenset[str], where: str, out: set[str]) -> dict[str, Node]:
    kept: dict[str, Node] = {}
    for key, child in tree.items():
        name = f"{where}/{key}" if where else str(key)
        parts = key.split("/") if isinstance(key, str) else ()
        node = None if absent & set(parts) else _node(child, absent, name, out)
        if node is None:
            out.add(name)
            kept |= _elsewhere(child, absent, name, out)
        else:
            kept[key] = node
    return kept


def _elsewhere(node: Any, absent: frozenset[str], where: str, out: set[str]) -> dict[str, Node]:
    """What the first branch of a choice that goes says by absolute paths of the tasks that stay.

    A space may give one task's domains in the branches of another's (what both share exists where both allow it).
    """
    if not isinstance(node, Kind) or not node.branches:
        return {}
    branch = next(iter(node.branches.values()))
    return _tree({key: child for key, child in branch.items() if key.startswith("/")}, absent, where, out)


def _node(node: Any, absent: frozenset[str], where: str, out: set[str]) -> Any:
    """The node's part for the other tasks; None where nothing of it is left."""
    if isinstance(node, PerTask):
        inner = _node(node.node, absent, where, out)
        overrides = {task: child for task, child in node.overrides.items() if task not in absent}
        out.update(f"{where}/{task}" for task in node.overrides.keys() - overrides.keys())
        own = {task: _node(child, absent, f"{where}/{task}", out) for task, child in overrides.items()}
        return None if inner is None else PerTask(inner, **{task: one for task, one in own.items() if one is not None})
    if isinstance(node, Kind):
        return _kind(node, absent, where, out)
    if isinstance(node, OneOf):
        return _choices(node, absent, where, out)
    if isinstance(node, Mapping):
        return _tree(node, absent, where, out) or (None if node else node)
    return node  # a range, or what `expand` will object to


def _kind(node: Kind, absent: frozenset[str], where: str, out: set[str]) -> Kind:
    branches, nothing = {}, None
    for kind, branch in node.branches.items():
        try:
            branches[kind] = _tree(branch, absent, f"{where}.{kind}", out)
        except _NothingLeftError as error:
            out.add(f"{where}.{kind}")
            nothing = error
    if not branches and nothing is not None:
        raise nothing
    return Kind(**branches)


def _choices(node: OneOf, absent: frozenset[str], where: str, out: set[str]) -> OneOf | None:
    """Each choice without the absent tasks; those that become equal stay once, under the first one's label."""
    cut = [_value(value, absent) for value in node.values]
    if all(same(one, value) for one, value in zip(cut, node.values, strict=True)):
        return node
    kept: dict[str, Any] = {}
    for label, value in zip(node.labels, cut, strict=True):
        if value is not _GONE and not any(same(value, earlier) for earlier in kept.values()):
            kept[label] = value
    if not kept and any(isinstance(value, str) for value in node.values):
        raise _NothingLeftError(f"{where}: each of its choices ({node}) is a task that this sweep does not have.")
    out.add(f"{where}: {', '.join(sorted(absent & _names(node.values)))}")
    if not kept:
        return None
    # Labels that were made of whole values are made anew; those of the space's author stay.
    made = OneOf(*node.values).labels == node.labels
    return OneOf(*kept.values()) if made else OneOf(labels=kept)


def _value(value: Any, absent: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        rest = {key: item for key, item in value.items() if key not in absent}
        return rest if rest or not value else _GONE
    if isinstance(value, list):
        items = [item for item in value if not (isinstance(item, str) and item in absent)]
        return items if items or not value else _GONE
    return _GONE if isinstance(value, str) and value in absent else value


def _names(values: Collection[Any]) -> set[str]:
    """Every text that is a value, or stands in a list or as a key of one."""
    parts = (list(value) if isinstance(value, Mapping | list) else [value] for value in values)
    return {one for part in parts for one in part if isinstance(one, str)}
