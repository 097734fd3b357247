"""Rows on which both sweeps are scored: `search` while they run, `held` afterwards."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hpo.search.schedulers import Asha
from minbert.data.files import Corpus
from minbert.training.evaluation import search_sizes

Chosen = dict[str, NDArray[np.int32]]
"""Row numbers of the dev files, by task."""


def search_rows(corpus: Corpus, budget: int) -> Chosen:
    """The `search` rows of every report, as `hpo run` chooses them for this budget, if that is small: its first rung is
    at a ninth of the budget then."""
    available = {name: corpus.size(name, "search") for name in corpus.tasks}
    sizes, _ = search_sizes(available, Asha().milestones(budget, least=budget))
    return {name: corpus.parts[name, "search"][:size] for name, size in sizes.items()}


def held_rows(corpus: Corpus, most: int | None) -> Chosen:
    """The `held` rows, at most `most` of each task; None: all."""
    return {name: corpus.parts[name, "held"][:most] for name in corpus.tasks}


def labels_of(corpus: Corpus, chosen: Mapping[str, NDArray[np.int32]]) -> dict[str, NDArray[np.float32]]:
    return {name: corpus.rows[name, "dev"].labels[rows].astype(np.float32) for name, rows in chosen.items()}
