"""Pinned parameters: `--set` fixes them in every trial that has them.

A pin narrows the space from which trials are drawn (`pin`) and changes given configurations (`apply_pins`). Where every
branch that owns the parameter is pinned away, the pin is a constant of all configurations, so that the configuration
itself says whether it can hold; where only some branches own it, `partly` says which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpo.space.tree import Conditions, Leaf, Nested, flatten, nest
from search_spaces.domains import OneOf, same


def pin(space: Sequence[Leaf], pinned: Mapping[str, Any]) -> tuple[Leaf, ...]:
    """The space with `pinned`, a nested configuration, fixed: a pinned kind leaves one branch, a pinned leaf no domain.

    A pin inside a composite choice (`batch_size/sst` where whole batch sizes are drawn) changes every choice, and a
    pin that the space does not vary is a constant of every configuration.
    """
    pins = flatten(pinned)
    used: set[str] = set()
    result: list[Leaf] = []
    for leaf in space:
        inside = {path: value for path, value in pins.items() if path.startswith(f"{leaf.path}/")}
        if not _possible(leaf, pins):
            continue
        if leaf.path in pins:
            used.add(leaf.path)
            result.append(replace(leaf, domain=OneOf(pins[leaf.path])))
        elif inside and isinstance(leaf.domain, OneOf):
            used.update(inside)
            result.append(replace(leaf, domain=_pin_inside(leaf.domain, leaf.path, inside)))
        else:
            result.append(leaf)
    return (*result, *(Leaf(path, path, OneOf(value)) for path, value in pins.items() if path not in used))


def _possible(leaf: Leaf, pins: Mapping[str, Any]) -> bool:
    return all(pins.get(path, kind) == kind for path, kind in leaf.conditions)


def _pin_inside(domain: OneOf, path: str, pins: Mapping[str, Any]) -> OneOf:
    kept: dict[str, Any] = {}
    for label, value in zip(domain.labels, domain.values, strict=True):
        base = flatten(value) if isinstance(value, Mapping) else {}
        changed = nest({**base, **{name[len(path) + 1:]: pinned for name, pinned in pins.items()}})
        if not any(same(changed, earlier) for earlier in kept.values()):
            kept[label] = changed
    return OneOf(labels=kept)


def apply_pins(
    config: Mapping[str, Any],
    pinned: Mapping[str, Any],
    space: Sequence[Leaf],
    complete: Callable[[Nested], Nested],
) -> Nested:
    """A given (or the default) configuration under the pins, complete.

    Pins hold in every trial that has the parameter: `adapter/rank` says nothing to a trial without LoRA. Kinds first,
    for they decide what exists; a changed kind takes its new branch's defaults.
    """
    result = complete(dict(config))
    pins = flatten(pinned)
    for path in sorted(pins, key=lambda path: (not path.endswith("/kind"), path.count("/"), path)):
        homes = [leaf for leaf in space if leaf.path == path and _possible(leaf, pins)]
        if not homes or any(_holds(leaf.conditions, flatten(result)) for leaf in homes):
            result = complete(_set(result, path.split("/"), pins[path]))
    return result


def partly(space: Sequence[Leaf], pinned: Mapping[str, Any]) -> list[str]:
    """One line for each pin that only some branches of the space have: which, and how many of how many."""
    narrowed = pin(space, pinned)
    lines = []
    for path, value in flatten(pinned).items():
        homes = [leaf for leaf in narrowed if f"{path}/".startswith(f"{leaf.path}/")]
        deciding = {kind for leaf in homes for kind, _ in leaf.conditions}
        ways = list(branches([leaf for leaf in narrowed if leaf.path in deciding]))
        having = sum(any(_holds(leaf.conditions, way) for leaf in homes) for way in ways)
        if having < len(ways):
            fixed = {leaf.path for leaf in narrowed if leaf.constant}
            where = " or ".join(dict.fromkeys(_where(leaf.conditions, fixed) for leaf in homes))
            word = value if isinstance(value, str) else json.dumps(value)
            lines.append(f"{path}={word} applies where {where}: {having} of {len(ways)} branches")
    return lines


def branches(space: Sequence[Leaf], chosen: Mapping[str, Any] | None = None) -> Iterator[Mapping[str, Any]]:
    """Every way to choose the values of a few leaves, by path; of a range its two ends. Kinds before their branches."""
    chosen = chosen or {}
    if not space:
        yield chosen
        return
    leaf, *rest = space
    if not _holds(leaf.conditions, chosen):
        yield from branches(rest, chosen)
        return
    for choice in leaf.ends():
        yield from branches(rest, {**chosen, leaf.path: leaf.value(choice)})


def _where(conditions: Conditions, fixed: set[str]) -> str:
    return " and ".join(f"{path} = {kind}" for path, kind in conditions if path not in fixed)


def _holds(conditions: Conditions, flat: Mapping[str, Any]) -> bool:
    return all(flat.get(path) == kind for path, kind in conditions)


def _set(config: Mapping[str, Any], path: Sequence[str], value: Any) -> Nested:
    key, *rest = path
    if rest:
        child = config.get(key, {})
        return {**config, key: _set(child if isinstance(child, Mapping) else {}, rest, value)}
    if key == "kind" and config.get("kind") != value:
        return {"kind": value}
    return {**config, key: value}
