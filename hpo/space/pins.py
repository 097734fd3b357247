"""Pins: parameters whose values are fixed, with `--set path=value`.

Rule: a pin holds in every trial whose configuration has the parameter.

- The configuration decides whether it has the parameter: `adapter/rank` exists under LoRA. A trial that trains the
  whole encoder has no rank and is not changed. If neither the space nor another pin chooses the kind, the default
  configuration does: `encoding/sst/pooling=mean` alone means the same as for `python -m minbert train`.
- A pinned kind is applied first, because it decides which parameters exist. It leaves one branch of the space.
- A space may give a parameter to some branches only (`shared_head/kind` where both pair tasks are encoded apart). The
  pin also holds in the other branches, unless their configuration refuses the value; those are not changed.
- A pin that neither a branch of the space nor the default configuration can have is refused. A pin that only some
  branches have is reported with their number: see `hpo.space.reach`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpo.space.mistakes import refuse
from hpo.space.tree import Conditions, Leaf, Nested, flatten, kinds_of, nest, path_of
from search_spaces.domains import OneOf, same

Complete = Callable[[Nested], Nested]
"""Fills in the defaults of a nested configuration; raises ValueError if it is illegal."""


def read_pins(settings: Sequence[str]) -> Nested:
    """`path=value` settings as a nested dictionary. Raises SpaceError or ConfigError."""
    refuse([_without_branches(text) for text in settings if "." in text.partition("=")[0] and "=" in text])
    if not settings:
        return {}
    from minbert.config import settings as read  # imported late: it imports torch, which the check above does without

    return read(settings)


def _without_branches(setting: str) -> str:
    """The error for a parameter's name in the store, which holds branches: it says what to write instead."""
    name, _, value = setting.partition("=")
    kinds = " ".join(f"--set {path}={kind}" for path, kind in kinds_of(name).items())
    if "/" not in name:
        path = name.replace(".", "/")
        return f"Pinned values: `{name}`: slashes join the parts of a parameter's path. Write --set {path}={value}."
    return (
        f"Pinned values: `{name}` names its branch, as the store does. Write --set {path_of(name)}={value}, which "
        f"holds in every trial that has the parameter; for that branch alone add {kinds}."
    )


def narrowed(space: Sequence[Leaf], pinned: Mapping[str, Any]) -> tuple[Leaf, ...]:
    """The leaves under the pins: a pinned kind leaves one branch, a pinned leaf one value.

    A pin inside a composite choice (`batch_size/sst` where whole batch sizes are drawn) changes every choice.
    """
    pins = flatten(pinned)
    result: list[Leaf] = []
    for leaf in space:
        inside = {path: value for path, value in pins.items() if path.startswith(f"{leaf.path}/")}
        if not _possible(leaf, pins):
            continue
        if leaf.path in pins:
            result.append(replace(leaf, domain=OneOf(pins[leaf.path])))
        elif inside and isinstance(leaf.domain, OneOf):
            result.append(replace(leaf, domain=_pin_inside(leaf.domain, leaf.path, inside)))
        else:
            result.append(leaf)
    return tuple(result)


def _possible(leaf: Leaf, pins: Mapping[str, Any]) -> bool:
    """Whether the pinned kinds allow the leaf's branch."""
    return all(pins.get(path, kind) == kind for path, kind in leaf.conditions)


def _pin_inside(domain: OneOf, path: str, pins: Mapping[str, Any]) -> OneOf:
    """The composite choices with the pins written into each; choices that become equal are one choice."""
    inside = {name[len(path) + 1 :]: pinned for name, pinned in pins.items()}

    def pinned_in(value: Any) -> Nested:
        return nest({**(flatten(value) if isinstance(value, Mapping) else {}), **inside})

    return domain.changed({label: pinned_in(value) for label, value in zip(domain.labels, domain.values, strict=True)})


def apply_pins(
    config: Mapping[str, Any], pinned: Mapping[str, Any], space: Sequence[Leaf], complete: Complete
) -> Nested:
    """A drawn, given or default configuration under the pins, complete. Raises the errors of `complete`."""
    return applied(config, pinned, space, complete)[0]


def applied(
    config: Mapping[str, Any], pinned: Mapping[str, Any], space: Sequence[Leaf], complete: Complete
) -> tuple[Nested, set[str]]:
    """The configuration under the pins, complete, and the paths of the pins that hold in it.

    Pins are applied one by one, kinds first. A pin that is refused is tried again after the others, which may make it
    legal (a shared head is legal once both encodings are `bi`). Pins that are still refused are then tried together.
    """
    result, pins = complete(dict(config)), flatten(pinned)
    waiting, holding = kinds_first(pins), set[str]()
    while True:
        refused: list[str] = []
        for path in waiting:
            if has(result, path) and not any(path.startswith(kind.removesuffix("kind")) for kind in refused):
                try:
                    result = changed(result, [path], pins, complete)
                    holding.add(path)
                except ValueError:
                    refused.append(path)
        if holding.isdisjoint(waiting):
            flat = flatten(result)
            together = [path for path in refused if not _given_elsewhere(space, path, pins, flat)]
            if not together:
                return result, holding
            result = changed(result, together, pins, complete)
            holding.update(together)
        waiting = [path for path in waiting if path not in holding]


def _given_elsewhere(space: Sequence[Leaf], path: str, pins: Mapping[str, Any], flat: Mapping[str, Any]) -> bool:
    """Whether the space has the parameter in other branches only than the configuration's."""
    leaves = [leaf for leaf in space if leaf.path == path and _possible(leaf, pins)]
    return bool(leaves) and not any(holds(leaf.conditions, flat) for leaf in leaves)


def holds(conditions: Conditions, flat: Mapping[str, Any]) -> bool:
    """Whether a flat configuration fulfils all conditions."""
    return all(flat.get(path) == kind for path, kind in conditions)


def kinds_first(pins: Mapping[str, Any]) -> list[str]:
    """Paths of the pins: kinds before other parameters, outer ones before inner ones."""
    return sorted(pins, key=lambda path: (not path.endswith("/kind"), path.count("/"), path))


def has(config: Mapping[str, Any], path: str) -> bool:
    """Whether a nested configuration has a value at a path."""
    value: Any = config
    for key in path.split("/"):
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True


def changed(config: Nested, paths: Sequence[str], pins: Mapping[str, Any], complete: Complete) -> Nested:
    """The configuration with the pins at `paths` written into it, complete."""
    result = config
    for path in paths:
        result = _set(result, path.split("/"), pins[path])
    return config if same(result, config) else complete(result)


def _set(config: Mapping[str, Any], path: Sequence[str], value: Any) -> Nested:
    key, *rest = path
    if rest:
        child = config.get(key, {})
        return {**config, key: _set(child if isinstance(child, Mapping) else {}, rest, value)}
    if key == "kind" and config.get("kind") != value:
        return {"kind": value}
    return {**config, key: value}
