"""A stored sweep's answer: decided on `search` by `hpo.search.answer`, compared with the default on `held`.

A configuration is named by the trial of the search that drew it; its runs are that trial and its repeats at full
budget. A configuration of which a repeat diverged cannot be the answer. The best trials also get the error of their
difference from the default on finitely many rows of `search`, from the evidence of their runs; the others are taken to
have the mean of those errors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hpo.driver.generations import total_trials
from hpo.driver.jury import scoring
from hpo.driver.ledger import Ledger
from hpo.launch.record import record_of
from hpo.search.answer import Answer, Challenger, decide
from hpo.search.repeats import FINALISTS
from hpo.search.states import DEFAULT

if TYPE_CHECKING:
    from results.estimates import Estimate
    from results.store import SweepFolder

Runs = Mapping[int, Sequence[int]]
"""Trial of the search that drew a configuration -> that trial and its repeats that have a score at full budget."""


class Comparison(NamedTuple):
    """The answer of a sweep, or the configuration that comes nearest to it, against the default on `held`."""

    trial: int
    runs: tuple[int, ...]
    """Its runs that have predicted `held`."""
    default_runs: tuple[int, ...]
    """The default's runs that have."""
    difference: Estimate
    """Mean overall of `runs` minus that of `default_runs`."""


class Decision(NamedTuple):
    """The answer of a sweep, and how it compares."""

    answer: Answer
    held: Comparison | None
    """None: the default or the compared configuration has not predicted `held`."""


def runs_at_full_budget(ledger: Ledger, budget: int) -> Runs:
    """The runs of each configuration at full budget, best first by the trial that drew it, the default's first of all.
    Without configurations of which a repeat diverged."""
    every = {run.trial: run for run in ledger.runs()}
    diverged = {run.config_id for run in every.values() if run.repeat and run.state == "diverged"}
    first: dict[str, int] = {every[DEFAULT].config_id: DEFAULT} if DEFAULT in every else {}
    runs: dict[int, list[int]] = {}
    for trial in [DEFAULT, *ledger.ranking(), *ledger.repeats]:
        run = every.get(trial)
        if run is not None and run.complete(budget) and (run.config_id not in diverged or trial == DEFAULT):
            key = run.config_id or f"trial {trial}"
            members = runs.setdefault(first.setdefault(key, trial), [])
            if trial not in members:
                members.append(trial)
    return runs


def decided(folder: SweepFolder, ledger: Ledger, budget: int) -> Answer:
    """The answer by the rows in the ledger."""
    runs = runs_at_full_budget(ledger, budget)
    errors = sampling_errors(folder, runs)
    usual = sum(errors.values()) / len(errors) if errors else 0.0
    challengers = [
        Challenger(trial, scores_of(ledger, members), errors.get(trial, usual))
        for trial, members in runs.items()
        if trial != DEFAULT
    ]
    return decide(scores_of(ledger, runs.get(DEFAULT, ())), challengers, DEFAULT)


def scores_of(ledger: Ledger, trials: Sequence[int]) -> tuple[float, ...]:
    """Overall of these trials' last reports."""
    reports = [ledger.trials[trial].last_report for trial in trials]
    return tuple(report.overall for report in reports if report is not None)


def sampling_errors(folder: SweepFolder, runs: Runs) -> dict[int, float]:
    """Standard error of the difference of each of the best trials from the default, which comes from the finite number
    of rows of `search`. Trials without evidence are left out."""
    from results.candidates import candidates
    from results.choice import labels_of
    from results.estimates import error_of_difference

    best = [trial for trial in runs if trial != DEFAULT][:FINALISTS]
    if DEFAULT not in runs or not best:
        return {}
    wanted = [run for trial in (DEFAULT, *best) for run in runs[trial]]
    pool, score = candidates(folder, wanted), scoring(folder)
    values = {
        trial: {task: prediction.values for task, prediction in member.items()}
        for trial, member in pool.members.items()
    }
    if not values:
        return {}
    labels = labels_of(folder, score, ("search",), pool.rows)
    known = {trial: [values[run] for run in runs[trial] if run in values] for trial in (DEFAULT, *best)}
    return {
        trial: error_of_difference(score, known[trial], known[DEFAULT], labels)
        for trial in best
        if known[DEFAULT] and known[trial]
    }


def compared(ledger: Ledger, answer: Answer, budget: int, without: Collection[int] = ()) -> list[int]:
    """The trials that predict `held` for the comparison of the answer with the default, as far as their weights are
    kept: every run of both. `without`: trials that could not predict."""
    if answer.leader is None or answer.default is None:
        return []
    runs = runs_at_full_budget(ledger, budget)
    return [
        run
        for trial in (answer.leader.trial, DEFAULT)
        for run in runs[trial]
        if run in ledger.kept and run not in without
    ]


