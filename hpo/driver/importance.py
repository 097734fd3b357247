"""Importance of the parameters of a stored sweep: its rows as `hpo.search.importance` needs them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from hpo.driver.ledger import entries_of
from hpo.launch.record import record_of
from hpo.search.importance import OVERALL, Importance, ImportanceError, PedAnova, Trial, importance
from hpo.space.space import Space

if TYPE_CHECKING:
    import pandas as pd

    from results.store import SweepFolder


def importance_of(
    folder: SweepFolder, *, method: str = PedAnova.name, task: str | None = None, rung: int | None = None
) -> Importance:
    """The importance of a sweep's parameters, also while it runs.

    `task` is a task of the sweep or `overall`; None: overall, and each task beside it. Raises ImportanceError.
    """
    record = record_of(folder)
    targets = (OVERALL, *record.tasks)
    if task is not None and task not in targets:
        raise ImportanceError(f"Unknown task `{task}`. Expected one of: {', '.join(targets)}.")
    return importance(
        Space.from_json(record.space, record.pinned).leaves,
        record.milestones,
        trials_of(folder),
        targets if task is None else (task,),
        method=method,
        rung=rung,
    )


def importances_frame(result: Importance) -> pd.DataFrame:
    """One row per parameter and target, the most important parameter first: parameter, target, importance, chance (NaN
    where the method gives none). `results.plots` draws it."""
    import pandas as pd

    rows = [
        {
            "parameter": entry.name,
            "target": target,
            "importance": entry.importance[target],
            "chance": entry.chance.get(target, math.nan),
        }
        for entry in result.parameters
        for target in result.targets
    ]
    return pd.DataFrame(rows, columns=["parameter", "target", "importance", "chance"])


def trials_of(folder: SweepFolder) -> list[Trial]:
    """The trials of a stored sweep by number, without repeats, with their parameters and scores."""
    from results.fold import fold, scores_per_step
    from results.parameters import first_starts

    found = fold(folder)
    drawn = [text for part in first_starts(folder, found, "params") for text in part["params"].to_pylist()]
    scores = scores_per_step(found, [OVERALL, *folder.tasks])
    return [
        Trial(entry.state, json.loads(text or "{}"), scores.get(number, {}), entry.replicate)
        for (number, entry, _), text in zip(entries_of(folder, found), drawn, strict=True)
        if not entry.repeat
    ]
