"""Searchers: how the configuration of the next trial is drawn. Each searcher makes an Optuna sampler.

tpe     the tree-structured Parzen estimator (Bergstra et al. 2011): it draws where l(x) / g(x) is highest, the ratio of
        the densities of good and of bad trials
random  independent uniform draws

Before every draw a new sampler is made from a seed of (sweep, trial number). So a draw depends only on the seed and on
the trials in the study; see `hpo.search.study`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler

from hpo.search.records import Entry, check_integer, from_record


class Searcher(Entry, Protocol):
    """A rule that draws configurations: a frozen dataclass whose fields are its settings."""

    def sampler(self, seed: int) -> BaseSampler:
        """A new Optuna sampler. Its draws depend only on the seed and on the trials in the study."""
        ...


@dataclass(frozen=True)
class Tpe:
    """TPE. It models parameters that occur together as one group, and counts running trials as bad (constant liar)."""

    name: ClassVar[str] = "tpe"
    startup: int = 8
    """Number of ended trials before which draws are uniform. In 32 simulated sweeps of 24 trials over the space `full`,
    startups of 4, 8 and 10 found equally good trials; 16, and uniform draws throughout, found worse ones. The default
    does not depend on the length of the sweep, so that an extended sweep draws what a longer one would have drawn."""

    def __post_init__(self) -> None:
        check_integer("startup", self.startup, 0)

    def sampler(self, seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group`
            return TPESampler(
                seed=seed, n_startup_trials=self.startup, multivariate=True, group=True, constant_liar=True
            )


@dataclass(frozen=True)
class Random:
    """Independent uniform draws: the baseline of every other searcher."""

    name: ClassVar[str] = "random"

    def sampler(self, seed: int) -> BaseSampler:
        return RandomSampler(seed=seed)


SEARCHERS: Mapping[str, type[Searcher]] = {entry.name: entry for entry in (Tpe, Random)}
"""Every searcher by its name."""


def searcher_from(record: Mapping[str, Any]) -> Searcher:
    """The searcher of a record such as `{"name": "tpe", "startup": 8}`. Raises ValueError if it describes none."""
    return from_record(SEARCHERS, "searcher", record)
