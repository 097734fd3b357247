"""Check of a search space against the strict configuration: all mistakes of the space at once, before any compute.

1. Probes: every leaf is tried at both ends of its domain, with all other leaves at their first choice. From a
   configuration that is refused, choices are left out as long as it stays refused; the remaining choices are the
   mistake. The wrong part is then removed from the space, so that it hides no other mistake.
2. Random combinations: choices that are legal one by one may be illegal together.
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
"""Completes a drawn configuration under the pins; raises ValueError if it is illegal."""

Pairs = Sequence[tuple[Leaf, Any]]
"""Leaves with their choices."""

DRAWS = 200
"""Random configurations that are tried."""

ENOUGH = 3 * MOST
"""Mistakes after which the search for more ends: to find one costs as many configurations as the space has leaves."""


@dataclass(frozen=True)
class Mistake:
    """Choices that the configuration refuses, and the reason."""

    pairs: Pairs
    error: str

    @property
    def pattern(self) -> frozenset[tuple[str, str | None]]:
        """Names of the parameters, with the values that are text: two mistakes that differ in numbers are the same."""
        return frozenset((leaf.name, choice if isinstance(choice, str) else None) for leaf, choice in self.pairs)

    def explains(self, pairs: Pairs) -> bool:
        """Whether these choices contain the mistake."""
        return self.pattern <= Mistake(pairs, "").pattern

    def __str__(self) -> str:
        choices = ", ".join(f"{leaf.name} = {choice!r}" for leaf, choice in self.pairs)
        if len(self.pairs) == 1:
            return f"Search space, {choices}: {self.error}"
        return (
            f"Search space, {choices} together: {self.error} Give such parameters to the branches of a Kind, so that "
            "only legal combinations can be drawn."
        )


def probed(space: Sequence[Leaf], make: Make, tasks: Collection[str] = ()) -> tuple[list[Nested], list[str]]:
    """The complete configurations at the ends of all domains, and the mistakes of the space.

    `make` must accept the empty configuration. `tasks` are the run's, for hints.
    """
    probes = _Probes(tuple(space), make, tasks)
    probes.run()
    order = {leaf.name: position for position, leaf in enumerate(space)}
    from_probes = sorted(probes.mistakes, key=lambda mistake: order[mistake.pairs[0][0].name])
    from_draws = _combinations(probes.space, make) if len(from_probes) < ENOUGH else []
    return probes.configs, _grouped([*from_probes, *from_draws])


def every_branch(space: Sequence[Leaf]) -> Iterator[Nested]:
    """Configurations, not yet complete, that together take every branch of the space."""
    yield compose(space, Leaf.first)[0]
    for leaf in space:
        for kind in leaf.ends() if leaf.is_kind else ():
            yield written(_probe(space, leaf, kind))


def _probe(space: Sequence[Leaf], target: Leaf, choice: Any) -> list[tuple[Leaf, Any]]:
    """The target at a choice, in a branch that has it; all other leaves at their first choice."""
    values = {**dict(target.conditions), target.path: choice}
    return chosen(space, lambda leaf: values.get(leaf.path, leaf.first()))


class _Probes:
    """Trials of every leaf at both ends of its domain; a wrong leaf or branch is removed from the space."""

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
            self._add(wrong, reason)

    def _add(self, wrong: Pairs, reason: ValueError) -> None:
        """Add a mistake; if it is a single choice, remove that choice from the space."""
        if len(wrong) > 1:
            self.mistakes.append(Mistake(wrong, str(reason)))
            return
        [(leaf, choice)] = wrong
        branch = _kinds(dict(leaf.conditions))
        config = self._make(written(branch if _refusal(branch, self._make) is None else []))
        self.mistakes.append(Mistake(wrong, f"{reason}{self._cure(leaf, choice, branch, config)}"))
        self.space = _without(self.space, leaf, choice if has(config, leaf.path) else None)

    def _cure(self, leaf: Leaf, choice: Any, branch: Pairs, config: Nested) -> str:
        """The sentence that says what to write instead, with a space in front; empty if none is known."""
        above = kinds_above(leaf, config)
        if above and _refusal([*branch, *_kinds(above), (leaf, choice)], self._make) is None:
            kind = list(above.values())[-1]
            return f" In a space it belongs to a branch: Kind({kind}={{...}})."
        return hint(leaf, config, self._tasks)


def _kinds(kinds: Mapping[str, str]) -> Pairs:
    """Kinds, by path, as leaves with one choice."""
    return [(Leaf(path, path, OneOf(kind)), kind) for path, kind in kinds.items()]


def _needed(pairs: Pairs, make: Make, error: ValueError) -> tuple[Pairs, ValueError]:
    """The fewest choices of a configuration that are still refused, and the reason.

    Half of the choices are left out at a time, then a quarter, in the end one; parameters of a branch before its kind.
    The answer leaves out kinds that are only needed because another choice lies in their branch.
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
    """Whether a leaf lies inside the part of the configuration that a kind chooses, or in one of its branches."""
    inside = leaf.path.startswith(kind.path.removesuffix("kind")) and leaf.path != kind.path
    return kind.is_kind and (inside or kind.path in dict(leaf.conditions))


