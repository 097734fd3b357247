"""The part of a search space that concerns a sweep's tasks, and that its scheduler can judge.

A space names tasks as keys (`encoding/qqp`), in composite choices (`batch_size` {"sst": 16, "qqp": 32}) and as choices
(`task` sst | qqp). Parts that only concern declared tasks which the sweep does not have are left out, because the
configuration has no place for them; a dry run lists them. So one space serves any choice of tasks. For a single task
all ways to mix tasks are left out too: they give the same training. A name that is no declared task stays in the space:
`expand` and `check` report it.

Tasks that are trained one after the other cannot be compared before the last one: where a scheduler stops trials early,
this way to mix is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from search_spaces.domains import Kind, Node, OneOf, PerTask, SpaceError, same

MIXING = "mixing"
"""The part of a configuration that only matters if there are several tasks."""

LATE = "sequential"
"""The kind of mixing whose trials cannot be judged before their end."""

_GONE = object()
"""Stands for a choice that only concerned absent tasks."""


class _NothingLeftError(SpaceError):
    """All choices of a parameter are absent tasks."""


def restrict(space: Mapping[str, Node], absent: Collection[str]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space without the parts that only concern `absent` tasks, and the names of those parts, sorted.

    A branch is left out if a parameter of it can only choose absent tasks. Raises SpaceError if no branch remains.
    """
    return _Cut(frozenset(absent)).of(space)


def alone(space: Mapping[str, Node]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space of a sweep with one task, without the mixing of tasks, and the names of the parts left out, sorted.

    With one task every mixing draws that task, and there is nothing to combine or to balance.
    """
    return _Cut(frozenset(), mixed=False).of(space)


def judged_early(space: Mapping[str, Node]) -> tuple[dict[str, Node], tuple[str, ...]]:
    """The space of a sweep that stops trials early, without tasks one after the other, and the names of that branch."""
    return _Cut(frozenset(), late=False).of(space)


class _Cut:
    """A walk through a space that leaves out absent tasks, and what `mixed` and `late` say.

    Where `mixed` is false it leaves out the mixing of tasks, where `late` is false the mixing that is judged late.
    """

    def __init__(self, absent: frozenset[str], mixed: bool = True, late: bool = True) -> None:
        self.absent = absent
        self.mixed = mixed
        self.late = late
        self.left_out: set[str] = set()

    def of(self, space: Mapping[str, Node]) -> tuple[dict[str, Node], tuple[str, ...]]:
        """The remaining space, and the names of the parts left out; a part inside another one is not named."""
        remaining, names = self._tree(space, ""), self.left_out
        inner = {name for name in names for outer in names if name.startswith((f"{outer}/", f"{outer}.", f"{outer}:"))}
        return remaining, tuple(sorted(names - inner))

    def _tree(self, tree: Mapping[str, Node], where: str) -> dict[str, Node]:
        remaining: dict[str, Node] = {}
        for key, child in tree.items():
            name = f"{where}/{key}" if where else str(key)
            node = None if self._is_useless(key, where) else self._node(child, name)
            if node is None:
                self.left_out.add(name)
                remaining |= self._elsewhere(child, name)
            else:
                remaining[key] = node
        return remaining

    def _is_useless(self, key: object, where: str) -> bool:
        """Whether a key names an absent task, or the mixing of a single task."""
        if not isinstance(key, str):
            return False  # `expand` reports it
        parts = key.removeprefix("/").split("/")
        unmixed = not self.mixed and parts[0] == MIXING and (not where or key.startswith("/"))
        return unmixed or not self.absent.isdisjoint(parts)

    def _elsewhere(self, node: Any, where: str) -> dict[str, Node]:
        """The parameters that the first branch of a removed kind names by absolute paths, as far as they remain.

        A space may give domains of one task in the branches of another task: parameters that both tasks share exist
        where both allow them.
        """
        if not isinstance(node, Kind):
            return {}
        branch = next(iter(node.branches.values()))
        return self._tree({key: child for key, child in branch.items() if key.startswith("/")}, where)

    def _node(self, node: Any, where: str) -> Any:
        """The remaining part of a node; None if nothing remains."""
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
        return node  # a range, or a mistake that `expand` reports

    def _kind(self, node: Kind, where: str) -> Kind:
        branches, removed = {}, None
        for kind, branch in node.branches.items():
            if not self.late and kind == LATE and where.rpartition("//")[2] == MIXING and len(node.branches) > 1:
                self.left_out.add(f"{where}.{kind}")
                continue
            try:
                branches[kind] = self._tree(branch, f"{where}.{kind}")
            except _NothingLeftError as error:
                self.left_out.add(f"{where}.{kind}")
                removed = error
        if not branches and removed is not None:
            raise removed
        return node.changed(branches)

    def _choices(self, node: OneOf, where: str) -> OneOf | None:
        """The choices without the absent tasks; choices that become equal are one choice, with the first label."""
        values = [_without(value, self.absent) for value in node.values]
        if all(same(cut, value) for cut, value in zip(values, node.values, strict=True)):
            return node
        remaining = {label: value for label, value in zip(node.labels, values, strict=True) if value is not _GONE}
        if not remaining and any(isinstance(value, str) for value in node.values):
            raise _NothingLeftError(
                f"{where}: each of its choices ({node.extent}) is a task that this sweep does not have."
            )
        self.left_out.add(f"{where}: {', '.join(sorted(self.absent & _names(node.values)))}")
        if not remaining:
            return None
        # Labels that OneOf made from the values are made again; labels that the space's author wrote are kept.
        made, changed = OneOf(*node.values).labels == node.labels, node.changed(remaining)
        return OneOf(*changed.values, weights=changed.weights or changed.share) if made else changed


def _without(value: Any, absent: frozenset[str]) -> Any:
    """A choice's value without the absent tasks among its keys or items; `_GONE` if nothing else is in it."""
    if isinstance(value, Mapping):
        remaining: Any = {key: item for key, item in value.items() if key not in absent}
    elif isinstance(value, list):
        remaining = [item for item in value if not (isinstance(item, str) and item in absent)]
    else:
        return _GONE if isinstance(value, str) and value in absent else value
    return remaining if remaining or not value else _GONE


def _names(values: Collection[Any]) -> set[str]:
    """Every text among the values, their keys and their items."""
    parts = (list(value) if isinstance(value, Mapping | list) else [value] for value in values)
    return {name for part in parts for name in part if isinstance(name, str)}
