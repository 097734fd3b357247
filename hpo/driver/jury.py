"""The jury: chooses an ensemble among trials by their evidence, while a sweep runs, so that its weights are kept.

The choice is a greedy selection on `search` (`results.ensembles`), with the metrics that scored the trials.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from results.candidates import Rows
    from results.evidence import Evidence
    from results.predictions import Prediction
    from results.scoring import Scoring, Vector
    from results.store import SweepFolder

SIZE = 20
"""Picks of the ensemble, with repetitions."""


def scoring(folder: SweepFolder) -> Scoring:
    """The scoring of a sweep's tasks, by the metrics that scored its trials."""
    from minbert import metrics
    from results.scoring import Scoring

    return Scoring.of(folder.tasks, metrics.score, metrics.overall)


class Jury:
    """Holds the predictions of trials that may become members. What it was not given it reads from the store."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._scoring = scoring(folder)
        self._predictions: dict[int, dict[str, Prediction]] = {}
        """Trial -> its predictions on `search`; empty if it has no evidence."""

    @functools.cached_property
    def _order(self) -> Rows:
        from results.candidates import search_order

        return search_order(self._folder)

    @functools.cached_property
    def _labels(self) -> dict[str, tuple[NDArray[np.int64], Vector]]:
        from results.predictions import labels

        return labels(self._folder, ("search",))

    def take(self, trial: int, evidence: Evidence) -> None:
        """Take the evidence of a trial's last report."""
        from results.candidates import member_of

        self._predictions[trial] = member_of(evidence, self._order)

    def forget(self, trial: int) -> None:
        """Drop the predictions of a trial whose weights are gone."""
        self._predictions.pop(trial, None)

    def members(self, trials: Sequence[int]) -> list[int]:
        """Members of the greedy ensemble of these trials, in the order of their first picks; none without evidence."""
        import numpy as np

        from results.candidates import last_evidence, widest
        from results.ensembles import forward
        from results.growth import Joint, growths
        from results.predictions import aligned

        if missing := [trial for trial in trials if trial not in self._predictions]:
            stored = last_evidence(self._folder, missing)
            for trial in missing:
                self.take(trial, stored.get(trial, {}))
        known = {trial: self._predictions[trial] for trial in trials}
        rows = widest(known)
        complete = {trial: aligned(predictions, rows) for trial, predictions in known.items()}
        pool = {trial: member for trial, member in complete.items() if member is not None}
        if rows.keys() != self._scoring.metrics.keys() or not pool:
            return []
        truth = {task: values[np.isin(numbers, rows[task])] for task, (numbers, values) in self._labels.items()}
        ensemble = Joint(growths(list(pool.values()), truth, self._scoring), self._scoring)
        return list(dict.fromkeys(list(pool)[place] for place in forward(ensemble, SIZE)))
