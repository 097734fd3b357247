"""A space drawn through the strict configuration before any compute: all its mistakes at once.

Every leaf is tried at both ends of its domain, the others at their first choice. Where a configuration is refused, the
leaves that it needs to be refused are found by leaving out one after the other; they are the mistake. What is wrong is
then taken out of the space, so that it hides no other mistake. Random combinations follow: choices that are legal one
by one may not be legal together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpo.space.hints import hint, kinds_above
from hpo.space.mistakes import MOST, objection
from hpo.space.pins import has
from hpo.space.tree import Leaf, Nested, chosen, compose, written
from search_spaces.domains import OneOf

Make = Callable[[Nested], Nested]
"""A drawn configuration, complete and under the pins; raises ValueError where it is illegal."""

Pairs = Sequence[tuple[Leaf, Any]]
"""Leaves with their choices."""

DRAWS = 200
"""Random configurations that are tried."""


ENOUGH = 3 * MOST
"""Mistakes after which no more are looked for: each costs as many configurations as the space has leaves."""


@dataclass(frozen=True)
class Mistake:
    """Choices that are refused, and why."""

    pairs: Pairs
    error: str

    @property
    def pattern(self) -> frozenset[tuple[str, str | None]]:
        """The parameters, kinds and other words with their values: other numbers there are the same mistake."""
        return frozenset((leaf.name, choice if isinstance(choice, str) else None) for leaf, choice in self.pairs)

    def explains(self, pairs: Pairs) -> bool:
        """Whether a configuration holds this mistake."""
        return self.pattern <= Mistake(pairs, "").pattern

    def __str__(self) -> str:
        words = ", ".join(f"{leaf.name} = {choice!r}" for leaf, choice in self.pairs)
        if len(self.pairs) == 1:
            return f"Search space, {words}: {self.error}"
        return (
            f"Search space, {words} together: {self.error} Give such parameters to the branches of a Kind, so that "
            "only legal combinations can be drawn."
        )


def probed(space: Sequence[Leaf], make: Make, tasks: Collection[str] = ()) -> tuple[list[Nested], list[str]]:
    """The complete configurations at the ends of all domains, and the mistakes of the space.

    `make` must take the empty configuration. `tasks` are the run's, for hints.
    """
    probes = _Probes(tuple(space), make, tasks)
    probes.run()
    places = {leaf.name: place for place, leaf in enumerate(space)}
    alone = sorted(probes.mistakes, key=lambda mistake: places[mistake.pairs[0][0].name])
    together = _combinations(probes.space, make) if len(alone) < ENOUGH else []
    return probes.configs, _grouped([*alone, *together])


def every_branch(space: Sequence[Leaf]) -> Iterator[Nested]:
    """Configurations, not yet complete, among which every branch of the space is taken once."""
    yield compose(space, Leaf.first)[0]
    for leaf in space:
        for kind in leaf.ends() if leaf.is_kind else ():
            yield written(_probe(space, leaf, kind))


def _probe(space: Sequence[Leaf], target: Leaf, choice: Any) -> list[tuple[Leaf, Any]]:
    """The target at a choice, in the branches in which it exists; all others at their first choice."""
    values = {**dict(target.conditions), target.path: choice}
    return chosen(space, lambda leaf: values.get(leaf.path, leaf.first()))


class _Probes:
    """Every leaf at both ends of its domain; what is wrong leaves the space."""

    def __init__(self, space: tuple[Leaf, ...], make: Make, tasks: Collection[str]) -> None:
        self.space = space
        self.configs: list[Nested] = []
        self.mistakes: list[Mistake] = []
        self._make = make
        self._tasks = tasks
        self._tried: set[tuple[str, str]] = set()

    def run(self) -> None:
        while len(self.mistakes) < ENOUGH and (target := self._next()) is not None:
            self._try(*target)

    def _next(self) -> tuple[Leaf, Any] | None:
        pairs = ((leaf, choice) for leaf in self.space for choice in leaf.ends())
        return next(((leaf, choice) for leaf, choice in pairs if (leaf.name, repr(choice)) not in self._tried), None)

    def _try(self, leaf: Leaf, choice: Any) -> None:
        pairs = _probe(self.space, leaf, choice)
        if any(mistake.explains(pairs) for mistake in self.mistakes):
            self._tried.add((leaf.name, repr(choice)))
            return
        try:
            self.configs.append(self._make(written(pairs)))
            self._tried.add((leaf.name, repr(choice)))
        except ValueError as error:
            wrong, reason = _needed(pairs, self._make, error)
            self._note(wrong, reason)

    def _note(self, wrong: Pairs, reason: ValueError) -> None:
        if len(wrong) > 1:
            self.mistakes.append(Mistake(wrong, str(reason)))
            return
        [(leaf, choice)] = wrong
        branch = _kinds(dict(leaf.conditions))
        config = self._make(written(branch if _refusal(branch, self._make) is None else []))
        self.mistakes.append(Mistake(wrong, f"{reason}{self._cure(leaf, choice, branch, config)}"))
        self.space = _without(self.space, leaf, choice if has(config, leaf.path) else None)

    def _cure(self, leaf: Leaf, choice: Any, branch: Pairs, config: Nested) -> str:
        above = kinds_above(leaf, config)
        if above and _refusal([*branch, *_kinds(above), (leaf, choice)], self._make) is None:
            kind = list(above.values())[-1]
            return f" In a space it belongs to a branch: Kind({kind}={{...}})."
        return hint(leaf, config, self._tasks)


def _kinds(kinds: Mapping[str, str]) -> Pairs:
    """Kinds, by path, as leaves with one choice."""
    return [(Leaf(path, path, OneOf(kind)), kind) for path, kind in kinds.items()]


def _needed(pairs: Pairs, make: Make, error: ValueError) -> tuple[Pairs, ValueError]:
    """The fewest of a configuration's choices that are refused without the others, and why.

    Half of them are left out at a time, then a quarter, at last one; parameters of a branch before its kind. Kinds that
    only say where another choice exists are no part of the answer.
    """
    needed = list(pairs)
    order = sorted(pairs, key=lambda pair: (pair[0].is_kind, -len(pair[0].conditions), -pair[0].path.count("/")))
    size = len(order)
    while size > 1:
        size = (size + 1) // 2
        for start in range(0, len(order), size):
            names = {leaf.name for leaf, _ in order[start : start + size]}
            fewer = [pair for pair in needed if pair[0].name not in names]
            kinds = [leaf for leaf, _ in needed if leaf.is_kind and leaf.name in names]
            if len(fewer) < len(needed) and not any(_lies_under(leaf, kind) for leaf, _ in fewer for kind in kinds):
                refusal = _refusal(fewer, make)
                needed, error = (needed, error) if refusal is None else (fewer, refusal)
    return [pair for pair in needed if len(needed) == 1 or not _only_leads(pair, needed, make)], error


def _lies_under(leaf: Leaf, kind: Leaf) -> bool:
    inside = leaf.path.startswith(kind.path.removesuffix("kind")) and leaf.path != kind.path
    return kind.is_kind and (inside or kind.path in dict(leaf.conditions))


def _only_leads(pair: tuple[Leaf, Any], needed: Pairs, make: Make) -> bool:
    """Whether a kind is only needed for the parameters of its branch: with another kind they are refused as well."""
    leaf, _ = pair
    if any(leaf.path in dict(other.conditions) for other, _ in needed):
        return True
    if not any(_lies_under(other, leaf) for other, _ in needed):
        return False
    others = [[(other, choice if other is leaf else given) for other, given in needed] for choice in leaf.ends()]
    return all(_refusal(other, make) is not None for other in others)


def _refusal(pairs: Pairs, make: Make) -> ValueError | None:
    """What `make` says against a configuration of these choices alone; None: nothing."""
    return objection(lambda: make(written(pairs)))


def _without(space: Sequence[Leaf], leaf: Leaf, choice: Any) -> tuple[Leaf, ...]:
    """The space without a leaf; without one branch of a kind that has others. `choice` None: the whole kind."""
    others = [kind for kind in leaf.ends() if kind != choice] if leaf.is_kind and choice is not None else []
    stem = leaf.name.removesuffix("/kind")
    gone = f"{stem}.{choice}/" if others else f"{stem}."
    rest: list[Leaf] = []
    for other in space:
        if other.name == leaf.name:
            rest += [replace(leaf, domain=OneOf(*others))] if others else []
        elif not (leaf.is_kind and other.name.startswith(gone)):
            rest.append(other)
    return tuple(rest)


def _combinations(space: Sequence[Leaf], make: Make) -> list[Mistake]:
    """Random choices that are refused together, though each is legal among first ones."""
    mistakes: list[Mistake] = []
    source = random.Random(0)  # the same space is refused, or not, every time
    for _ in range(0 if all(leaf.constant for leaf in space) else DRAWS):
        pairs = chosen(space, lambda leaf: leaf.random(source))
        if len(mistakes) > MOST or any(mistake.explains(pairs) for mistake in mistakes):
            continue
        if (error := _refusal(pairs, make)) is not None:
            mistakes.append(_smallest(space, pairs, make, error))
    return mistakes


def _smallest(space: Sequence[Leaf], pairs: Pairs, make: Make, error: ValueError) -> Mistake:
    """As few of the choices as are still refused, the others being each domain's first."""
    choices = {leaf.name: choice for leaf, choice in pairs if not leaf.constant}
    for name in list(choices):
        fewer = {other: choice for other, choice in choices.items() if other != name}
        first = chosen(space, lambda leaf, fewer=fewer: fewer.get(leaf.name, leaf.first()))  # type: ignore[misc]
        refusal = _refusal(first, make)
        if refusal is not None:
            choices, error = fewer, refusal
    return Mistake([pair for pair in pairs if pair[0].name in choices], str(error))


def _grouped(mistakes: Sequence[Mistake]) -> list[str]:
    """One text for each mistake; what is wrong alike for several tasks stands once, with the others' names."""
    groups: list[tuple[Mistake, list[str]]] = []
    for mistake in mistakes:
        for first, others in groups:
            if (name := _other_name(first, mistake)) is not None:
                others.append(name)
                break
        else:
            groups.append((mistake, []))
    return [f"{first}{_likewise(others)}" for first, others in groups]


def _likewise(names: Sequence[str]) -> str:
    return f" Likewise for {', '.join(names)}." if names else ""


def _other_name(first: Mistake, other: Mistake) -> str | None:
    """The name in which a mistake differs from another one, if that is all in which they differ."""
    paths = [mistake.pairs[0][0].path.split("/") for mistake in (first, other)]
    if len(first.pairs) != 1 or len(other.pairs) != 1 or len(paths[0]) != len(paths[1]):
        return None
    differing = [(one, another) for one, another in zip(*paths, strict=True) if one != another]
    if len(differing) != 1:
        return None
    [(one, another)] = differing
    return another if str(first).replace(one, another) == str(other) else None
