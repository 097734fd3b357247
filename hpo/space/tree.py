"""A search space as a list of leaves: names and draws.

A leaf is one parameter: where it stands in the configuration (`adapter/rank`), what Optuna and the store call it
(`adapter.lora/rank`: the branch is named, so that two branches may give one name different domains, which Optuna
refuses otherwise), its domain, and the conditions under which it exists (adapter/kind = lora). A branch that gives a
domain to a parameter elsewhere names it with the absolute path after a double slash:
`adapter.lora//optimizer/encoder_lr` is the path optimizer/encoder_lr.

Keys are walked in sorted order, so a space's draws do not depend on the order in which it was written down.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from search_spaces.domains import KEY, Domain, Float, Int, Kind, Node, OneOf, PerTask, SpaceError, same

Nested = dict[str, Any]
Conditions = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Leaf:
    """One parameter of a space."""

    path: str
    """Where it stands in the configuration: adapter/rank."""
    name: str
    """What Optuna and the store call it: adapter.lora/rank."""
    domain: Domain
    conditions: Conditions = ()
    """It exists where every one of these paths has this value: (("adapter/kind", "lora"),)."""

    @property
    def constant(self) -> bool:
        """One possible value: written into configurations, unknown to Optuna."""
        if isinstance(self.domain, OneOf):
            return len(self.domain.values) == 1
        return self.domain.low == self.domain.high

    def value(self, choice: Any) -> Any:
        """The configuration's value for what Optuna drew."""
        return self.domain.value(choice) if isinstance(self.domain, OneOf) else choice

    def choice(self, value: Any) -> Any:
        """What Optuna would have drawn for a configuration's value; SpaceError where it never would."""
        if isinstance(self.domain, OneOf):
            return self.domain.choice(_begun(self.domain, value))
        low, high = self.domain.low, self.domain.high
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise SpaceError(f"{self.name}: {value!r} is not within {self.domain}.")
        if isinstance(self.domain, Float):
            return float(value)
        if value != int(value) or (value - low) % self.domain.step:
            raise SpaceError(f"{self.name}: {value!r} is not within {self.domain}.")
        return int(value)

    def first(self) -> Any:
        """One legal choice."""
        return self.domain.choices[0] if isinstance(self.domain, OneOf) else self.domain.low

    def random(self, source: random.Random) -> Any:
        """A choice at random, uniform on the domain's scale."""
        domain = self.domain
        if isinstance(domain, OneOf):
            return source.choice(domain.choices)
        if isinstance(domain, Int):
            return source.randrange(domain.low, domain.high + 1, domain.step)
        if not domain.log:
            return source.uniform(domain.low, domain.high)
        drawn = math.exp(source.uniform(math.log(domain.low), math.log(domain.high)))
        return min(max(drawn, domain.low), domain.high)

    def ends(self) -> tuple[Any, ...]:
        """The choices at which a domain is checked: both ends of a range, every value of a choice."""
        return self.domain.choices if isinstance(self.domain, OneOf) else (self.domain.low, self.domain.high)


def _begun(domain: OneOf, value: Any) -> Any:
    """The longest composite value of the domain that `value` completes: a choice {"sst": 8} is {"sst": 8, "qqp": 32} in
    a complete configuration, a choice [b] may be [b, a]. `value` itself where it is one of them, or completes none."""
    if any(same(value, known) for known in domain.values):
        return value
    begun = [known for known in domain.values if _completes(value, known)]
    return max(begun, key=len, default=value)


def _completes(value: Any, known: Any) -> bool:
    if isinstance(value, Mapping) and isinstance(known, Mapping):
        return all(key in value and same(value[key], one) for key, one in known.items())
    if isinstance(value, list) and isinstance(known, list):
        return same(value[: len(known)], known)
    return False


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"adapter": {"rank": 8}} as {"adapter/rank": 8}; an empty dict stays a value."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[prefix + key] = value
    return flat


def nest(flat: Mapping[str, Any]) -> Nested:
    """{"adapter/rank": 8} as {"adapter": {"rank": 8}}."""
    nested: Nested = {}
    for path, value in flat.items():
        *parents, key = path.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return nested


def path_of(name: str) -> str:
    """The configuration path behind Optuna's name: adapter.lora/rank is adapter/rank."""
    relative = name.rpartition("//")[2]
    return "/".join(part.partition(".")[0] for part in relative.split("/"))


def expand(space: Mapping[str, Node], tasks: Sequence[str]) -> dict[str, Node]:
    """The space with every PerTask written out over the declared tasks, its keys and leaves checked."""
    expanded: dict[str, Node] = {key: _expand(node, tuple(tasks), _key(key, "")) for key, node in space.items()}
    leaves(expanded)
    return expanded


