"""A search space with its pins, as one object from the launch to the last draw."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from hpo.space import listing
from hpo.space.check import every_branch, probed
from hpo.space.hints import elsewhere, meant
from hpo.space.mistakes import objection, refuse
from hpo.space.pins import Complete, apply_pins, narrowed
from hpo.space.reach import partly, refused
from hpo.space.resolve import centred, resolved
from hpo.space.source import from_json, space_hash
from hpo.space.tree import Leaf, Nested, carried, configuration, flatten, leaves, nest, parameters
from search_spaces.domains import Node


class Carried(NamedTuple):
    """A configuration of another space, as far as this space can draw it."""

    config: Nested
    """The complete configuration."""
    params: dict[str, Any]
    """Its parameters, by Optuna's names."""
    own: dict[str, Any]
    """Those of them whose values are those of the other space's configuration."""


@dataclass(frozen=True)
class Space:
    """A search space over the tasks of a run, with its pins.

    The argument `complete` of many methods fills in the defaults of a nested configuration and raises ValueError if it
    is illegal.
    """

    tree: Mapping[str, Node]
    """Key -> domain; every PerTask is written out (`expand`), and in a sweep every prior (`resolved`)."""
    pinned: Mapping[str, Any] = field(default_factory=dict)
    """Pinned values as a nested dictionary; `hpo.space.pins` says in which trials they hold."""

    @cached_property
    def whole(self) -> tuple[Leaf, ...]:
        """The parameters of the tree without the pins."""
        return leaves(self.tree)

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """The parameters under the pins, in the order in which they are drawn: pinned ones are constants."""
        return narrowed(self.whole, self.pinned)

    @cached_property
    def pins(self) -> dict[str, Any]:
        """Pinned values by path."""
        return flatten(self.pinned)

    @property
    def hash(self) -> str:
        """SHA-256 of the tree: equal hashes and equal pins draw equal configurations from equal results."""
        return space_hash(self.tree)

    @property
    def varied(self) -> int:
        """Number of parameters that are drawn; a parameter of several branches counts once."""
        return len({leaf.path for leaf in self.leaves if not leaf.constant})

    def apply(self, config: Mapping[str, Any], complete: Complete) -> Nested:
        """A drawn, given or default configuration under the pins, complete. Raises the errors of `complete`."""
        return apply_pins(config, self.pinned, self.whole, complete)

    def parameters(self, config: Nested, complete: Complete) -> dict[str, Any]:
        """The parameters, by Optuna's names, that draw exactly this complete configuration; empty if none do."""
        drawn = parameters(self.leaves, config)
        try:
            same = drawn is not None and self.apply(configuration(self.leaves, drawn), complete) == config
        except ValueError:
            same = False
        return drawn if drawn is not None and same else {}

    def branches(self, complete: Complete) -> Iterator[Nested]:
        """Complete configurations that together take every branch of the space."""
        return (self.apply(config, complete) for config in every_branch(self.leaves))

    def resolved(self, complete: Complete) -> Space:
        """The space with every prior written into its tree (`hpo.space.resolve`). Raises SpaceError."""
        tree, mistakes = resolved(self.tree, complete)
        refuse(mistakes)
        return replace(self, tree=tree)

    def carried(self, config: Nested, complete: Complete) -> Carried:
        """A complete configuration of another space, as far as this one can draw it; the rest takes the modes of the
        priors. Raises the errors of `complete`."""
        params, own = carried(self.leaves, config)
        return Carried(self.apply(configuration(self.leaves, params), complete), params, own)

    def centred(self, choices: Mapping[str, Any]) -> Space:
        """The resolved space with its priors moved to choices, by Optuna's names (`hpo.space.resolve.centred`)."""
        return replace(self, tree=centred(self.tree, choices))

    def check(
        self,
        complete: Complete,
        tasks: Collection[str] = (),
        fits: Callable[[Nested], object] | None = None,
        found: Sequence[str] = (),
    ) -> list[Nested]:
        """Raise SpaceError with all mistakes: pins that hold in no trial, and choices that the configuration refuses.

        Returns the default configuration and the configurations at the ends of all domains, all of them complete.
        `tasks` are the run's, for hints. `fits` raises ValueError for a configuration, pins included, that the run's
        data or encoder do not allow. `found` are mistakes that are known already, to be reported with the others.
        """
        errors = refused(self.whole, self.pinned, complete)
        sound = self._without(errors) if errors else self

        def make(config: Nested, space: Space = sound) -> Nested:
            result = space.apply(config, complete)
            if fits is not None:
                fits(result)
            return result

        pin_mistakes = [f"Pinned values: {error}{self._hint(path, complete)}" for path, error in errors.items()]
        mistakes = [*found, *pin_mistakes]
        try:
            configs = [make({})]
        except ValueError as error:
            without_pins = objection(lambda: make({}, Space(self.tree)))
            culprit = "Pinned values" if without_pins is None else "The default configuration"
            refuse([*mistakes, f"{culprit}: {error}"])
        ends, space_mistakes = probed(sound.leaves, make, tasks)
        refuse([*mistakes, *space_mistakes])
        return configs + ends

    def _without(self, paths: Collection[str]) -> Space:
        """The space without the pins at some paths."""
        return replace(self, pinned=nest({path: value for path, value in self.pins.items() if path not in paths}))

    def _hint(self, path: str, complete: Complete) -> str:
        """A sentence with the path that was probably meant by a wrong one; empty if none is known."""
        paths = flatten(complete({}))
        meant_path = None if path in paths else meant(path, paths)
        return "" if meant_path is None else elsewhere(path, meant_path)

    def partly(self, complete: Complete) -> list[str]:
        """One line for each pin that only some branches have: which branches, how many, out of how many."""
        return partly(self.whole, self.pinned, complete)

    def describe(self) -> list[dict[str, str]]:
        """One row per parameter: name, path, domain as text, when it exists, type."""
        return listing.describe(self.leaves, self.pins)

    def defaults_taken(self, complete: Complete) -> dict[str, Any]:
        """Configuration path -> default value, for all fields that no trial varies and no pin sets."""
        return listing.defaults_taken(self.leaves, self.pins, self.branches(complete))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], pinned: Mapping[str, Any]) -> Space:
        """The space of a stored tree (`hpo.space.source.to_json`) and its pins."""
        return cls(from_json(tree), pinned)
