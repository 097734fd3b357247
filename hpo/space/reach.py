"""Reach of a pin: it holds in no trial (a mistake), in some trials (a note of the dry run) or in all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from hpo.space.mistakes import objection
from hpo.space.pins import Complete, applied, apply_pins, changed, has, holds, kinds_first, narrowed
from hpo.space.tree import Leaf, Nested, flatten, nest


def refused(space: Sequence[Leaf], pinned: Mapping[str, Any], complete: Complete) -> dict[str, ValueError]:
    """Path -> reason, for the pins that neither a branch of the space nor the default configuration accepts.

    If only the combination of several pins is refused, the reason is listed under the first of them.
    """
    pins = flatten(pinned)
    configs = list(_each_branch(space, complete)) if pins else []
    held, reasons = _held(configs, pinned, space, complete)
    missing = [path for path in kinds_first(pins) if path not in held]
    errors: dict[str, ValueError] = {}
    for path in missing:
        having = [config for config in configs if has(config, path)]
        held_alone, reasons_alone = _held(having, nest({path: pins[path]}), space, complete)
        if reasons_alone and not held_alone:
            errors[path] = reasons_alone[0]
    kinds = {path: kind for path, kind in pins.items() if path.endswith("/kind") and path not in errors}
    for path in missing:
        other_kinds = {kind_path: kind for kind_path, kind in kinds.items() if kind_path != path}
        under = list(_under(configs, other_kinds, space, complete)) or configs
        absent = path not in errors and not any(has(config, path) for config in under)
        if absent and (error := objection(partial(changed, under[0], [path], pins, complete))) is not None:
            errors[path] = error
    return errors or {path: reasons[0] for path in missing[:1] if reasons}


def _held(
    configs: Sequence[Nested], pinned: Mapping[str, Any], space: Sequence[Leaf], complete: Complete
) -> tuple[set[str], list[ValueError]]:
    """The pins that hold in at least one configuration, and the errors of configurations that refuse them."""
    held: set[str] = set()
    errors = []
    for config in configs:
        try:
            held |= applied(config, pinned, space, complete)[1]
        except ValueError as error:
            errors.append(error)
    return held, errors


def _under(
    configs: Sequence[Nested], kinds: Mapping[str, Any], space: Sequence[Leaf], complete: Complete
) -> Iterator[Nested]:
    """The configurations under pinned kinds, as far as they are legal."""
    for config in configs:
        try:
            yield apply_pins(config, nest(kinds), space, complete)
        except ValueError:
            continue


def _each_branch(space: Sequence[Leaf], complete: Complete) -> Iterator[Nested]:
    """The default configuration, then each branch of the space with its defaults, if that is legal by itself."""
    yield complete({})
    for leaf in space:
        for kind in leaf.ends() if leaf.is_kind else ():
            try:
                yield complete(nest({**dict(leaf.conditions), leaf.path: kind}))
            except ValueError:
                continue


def partly(space: Sequence[Leaf], pinned: Mapping[str, Any], complete: Complete) -> list[str]:
    """One line for each pin that only some branches of the space have: which branches, how many, out of how many."""
    leaves, notes = narrowed(space, pinned), []
    for path, value in flatten(pinned).items():
        legal, holding = [], []
        for kinds in branches(_deciding(leaves, path)):
            try:
                held = applied(nest(kinds), pinned, space, complete)[1]
            except ValueError:
                continue
            legal.append(kinds)
            holding += [kinds] if path in held else []
        if len(holding) < len(legal):
            text = value if isinstance(value, str) else json.dumps(value)
            number = f"{len(holding)} of {len(legal)} branches"
            notes.append(f"{path}={text} applies where {_where(legal, holding)}: {number}")
    return notes


def _deciding(space: Sequence[Leaf], path: str) -> list[Leaf]:
    """The kinds that decide whether a trial has the parameter, each after the kinds that it depends on."""
    deciding = {leaf.path for leaf in space if leaf.is_kind and path.startswith(leaf.path.removesuffix("kind"))}
    deciding |= {kind for leaf in space if f"{path}/".startswith(f"{leaf.path}/") for kind, _ in leaf.conditions}
    deciding |= {kind for leaf in space if leaf.path in deciding for kind, _ in leaf.conditions}
    return [leaf for leaf in space if leaf.path in deciding - {path}]


def _where(legal: Sequence[Mapping[str, Any]], holding: Sequence[Mapping[str, Any]]) -> str:
    """The branches in which a pin holds, described by as few kinds as tell them from the other branches."""
    paths = list(dict.fromkeys(path for kinds in legal for path in kinds))
    for path in list(paths):
        fewer = [remaining for remaining in paths if remaining != path]
        without_pin = [_part(kinds, fewer) for kinds in legal if kinds not in holding]
        if not any(_part(kinds, fewer) in without_pin for kinds in holding):
            paths = fewer
    texts = [" and ".join(f"{path} = {kind}" for path, kind in _part(kinds, paths).items()) for kinds in holding]
    return " or ".join(dict.fromkeys(texts)) or "no branch allows it"


def _part(kinds: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    return {path: kinds[path] for path in paths if path in kinds}


def branches(space: Sequence[Leaf], chosen: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
    """Every combination of values of a few leaves, as path -> value; a range has its two ends as values.

    A kind must precede the leaves of its branches.
    """
    chosen = chosen or {}
    if not space:
        yield chosen
        return
    leaf, *later = space
    if not holds(leaf.conditions, chosen):
        yield from branches(later, chosen)
        return
    for choice in leaf.ends():
        yield from branches(later, {**chosen, leaf.path: leaf.value(choice)})
