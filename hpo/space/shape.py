"""Shape of a tree, checked before any other code walks through it: finite, legal keys, domains as leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from search_spaces.domains import KEY, Float, Int, Kind, Node, OneOf, PerTask, SpaceError

DEEPEST = 32
"""Largest depth of dictionaries, kinds and PerTasks. The space `full` has 9; Python's stack ends at some hundreds."""
LARGEST = 10_000
"""Largest number of nodes; a node in two places counts twice. The space `full` has about 200."""


def refuse_endless(space: Mapping[str, Node]) -> None:
    """Raise SpaceError for a tree that contains itself, is deeper than DEEPEST or larger than LARGEST."""
    for count, _ in enumerate(_nodes(space, "SPACE", {})):
        if count == LARGEST:
            raise SpaceError(f"SPACE must hold at most {LARGEST:,} nodes, found more.")


def _nodes(node: Any, where: str, parents: Mapping[int, str]) -> Iterator[Any]:
    """The node and every node below it; `parents` are the nodes above it, id -> name."""
    yield node
    if id(node) in parents:
        raise SpaceError(
            f"{where} is the same object as {parents[id(node)]}, which contains it. A space must not contain itself: "
            "give the inner place a tree of its own."
        )
    if len(parents) > DEEPEST:
        raise SpaceError(f"{where} lies in more than {DEEPEST} dictionaries and branches; no parameter lies that deep.")
    for name, child in _children(node):
        yield from _nodes(child, f"{where}{name}", {**parents, id(node): where})


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    """The nodes directly below a node, each with the end of its name."""
    if isinstance(node, Mapping):
        yield from ((f"/{key}", child) for key, child in node.items())
    elif isinstance(node, Kind):
        yield from ((f".{name}", branch) for name, branch in node.branches.items())
    elif isinstance(node, PerTask):
        yield "", node.node
        yield from ((f"/{task}", child) for task, child in node.overrides.items())


def sound(space: Mapping[str, Node]) -> tuple[dict[str, Node], list[str]]:
    """The legal part of a finite tree, and one mistake for each illegal key or leaf."""
    mistakes: list[str] = []
    return _sound_tree(space, "", mistakes), mistakes


def _sound_tree(tree: Mapping[Any, Any], where: str, mistakes: list[str]) -> dict[str, Node]:
    legal: dict[str, Node] = {}
    for key, child in tree.items():
        if (mistake := _key_mistake(key, where)) is not None:
            mistakes.append(mistake)
        elif (node := _sound_node(child, f"{where}/{key}" if where else key, mistakes)) is not None:
            legal[key] = node
    return legal


def _sound_node(node: Any, where: str, mistakes: list[str]) -> Node | None:
    if isinstance(node, PerTask):
        inner = _sound_node(node.node, where, mistakes)
        own = {task: _sound_node(child, f"{where}/{task}", mistakes) for task, child in node.overrides.items()}
        legal = {task: child for task, child in own.items() if child is not None}
        return None if inner is None else PerTask(inner, **legal)
    if isinstance(node, Kind):
        branches = node.branches.items()
        return node.changed({name: _sound_tree(branch, f"{where}.{name}", mistakes) for name, branch in branches})
    if isinstance(node, Mapping):
        return _sound_tree(node, where, mistakes)
    if isinstance(node, Float | Int | OneOf):
        return node
    mistakes.append(
        f"{where}: expected Float, Int, OneOf, Kind, PerTask or a dict of them, not {node!r}. "
        "To fix a value write OneOf(value)."
    )
    return None


def _key_mistake(key: Any, where: str) -> str | None:
    """The mistake of a key; None if the key is legal."""
    parts = key.removeprefix("/").split("/") if isinstance(key, str) else [key]
    legal = all(isinstance(part, str) and KEY.fullmatch(part) for part in parts)
    if legal and (len(parts) == 1 or key.startswith("/")):
        return None
    absolute = f' Write "/{key}", with a leading slash, for a parameter elsewhere.' if legal else ""
    return (
        f"{where or 'space'}: a key holds letters, digits, _ and - (or is an absolute path such as "
        f'"/optimizer/encoder_lr"), not {key!r}.{absolute}'
    )
