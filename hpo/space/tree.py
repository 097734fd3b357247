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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hpo.space.mistakes import refuse
from hpo.space.shape import sound
from search_spaces.domains import Domain, Float, Int, Kind, Node, OneOf, PerTask, SpaceError, same

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

    @property
    def is_kind(self) -> bool:
        """Whether it chooses a branch."""
        return self.path.endswith("/kind")

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


def kinds_of(name: str) -> dict[str, str]:
    """The kinds that Optuna's name carries: adapter.lora/rank has {"adapter/kind": "lora"}."""
    kinds: dict[str, str] = {}
    for absolute in name.split("//"):
        path = ""
        for part in absolute.split("/"):
            key, dot, kind = part.partition(".")
            path = f"{path}/{key}".lstrip("/")
            if dot:
                kinds[f"{path}/kind"] = kind
    return kinds


def expand(space: Mapping[str, Node], tasks: Sequence[str]) -> dict[str, Node]:
    """The space with every PerTask written out over the run's tasks. Raises SpaceError with all its mistakes."""
    tree, mistakes = written_out(space, tasks)
    refuse(mistakes)
    return tree


def written_out(space: Mapping[str, Node], tasks: Sequence[str]) -> tuple[dict[str, Node], list[str]]:
    """The legal part of the space with every PerTask written out, and the mistakes that the tree itself shows."""
    legal, mistakes = sound(space)
    tree = {key: _expand(node, tuple(tasks), key, mistakes) for key, node in legal.items()}
    return tree, [*mistakes, *_overlaps(tuple(_walk(tree, "", "", ())))]


def _expand(node: Node, tasks: tuple[str, ...], where: str, mistakes: list[str]) -> Node:
    if isinstance(node, PerTask):
        for task in (name for name in node.overrides if name not in tasks):
            near = get_close_matches(task, tasks, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else ""
            mistakes.append(f"{where}: PerTask names an unknown task `{task}`.{hint} Expected one of: "
                            f"{', '.join(tasks)}.")
        nodes = {task: node.overrides.get(task, node.node) for task in tasks}
        return {task: _expand(child, tasks, f"{where}/{task}", mistakes) for task, child in nodes.items()}
    if isinstance(node, Kind):
        return Kind(**{name: _expand_all(branch, tasks, f"{where}.{name}", mistakes)
                       for name, branch in node.branches.items()})
    return _expand_all(node, tasks, where, mistakes) if isinstance(node, Mapping) else node


def _expand_all(
    tree: Mapping[str, Node], tasks: tuple[str, ...], where: str, mistakes: list[str]
) -> dict[str, Node]:
    return {key: _expand(child, tasks, f"{where}/{key}", mistakes) for key, child in tree.items()}


def leaves(space: Mapping[str, Node]) -> tuple[Leaf, ...]:
    """The parameters of an expanded space in the order in which they are drawn: a kind before its branches.

    Raises SpaceError where two of them set the same value.
    """
    parameters = tuple(_walk(space, "", "", ()))
    refuse(_overlaps(parameters))
    return parameters


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


def _overlaps(space: Sequence[Leaf]) -> list[str]:
    """One mistake for each two leaves that set the same value in one configuration."""
    mistakes = []
    seen: dict[str, list[Leaf]] = {}
    """Path -> leaves at it; those below it are found from their own paths."""
    below: dict[str, list[Leaf]] = {}
    for leaf in space:
        parts = leaf.path.split("/")
        above = ["/".join(parts[:length]) for length in range(1, len(parts))]
        others = [other for path in (*above, leaf.path) for other in seen.get(path, [])] + below.get(leaf.path, [])
        for other in others:
            if _together(other, leaf):
                path = max(leaf.path, other.path, key=len)
                mistakes.append(f"{other.name} and {leaf.name} both set `{path}` in one configuration; give it one "
                                "domain, or one in each branch of a Kind.")
        seen.setdefault(leaf.path, []).append(leaf)
        for path in above:
            below.setdefault(path, []).append(leaf)
    return mistakes


def _together(a: Leaf, b: Leaf) -> bool:
    """Whether one configuration may have both leaves."""
    kinds = dict(a.conditions)
    return all(kinds.get(path, kind) == kind for path, kind in b.conditions)


def chosen(space: Sequence[Leaf], choose: Callable[[Leaf], Any]) -> list[tuple[Leaf, Any]]:
    """The leaves that exist together, each with its choice.

    `choose` is asked once for every leaf that exists under the choices so far, constants excepted.
    """
    flat: dict[str, Any] = {}
    pairs: list[tuple[Leaf, Any]] = []
    for leaf in space:
        if all(flat.get(path) == kind for path, kind in leaf.conditions):
            choice = leaf.first() if leaf.constant else choose(leaf)
            flat[leaf.path] = leaf.value(choice)
            pairs.append((leaf, choice))
    return pairs


def written(pairs: Iterable[tuple[Leaf, Any]]) -> Nested:
    """The nested configuration of leaves with their choices."""
    return nest({leaf.path: leaf.value(choice) for leaf, choice in pairs})


def compose(space: Sequence[Leaf], choose: Callable[[Leaf], Any]) -> tuple[Nested, dict[str, Any]]:
    """The configuration, and the parameters by Optuna's names, that `choose` makes of a space; see `chosen`."""
    pairs = chosen(space, choose)
    return written(pairs), {leaf.name: choice for leaf, choice in pairs if not leaf.constant}


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
