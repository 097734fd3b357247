"""Which trials a pin reaches: none, which is a mistake; some, which a launch says; or all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hpo.space.mistakes import objection
from hpo.space.pins import Complete, applied, apply_pins, changed, has, holds, kinds_first, narrowed
from hpo.space.tree import Leaf, Nested, flatten, nest


def refused(space: Sequence[Leaf], pinned: Mapping[str, Any], complete: Complete) -> dict[str, ValueError]:
    """The pins, by path, that neither a branch of the space nor the default configuration takes, with the reason.

    Where only their combination is refused, the reason stands under the first of them.
    """
    pins = flatten(pinned)
    ways = list(_each_branch(space, complete)) if pins else []
    held, reasons = _held(ways, pinned, space, complete)
    missing = [path for path in kinds_first(pins) if path not in held]
    errors: dict[str, ValueError] = {}
    for path in missing:
        having = [way for way in ways if has(way, path)]
        held_alone, alone = _held(having, nest({path: pins[path]}), space, complete)
        if alone and not held_alone:
            errors[path] = alone[0]
    kinds = {path: kind for path, kind in pins.items() if path.endswith("/kind") and path not in errors}
    for path in missing:
        others = {other: kind for other, kind in kinds.items() if other != path}
        under = list(_under(ways, others, space, complete)) or ways
        absent = path not in errors and not any(has(way, path) for way in under)
        if absent and (error := objection(partial(changed, under[0], [path], pins, complete))) is not None:
            errors[path] = error
    return errors or {path: reasons[0] for path in missing[:1] if reasons}


def _held(
    ways: Sequence[Nested], pinned: Mapping[str, Any], space: Sequence[Leaf], complete: Complete
) -> tuple[set[str], list[ValueError]]:
    """The pins that hold in one of the configurations, and the errors of configurations that refuse them."""
    held: set[str] = set()
    errors = []
    for way in ways:
        try:
            held |= applied(way, pinned, space, complete)[1]
        except ValueError as error:
            errors.append(error)
    return held, errors


def _under(
    ways: Sequence[Nested], kinds: Mapping[str, Any], space: Sequence[Leaf], complete: Complete
) -> Iterator[Nested]:
    """The configurations under pinned kinds, where they are legal."""
    for way in ways:
        try:
            yield apply_pins(way, nest(kinds), space, complete)
        except ValueError:
            continue


def _each_branch(space: Sequence[Leaf], complete: Complete) -> Iterator[Nested]:
    """The default configuration, then the defaults of each branch of the space that is legal by itself."""
    yield complete({})
    for leaf in space:
        for kind in leaf.ends() if leaf.is_kind else ():
            try:
                yield complete(nest({**dict(leaf.conditions), leaf.path: kind}))
            except ValueError:
                continue


def partly(space: Sequence[Leaf], pinned: Mapping[str, Any], complete: Complete) -> list[str]:
    """One line for each pin that only some branches of the space have: which, and how many of how many."""
    leaves, lines = narrowed(space, pinned), []
    for path, value in flatten(pinned).items():
        ways, holding = [], []
        for way in branches(_deciding(leaves, path)):
            try:
                held = applied(nest(way), pinned, space, complete)[1]
            except ValueError:
                continue
            ways.append(way)
            holding += [way] if path in held else []
        if len(holding) < len(ways):
            word = value if isinstance(value, str) else json.dumps(value)
            lines.append(f"{path}={word} applies where {_where(ways, holding)}: {len(holding)} of {len(ways)} branches")
    return lines


def _deciding(space: Sequence[Leaf], path: str) -> list[Leaf]:
    """The kinds that decide whether a trial has the parameter, each after those that it depends on."""
    deciding = {leaf.path for leaf in space if leaf.is_kind and path.startswith(leaf.path.removesuffix("kind"))}
    deciding |= {kind for leaf in space if f"{path}/".startswith(f"{leaf.path}/") for kind, _ in leaf.conditions}
    deciding |= {kind for leaf in space if leaf.path in deciding for kind, _ in leaf.conditions}
    return [leaf for leaf in space if leaf.path in deciding - {path}]


def _where(ways: Sequence[Mapping[str, Any]], holding: Sequence[Mapping[str, Any]]) -> str:
    """The ways in which a pin holds, told by as few kinds as tell them from the others."""
    paths = list(dict.fromkeys(path for way in ways for path in way))
    for path in list(paths):
        fewer = [other for other in paths if other != path]
        others = [_part(way, fewer) for way in ways if way not in holding]
        if not any(_part(way, fewer) in others for way in holding):
            paths = fewer
    words = [" and ".join(f"{path} = {kind}" for path, kind in _part(way, paths).items()) for way in holding]
    return " or ".join(dict.fromkeys(words)) or "no branch allows it"


def _part(way: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    return {path: way[path] for path in paths if path in way}


def branches(space: Sequence[Leaf], chosen: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
    """Every way to choose the values of a few leaves, by path; of a range its two ends. Kinds before their branches."""
    chosen = chosen or {}
    if not space:
        yield chosen
        return
    leaf, *rest = space
    if not holds(leaf.conditions, chosen):
        yield from branches(rest, chosen)
        return
    for choice in leaf.ends():
        yield from branches(rest, {**chosen, leaf.path: leaf.value(choice)})
