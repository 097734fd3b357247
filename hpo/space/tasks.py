"""The part of a search space that a sweep's tasks use.

A space names tasks: as keys (`encoding/qqp`), in composite choices (`batch_size` {"sst": 16, "qqp": 32}), as choices
(`task` sst | qqp). What only concerns declared tasks that a sweep does not have is left out, and a dry run says what
that was: a configuration has no place for it. So one space serves any choice of tasks. For a single task all ways to
mix several are left out as well: they are one training. A name that is no declared task stays, for `expand` and
`check` to object to.
"""

from __future__ import annotations

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
    return _Cut(frozenset(absent)).of(space)


def alone(space: Mapping[str, Node]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space of a sweep with one task: without how tasks are mixed; and the names of all that was left out, sorted.

    With one task every mixing draws it, and there is nothing to combine or to balance.
    """
    return _Cut(frozenset(), mixed=False).of(space)


class _Cut:
    """A walk over a space that leaves out what a sweep has no use for."""

    def __init__(self, absent: frozenset[str], mixed: bool = True) -> None:
        self.absent = absent
        self.mixed = mixed
        self.left_out: set[str] = set()

    def of(self, space: Mapping[str, Node]) -> tuple[dict[str, Node], tuple[str, ...]]:
        """What stays of the space, and the names of what does not; of nested ones the outermost."""
        kept, names = self._tree(space, ""), self.left_out
        inner = {name for name in names for other in names if name.startswith((f"{other}/", f"{other}.", f"{other}:"))}
        return kept, tuple(sorted(names - inner))

    def _tree(self, tree: Mapping[str, Node], where: str) -> dict[str, Node]:
        kept: dict[str, Node] = {}
        for key, child in tree.items():
            name = f"{where}/{key}" if where else str(key)
            node = None if self._is_useless(key, where) else self._node(child, name)
            if node is None:
                self.left_out.add(name)
                kept |= self._elsewhere(child, name)
            else:
                kept[key] = node
        return kept

    def _is_useless(self, key: object, where: str) -> bool:
        if not isinstance(key, str):
            return False  # for `expand` to object to
        parts = key.removeprefix("/").split("/")
        unmixed = not self.mixed and parts[0] == MIXING and (not where or key.startswith("/"))
        return unmixed or not self.absent.isdisjoint(parts)

    def _elsewhere(self, node: Any, where: str) -> dict[str, Node]:
        """What the first branch of a choice that goes says by absolute paths of parameters that stay.

        A space may give one task's domains in the branches of another's (what both share exists where both allow it).
        """
        if not isinstance(node, Kind):
            return {}
        branch = next(iter(node.branches.values()))
        return self._tree({key: child for key, child in branch.items() if key.startswith("/")}, where)

    def _node(self, node: Any, where: str) -> Any:
        """The part of a node that stays; None where nothing of it does."""
        if isinstance(node, PerTask):
            own = {task: child for task, child in node.overrides.items() if task not in self.absent}
            self.left_out.update(f"{where}/{task}" for task in node.overrides.keys() - own.keys())
            return PerTask(node.node, **own)
        if isinstance(node, Kind):
            return self._kind(node, where)
        if isinstance(node, OneOf):
            return self._choices(node, where)
        if isinstance(node, Mapping):
            return self._tree(node, where) or (None if node else node)
        return node  # a range, or what `expand` will object to

    def _kind(self, node: Kind, where: str) -> Kind:
        branches, nothing = {}, None
        for kind, branch in node.branches.items():
            try:
                branches[kind] = self._tree(branch, f"{where}.{kind}")
            except _NothingLeftError as error:
                self.left_out.add(f"{where}.{kind}")
                nothing = error
        if not branches and nothing is not None:
            raise nothing
        return Kind(**branches)

    def _choices(self, node: OneOf, where: str) -> OneOf | None:
        """Each choice without the absent tasks; those that become equal stay once, under the first one's label."""
        cut = [_without(value, self.absent) for value in node.values]
        if all(same(part, value) for part, value in zip(cut, node.values, strict=True)):
            return node
        kept: dict[str, Any] = {}
        for label, value in zip(node.labels, cut, strict=True):
            if value is not _GONE and not any(same(value, earlier) for earlier in kept.values()):
                kept[label] = value
        if not kept and any(isinstance(value, str) for value in node.values):
            raise _NothingLeftError(f"{where}: each of its choices ({node}) is a task that this sweep does not have.")
        self.left_out.add(f"{where}: {', '.join(sorted(self.absent & _names(node.values)))}")
        if not kept:
            return None
        # Labels that were made of whole values are made anew; those of the space's author stay.
        made = OneOf(*node.values).labels == node.labels
        return OneOf(*kept.values()) if made else OneOf(labels=kept)


def _without(value: Any, absent: frozenset[str]) -> Any:
    """A choice's value without the absent tasks among its keys or items; `_GONE` where nothing else is in it."""
    if isinstance(value, Mapping):
        rest: Any = {key: item for key, item in value.items() if key not in absent}
    elif isinstance(value, list):
        rest = [item for item in value if not (isinstance(item, str) and item in absent)]
    else:
        return _GONE if isinstance(value, str) and value in absent else value
    return rest if rest or not value else _GONE


def _names(values: Collection[Any]) -> set[str]:
    """Every text that is a value, or stands in a list or as a key of one."""
    parts = (list(value) if isinstance(value, Mapping | list) else [value] for value in values)
    return {name for part in parts for name in part if isinstance(name, str)}