def _only_leads(pair: tuple[Leaf, Any], needed: Pairs, make: Make) -> bool:
    """Whether a kind is only needed for the parameters of its branch: under any other kind they are refused too."""
    kind, _ = pair
    if any(kind.path in dict(leaf.conditions) for leaf, _ in needed):
        return True
    if not any(_lies_under(leaf, kind) for leaf, _ in needed):
        return False
    variants = [[(leaf, end if leaf is kind else choice) for leaf, choice in needed] for end in kind.ends()]
    return all(_refusal(variant, make) is not None for variant in variants)


def _refusal(pairs: Pairs, make: Make) -> ValueError | None:
    """The error that `make` raises for a configuration of these choices alone; None if it accepts them."""
    return objection(lambda: make(written(pairs)))


def _without(space: Sequence[Leaf], removed: Leaf, choice: Any) -> tuple[Leaf, ...]:
    """The space without `removed`; if that is a kind with other branches than `choice`, without that branch only.

    `choice` None: the whole kind is removed.
    """
    kinds = [kind for kind in removed.ends() if kind != choice] if removed.is_kind and choice is not None else []
    stem = removed.name.removesuffix("/kind")
    branch = f"{stem}.{choice}/" if kinds else f"{stem}."
    remaining: list[Leaf] = []
    for leaf in space:
        if leaf.name == removed.name:
            if kinds and isinstance(removed.domain, OneOf):
                kept = removed.domain.changed({kind: kind for kind in kinds})
                remaining.append(replace(removed, domain=kept))
        elif not (removed.is_kind and leaf.name.startswith(branch)):
            remaining.append(leaf)
    return tuple(remaining)


def _combinations(space: Sequence[Leaf], make: Make) -> list[Mistake]:
    """Random choices that are refused together, though each is legal beside the first choices of all others."""
    mistakes: list[Mistake] = []
    source = random.Random(0)  # a fixed seed: the same space always gives the same mistakes
    for _ in range(0 if all(leaf.constant for leaf in space) else DRAWS):
        pairs = chosen(space, lambda leaf: leaf.random(source))
        if len(mistakes) > MOST or any(mistake.explains(pairs) for mistake in mistakes):
            continue
        if (error := _refusal(pairs, make)) is not None:
            mistakes.append(_smallest(space, pairs, make, error))
    return mistakes


def _smallest(space: Sequence[Leaf], pairs: Pairs, make: Make, error: ValueError) -> Mistake:
    """As few of the choices as possible that are still refused while all other leaves have their first choice."""
    choices = {leaf.name: choice for leaf, choice in pairs if not leaf.constant}
    for name in list(choices):
        fewer = {key: choice for key, choice in choices.items() if key != name}
        first = chosen(space, lambda leaf, fewer=fewer: fewer.get(leaf.name, leaf.first()))  # type: ignore[misc]
        refusal = _refusal(first, make)
        if refusal is not None:
            choices, error = fewer, refusal
    return Mistake([pair for pair in pairs if pair[0].name in choices], str(error))


def _grouped(mistakes: Sequence[Mistake]) -> list[str]:
    """One text for each mistake; a mistake that repeats for several tasks is one text with the tasks' names."""
    groups: list[tuple[Mistake, list[str]]] = []
    for mistake in mistakes:
        for first, names in groups:
            if (name := _other_name(first, mistake)) is not None:
                names.append(name)
                break
        else:
            groups.append((mistake, []))
    return [f"{first}{_likewise(names)}" for first, names in groups]


def _likewise(names: Sequence[str]) -> str:
    return f" Likewise for {', '.join(names)}." if names else ""


def _other_name(first: Mistake, second: Mistake) -> str | None:
    """The part of the second mistake's path that alone tells it from the first; None if they differ in more."""
    paths = [mistake.pairs[0][0].path.split("/") for mistake in (first, second)]
    if len(first.pairs) != 1 or len(second.pairs) != 1 or len(paths[0]) != len(paths[1]):
        return None
    different = [(key, other_key) for key, other_key in zip(*paths, strict=True) if key != other_key]
    if len(different) != 1:
        return None
    [(key, other_key)] = different
    return other_key if str(first).replace(key, other_key) == str(second) else None
