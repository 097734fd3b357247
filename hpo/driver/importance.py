"""Importance of the parameters of a stored sweep: its rows as `hpo.search.importance` needs them."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from hpo.driver.ledger import Ledger
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
    from results.reading import report_per_step, since_first_start
    from results.rows import to_rows

    events, reports = folder.history()
    starts: dict[int, dict[str, Any]] = {}
    for row in to_rows(since_first_start(events, events)):
        if row["event"] == "start":
            starts.setdefault(int(row["trial"]), row)  # a trial's identity is fixed at its first start
    scores: dict[int, dict[int, dict[str, float]]] = {}
    for row in to_rows(report_per_step(reports, events)):
        overall = math.nan if row["diverged"] else row["overall"]
        scores.setdefault(int(row["trial"]), {})[int(row["step"])] = {OVERALL: overall, **(row["scores"] or {})}
    return [
        Trial(
            state=entry.state,
            params=json.loads(starts[number]["params"] or "{}"),
            scores=scores.get(number, {}),
            replicate=int(starts[number].get("replicate") or 0),
        )
        for number, entry in sorted(Ledger.of(folder).searched.items())
    ]
