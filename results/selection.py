"""Ensembles of a sweep: the record of a choice, with its scores on `held`, saved as JSON.

A choice scores too well on the data on which it was made. So the main result is the score on `held`, with n and a 95 %
interval, next to the scores of the best single trial (also chosen on `search`) and of the default trial 0. Trials
predict `held` after the choice, and only those that were chosen: `results.choice.select` names them, `conclude`
estimates. Every predictor whose `held` score is shown counts as a look (`results.looks`).

The score on the full dev set, which papers report, needs predictions for all of its rows (part `dev`). It is given on
request, and marked as used for the selection.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from results import estimates, soups
from results.blending import blend, mean_probabilities
from results.candidates import Rows
from results.choice import SOUP, Ensemble, Selection, labels_of
from results.crossvalidation import Tried
from results.files import StoreError, explained, safe_name
from results.looks import look, looks
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
)
from results.scoring import Scoring, Vector
from results.store import SweepFolder

PAIRS = {"gain": ("ensemble", "best_single"), "gain_over_default": ("best_single", "default")}
"""Difference on `held` -> the roles that it compares."""


def conclude(
    folder: SweepFolder,
    scoring: Scoring,
    selection: Selection,
    *,
    name: str | None = None,
    noise: float | None = None,
    repeats: Mapping[int, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """Estimate the scores of a selection, and save it as an ensemble.

    `noise`: standard deviation of a trial's overall over seeds, where the sweep measured it. `repeats`: repeat -> the
    trial whose configuration it runs again.

    The result is the record that `load` returns: name, method, size, combination, candidates, best_single, default,
    seeds, skipped, selected_on, looks, and

        members     the heaviest first: trial, repeat_of (a trial; null if it is no repeat), attempt, weight (mean over
                    the tasks), weights by task, overall alone on `search`, gain on `search` and on `held` of adding it
                    to those before it, seconds (time to predict, relative to the best single trial; null if
                    unknown). Of a soup: checkpoint, and no gain on `held`
        seconds     their sum
        evaluations number of models that were evaluated on `search` to choose the members: 0 except for a soup
        compared    each method that was tried by cross-validation on `search`: method, size, members, value, optimism,
                    gain over the best single trial
        estimates   by role ("ensemble", "best_single", "default", "seeds") and part ("held", "search", "dev"): value,
                    low, high and n of overall and of each task; `dev` if all chosen trials have predicted all of it
        gain, gain_over_default   the ensemble minus the best single trial, and that minus the default, on `held`; with
                    `noise` also `seeds`: low and high of the interval that allows for other seeds

    Raises StoreError if a chosen trial has not predicted `held`.
    """
    name = safe_name(name or f"{selection.method}-{selection.size}", "Ensemble name")
    if selection.ensemble is None:
        reasons = "; ".join(selection.candidates.skipped)
        rule = f"No trial of `{folder.name}` has predictions on all of `search`; run `hpo ensemble {folder.name}`."
        raise StoreError(f"{rule} {reasons}".strip())
    parts = _parts(folder, scoring, selection)
    members = _members(folder, scoring, selection, selection.ensemble, parts)
    for entry in members:
        entry["repeat_of"] = repeats.get(entry["trial"])
    for ensemble in selection.roles.values():
        look(folder, _weights(ensemble), ensemble.combination)
    seconds = [entry["seconds"] for entry in members]
    record = {
        "name": name,
        "method": selection.method,
        "size": selection.size,
        "combination": selection.ensemble.combination,
        "members": members,
        "seconds": None if None in seconds else sum(seconds),
        "candidates": list(selection.candidates.members),
        "evaluations": selection.ensemble.soup.evaluations if selection.ensemble.soup else 0,
        "best_single": selection.best_single,
        "default": selection.default,
        "seeds": list(selection.seeds),
        "noise": noise,
        "compared": [_compared(tried) for tried in selection.tried],
        "skipped": selection.candidates.skipped,
        "selected_on": ["search", "dev"],
        "looks": looks(folder),
        **_estimates(scoring, selection, parts, noise),
    }
    with explained("write to", f"{folder.folder.path}/ensembles"):
        ensembles = folder.folder.child("ensembles")
        ensembles.make()
        if selection.ensemble.soup is not None:
            soups.write(ensembles, name, selection.ensemble.soup.predictions)
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
        raise StoreError(f"`{folder.folder.path}/ensembles/{name}.json` is damaged or foreign: {error}.") from error
    return record


def saved(folder: SweepFolder) -> list[str]:
    """Names of the saved ensembles, sorted."""
    return [name.removesuffix(".json") for name in folder.folder.child("ensembles").names() if name.endswith(".json")]


def combined(folder: SweepFolder, record: Mapping[str, Any], splits: Sequence[str]) -> dict[str, Prediction]:
    """The ensemble's predictions by task, combined from its members' stored predictions.

    `splits`: `("test",)`, or `("search", "held", "dev")` for every row of the dev files. Raises StoreError if members
    have predicted different rows.
    """
    members = {int(entry["trial"]): member(folder, int(entry["trial"]), splits) for entry in record["members"]}
    rows = {task: prediction.rows for task, prediction in next(iter(members.values())).items()}
    parts = {trial: aligned(predictions, rows) for trial, predictions in members.items()}
    complete = {trial: part for trial, part in parts.items() if part is not None}
    if len(complete) != len(parts):
        again = f"run `hpo predict {folder.name} --ensemble {record['name']}`"
        raise StoreError(f"Members of ensemble `{record['name']}` have predicted different rows; {again}.")
    return combine(record, complete, {task: folder.tasks[task].kind for task in rows})


def combine(
    record: Mapping[str, Any], members: Mapping[int, Member], kinds: Mapping[str, str]
) -> dict[str, Prediction]:
    """An ensemble's predictions for the tasks of `kinds`, from the predictions of each of its trials for the same rows.

    Its probabilities are the weighted means of the members'; None where a member has none. Raises StoreError for a
    soup, which is one model.
    """
    if record["combination"] == SOUP:
        raise StoreError(
            f"Ensemble `{record['name']}` is a soup, one model; its members' predictions do not give its own."
        )
    ensemble = _recorded(record, kinds)
    ordered = [members[trial] for trial in ensemble.trials]
    values = blend(ordered, ensemble.weights, ensemble.combination, kinds)
    predictions = {}
    for task, weights in ensemble.weights.items():
        own = [member[task] for member in ordered]
        predictions[task] = Prediction(own[0].rows, values[task], mean_probabilities(own, weights))
    return predictions


def weight_in(task: str, entry: Mapping[str, Any]) -> float:
    """Weight in a task of an entry of `members`. Earlier versions wrote one weight a member, for all tasks."""
    return float(entry.get("weights", {}).get(task, entry["weight"]))


def _recorded(record: Mapping[str, Any], tasks: Collection[str]) -> Ensemble:
    """The ensemble of a record."""
    entries = record["members"]
    weights = {task: np.array([weight_in(task, entry) for entry in entries]) for task in tasks}
    return Ensemble(tuple(int(entry["trial"]) for entry in entries), weights, str(record["combination"]))


Part = tuple[dict[int, Member], dict[str, Vector], Rows]
"""Predictions of chosen trials on a part of the examples, its labels and its rows."""


def _parts(folder: SweepFolder, scoring: Scoring, selection: Selection) -> dict[str, Part]:
    """Part for which scores are estimated -> the predictions of the chosen trials on it, and its labels.

    Only `held` takes no part in the selection. Raises StoreError if a chosen trial has not predicted `held`.
    """
    held: dict[int, Member] = {trial: headline(folder, trial) for trial in selection.trials}
    if missing := [trial for trial, predictions in held.items() if not predictions]:
        again = f"run `hpo ensemble {folder.name}`"
        raise StoreError(f"Trials {missing} of `{folder.name}` have not predicted `held`; {again}.")
    pool = selection.candidates
    chosen = {trial for role in selection.roles.values() for trial in role.trials}
    search: dict[int, Member] = {trial: own for trial, own in pool.members.items() if trial in chosen}
    parts: dict[str, tuple[Sequence[str], dict[int, Member]]] = {
        "held": (("held",), held),
        "search": (("search",), search),
    }
    every = {task: rows for task, (rows, _) in labels(folder, LABELLED).items()}
    dev = {trial: aligned(member(folder, trial, LABELLED), every) for trial in selection.trials}
    complete: dict[int, Member] = {trial: predictions for trial, predictions in dev.items() if predictions is not None}
    soup = None if selection.ensemble is None else selection.ensemble.soup
    if len(complete) == len(dev) and (soup is None or aligned(soup.predictions, every) is not None):
        parts["dev"] = (LABELLED, complete)
    found: dict[str, Part] = {}
    for part, (splits, members) in parts.items():
        rows = common_rows(members.values())
        expected = labels_of(folder, scoring, splits, rows)
        found[part] = members, expected, {task: rows[task] for task in expected}
    return found


def _blended(
    members: Mapping[int, Member], ensemble: Ensemble, rows: Rows, kinds: Mapping[str, str]
) -> dict[str, Vector]:
    """An ensemble's predictions for these rows. Raises StoreError for predictions that are not finite."""
    if ensemble.soup is not None:
        if (own := aligned(ensemble.soup.predictions, rows)) is None:
            raise StoreError(f"Predictions of the soup of trials {list(ensemble.trials)} are not finite.")
        return {task: prediction.values for task, prediction in own.items()}
    parts = [aligned(members[trial], rows) for trial in ensemble.trials]
    if wrong := [trial for trial, part in zip(ensemble.trials, parts, strict=True) if part is None]:
        raise StoreError(f"Predictions of trials {wrong} are not finite.")
    complete = [part for part in parts if part is not None]
    return blend(complete, {task: ensemble.weights[task] for task in rows}, ensemble.combination, kinds)


