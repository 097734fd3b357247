"""Costs of draws, relative to a full trial of the default configuration.

    cost = cost of an example + sum of the costs of the parts that no trial of the sweep has begun

Parts are work that trials share, such as a stage before training: whoever asks for one first pays for it. So a cost
depends on the trials that have started, and a replay, which starts the same ones, gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

Config = dict[str, Any]
"""A complete configuration."""
Example = Callable[[Config], float]
"""Cost of an example under a configuration, relative to the default one."""
Shared = Callable[[Config], Mapping[Hashable, float]]
"""Parts of a trial's work that trials share, each with its cost relative to a full trial of the default one."""


class Costs:
    """Costs of the draws of one sweep."""

    def __init__(self, example: Example, shared: Shared) -> None:
        self._example, self._shared = example, shared
        self._begun: list[Config] = []
        """Configurations whose parts are not yet among `_paid`: a replay of many trials need not look at them."""
        self._paid: set[Hashable] = set()

    def begin(self, config: Config) -> None:
        """A trial with this configuration has started."""
        self._begun.append(config)

    def of(self, config: Config) -> float:
        """Cost of a trial with this configuration that starts now."""
        for begun in self._begun:
            self._paid.update(self._shared(begun))
        self._begun.clear()
        return self._example(config) + sum(
            cost for part, cost in self._shared(config).items() if part not in self._paid
        )


def no_parts(config: Config) -> Mapping[Hashable, float]:
    """The parts of trials that share nothing."""
    return {}
