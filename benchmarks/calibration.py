"""Calibration: does the probability of a sweep's answer hold, and what does the answer gain?

    python -m benchmarks.calibration

Simulated sweeps without training: eight complete trials whose true differences from the default are normal (mean,
spread), noise over seeds, and an error of the rows of `search`. With repeats the best three and the default run three
times each. The table says how often the default is the answer, what the answer gains, and for answers that say 0.75 to
0.9, and more, how often the configuration with the highest expected gain truly beats the default.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence

from benchmarks.common import markdown, mean
from hpo.search.answer import Answer, Challenger, decide
from hpo.search.repeats import FINALISTS, REPLICATES
from hpo.search.states import DEFAULT

TRIALS = 8
SAMPLING = 0.005
"""Standard error of a difference on the rows of `search`."""
CASES: Sequence[tuple[float, float, bool]] = (
    (-0.01, 0.01, False), (0.0, 0.01, False), (-0.02, 0.02, False), (0.0, 0.03, False), (0.0, 0.015, True),
)  # fmt: skip
"""Mean and spread of the true differences; whether all of them are turned negative."""
NOISES = (0.008, 0.004)


def simulated(
    seed: int, centre: float, spread: float, *, noise: float = 0.008, never: bool = False, repeats: bool = True
) -> tuple[Answer, dict[int, float]]:
    """The answer of a sweep, and the true gain of each trial. `never`: none beats the default."""
    rng = random.Random(seed)
    gains = {trial: rng.gauss(centre, spread) for trial in range(1, TRIALS + 1)}
    gains = {trial: -abs(gain) if never else gain for trial, gain in gains.items()}
    shift = {trial: rng.gauss(0, SAMPLING / math.sqrt(2)) for trial in (DEFAULT, *gains)}

    def run(trial: int) -> float:
        return 0.7 + gains.get(trial, 0.0) + shift[trial] + rng.gauss(0, noise)

    values = {trial: [run(trial)] for trial in (DEFAULT, *gains)}
    best = sorted(gains, key=lambda trial: -values[trial][0])[:FINALISTS]
    for trial in [DEFAULT, *best] * REPLICATES if repeats else []:
        values[trial].append(run(trial))
    given = [Challenger(trial, tuple(values[trial]), SAMPLING) for trial in gains]
    return decide(values[DEFAULT], given), gains


def line(found: Sequence[tuple[Answer, dict[int, float]]]) -> list[str]:
    """Cells of the table about some sweeps."""
    led = [(answer.leader.probability, gains[answer.leader.trial] > 0) for answer, gains in found if answer.leader]
    cells = [
        f"{mean([answer.trial == DEFAULT for answer, _ in found]):.0%}",
        f"{1000 * mean([gains[answer.trial] if answer.trial else 0.0 for answer, gains in found]):+.1f}",
        f"{1000 * mean([max(0.0, *gains.values()) for _, gains in found]):.1f}",
    ]
    for low, high in ((0.75, 0.9), (0.9, 1.01)):
        inside = [pair for pair in led if low <= pair[0] < high]
        said, right = (mean(list(values)) for values in zip(*inside, strict=True)) if inside else (math.nan, math.nan)
        cells.append(f"{said:.2f}, {right:.2f} ({len(inside)})" if inside else "")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=600)
    options = parser.parse_args()
    lines = []
    for noise in NOISES:
        for centre, spread, never in CASES:
            for repeats in (False, True):
                found = [
                    simulated(seed, centre, spread, noise=noise, never=never, repeats=repeats)
                    for seed in range(options.seeds)
                ]
                named = f"nothing beats it, {spread:g}" if never else f"{centre:g}, {spread:g}"
                count = REPLICATES * (1 + FINALISTS) if repeats else 0
                lines.append([f"{noise:g}", named, str(count), *line(found)])
    print(markdown(("noise", "mean, spread", "repeats", "the default is the answer", "gain x 1000", "of the best trial",
                    "0.75 to 0.9: said, right (sweeps)", "above 0.9: said, right (sweeps)"), lines))  # fmt: skip


if __name__ == "__main__":
    main()