def _estimates(
    scoring: Scoring, selection: Selection, parts: Mapping[str, Part], noise: float | None
) -> dict[str, Any]:
    """`estimates`, `gain` and `gain_over_default` of a record."""
    result: dict[str, dict[str, Any]] = {role: {} for role in selection.roles}
    gains: dict[str, Any] = dict.fromkeys(PAIRS)
    for part, (members, expected, rows) in parts.items():
        values = {
            role: _blended(members, ensemble, rows, scoring.kinds)
            for role, ensemble in selection.roles.items()
            if members.keys() >= set(ensemble.predictors)
        }
        for role, predictions in values.items():
            result[role][part] = estimates.of_predictor(scoring, predictions, expected)
        for name, (better, other) in PAIRS.items():
            if part == "held" and better in values and other in values:
                gain = estimates.of_difference(scoring, [values[better]], [values[other]], expected)
                spread = _spread(selection.roles[better], selection.roles[other], noise)
                gains[name] = {**gain.to_dict(), "seeds": _ends(estimates.widened(gain, spread)) if noise else None}
    return {"estimates": result, **gains}


def _ends(estimate: estimates.Estimate) -> dict[str, float]:
    return {"low": estimate.low, "high": estimate.high}


def _spread(left: Ensemble, right: Ensemble, noise: float | None) -> float:
    """Standard deviation over seeds of the difference of two ensembles' scores, where an ensemble's score is taken to
    follow the weighted mean of its members' and theirs to be independent."""
    shares, others = left.shares, right.shares
    squares = [(shares.get(trial, 0.0) - others.get(trial, 0.0)) ** 2 for trial in shares.keys() | others.keys()]
    return (noise or 0.0) * math.sqrt(sum(squares))


