"""Ensemble selection: an ensemble of a sweep's trials is chosen on `search`, estimated on `held`, and saved as JSON.

A choice scores too well on the data on which it was made. So the main result is the score on `held`, with n and a 95 %
interval, next to the scores of the best single trial (also chosen on `search`) and of the default trial 0. Trials
predict `held` after the choice, and only those that were chosen: `results.choice.select` names them, `conclude`
estimates.

The score on the full dev set, which papers report, needs predictions for all of its rows (part `dev`). It is given on
request, and marked as used for the selection.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from results import estimates
from results.candidates import Rows, candidates
from results.choice import Selection, labels_of, select
from results.ensembles import Greedy, TopK, blend
from results.files import StoreError, explained, safe_name
from results.predictions import (
    LABELLED,
    Member,
    Prediction,
    aligned,
    common_rows,
    headline,
    labels,
    member,
    predicted,
    whole,
)
from results.scoring import Scoring, Vector
from results.store import SweepFolder
from results.views import ranking, trials_frame


def usable(folder: SweepFolder) -> list[int]:
    """Trials with kept weights or predictions of all parts, best first; those without a rank last."""
    frame = trials_frame(folder)
    trials = {int(trial) for trial in frame["trial"][frame["kept"]]} | whole(folder)
    ranked = [trial for trial in ranking(frame) if trial in trials]
    return [*ranked, *sorted(trials - set(ranked))]


def conclude(folder: SweepFolder, scoring: Scoring, selection: Selection, *, name: str | None = None) -> dict[str, Any]:
    """Estimate the scores of a selection, and save it as an ensemble.

    The result is the record that `load` returns: name, method, size, combination, members (trial, attempt, weight),
    candidates, best_single, default, skipped, selected_on, and `estimates` by role ("ensemble", "best_single",
    "default") and part ("held", "search", "dev") with value, low, high and n of overall and of each task. `dev` is
    there if all chosen trials have predicted all of it. `gain` is the ensemble's overall minus that of the best single
    trial on `held`, `gain_over_default` that of the best single trial minus that of the default. Raises StoreError if
    a chosen trial has not predicted `held`.
    """
    technique = selection.technique
    name = safe_name(name or f"{selection.method}-{technique.size}", "Ensemble name")
    if not selection.picks:
        reasons = "; ".join(selection.candidates.skipped)
        rule = f"No trial of `{folder.name}` has predictions on all of `search`; run `hpo ensemble {folder.name}`."
        raise StoreError(f"{rule} {reasons}".strip())
    attempts = predicted(folder)
    record = {
        "name": name,
        "method": selection.method,
        **asdict(technique),
        "combination": technique.combination,
        "members": [
            {"trial": trial, "attempt": attempts.get(trial), "weight": count}
            for trial, count in Counter(selection.picks).items()
        ],
        "candidates": list(selection.candidates.members),
        "best_single": selection.best_single,
        "default": selection.default,
        "skipped": selection.candidates.skipped,
        "selected_on": ["search", "dev"],
        **_estimates(folder, scoring, selection),
    }
    with explained("write to", f"{folder.folder.path}/ensembles"):
        ensembles = folder.folder.child("ensembles")
        ensembles.make()
        ensembles.write(f"{name}.json", json.dumps(record, indent=1).encode())
    return record


def choose(
    folder: SweepFolder,
    scoring: Scoring,
    *,
    method: str = "greedy",
    size: int = 5,
    name: str | None = None,
    trials: Sequence[int] | None = None,
) -> dict[str, Any]:
    """`select` and `conclude`. Raises StoreError if one of `trials` is no candidate."""
    order = [trial for trial in usable(folder) if trials is None or trial in trials]
    selection = select(folder, scoring, method=method, size=size, trials=order)
    if missing := sorted(set(trials or ()) - selection.candidates.members.keys()):
        others = list(candidates(folder, usable(folder)).members)
        raise StoreError(
            f"Trials {missing} of `{folder.name}` have no predictions on all of `search`. Trials that have: {others}."
        )
    return conclude(folder, scoring, selection, name=name)


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
        raise StoreError(f"`{folder.folder.path}/ensembles/{name}.json` is damaged or foreign: {error}.") from error
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
        again = f"run `hpo predict {folder.name} --ensemble {record['name']}`"
        raise StoreError(f"Members of ensemble `{record['name']}` have predicted different rows; {again}.")
    chosen = [index for index, entry in enumerate(record["members"]) for _ in range(int(entry["weight"]))]
    values = blend(complete, chosen, str(record["combination"]), kinds)
    return {task: Prediction(rows[task], values[task]) for task in rows}


def _estimates(folder: SweepFolder, scoring: Scoring, selection: Selection) -> dict[str, Any]:
    """`estimates`, `gain` and `gain_over_default` of a record."""
    result: dict[str, dict[str, Any]] = {role: {} for role in selection.roles}
    gains: dict[str, Any] = {"gain": None, "gain_over_default": None}
    for part, (splits, members) in _parts(folder, selection).items():
        rows = common_rows(members.values())
        expected = labels_of(folder, scoring, splits, rows)
        values = {
            role: _blended(members, trials, rows, selection.technique, scoring)
            for role, trials in selection.roles.items()
            if members.keys() >= set(trials)
        }
        for role, predictions in values.items():
            tasks = {task: estimates.of_task(scoring, task, predictions[task], expected[task]) for task in expected}
            overall = estimates.of_overall(scoring, predictions, expected)
            result[role][part] = {"overall": overall.to_dict(), "tasks": {t: e.to_dict() for t, e in tasks.items()}}
        if part == "held":
            pairs = {"gain": ("ensemble", "best_single"), "gain_over_default": ("best_single", "default")}
            for name, (better, other) in pairs.items():
                if other in values:
                    gains[name] = estimates.of_difference(
                        scoring, [values[better]], [values[other]], expected
                    ).to_dict()
    return {"estimates": result, **gains}


def _parts(
    folder: SweepFolder, selection: Selection
) -> dict[str, tuple[tuple[str, ...], dict[int, Member]]]:
    """Part for which scores are estimated -> its splits, and the predictions of the chosen trials on it.

    Only `held` takes no part in the selection. Raises StoreError if a chosen trial has not predicted `held`.
    """
    held: dict[int, Member] = {trial: headline(folder, trial) for trial in selection.trials}
    if missing := [trial for trial, predictions in held.items() if not predictions]:
        again = f"run `hpo ensemble {folder.name}`"
        raise StoreError(f"Trials {missing} of `{folder.name}` have not predicted `held`; {again}.")
    pool = selection.candidates
    parts: dict[str, tuple[tuple[str, ...], dict[int, Member]]] = {
        "held": (("held",), held),
        "search": (("search",), {trial: pool.members[trial] for trial in selection.trials if trial in pool.members}),
    }
    every = {task: rows for task, (rows, _) in labels(folder, LABELLED).items()}
    dev = {trial: aligned(member(folder, trial, LABELLED), every) for trial in selection.trials}
    complete: dict[int, Member] = {trial: predictions for trial, predictions in dev.items() if predictions is not None}
    return parts | ({"dev": (LABELLED, complete)} if len(complete) == len(dev) else {})


def _blended(
    members: Mapping[int, Member], trials: Sequence[int], rows: Rows, technique: TopK | Greedy, scoring: Scoring
) -> dict[str, Vector]:
    """Predictions of one role for the rows. Raises StoreError for predictions that are not finite."""
    distinct = sorted(set(trials))
    parts = [aligned(members[trial], rows) for trial in distinct]
    complete = [part for part in parts if part is not None]
    if len(complete) != len(parts):
        wrong = [trial for trial, part in zip(distinct, parts, strict=True) if part is None]
        raise StoreError(f"Predictions of trials {wrong} are not finite.")
    return blend(complete, [distinct.index(trial) for trial in trials], technique.combination, scoring.kinds)
