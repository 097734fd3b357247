"""Ensemble selection: an ensemble of a sweep's trials is chosen on `search`, estimated on `held`, and saved as JSON.

A choice scores too well on the data on which it was made. So the main result is the score on `held`, with n and a 95 %
interval, next to the scores of the best single trial (also chosen on `search`) and of the default trial 0. The score on
the full dev set, which papers report, is given too and marked as used for the selection.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results import estimates
from results.ensembles import ENSEMBLES, Greedy, TopK, blend
from results.files import StoreError, explained, safe_name
from results.predictions import LABELLED, Member, Prediction, aligned, labels, member, predicted
from results.scoring import Scoring, Vector
from results.store import SweepFolder
from results.views import ranking, trials_frame

PARTS: dict[str, tuple[str, ...]] = {"held": ("held",), "search": ("search",), "dev": LABELLED}
"""Part for which scores are estimated -> its splits. Only `held` takes no part in the selection."""


def choose(
    folder: SweepFolder,
    scoring: Scoring,
    *,
    method: str = "greedy",
    size: int = 5,
    name: str | None = None,
    trials: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Select an ensemble, estimate its scores, and save it. Candidates are all trials with predictions, or `trials`.

    The result is the record that `load` returns: name, method, size, combination, members (trial, attempt, weight),
    candidates, best_single, default, skipped, selected_on, `estimates` by role ("ensemble", "best_single", "default")
    and part ("held", "search", "dev") with value, low, high and n of overall and of each task, and `gain`, the
    ensemble's overall minus that of the best single trial on held. Raises StoreError, ValueError for a size below 1.
    """
    if method not in ENSEMBLES:
        raise StoreError(f"Unknown ensemble method `{method}`. Expected one of: {', '.join(ENSEMBLES)}.")
    name = safe_name(name or f"{method}-{size}", "Ensemble name")
    technique = ENSEMBLES[method](size)
    pool, skipped = _pool(folder, scoring, trials)
    numbers = list(pool)
    selections = _select(folder, scoring, pool, technique)
    attempts = predicted(folder)
    record = {
        "name": name,
        "method": method,
        **asdict(technique),
        "combination": technique.combination,
        "members": [
            {"trial": numbers[index], "attempt": attempts[numbers[index]], "weight": count}
            for index, count in Counter(selections["ensemble"]).items()
        ],
        "candidates": numbers,
        "best_single": numbers[selections["best_single"][0]],
        "default": 0 if "default" in selections else None,
        "skipped": skipped,
        "selected_on": ["search", "dev"],
        **_estimates(folder, scoring, list(pool.values()), selections, technique),
    }
    with explained("write to", folder.path / "ensembles"):
        ensembles = folder.folder.child("ensembles")
        ensembles.make()
        ensembles.write(f"{name}.json", json.dumps(record, indent=1).encode())
    return record


def load(folder: SweepFolder, name: str) -> dict[str, Any]:
    """The record of a saved ensemble. Raises StoreError if it does not exist or cannot be read."""
    try:
        record: dict[str, Any] = json.loads(
            folder.folder.child("ensembles").read(f"{safe_name(name, 'Ensemble name')}.json")
        )
    except FileNotFoundError:
        existing = ", ".join(saved(folder)) or "no ensembles yet"
        raise StoreError(f"No ensemble `{name}` in sweep `{folder.name}`. It has: {existing}.") from None
    except ValueError as error:
        raise StoreError(f"`{folder.path}/ensembles/{name}.json` is damaged or foreign: {error}.") from error
    return record


def saved(folder: SweepFolder) -> list[str]:
    """Names of the saved ensembles, sorted."""
    return [name.removesuffix(".json") for name in folder.folder.child("ensembles").names() if name.endswith(".json")]


def combined(folder: SweepFolder, record: Mapping[str, Any], splits: Sequence[str]) -> dict[str, Prediction]:
    """The ensemble's predictions by task, without probabilities, combined from its members' stored predictions.

    `splits`: `("test",)`, or `("search", "held", "dev")` for every row of the dev files. Raises StoreError if members
    have predicted different rows.
    """
    kinds = {name: task.kind for name, task in folder.tasks.items()}
    members = [member(folder, int(entry["trial"]), splits) for entry in record["members"]]
    rows = {task: prediction.rows for task, prediction in members[0].items()}
    parts = [aligned(predictions, rows) for predictions in members]
    complete = [part for part in parts if part is not None]
    if len(complete) != len(parts):
        raise StoreError(f"Members of ensemble `{record['name']}` have predicted different rows; finalise them again.")
    chosen = [index for index, entry in enumerate(record["members"]) for _ in range(int(entry["weight"]))]
    values = blend(complete, chosen, str(record["combination"]), kinds)
    return {task: Prediction(rows[task], values[task]) for task in rows}


