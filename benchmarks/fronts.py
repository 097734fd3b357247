"""What searchers find for two objectives: simulated sweeps of complete trials over `full`, score against cost.

    python -m benchmarks.fronts --seeds 10

The score is a response of `benchmarks.search`, the other objective the negative log of the cost of an example relative
to the default's. A front is worth its hypervolume: the share of the box of scores from -0.03 to 0.04 and log speed-ups
from -1 to 3 that some trial dominates. The table holds the mean over the seeds, and the difference from random draws
of the same seeds with its standard error.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.search.responses import Response
from benchmarks.search.runs import cost_of, opened, response_of
from hpo.samplers.problem import Problem
from hpo.search.searchers import Changes, Nsga2, Random, Searcher
from hpo.search.study import Study

TRIALS = (24, 50, 100)
SEARCHERS: Mapping[str, Searcher] = {
    "random": Random(), "changes": Changes(), "nsga2": Nsga2(), "nsga2, 1 change": Nsga2(changes=1.0)
}  # fmt: skip


def hypervolume(points: Sequence[tuple[float, float]]) -> float:
    """The dominated share of the box, on a grid of scores."""
    reached = [max([min(gain, 3) + 1 for score, gain in points if score >= least and gain > -1], default=0.0)
               for least in np.linspace(-0.03, 0.04, 281)]  # fmt: skip
    return float(np.mean(reached)) / 4


def sweep(
    searcher: Searcher, problem: Problem, response: Response, gain: Callable[[Mapping[str, Any]], float], seed: int
) -> list[tuple[float, float]]:
    """Score and gain of each trial; the first is the default configuration."""
    study, points = Study(problem, seed, searcher), []
    for number in range(TRIALS[-1]):
        params, config = problem.starts[0], {}
        if number:
            drawn = study.draw(number)
            assert drawn is not None
            params, config = drawn.params, drawn.config
        points.append((response.score(params), gain(config)))
        study.add(number, params)
        study.report(number, 1000, points[-1][0])
        study.finish(number, "complete", points[-1][0], points[-1][1:])
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    space, complete, plan = opened("full")
    cost = cost_of()
    default = space.apply({}, complete)
    problem = Problem(space.leaves, (space.parameters(default, complete),))

    def gain(config: Mapping[str, Any]) -> float:
        try:
            return -math.log(cost(space.apply(config, complete)) / cost(default))
        except ValueError:  # an illegal draw costs as much as the default
            return 0.0

    print("| default | searcher | " + " | ".join(f"{count} trials" for count in TRIALS) + " |\n" + "| --- " * 5 + "|")
    for kind in ("good", "poor"):
        worth: dict[str, list[list[float]]] = {name: [] for name in SEARCHERS}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            response = response_of(kind, plan, seed)
            for name, searcher in SEARCHERS.items():
                points = sweep(searcher, problem, response, gain, seed)
                worth[name].append([hypervolume(points[:count]) for count in TRIALS])
        for name, rows in worth.items():
            cells = []
            for place in range(len(TRIALS)):
                more = [row[place] - other[place] for row, other in zip(rows, worth["random"], strict=True)]
                error = statistics.stdev(more) / math.sqrt(len(more))
                mean = statistics.mean(row[place] for row in rows)
                cells.append(f"{mean:.3f} ({statistics.mean(more):+.3f} ± {error:.3f})")
            print(f"| {kind} | `{name}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
