"""A search space as a list of leaves. A leaf is one parameter:

    path        its place in the configuration: adapter/rank
    name        its name in Optuna and the store: adapter.lora/rank. The name holds the branch, so that two branches may
                give one path different domains; Optuna refuses two domains for one name
    domain      its possible values
    conditions  the kinds under which it exists: adapter/kind = lora

A branch may give a domain to a parameter elsewhere. The name then holds that absolute path after a double slash:
`adapter.lora//optimizer/encoder_lr` has the path optimizer/encoder_lr.

Keys are walked in sorted order, so a space's draws do not depend on the order in which its keys were written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from random import Random
from typing import Any

from hpo.space import priors
from hpo.space.mistakes import refuse
from hpo.space.shape import sound
from search_spaces.domains import Domain, Float, Int, Kind, Node, OneOf, PerTask, SpaceError, same

Nested = dict[str, Any]
Conditions = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Leaf:
    """One parameter of a space."""

    path: str
    """Place in the configuration: adapter/rank."""
    name: str
    """Name in Optuna and the store: adapter.lora/rank."""
    domain: Domain
    conditions: Conditions = ()
    """Paths with the values that they must have for the leaf to exist: (("adapter/kind", "lora"),)."""

    @property
    def constant(self) -> bool:
        """Whether it has one possible value; Optuna does not get such a leaf."""
        if isinstance(self.domain, OneOf):
            return len(self.domain.values) == 1
        return self.domain.low == self.domain.high

    @property
    def is_kind(self) -> bool:
        """Whether it chooses the branch of a Kind."""
        return self.path.endswith("/kind")

    def value(self, choice: Any) -> Any:
        """The configuration's value for a choice, which is what Optuna draws."""
        return self.domain.value(choice) if isinstance(self.domain, OneOf) else choice

    def choice(self, value: Any) -> Any:
        """The choice that Optuna would draw for a configuration's value. Raises SpaceError if the domain lacks it."""
        if isinstance(self.domain, OneOf):
            return self.domain.choice(_completed_by(self.domain, value))
        low, high = self.domain.low, self.domain.high
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise SpaceError(f"{self.name}: {value!r} is not within {self.domain.extent}.")
        if isinstance(self.domain, Float):
            return float(value)
        if value != int(value) or (value - low) % self.domain.step:
            raise SpaceError(f"{self.name}: {value!r} is not within {self.domain.extent}.")
        return int(value)

    def first(self) -> Any:
        """The first choice, or the lowest value of a range."""
        return self.domain.choices[0] if isinstance(self.domain, OneOf) else self.domain.low

    def random(self, source: Random) -> Any:
        """A random choice, uniform on the domain's scale (linear or logarithmic)."""
        domain = self.domain
        if isinstance(domain, OneOf):
            return source.choice(domain.choices)
        if isinstance(domain, Int):
            return source.randrange(domain.low, domain.high + 1, domain.step)
        if not domain.log:
            return source.uniform(domain.low, domain.high)
        drawn = math.exp(source.uniform(math.log(domain.low), math.log(domain.high)))
        return min(max(drawn, domain.low), domain.high)

    def drawn(self, source: Random) -> Any:
        """A draw from the prior; uniform on the domain's scale where there is none."""
        return priors.drawn(self.domain, source)

    def log_prior(self, choice: Any) -> float:
        """Log of the prior's density at a choice over the uniform density; 0.0 everywhere without a prior."""
        return priors.log_prior(self.domain, choice)

    @property
    def mode(self) -> Any:
        """The choice with the highest prior: the centre or the heaviest choice; without a prior `first()`."""
        return priors.mode(self.domain)

    def ends(self) -> tuple[Any, ...]:
        """The choices at which a domain is checked: both ends of a range, all choices of a OneOf."""
        return self.domain.choices if isinstance(self.domain, OneOf) else (self.domain.low, self.domain.high)