def _select(
    folder: SweepFolder, scoring: Scoring, pool: Mapping[int, Member], technique: TopK | Greedy
) -> dict[str, tuple[int, ...]]:
    """Role -> places in the pool: the ensemble, the best single member, and trial 0 if the pool has it.

    Only labels of `search` are used.
    """
    search = _labels(folder, scoring, PARTS["search"])
    members = [_part(predictions, search) for predictions in pool.values()]
    expected = {task: values for task, (_, values) in search.items()}

    def judge(values: Mapping[str, Vector]) -> float:
        return scoring.overall(scoring.scores(values, expected))

    selections = {
        "ensemble": technique.select(members, judge, scoring.kinds),
        "best_single": TopK(1).select(members, judge, scoring.kinds),
    }
    return selections | ({"default": (list(pool).index(0),)} if 0 in pool else {})


def _pool(
    folder: SweepFolder, scoring: Scoring, trials: Sequence[int] | None
) -> tuple[dict[int, dict[str, Prediction]], list[str]]:
    """Candidates, best first, with predictions for all labelled rows; and why other trials are skipped."""
    attempts = predicted(folder)
    ranked = [trial for trial in ranking(trials_frame(folder)) if trial in attempts]
    # Trials with predictions but without a rank come last. Trial 0 must be in the pool, to be compared with.
    order = [*ranked, *(trial for trial in attempts if trial not in ranked)]
    if trials is not None:
        if missing := sorted(set(trials) - attempts.keys()):
            raise StoreError(
                f"Trials {missing} of `{folder.name}` have no predictions. Trials with predictions: {order}."
            )
        order = [trial for trial in order if trial in trials]
    labelled = {task: rows for task, (rows, _) in _labels(folder, scoring, LABELLED).items()}
    pool, skipped = {}, []
    for trial in order:
        predictions = aligned(member(folder, trial, LABELLED), labelled)
        if predictions is None:
            skipped.append(f"trial {trial}: its predictions are incomplete or not finite")
        else:
            pool[trial] = predictions
    if not pool:
        raise StoreError(f"No trial of `{folder.name}` has predictions yet; finalise the sweep first. {skipped or ''}")
    return pool, skipped


def _labels(
    folder: SweepFolder, scoring: Scoring, splits: Sequence[str]
) -> dict[str, tuple[NDArray[np.int64], Vector]]:
    labelled = labels(folder, splits)
    missing = [task for task in scoring.metrics if task not in labelled]
    if missing:
        raise StoreError(f"Table `examples` has no labels of {', '.join(missing)} for {' and '.join(splits)}.")
    return {task: labelled[task] for task in scoring.metrics}


def _part(predictions: Member, part: Mapping[str, tuple[NDArray[np.int64], Vector]]) -> dict[str, Prediction]:
    predicted_part = aligned(predictions, {task: rows for task, (rows, _) in part.items()})
    assert predicted_part is not None, "the pool holds all labelled rows"
    return predicted_part


def _estimates(
    folder: SweepFolder,
    scoring: Scoring,
    pool: Sequence[Member],
    selections: Mapping[str, tuple[int, ...]],
    technique: TopK | Greedy,
) -> dict[str, Any]:
    result: dict[str, dict[str, Any]] = {role: {} for role in selections}
    gain = None
    for part, splits in PARTS.items():
        labelled = _labels(folder, scoring, splits)
        expected = {task: values for task, (_, values) in labelled.items()}
        members = [_part(predictions, labelled) for predictions in pool]
        values = {
            role: blend(members, chosen, technique.combination, scoring.kinds) for role, chosen in selections.items()
        }
        for role, predictions in values.items():
            tasks = {task: estimates.of_task(scoring, task, predictions[task], expected[task]) for task in expected}
            overall = estimates.of_overall(scoring, predictions, expected)
            result[role][part] = {"overall": overall.to_dict(), "tasks": {t: e.to_dict() for t, e in tasks.items()}}
        if part == "held":
            ensemble, single = values["ensemble"], values["best_single"]
            gain = estimates.of_difference(scoring, ensemble, single, expected).to_dict()
    return {"estimates": result, "gain": gain}
