"""Searchers: how the configuration of the next trial is drawn. Each searcher makes an Optuna sampler.

changes  few parameters changed, of the default configuration first and of the best trials later; every third trial from
         TPE weighed by the priors, some from the priors alone (`hpo.samplers.changes`)
tpe      the tree-structured Parzen estimator (Bergstra et al. 2011), without priors: it draws where l(x) / g(x) is
         highest, the ratio of the densities of good and of bad trials (`hpo.samplers.parzen`)
random   independent draws from the priors (`hpo.samplers.prior`)
grid     every configuration of a finite space once, in a shuffled order (`hpo.samplers.grid`)
gp       a Gaussian process, for flat spaces of numbers (`hpo.samplers.gaussian`)
nsga2    NSGA-II, for several objectives: crossover and mutation of complete trials (`hpo.samplers.nsga`)

Only nsga2 searches for several objectives; the others optimise the first of them alone.

The sampler of a sweep is seeded for every draw by (sweep seed, trial number), so a draw depends only on them and on the
trials in the study; see `hpo.search.study`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, Protocol

from hpo.samplers.changes import ChangesSampler
from hpo.samplers.gaussian import GaussianSampler
from hpo.samplers.grid import GridSampler, Numbering
from hpo.samplers.nsga import NsgaSampler
from hpo.samplers.parzen import ParzenSampler
from hpo.samplers.prior import PriorSampler
from hpo.samplers.problem import Problem
from hpo.samplers.sampling import SpaceSampler
from hpo.search.records import Entry, check_integer, check_number, from_record
from hpo.space.tree import Leaf
from search_spaces.domains import Float, OneOf, SpaceError

WarmUse = Literal["parents", "centres"]


class Searcher(Entry, Protocol):
    """A rule that draws configurations: a frozen dataclass whose fields are its settings."""

    warm_start: ClassVar[WarmUse | None]
    """What it takes from the best trials of other sweeps: parents to change and centres of its priors, or the centres
    alone; None: it has neither."""
    several: ClassVar[bool]
    """Whether it searches for several objectives, and needs them; else it optimises the first one alone."""

    def check(self, leaves: Sequence[Leaf]) -> None:
        """Raise SpaceError, with the parameters at fault, if the searcher cannot search a space."""
        ...

    def most(self, leaves: Sequence[Leaf]) -> int | None:
        """Number of configurations after which the searcher has nothing more to try; None: no such number."""
        ...

    def sampler(self, problem: Problem) -> SpaceSampler:
        """The sampler of a sweep."""
        ...


class _Anywhere:
    """A searcher for every space, without an end."""

    several: ClassVar[bool] = False

    def check(self, leaves: Sequence[Leaf]) -> None:
        pass

    def most(self, leaves: Sequence[Leaf]) -> int | None:
        return None


@dataclass(frozen=True)
class Changes(_Anywhere):
    """Few parameters changed, of the default first and of the best trials later; TPE; some draws from the priors.

    `benchmarks/README.md` has the simulated sweeps from which the settings were chosen.
    """

    name: ClassVar[str] = "changes"
    warm_start: ClassVar[WarmUse | None] = "parents"
    startup: int = 8
    """Number of ended trials before which TPE draws none."""
    changes: float = 1.0
    """Mean number of changed parameters."""
    parents: int = 4
    """How many of the best trials are changed."""
    explore: int = 20
    """Ended trials over which the default's share among the parents falls to a fifth."""
    tpe_every: int = 3
    """Every how manieth trial is TPE's, from the startup on; 0: none."""
    tpe_changes: float | None = 1.5
    """Mean number of parameters that TPE draws in one of the best trials; None: it draws all."""
    prior_trust: float = 9.0
    """The share of draws from the priors, among those that are not TPE's, begins with 1 / (1 + this) and follows the
    share of them that beat the default."""
    beta: float = 50.0
    """Weight of the log prior in TPE, after n ended trials: beta / n."""

    def __post_init__(self) -> None:
        for name, least in (("startup", 0), ("parents", 1), ("explore", 1), ("tpe_every", 0)):
            check_integer(name, getattr(self, name), least)
        check_number("changes", self.changes, 1, 100)
        if self.tpe_changes is not None:
            check_number("tpe_changes", self.tpe_changes, 1, 100)
        check_number("prior_trust", self.prior_trust, 0, 1e6)
        check_number("beta", self.beta, 0, 1e6)

    def sampler(self, problem: Problem) -> SpaceSampler:
        return ChangesSampler(problem, **asdict(self))