def _expand(node: Any, tasks: tuple[str, ...], where: str) -> Node:
    if isinstance(node, PerTask):
        for task in node.overrides:
            if task not in tasks:
                near = get_close_matches(task, tasks, n=1)
                hint = f" Did you mean `{near[0]}`?" if near else ""
                raise SpaceError(f"{where}: PerTask names an unknown task `{task}`.{hint} "
                                 f"Expected one of: {', '.join(tasks)}.")
        return {task: _expand(node.overrides.get(task, node.node), tasks, f"{where}/{task}") for task in tasks}
    if isinstance(node, Kind):
        return Kind(**{name: {key: _expand(child, tasks, _key(key, f"{where}.{name}")) for key, child in branch.items()}
                       for name, branch in node.branches.items()})
    if isinstance(node, Mapping):
        return {key: _expand(child, tasks, _key(key, where)) for key, child in node.items()}
    if isinstance(node, Float | Int | OneOf):
        return node
    raise SpaceError(f"{where}: expected Float, Int, OneOf, Kind, PerTask or a dict of them, not {node!r}. "
                     "To fix a value write OneOf(value).")


def _key(key: Any, where: str) -> str:
    parts = key.removeprefix("/").split("/") if isinstance(key, str) and key.startswith("/") else [key]
    if not all(isinstance(part, str) and KEY.fullmatch(part) for part in parts):
        raise SpaceError(f"{where or 'space'}: a key holds letters, digits, _ and - (or is an absolute path such as "
                         f"/optimizer/encoder_lr), not {key!r}.")
    return f"{where}/{key}" if where else str(key)


def leaves(space: Mapping[str, Node]) -> tuple[Leaf, ...]:
    """The parameters of an expanded space in the order in which they are drawn: a kind before its branches."""
    found = tuple(_walk(space, "", "", ()))
    for index, leaf in enumerate(found):
        for other in found[:index]:
            _refuse_overlap(other, leaf)
    return found


def _walk(node: Node, path: str, name: str, conditions: Conditions) -> Iterator[Leaf]:
    if isinstance(node, PerTask):
        raise SpaceError(f"{name}: PerTask is written out over the tasks first: expand(space, tasks).")
    if isinstance(node, Kind):
        yield Leaf(f"{path}/kind", f"{name}/kind", OneOf(*node.branches), conditions)
        for kind, branch in node.branches.items():
            yield from _walk(branch, path, f"{name}.{kind}", (*conditions, (f"{path}/kind", kind)))
    elif isinstance(node, Mapping):
        for key in sorted(node):
            here = key[1:] if key.startswith("/") else f"{path}/{key}".lstrip("/")
            yield from _walk(node[key], here, f"{name}/{key}" if name else key.lstrip("/"), conditions)
    else:
        yield Leaf(path, name, node, conditions)


def _refuse_overlap(a: Leaf, b: Leaf) -> None:
    inside = a.path == b.path or a.path.startswith(f"{b.path}/") or b.path.startswith(f"{a.path}/")
    values = dict(a.conditions)
    together = all(values.get(path, kind) == kind for path, kind in b.conditions)
    if inside and together:
        raise SpaceError(f"{a.name} and {b.name} both set `{a.path if len(a.path) > len(b.path) else b.path}` in one "
                         "configuration; give it one domain, or one in each branch of a Kind.")


def compose(space: Sequence[Leaf], choose: Callable[[Leaf], Any]) -> tuple[Nested, dict[str, Any]]:
    """The configuration, and the parameters by Optuna's names, that `choose` makes of a space.

    `choose` is asked once for every leaf that exists under the choices so far, constants excepted.
    """
    flat: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    for leaf in space:
        if all(flat.get(path) == kind for path, kind in leaf.conditions):
            choice = leaf.first() if leaf.constant else choose(leaf)
            flat[leaf.path] = leaf.value(choice)
            if not leaf.constant:
                parameters[leaf.name] = choice
    return nest(flat), parameters


def configuration(space: Sequence[Leaf], parameters: Mapping[str, Any]) -> Nested:
    """The configuration that parameters, by Optuna's names, stand for."""
    return compose(space, lambda leaf: parameters[leaf.name])[0]


def parameters(space: Sequence[Leaf], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters, by Optuna's names, that draw this configuration's values; None where the space never does.

    Of a composite value that completes a choice, the choice: whoever needs the configuration itself compares it with
    the one that these parameters make.
    """

    def choose(leaf: Leaf) -> Any:
        return leaf.choice(_at(config, leaf.path))

    try:
        return compose(space, choose)[1]
    except (KeyError, SpaceError):
        return None


def _at(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("/"):
        if not isinstance(value, Mapping):
            raise KeyError(path)
        value = value[key]
    return value