def _completed_by(domain: OneOf, value: Any) -> Any:
    """The longest composite value of the domain that `value` completes.

    In a complete configuration the choice {"sst": 8} is {"sst": 8, "qqp": 32}, and the choice [b] may be [b, a].
    Returns `value` itself if the domain has it, or if it completes none of the domain's values.
    """
    if any(same(value, choice) for choice in domain.values):
        return value
    parts = [choice for choice in domain.values if _completes(value, choice)]
    return max(parts, key=len, default=value)


def _completes(value: Any, part: Any) -> bool:
    """Whether a value holds all items of `part` and possibly more: any keys of a mapping, the first items of a list."""
    if isinstance(value, Mapping) and isinstance(part, Mapping):
        return all(key in value and same(value[key], item) for key, item in part.items())
    if isinstance(value, list) and isinstance(part, list):
        return same(value[: len(part)], part)
    return False


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The paths and values of a nested dictionary: {"adapter": {"rank": 8}} is {"adapter/rank": 8}.

    An empty dictionary is a value.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[prefix + key] = value
    return flat


def nest(flat: Mapping[str, Any]) -> Nested:
    """The nested dictionary of paths and values: {"adapter/rank": 8} is {"adapter": {"rank": 8}}."""
    nested: Nested = {}
    for path, value in flat.items():
        *parents, key = path.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return nested


def path_of(name: str) -> str:
    """The configuration path of an Optuna name: adapter.lora/rank has adapter/rank."""
    relative = name.rpartition("//")[2]
    return "/".join(part.partition(".")[0] for part in relative.split("/"))


def kinds_of(name: str) -> dict[str, str]:
    """The kinds in an Optuna name: adapter.lora/rank has {"adapter/kind": "lora"}."""
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
    """The legal part of the space with every PerTask written out, and the mistakes of the tree."""
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
        return node.changed({name: _expand_all(branch, tasks, f"{where}.{name}", mistakes)
                             for name, branch in node.branches.items()})
    return _expand_all(node, tasks, where, mistakes) if isinstance(node, Mapping) else node


def _expand_all(
    tree: Mapping[str, Node], tasks: tuple[str, ...], where: str, mistakes: list[str]
) -> dict[str, Node]:
    return {key: _expand(child, tasks, f"{where}/{key}", mistakes) for key, child in tree.items()}


def rewritten(space: Mapping[str, Node], change: Callable[[Leaf], Domain]) -> dict[str, Node]:
    """The expanded space, each domain replaced by what `change` makes of its leaf: of a kind, another OneOf of its
    branches."""
    return _rewritten(space, change, "", "", ())


def _rewritten(
    tree: Mapping[str, Node], change: Callable[[Leaf], Domain], path: str, name: str, conditions: Conditions
) -> dict[str, Node]:
    result: dict[str, Node] = {}
    for key, node in tree.items():
        here = key[1:] if key.startswith("/") else f"{path}/{key}".lstrip("/")
        named = f"{name}/{key}" if name else key.lstrip("/")
        if isinstance(node, Kind):
            choice = change(Leaf(f"{here}/kind", f"{named}/kind", node.choice, conditions))
            assert isinstance(choice, OneOf)
            weights = None if choice.weights is None else dict(zip(node.branches, choice.weights, strict=True))
            branches = {
                kind: _rewritten(branch, change, here, f"{named}.{kind}", (*conditions, (f"{here}/kind", kind)))
                for kind, branch in node.branches.items()
            }
            result[key] = Kind(weights=weights, **branches)
        elif isinstance(node, Mapping):
            result[key] = _rewritten(node, change, here, named, conditions)
        else:
            assert not isinstance(node, PerTask), "PerTask is written out first"
            result[key] = change(Leaf(here, named, node, conditions))
    return result


def leaves(space: Mapping[str, Node]) -> tuple[Leaf, ...]:
    """The parameters of an expanded space in the order of their draws: a kind comes before its branches.

    Raises SpaceError if two of them set the same value in one configuration.
    """
    parameters = tuple(_walk(space, "", "", ()))
    refuse(_overlaps(parameters))
    return parameters


