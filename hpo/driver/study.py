"""The Optuna study of a stored sweep: its trials as the searcher was told of them, with their times, seeds and scores.

The rows are replayed through the pure `Sweep`, as a resume does (`hpo.search.study` says which state a trial has
there). Repeats are left out: the searcher does not know them.
"""

from __future__ import annotations

import copy
from datetime import datetime
from typing import TYPE_CHECKING, Any

import optuna

from hpo.launch.plan import Plan
from hpo.launch.record import record_of
from hpo.search.study import quiet_study
from hpo.space.space import Space

if TYPE_CHECKING:
    from results.store import SweepFolder


def study_of(folder: SweepFolder) -> optuna.Study:
    """A new study in memory, named as the sweep, that maximises the overall score.

    Its trials stand in the order of their start. User attributes of each: `trial` (its number in the sweep), `origin`,
    `config_id`, `seed`, `scores` (by task, at its last step), `searcher` where it was drawn. Parameters have Optuna's
    names, which say the branch: `adapter.lora/rank`.
    """
    record, events = record_of(folder), folder.events()
    plan = Plan("", record, Space.from_json(record.space, record.pinned), record.trials, resources=None)
    sweep = plan.sweep(workers=1)
    sweep.replay(events)
    starts, ends, scores = _moments(events)
    study = quiet_study(optuna.storages.InMemoryStorage(), folder.name)
    numbers = [number for number, trial in sweep.records.items() if not trial.start.repeat]
    for number, told in zip(numbers, sweep.study.trials(), strict=True):
        trial, start = copy.copy(told), sweep.records[number].start
        trial.datetime_start = starts[number]
        trial.datetime_complete = ends.get(number) if trial.state.is_finished() else None
        known = {"trial": number, "origin": start.origin, "config_id": start.config_id, "seed": start.seed}
        trial.user_attrs = {**known, "scores": scores.get(number, {}), **trial.user_attrs}
        study.add_trial(trial)
    return study


def _moments(events: list[dict[str, Any]]) -> tuple[dict[int, datetime], dict[int, datetime], dict[int, Any]]:
    """By trial: when it first started, when its last attempt ended, its scores at its last report."""
    starts: dict[int, datetime] = {}
    ends: dict[tuple[int, int], datetime] = {}
    scores: dict[int, Any] = {}
    for row in events:
        number, moment = int(row["trial"]), datetime.fromtimestamp(float(row["time"]))
        if row.get("event") == "start":
            starts.setdefault(number, moment)
        elif row.get("event") == "end":
            ends.setdefault((number, int(row["attempt"])), moment)  # a later row says that weights were deleted
        else:
            scores[number] = row["scores"]
    return starts, {number: moment for (number, _), moment in sorted(ends.items())}, scores
