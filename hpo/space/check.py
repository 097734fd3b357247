"""Search spaces checked before any compute, and listed.

`check` draws the ends of domains, and many combinations, through the strict configuration.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hpo.space.pins import apply_pins, pin
from hpo.space.tree import (
    Leaf,
    Nested,
    compose,
    flatten,
    leaves,
)
from search_spaces.domains import Node, SpaceError

Complete = Callable[[dict[str, Any]], dict[str, Any]]

DRAWS = 200
"""Random configurations that `check` tries: choices that are legal one by one may not be legal together."""


def check(space: Mapping[str, Node], complete: Complete, pinned: Mapping[str, Any] | None = None) -> int:
    """Draw every branch, both ends of every domain and random combinations through `complete`; returns how many
    configurations that was.

    Raises SpaceError with the parameter's name in front of what the configuration objects to.
    """
    if pinned:
        _check_pins(space, complete, pinned)
    pinned_space = pin(leaves(space), pinned or {})
    _complete(complete, compose(pinned_space, Leaf.first)[0], "The first configuration of the space")
    count = 1
    for leaf, choice, config in _probes(pinned_space):
        _complete(complete, config, f"Search space, {leaf.name} = {choice!r}")
        count += 1
    return count + _check_combinations(pinned_space, complete)


def _check_combinations(space: Sequence[Leaf], complete: Complete) -> int:
    if all(leaf.constant for leaf in space):
        return 0
    source = random.Random(0)  # the same space is refused, or not, every time
    for _ in range(DRAWS):
        drawn = compose(space, lambda leaf: leaf.random(source))[1]
        error = _objection(space, complete, drawn)
        if error is not None:
            few, error = _smallest(space, complete, drawn, error)
            named = ", ".join(f"{name} = {choice!r}" for name, choice in few.items())
            raise SpaceError(
                f"Search space, {named} together: {error} Give such parameters to the branches of a Kind, so that "
                "only legal combinations can be drawn."
            ) from error
    return DRAWS


def _objection(space: Sequence[Leaf], complete: Complete, choices: Mapping[str, Any]) -> ValueError | None:
    """What `complete` says against these choices, the others being each domain's first; None: nothing."""
    try:
        complete(compose(space, lambda leaf: choices.get(leaf.name, leaf.first()))[0])
    except ValueError as error:
        return error
    return None


def _smallest(
    space: Sequence[Leaf], complete: Complete, choices: Mapping[str, Any], error: ValueError
) -> tuple[dict[str, Any], ValueError]:
    """As few of the choices as are still refused, and what is said against them."""
    kept = dict(choices)
    for name in choices:
        fewer = {other: choice for other, choice in kept.items() if other != name}
        objection = _objection(space, complete, fewer)
        if objection is not None:
            kept, error = fewer, objection
    return kept, error


def _check_pins(space: Mapping[str, Node], complete: Complete, pinned: Mapping[str, Any]) -> None:
    try:
        apply_pins({}, pinned, leaves(space), complete)
    except ValueError as error:
        kinds = {leaf.path for leaf in leaves(space) if leaf.path.endswith("/kind")} - flatten(pinned).keys()
        owners = [kind for kind in sorted(kinds) if any(path.startswith(kind[:-4]) for path in flatten(pinned))]
        told = not owners or "Give the kind as well" in str(error)
        hint = "" if told else f" A parameter of one kind needs that kind pinned as well: {owners[0]}=..."
        raise SpaceError(f"Pinned values: {error}{hint}") from error


def _complete(complete: Complete, config: Nested, what: str) -> Nested:
    try:
        return complete(config)
    except ValueError as error:
        raise SpaceError(f"{what}: {error}") from error


def _probes(space: Sequence[Leaf]) -> Iterator[tuple[Leaf, Any, Nested]]:
    """Every end of every domain, in a configuration in which that parameter exists."""
    for leaf in space:
        for choice in leaf.ends():
            yield leaf, choice, _probe(space, leaf, choice)


def _probe(space: Sequence[Leaf], target: Leaf, choice: Any) -> Nested:
    wanted = {**dict(target.conditions), target.path: choice}
    return compose(space, lambda leaf: wanted.get(leaf.path, leaf.first()))[0]


def every_branch(space: Sequence[Leaf]) -> Iterator[Nested]:
    """Configurations among which every branch of the space is taken once."""
    yield compose(space, Leaf.first)[0]
    for leaf, _, config in _probes(space):
        if leaf.path.endswith("/kind"):
            yield config


def defaults_taken(
    space: Mapping[str, Node], complete: Complete, pinned: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Configuration paths that no trial varies and no pin sets, with the defaults that they take in each branch.

    A field that only one branch has is named with it, as in `adapter.lora/bias`.
    """
    pinned_space = pin(leaves(space), pinned or {})
    taken: dict[str, Any] = {}
    varied = {leaf.path for leaf in pinned_space}
    for config in every_branch(pinned_space):
        whole = complete(config)
        for path, value in flatten(whole).items():
            if not any(path == leaf or path.startswith(f"{leaf}/") for leaf in varied):
                taken.setdefault(_with_branches(path, whole), value)
    taken.pop("config_version", None)
    return dict(sorted(taken.items()))


def _with_branches(path: str, config: Mapping[str, Any]) -> str:
    """adapter/rank as adapter.lora/rank where the configuration's adapter is of kind lora."""
    parts, node = [], config
    *parents, key = path.split("/")
    for parent in parents:
        node = node[parent]
        kind = node.get("kind") if key != "kind" or parent != parents[-1] else None
        parts.append(f"{parent}.{kind}" if isinstance(kind, str) else parent)
    return "/".join([*parts, key])


def describe(space: Mapping[str, Node], pinned: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
    """One row a parameter for `--dry-run`: name, path, domain as text, when it exists, type."""
    rows = []
    for leaf in pin(leaves(space), pinned or {}):
        when = ", ".join(f"{path} = {kind}" for path, kind in leaf.conditions)
        kind = "fixed" if leaf.constant else type(leaf.domain).__name__
        rows.append({"name": leaf.name, "path": leaf.path, "domain": str(leaf.domain), "when": when, "type": kind})
    return rows
