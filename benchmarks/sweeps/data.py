"""Rows on which sweeps are scored: the stock side's `search` while it runs, `held` of both afterwards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from minbert.data.files import Corpus
from minbert.training.milestones import affordable, spread

Chosen = dict[str, NDArray[np.int32]]
"""Row numbers of the dev files, by task."""
LEAST = 500
"""Fewest rows of a task in a fixed set, if it has as many; the comparison of 2026-11-21 was made so."""


def search_rows(corpus: Corpus, budget: int, reports: int) -> Chosen:
    """The `search` rows of every report of the stock side, which scores a fixed set.

    So many that their share of a full trial's time is at most that of `hpo run`, but at least LEAST of each task.
    """
    available = {name: corpus.size(name, "search") for name in corpus.tasks}
    sizes = spread(max(LEAST * len(available), int(affordable(budget) / reports)), available)
    return {name: corpus.parts[name, "search"][:size] for name, size in sizes.items()}


def held_rows(corpus: Corpus, most: int | None) -> Chosen:
    """The `held` rows, at most `most` of each task; None: all."""
    return {name: corpus.parts[name, "held"][:most] for name in corpus.tasks}


def labels_of(corpus: Corpus, chosen: Mapping[str, NDArray[np.int32]]) -> dict[str, NDArray[np.float32]]:
    return {name: corpus.rows[name, "dev"].labels[rows].astype(np.float32) for name, rows in chosen.items()}
