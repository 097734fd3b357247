"""Paired seeds: `hpo` where all trials of a replicate share a seed: equal data order, equal first weights.

    python -m benchmarks.paired run benchmarks/around.py --data ../shared/data/cs224n --scheduler none \
        --searcher random --trials 25 --keep 25 --name paired
    hpo ensemble paired --method top-k --size 25 --name all
    python -m benchmarks.rungs paired

In `hpo` itself the seeds of trials are independent; draws are the same. `benchmarks.rungs` tells how well the scores at
a rung rank the trials at the end, with these seeds and in a sweep of `hpo run`. A sweep must be resumed as it began.
"""

from __future__ import annotations

import hpo.__main__
from hpo.search import sweep
from hpo.search.study import derived_seed


def paired_seed(sweep_seed: int, trial: int, replicate: int) -> int:
    """Seed of the training of a replicate, whichever trial it belongs to."""
    return derived_seed(sweep_seed, "train", replicate)


def main() -> None:
    sweep.training_seed = paired_seed
    hpo.__main__.main()


if __name__ == "__main__":
    main()