def _walk(node: Node, path: str, name: str, conditions: Conditions) -> Iterator[Leaf]:
    if isinstance(node, PerTask):
        raise SpaceError(f"{name}: PerTask is written out over the tasks first: expand(space, tasks).")
    if isinstance(node, Kind):
        yield Leaf(f"{path}/kind", f"{name}/kind", node.choice, conditions)
        for kind, branch in node.branches.items():
            yield from _walk(branch, path, f"{name}.{kind}", (*conditions, (f"{path}/kind", kind)))
    elif isinstance(node, Mapping):
        for key in sorted(node):
            here = key[1:] if key.startswith("/") else f"{path}/{key}".lstrip("/")
            yield from _walk(node[key], here, f"{name}/{key}" if name else key.lstrip("/"), conditions)
    else:
        yield Leaf(path, name, node, conditions)


def _overlaps(space: Sequence[Leaf]) -> list[str]:
    """One mistake for each pair of leaves that set the same value in one configuration."""
    mistakes = []
    at: dict[str, list[Leaf]] = {}  # path -> earlier leaves at this path
    below: dict[str, list[Leaf]] = {}  # path -> earlier leaves below this path
    for leaf in space:
        parts = leaf.path.split("/")
        above = ["/".join(parts[:length]) for length in range(1, len(parts))]
        rivals = [rival for path in (*above, leaf.path) for rival in at.get(path, [])] + below.get(leaf.path, [])
        for rival in rivals:
            if _together(rival, leaf):
                path = max(leaf.path, rival.path, key=len)
                mistakes.append(f"{rival.name} and {leaf.name} both set `{path}` in one configuration; give it one "
                                "domain, or one in each branch of a Kind.")
        at.setdefault(leaf.path, []).append(leaf)
        for path in above:
            below.setdefault(path, []).append(leaf)
    return mistakes


def _together(a: Leaf, b: Leaf) -> bool:
    """Whether a configuration can have both leaves."""
    kinds = dict(a.conditions)
    return all(kinds.get(path, kind) == kind for path, kind in b.conditions)


def chosen(space: Sequence[Leaf], choose: Callable[[Leaf], Any]) -> list[tuple[Leaf, Any]]:
    """The leaves of one configuration, each with its choice.

    `choose` is called once for every leaf that exists under the choices so far, except for constants.
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
    """The nested configuration that leaves and their choices make."""
    return nest({leaf.path: leaf.value(choice) for leaf, choice in pairs})


def compose(space: Sequence[Leaf], choose: Callable[[Leaf], Any]) -> tuple[Nested, dict[str, Any]]:
    """The configuration that `choose` makes of a space (see `chosen`), and its parameters by Optuna's names."""
    pairs = chosen(space, choose)
    return written(pairs), {leaf.name: choice for leaf, choice in pairs if not leaf.constant}


def configuration(space: Sequence[Leaf], parameters: Mapping[str, Any]) -> Nested:
    """The configuration of parameters by Optuna's names."""
    return compose(space, lambda leaf: parameters[leaf.name])[0]


def parameters(space: Sequence[Leaf], config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parameters, by Optuna's names, that draw this configuration's values; None if the space cannot draw them.

    A composite value may hold more than the choice that it completes. So a caller that needs exactly this configuration
    compares it with the one that these parameters make.
    """

    def choose(leaf: Leaf) -> Any:
        return leaf.choice(at(config, leaf.path))

    try:
        return compose(space, choose)[1]
    except (KeyError, SpaceError):
        return None


def carried(space: Sequence[Leaf], config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parameters, by Optuna's names, that draw a configuration of another space as far as this space can.

    First all of them: what this space cannot draw has the mode of its prior. Then those that the configuration gave.
    """
    own: dict[str, Any] = {}

    def choose(leaf: Leaf) -> Any:
        try:
            own[leaf.name] = leaf.choice(at(config, leaf.path))
        except (KeyError, SpaceError):
            return leaf.mode
        return own[leaf.name]

    return compose(space, choose)[1], own


def at(config: Mapping[str, Any], path: str) -> Any:
    """The value at a path of a nested configuration. Raises KeyError."""
    value: Any = config
    for key in path.split("/"):
        if not isinstance(value, Mapping):
            raise KeyError(path)
        value = value[key]
    return value