def of_sweep(folder: SweepFolder, ledger: Ledger | None = None) -> Decision | None:
    """The answer of a stored sweep, and its comparison with the default on `held` from the predictions that are there,
    which counts as a look at both. None before the search and its repeats have ended. `ledger`: that of the sweep, if
    it is known."""
    ledger = ledger or Ledger.of(folder)
    answer = on_search(folder, ledger)
    if answer is None:
        return None
    return Decision(answer, _on_held(folder, answer, runs_at_full_budget(ledger, record_of(folder).budget)))


def on_search(folder: SweepFolder, ledger: Ledger) -> Answer | None:
    """The answer of a stored sweep, without a comparison on `held`. None before the search and its repeats have
    ended."""
    record = record_of(folder)
    if not ledger.ended(total_trials(record.trials, folder.folder), record.budget, record.repeats):
        return None
    return decided(folder, ledger, record.budget)


def best_trial(folder: SweepFolder, decision: Decision | None = None) -> int:
    """The answer of a sweep that has ended (`decision`, if it is known), else its best trial so far. Raises StoreError
    if no trial has a score."""
    from results.files import StoreError

    if decision is not None and decision.answer.trial is not None:
        return decision.answer.trial
    ledger = Ledger.of(folder)
    answer = on_search(folder, ledger)
    if answer is not None and answer.trial is not None:
        return answer.trial
    for trial in ledger.ranking():
        return trial
    raise StoreError(f"No trial of sweep `{folder.name}` has a score yet.")


def scores_on_held(folder: SweepFolder, trial: int) -> dict[str, Any] | None:
    """A trial's scores on `held` with their intervals (`results.estimates.of_predictor`); None if it has not predicted
    all of them. Who shows them counts a look (`results.looks`)."""
    from results.choice import labels_of
    from results.estimates import of_predictor
    from results.predictions import aligned, headline

    score, member = scoring(folder), headline(folder, trial)
    if not member.keys() >= score.metrics.keys():
        return None
    rows = {task: member[task].rows for task in score.metrics}
    whole = aligned(member, rows)
    if whole is None:
        return None
    values = {task: prediction.values for task, prediction in whole.items()}
    return of_predictor(score, values, labels_of(folder, score, ("held",), rows))


def predictor_of(folder: SweepFolder, trial: int | None, ensemble: str | None) -> tuple[int | None, str | None]:
    """The trial or the ensemble that predicts: the one that is named, else the best trial. Raises ValueError if both
    are named."""
    if trial is not None and ensemble is not None:
        raise ValueError(f"`trial` and `ensemble` exclude each other; found {trial} and {ensemble!r}.")
    return (best_trial(folder), None) if trial is None and ensemble is None else (trial, ensemble)


def _on_held(folder: SweepFolder, answer: Answer, runs: Runs) -> Comparison | None:
    if answer.leader is None or answer.default is None:
        return None
    trial = answer.leader.trial
    found = difference_on_held((folder, runs[trial]), (folder, runs[DEFAULT]))
    return None if found is None else Comparison(trial, *found)


Side = tuple["SweepFolder", Sequence[int]]
"""A sweep, and the runs of one of its configurations."""


def difference_on_held(left: Side, right: Side) -> tuple[tuple[int, ...], tuple[int, ...], Estimate] | None:
    """The runs of both sides that have predicted `held`, and the mean overall of the left ones minus that of the right
    ones. None if a side has none. The data of both sweeps are equal. It counts as a look at both configurations
    (`results.looks`)."""
    from results.choice import labels_of
    from results.estimates import of_difference
    from results.looks import look_at_runs
    from results.predictions import HELD, aligned, common_rows, headline, predicted

    sides = []
    for folder, runs in (left, right):
        there = predicted(folder, HELD)
        sides.append({run: headline(folder, run) for run in runs if run in there})
    score = scoring(left[0])
    rows = common_rows([member for side in sides for member in side.values()])
    if not all(sides) or not rows.keys() >= score.metrics.keys():
        return None
    rows = {task: rows[task] for task in score.metrics}
    values = [
        {
            run: {task: prediction.values for task, prediction in whole.items()}
            for run, member in side.items()
            if (whole := aligned(member, rows)) is not None
        }
        for side in sides
    ]
    if not all(values):
        return None
    labels = labels_of(left[0], score, ("held",), rows)
    first, second = values
    difference = of_difference(score, list(first.values()), list(second.values()), labels)
    look_at_runs(left[0], first)
    look_at_runs(right[0], second)
    return tuple(first), tuple(second), difference
