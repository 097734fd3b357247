"""How long a draw takes: CPU milliseconds of every searcher after 100 to 3,000 trials.

    python -m benchmarks.draws --trials 100 300 1000 3000

`changes`, `tpe`, `random` and `nsga2` draw from the space `full` over the default tasks, `gp` from a flat space of 8
numbers, `grid` from a finite space of 8 integers. The trials are draws of `random` with random scores: one in nine is
complete (for `nsga2`, which reads only those, all are, with three objectives), one in fifty diverged, eight are
running. Between two draws a trial ends and another starts, as in a sweep.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from hpo.launch.plan import complete_for
from hpo.samplers.problem import Problem
from hpo.search.searchers import SEARCHERS, Random
from hpo.search.states import End
from hpo.search.study import Study
from hpo.space.build import build
from hpo.space.tree import leaves
from minbert.tasks import choose_tasks
from search_spaces.domains import Float, Int

RUNNING = 8
MILESTONES = (2_222, 6_666, 20_000)


def problem_of(searcher: str) -> Problem:
    """The space that a searcher draws from."""
    if searcher == "gp":
        return Problem(leaves({f"x{index}": Float(0.0, 1.0) for index in range(8)}))
    if searcher == "grid":
        return Problem(leaves({f"n{index}": Int(0, 9) for index in range(8)}))
    tasks = choose_tasks(None)
    complete = complete_for(tasks)
    space = build("full", list(tasks)).space.resolved(complete)
    default = space.parameters(space.apply({}, complete), complete)
    return Problem(space.leaves, (default,) if default else ())


class Filled:
    """A study that fills up with trials of random scores."""

    def __init__(self, searcher: str) -> None:
        problem = problem_of(searcher)
        self.study = Study(problem, 0, SEARCHERS[searcher]())
        self._several = SEARCHERS[searcher].several
        self._source, self._rng, self._trials = Study(problem, 1, Random()), random.Random(0), 0

    def grow(self, count: int) -> None:
        """Start trials, and end others, until `count` have started."""
        while self._trials < count:
            drawn = self._source.draw(self._trials)
            self.study.add(self._trials, drawn.params)
            self._trials += 1
            if self._trials > RUNNING:
                self._end(self._trials - RUNNING - 1)

    def _end(self, number: int) -> None:
        reached = 3 if self._several else self._rng.choices(range(1, 4), weights=(6, 2, 1))[0]
        for step in MILESTONES[:reached]:
            self.study.report(number, step, value := self._rng.gauss(0, 1))
        if self._rng.random() < 0.02:
            self.study.finish(number, "diverged")
        else:
            further = [self._rng.gauss(0, 1) for _ in range(2 * self._several)]
            end: tuple[End, float | None] = ("complete", value) if reached == 3 else ("pruned", None)
            self.study.finish(number, *end, further)


def measure(searcher: str, trials: list[int], draws: int) -> list[tuple[float, float]]:
    """(mean, longest) CPU milliseconds of a draw after each number of trials."""
    filled, rows = Filled(searcher), []
    for count in trials:
        filled.grow(count)
        filled.study.draw(count)  # reads all trials; in a sweep this is spread over its draws
        times = []
        for extra in range(1, draws + 1):
            filled.grow(count + extra)
            begun = time.process_time()
            filled.study.draw(count + extra)
            times.append(1000 * (time.process_time() - begun))
        rows.append((statistics.mean(times), max(times)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 300, 1000, 3000])
    parser.add_argument("--searcher", choices=list(SEARCHERS), nargs="+", default=list(SEARCHERS))
    parser.add_argument("--draws", type=int, default=30, help="timed draws for each number of trials")
    options = parser.parse_args()
    print(f"| searcher | {' | '.join(f'{count:,} trials' for count in options.trials)} |")
    print(f"| --- |{' --- |' * len(options.trials)}")
    for searcher in options.searcher:
        cells = [f"{mean:.1f} ({most:.0f})" for mean, most in measure(searcher, options.trials, options.draws)]
        print(f"| `{searcher}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
