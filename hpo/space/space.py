"""A search space with the parameters pinned in it: one object from the launch to the last draw."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hpo.space import listing
from hpo.space.check import every_branch, probed
from hpo.space.hints import elsewhere, meant
from hpo.space.mistakes import objection, refuse
from hpo.space.pins import Complete, apply_pins, narrowed
from hpo.space.reach import partly, refused
from hpo.space.source import from_json, space_hash
from hpo.space.tree import Leaf, Nested, configuration, flatten, leaves, nest, parameters
from search_spaces.domains import Node


@dataclass(frozen=True)
class Space:
    """A search space over the tasks of a run, and the pins that hold in all its trials.

    `complete`, which many methods take, fills the defaults of a nested configuration in and raises ValueError where it
    is illegal.
    """

    tree: Mapping[str, Node]
    """Domains by key; every PerTask is written out (`expand`)."""
    pinned: Mapping[str, Any] = field(default_factory=dict)
    """Pinned values as a nested dictionary; see `hpo.space.pins` for where they hold."""

    @cached_property
    def whole(self) -> tuple[Leaf, ...]:
        """The parameters of the tree, as if nothing were pinned."""
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
        """Number of parameters that are drawn; one that several branches have counts once."""
        return len({leaf.path for leaf in self.leaves if not leaf.constant})

    def apply(self, config: Mapping[str, Any], complete: Complete) -> Nested:
        """A drawn, given or default configuration under the pins, complete. Raises what `complete` raises."""
        return apply_pins(config, self.pinned, self.whole, complete)

    def parameters(self, config: Nested, complete: Complete) -> dict[str, Any]:
        """The parameters, by Optuna's names, that draw exactly this complete configuration; empty where none do."""
        drawn = parameters(self.leaves, config)
        try:
            same = drawn is not None and self.apply(configuration(self.leaves, drawn), complete) == config
        except ValueError:
            same = False
        return drawn if drawn is not None and same else {}

    def branches(self, complete: Complete) -> Iterator[Nested]:
        """Complete configurations among which every branch of the space is taken once."""
        return (self.apply(config, complete) for config in every_branch(self.leaves))

    def check(
        self, complete: Complete, tasks: Collection[str] = (), fits: Callable[[Nested], object] | None = None
    ) -> list[Nested]:
        """Refuse pins that hold nowhere and whatever the configuration refuses; all mistakes at once.

        Returns the complete configurations at the ends of all domains, that of the default first. `tasks` are the
        run's, for hints. `fits` raises ValueError for a configuration, pins included, that a run's data or encoder
        refuse. Raises SpaceError.
        """
        errors = refused(self.whole, self.pinned, complete)
        sound = self._without(errors) if errors else self

        def make(config: Nested, space: Space = sound) -> Nested:
            result = space.apply(config, complete)
            if fits is not None:
                fits(result)
            return result

        mistakes = [f"Pinned values: {error}{self._hint(path, complete)}" for path, error in errors.items()]
        try:
            configs = [make({})]
        except ValueError as error:
            alone = objection(lambda: make({}, Space(self.tree)))
            refuse([*mistakes, f"{'Pinned values' if alone is None else 'The default configuration'}: {error}"])
        ends, wrong = probed(sound.leaves, make, tasks)
        refuse([*mistakes, *wrong])
        return configs + ends

    def _without(self, paths: Collection[str]) -> Space:
        return replace(self, pinned=nest({path: value for path, value in self.pins.items() if path not in paths}))

    def _hint(self, path: str, complete: Complete) -> str:
        known = flatten(complete({}))
        other = None if path in known else meant(path, known)
        return "" if other is None else elsewhere(path, other)

    def partly(self, complete: Complete) -> list[str]:
        """One line for each pin that only some branches have: which, and how many of how many."""
        return partly(self.whole, self.pinned, complete)

    def describe(self) -> list[dict[str, str]]:
        """One row a parameter: name, path, domain as text, when it exists, type."""
        return listing.describe(self.leaves, self.pins)

    def defaults_taken(self, complete: Complete) -> dict[str, Any]:
        """Configuration paths that no trial varies and no pin sets, with their defaults in each branch."""
        return listing.defaults_taken(self.leaves, self.pins, self.branches(complete))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], pinned: Mapping[str, Any]) -> Space:
        """The space behind a stored tree (`hpo.space.source.to_json`) and its pins."""
        return cls(from_json(tree), pinned)
