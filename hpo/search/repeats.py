"""Repeats: once the search has ended, the best configurations and the default run again with other seeds.

Finalists are the best FINALISTS configurations at full budget, by the score of the trial that drew each, and the
default. They run again in this order, with the first further replicate of all before the second of any:

    the best, the default, the second, the third

Of one more run the best gains most, since it was picked for its luck too; then the default, since every difference is
from it. Repeats use at most one in SHARE examples of the sweep, their own included; where that does not allow all, the
last ones are left out. They never stop early unless they diverge. A repeat is a trial with a number of its own; no
rung, no searcher and no count of trials knows it.

What is to be repeated follows from the rows of the search and of the repeats so far, so a sweep that was killed goes on
as the unbroken one would have. A sweep that is extended may have other finalists; earlier repeats count in its share.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from hpo.search.states import DEFAULT, REPEAT, State

FINALISTS = 3
"""Number of configurations that are repeated beside the default."""
REPLICATES = 2
"""Further replicates of each finalist, unless the launch asks for another number."""
SHARE = 5
"""Repeats use at most one in SHARE examples of a sweep."""


class Run(NamedTuple):
    """A trial of the search or a repeat, as far as repeats and the answer need it."""

    trial: int
    config_id: str
    replicate: int
    origin: str | None
    """See `hpo.search.states.Origin`."""
    state: State
    last: tuple[int, float] | None
    """The highest milestone reported, and the overall score there."""

    @property
    def repeat(self) -> bool:
        """Whether the run is a repeat."""
        return self.origin == REPEAT

    def complete(self, budget: int) -> bool:
        """Whether the run has a score at full budget."""
        return self.state == "complete" and self.last is not None and self.last[0] == budget


class Repeat(NamedTuple):
    """A repeat to be made."""

    of: int
    """The trial whose configuration runs again."""
    replicate: int
    """Which repetition of the configuration it is, from 1."""


def finalists(runs: Collection[Run], budget: int) -> list[int]:
    """Trials whose configurations are repeated, in the order of their repeats.

    None without a configuration other than the default at full budget: there would be nothing to compare.
    """
    complete = sorted(
        (run for run in runs if not run.repeat and run.complete(budget)), key=lambda run: (-_score(run), run.trial)
    )
    default = next((run for run in runs if run.trial == DEFAULT), None)
    first: dict[str, int] = {}
    for run in complete:
        if default is None or run.config_id != default.config_id:
            first.setdefault(run.config_id, run.trial)
    best = list(first.values())[:FINALISTS]
    compared = bool(best) and default is not None and default.complete(budget)
    return [*best[:1], *([DEFAULT] if compared else []), *best[1:]]


def _score(run: Run) -> float:
    assert run.last is not None, "only trials with a report are ranked"
    return run.last[1]


def allowed(examples: int, budget: int) -> int:
    """Number of repeats after a search that has used so many examples: at most one example in SHARE is a repeat's."""
    return examples // ((SHARE - 1) * budget)


def missing(runs: Collection[Run], budget: int, replicates: int) -> list[Repeat]:
    """The repeats that are still to be started, in their order, once every trial of the search has ended."""
    spent = {(run.config_id, run.replicate) for run in runs if run.repeat}
    used = sum(run.last[0] for run in runs if not run.repeat and run.last is not None)
    left = allowed(used, budget) - len(spent)
    config_ids = {run.trial: run.config_id for run in runs}
    wanted = [
        Repeat(trial, replicate)
        for replicate in range(1, replicates + 1)
        for trial in finalists(runs, budget)
        if (config_ids[trial], replicate) not in spent
    ]
    return wanted[: max(0, left)]


def most(replicates: int) -> int:
    """Largest number of repeats of a sweep that is never extended."""
    return replicates * (FINALISTS + 1)