@dataclass(frozen=True)
class Tpe(_Anywhere):
    """Optuna's TPE. It models parameters that occur together as one group, and counts running trials as bad."""

    name: ClassVar[str] = "tpe"
    warm_start: ClassVar[WarmUse | None] = None
    startup: int = 8
    """Number of ended trials before which draws are uniform. In 32 simulated sweeps of 24 trials over the space `full`,
    startups of 4, 8 and 10 found equally good trials; 16, and uniform draws throughout, found worse ones. The default
    does not depend on the length of the sweep, so that an extended sweep draws what a longer one would have drawn."""

    def __post_init__(self) -> None:
        check_integer("startup", self.startup, 0)

    def sampler(self, problem: Problem) -> SpaceSampler:
        return ParzenSampler(problem, self.startup)


@dataclass(frozen=True)
class Random(_Anywhere):
    """Independent draws from the priors: the baseline of every other searcher."""

    name: ClassVar[str] = "random"
    warm_start: ClassVar[WarmUse | None] = "centres"

    def sampler(self, problem: Problem) -> SpaceSampler:
        return PriorSampler(problem)


@dataclass(frozen=True)
class Grid:
    """Every configuration of a finite space once, in a shuffled order. The sweep ends after the last one."""

    name: ClassVar[str] = "grid"
    warm_start: ClassVar[WarmUse | None] = None
    several: ClassVar[bool] = False

    def check(self, leaves: Sequence[Leaf]) -> None:
        endless = [leaf for leaf in leaves if isinstance(leaf.domain, Float) and not leaf.constant]
        if endless:
            raise SpaceError(
                f"The searcher `grid` tries every configuration, and {_named(endless)} without end. Give "
                "a list of values (OneOf) in a space of your own, pin with --set, or choose another searcher."
            )

    def most(self, leaves: Sequence[Leaf]) -> int | None:
        return Numbering(leaves).size

    def sampler(self, problem: Problem) -> SpaceSampler:
        return GridSampler(problem)


@dataclass(frozen=True)
class Gp(_Anywhere):
    """Optuna's Gaussian process."""

    name: ClassVar[str] = "gp"
    warm_start: ClassVar[WarmUse | None] = "centres"
    startup: int = 8
    """Number of ended trials before which draws come from the priors."""

    def __post_init__(self) -> None:
        check_integer("startup", self.startup, 0)

    def check(self, leaves: Sequence[Leaf]) -> None:
        choices = [leaf for leaf in leaves if isinstance(leaf.domain, OneOf) and not leaf.constant]
        if choices:
            raise SpaceError(
                "The searcher `gp` models the distance between configurations, which needs numbers (Float, Int) that "
                f"every configuration has, and {_named(choices)} by choice. Pin with --set, or choose another "
                "searcher."
            )

    def sampler(self, problem: Problem) -> SpaceSampler:
        return GaussianSampler(problem, self.startup)


@dataclass(frozen=True)
class Nsga2(_Anywhere):
    """NSGA-II, for several objectives."""

    name: ClassVar[str] = "nsga2"
    warm_start: ClassVar[WarmUse | None] = "centres"
    several: ClassVar[bool] = True
    startup: int = 8
    """Number of complete trials before which draws come from the priors."""
    population: int = 16
    """Largest number of trials that have children."""
    crossover: float = 0.9
    """Share of children with two parents (Deb et al. 2002); the others change one."""
    changes: float = 4.0
    """Mean number of changed parameters of a child. Deb et al. change 1; `benchmarks/README.md` has both, simulated."""

    def __post_init__(self) -> None:
        for name, least in (("startup", 1), ("population", 2)):
            check_integer(name, getattr(self, name), least)
        check_number("crossover", self.crossover, 0, 1)
        check_number("changes", self.changes, 1, 100)

    def sampler(self, problem: Problem) -> SpaceSampler:
        return NsgaSampler(problem, **asdict(self))


def _named(leaves: Sequence[Leaf], shown: int = 5) -> str:
    """The subject and verb of a sentence: `a, b and 3 more vary`."""
    names = [leaf.name for leaf in leaves]
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{', '.join(names[:shown])}{rest} {'varies' if len(names) == 1 else 'vary'}"


SEARCHERS: Mapping[str, type[Searcher]] = {entry.name: entry for entry in (Changes, Tpe, Random, Grid, Gp, Nsga2)}
"""Every searcher by its name."""


def searcher_from(record: Mapping[str, Any]) -> Searcher:
    """The searcher of a record such as `{"name": "tpe", "startup": 8}`. Raises ValueError if it describes none."""
    return from_record(SEARCHERS, "searcher", record)