def _members(
    folder: SweepFolder, scoring: Scoring, selection: Selection, ensemble: Ensemble, parts: Mapping[str, Part]
) -> list[dict[str, Any]]:
    """`members` of a record."""
    attempts, seconds, weights = predicted(folder), _seconds(folder), _weights(ensemble)
    alone = {trial: Ensemble.even([trial], ensemble.weights) for trial in ensemble.trials}
    values = _growing(scoring, ensemble, parts)
    single = None if selection.best_single is None else seconds.get(selection.best_single)
    return [
        {
            "trial": trial,
            "attempt": attempts.get(trial),
            "checkpoint": None if ensemble.soup is None else ensemble.soup.checkpoints[place],
            "weight": ensemble.shares[trial],
            "weights": weights[trial],
            "alone": _value(scoring, parts["search"], alone[trial]),
            "gain": {part: own[place] - own[place - 1] if place else None for part, own in values.items()},
            "seconds": seconds[trial] / single if single and trial in seconds and ensemble.soup is None else None,
        }
        for place, trial in enumerate(ensemble.trials)
    ]


def _growing(scoring: Scoring, ensemble: Ensemble, parts: Mapping[str, Part]) -> dict[str, Sequence[float]]:
    """Overall scores on `search` and `held` of the first member, the first two, and so on; of a soup on `search`."""
    if ensemble.soup is not None:
        return {"search": ensemble.soup.values}
    growing = [ensemble.first(number + 1) for number in range(len(ensemble.trials))]
    return {part: [_value(scoring, parts[part], each) for each in growing] for part in ("search", "held")}


def _weights(ensemble: Ensemble) -> dict[int, dict[str, float]]:
    """Trial -> its weight in each task."""
    return {
        trial: {task: float(own[place]) for task, own in ensemble.weights.items()}
        for place, trial in enumerate(ensemble.trials)
    }


def _value(scoring: Scoring, part: Part, ensemble: Ensemble) -> float:
    """Overall score of an ensemble on a part."""
    members, expected, rows = part
    return scoring.judge(expected)(_blended(members, ensemble, rows, scoring.kinds))


def _seconds(folder: SweepFolder) -> dict[int, float]:
    """Trial -> seconds of all its evaluations. Candidates were all evaluated on the same rows."""
    reports = folder.read("reports").select(["trial", "evaluation_seconds"]).to_pydict()
    pairs = zip(reports["trial"], reports["evaluation_seconds"], strict=True)
    return dict(sorted((trial, seconds) for trial, seconds in pairs if seconds))


def _compared(tried: Tried) -> dict[str, Any]:
    """One line of `compared`."""
    return {
        **tried.plan._asdict(),
        "members": tried.members,
        "value": tried.value,
        "optimism": tried.optimism,
        "gain": tried.gain.to_dict(),
    }
