"""The sections of a page about one sweep: each a function from its facts to HTML. The table SECTIONS holds all."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import pandas as pd

from hpo.display import answer, ensemble
from hpo.display.importance import importance_notes
from hpo.display.live import rung_cell, rung_title
from hpo.display.tables import MISSING, cell
from hpo.display.trials import ALIKE, RANKED, cost_rows, score_rows, trial_records
from hpo.display.units import amount, duration, plural, score
from hpo.driver.importance import importances_frame
from hpo.report import html
from hpo.report.errors import error_rows, texts_of
from hpo.report.facts import Facts
from hpo.report.quality import confusion_counts, precision_recall_curve, with_outliers
from hpo.search.importance import Importance
from hpo.search.states import CLOSED, DEFAULT
from results.objectives import SCORE, Objective, objectives_from
from results.plots import predictions, trials

PARAMETERS = 9
"""Largest number of parameters in a figure."""
IMPORTANT = 15
"""Largest number of parameters whose importance is drawn."""
COSTS = ("trainable_parameters", "seconds", "peak_memory_bytes")
"""Costs that are drawn beside the sweep's own objectives."""
LISTED = 20
"""Largest number of reasons of failures, and of trials that each of them names."""
WIDE = 640
"""Smallest width in pixels of a figure with many axes."""
AXIS = 90
"""Smallest distance in pixels of two parallel axes: their labels stand between them."""


class Section(NamedTuple):
    """One section of a page."""

    title: str
    body: Callable[[Facts, str], str]
    """Function from the facts, and a prefix of ids, to the section's HTML; empty: there is nothing to show."""


def headline(facts: Facts, key: str) -> str:
    """State of the sweep, its answer, and scores on `held` beside those on `search`."""
    snapshot, record = facts.snapshot, facts.record
    closed = sum(snapshot.counts[state] for state in CLOSED)
    parts = [
        html.tiles(
            {
                "state": snapshot.phase,
                "trials closed": f"{closed} of {snapshot.trials_total}",
                "examples used": amount(snapshot.budget_examples_used),
                "time": duration(snapshot.elapsed),
            }
        )
    ]
    if facts.decision is not None:
        first, *others = answer.sentences(facts.decision)
        parts += [html.paragraph(first, "lead"), *map(html.paragraph, others)]
    parts.append(_answer(facts))
    for name, saved in facts.ensembles.items():
        parts.append(html.table(_estimates(saved), f"{name}: held out ({ensemble.size_of(saved, 'held')})", "scores"))
        sentences = [ensemble.alone(saved), *ensemble.gains(saved), ensemble.optimism(saved)]
        parts += [html.paragraph(line) for line in sentences if line]
    if facts.looks:
        parts.append(html.paragraph(ensemble.looks({"looks": facts.looks}), "note"))
    if facts.answer is None and not facts.ensembles:
        parts.append(
            html.paragraph(
                "There are no held-out scores yet: trials are chosen on `search`, and what was chosen predicts `held` "
                "when the search has ended."
            )
        )
    parts += [html.paragraph(message, "warning") for message in (*snapshot.messages, *facts.warnings)]
    if snapshot.running:
        rows = [{"trial": run.trial, "examples": run.examples, SCORE: score(run.overall)} for run in snapshot.running]
        parts.append(html.table(rows, "trials that run now, at their last report"))
    objectives = f", objectives {', '.join(record.objectives)}" if len(record.objectives) > 1 else ""
    about = (
        f"Base {record.base.name}, data {record.data.place}, budget {record.budget:,} examples a trial, searcher "
        f"{record.searcher['name']}, scheduler {record.scheduler['name']}, seed {record.seed}{objectives}."
    )
    return "".join([*parts, html.paragraph(about, "note")])


def _answer(facts: Facts) -> str:
    """The answer's scores on `held`, beside that on `search`; empty without any."""
    if facts.answer is None or facts.decision is None:
        return ""
    number = facts.decision.answer.trial
    name = f"answer ({number}{', the default' if number == DEFAULT else ''})"
    on_search = facts.trials.loc[facts.trials["trial"] == number, SCORE]
    row = ensemble.estimate_row(name, facts.answer) | {CHOSE: score(float(on_search.iloc[0]))}
    return html.table([row], f"answer: held out ({ensemble.rows_of(facts.answer)})", "scores")


def _estimates(saved: Mapping[str, Any]) -> list[dict[str, str]]:
    """Ensemble, best single trial and default on `held`; the last column is the score on `search`, which chose them."""
    rows, others = ensemble.estimate_rows(saved, "held"), ensemble.estimate_rows(saved, "search")
    on_search = {row[""]: row[SCORE] for row in others}
    return [row | {CHOSE: on_search.get(row[""], MISSING)} for row in rows]


CHOSE = "on `search`, which chose"


def best_trials(facts: Facts, key: str) -> str:
    """The best trials with their costs and their scores on `search`; `held` is for what was chosen."""
    rows, tasks = trial_records(facts.best), list(facts.record.tasks)
    if not rows:
        return html.paragraph("No trial has a score yet.")
    parts = [html.table(score_rows(rows, tasks), f"best trials ({RANKED}, which chose them)", "scores")]
    if any(row["like_best"] for row in rows[1:]):
        parts.append(html.paragraph(ALIKE, "note"))
    parts.append(html.table(cost_rows(rows, tasks), "cost of each (s/1k: seconds per 1,000 training examples)"))
    return "".join(parts)


def progress(facts: Facts, key: str) -> str:
    """Best score over budget and over time, learning curves, rungs."""
    snapshot = facts.snapshot
    rungs = [
        {"examples": f"{row.step:,}", **{name: rung_cell(name, getattr(row, name)) for name in snapshot.rung_columns}}
        for row in snapshot.rungs
    ]
    history = trials.history
    return "".join(
        [
            html.pairs(
                [
                    html.plot(f"{key}-used", "Best score over the examples used.", history(facts.reports), SHOWN),
                    html.plot(f"{key}-time", "Best score over time.", history(facts.reports, by="elapsed"), SHOWN),
                ]
            ),
            html.plot(
                f"{key}-curves", "Learning curves.", trials.intermediate_values(facts.reports),
                "A cross marks where a trial was stopped; dotted lines are the milestones.",
            ),
            html.table(rungs, rung_title(snapshot)),
        ]
    )  # fmt: skip


SHOWN = "A point is a report; scores at lower rungs cannot be compared with those at the full budget."


def parameters(facts: Facts, key: str) -> str:
    """Importance, parallel coordinates and slices."""
    shown = facts.params[:PARAMETERS]
    at = f"Scores at {facts.step:,} examples, of {plural(len(facts.compared), 'trial')}."
    parts = []
    if isinstance(facts.importance, Importance):
        frame = importances_frame(facts.importance)
        kept = frame[frame["parameter"].isin(frame["parameter"].unique()[:IMPORTANT])]
        found = facts.importance
        note = (
            f"Share of what separates the best trials from all: {found.method}, {plural(found.trials, 'trial')} at the "
            f"rung of {found.rung:,} examples."
        )
        parts.append(html.plot(f"{key}-importance", "Importance.", trials.param_importances(kept), note))
        notes = importance_notes(facts.importance, len(facts.importance.parameters))[2:]
        parts += [html.paragraph(note, "note") for note in ["A pale bar may be chance.", *notes]]
    else:
        parts.append(html.paragraph(facts.importance, "note"))
    drawn = trials.parallel_coordinate(facts.compared, shown)
    note, least = f"{at} Drag along an axis to select trials.", max(WIDE, AXIS * (len(shown) + 1))
    parts.append(html.plot(f"{key}-parallel", "Parallel coordinates.", drawn, note, least))
    panels = trials.slice(facts.compared, shown)
    parts.append(html.plot(f"{key}-slice", "Slices.", panels, f"{at} Later trials are orange.", WIDE))
    return "".join(parts)


def cost(facts: Facts, key: str) -> str:
    """Score against costs, with the trials that no other beats."""
    own = [each for each in objectives_from(facts.record.objectives, facts.record.tasks) if each.minimised]
    every = dict.fromkeys([*own, *(Objective(name, minimised=True) for name in COSTS)])
    return html.pairs(
        html.plot(
            f"{key}-{each.column}", f"Score against {trials.unit_of(each.column)[1]}.",
            trials.pareto_front(facts.trials, each), "Complete trials; no other beats those of the front in both.",
        )
        for each in every
    )  # fmt: skip


def seeds(facts: Facts, key: str) -> str:
    """The spread of configurations that ran more than once."""
    note = "Each point is a run with another seed."
    if facts.decision is not None:
        note = f"{note} Noise of one run: {facts.decision.answer.noise:.4f} (standard deviation)."
    return html.plot(f"{key}-seeds", "Spread over seeds.", trials.replicates(facts.trials), note)


def workers(facts: Facts, key: str) -> str:
    """Which trial was trained when, what was lost, and which places were in quarantine, with the reason."""
    lost = int((facts.attempts["state"] == "lost").sum())
    note = (
        f"A worker is a process at a place. An attempt without a report has a slot. "
        f"{plural(lost, 'attempt')} lost with the process."
    )
    drawn = trials.timeline(facts.attempts, facts.quarantines)
    rows = [
        {"place": row.place, "from": duration(row.begin), "to": duration(row.end), "what failed there": row.reason}
        for row in facts.quarantines.itertuples()
    ]
    return "".join(
        [
            html.plot(f"{key}-timeline", "Workers over time.", drawn, note, WIDE),
            html.table(rows, "places in quarantine, which got no trials (time since the sweep began)"),
            "" if rows else html.paragraph("No place was in quarantine."),
        ]
    )


def failures(facts: Facts, key: str) -> str:
    """Attempts that failed, diverged or were lost, by reason, the most frequent first, with the traceback of the first
    of each."""
    bad = facts.attempts[facts.attempts["state"].isin(["failed", "diverged", "lost"])]
    if bad.empty:
        return html.paragraph("No trial failed, diverged or was lost.")
    parts = []
    groups = sorted(bad.groupby(["state", "reason"], sort=False), key=lambda group: -len(group[1]))
    for (state, reason), rows in groups[:LISTED]:
        title = f"{state}, {plural(len(rows), 'attempt')}: {reason or 'no reason is known'} ({_named(rows)})"
        error = next((error for error in rows["error"] if error), "")
        parts.append(html.folded(title, html.code(error.rstrip())) if error else html.paragraph(title))
    if others := [rows for _, rows in groups[LISTED:]]:
        rows = pd.concat(others)
        title = f"Other reasons, {plural(len(rows), 'attempt')}: `hpo show` tells them ({_named(rows)})."
        parts.append(html.paragraph(title))
    return "".join(parts)


def _named(rows: pd.DataFrame) -> str:
    """The trials of some attempts."""
    numbers = rows["trial"].unique()
    return f"trials {', '.join(map(str, numbers[:LISTED]))}{' ...' if len(numbers) > LISTED else ''}"


def quality(facts: Facts, key: str) -> str:
    """Confusion, precision and recall, or agreement, of the answer, the best single trial and the ensemble, by a task's
    kind."""
    parts = []
    for number, predictor in enumerate(facts.predictors):
        if predictor.part is not None:
            chosen = "" if predictor.part == "held" else ", which chose it"
            parts.append(html.heading(f"{predictor.name}, on `{predictor.part}`{chosen}"))
            parts.append(html.pairs(_figures_of(facts, f"{key}-{number}", predictor.parts[predictor.part])))
    return "".join(parts) or html.paragraph("No predictions are stored yet.")


def _figures_of(facts: Facts, key: str, tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    """The figures of one predictor, by each task's kind."""
    from minbert import metrics

    for task, declared in facts.record.tasks.items():
        if task not in tables:
            continue
        rows = tables[task]
        found = metrics.details(declared, rows["prediction"].to_numpy(dtype=float), rows["label"].to_numpy(dtype=float))
        figures = {name.replace("_", " "): score(value) for name, value in found.items() if isinstance(value, float)}
        note = f"n = {len(rows):,}: {', '.join(f'{name} {value}' for name, value in figures.items())}."
        place = html.identifier(key, task)
        if declared.kind == "regression":
            note = f"{note} {plural(len(found.get('outliers', [])), 'outlier')} beyond {metrics.OUTLIER:g} deviations."
            drawn = predictions.agreement(with_outliers(rows, found))
            yield html.plot(f"{place}-agreement", f"{task}: predictions and labels.", drawn, note)
        elif "confusion" in found:
            drawn = predictions.confusion(confusion_counts(found))
            yield html.plot(f"{place}-confusion", f"{task}: labels and predictions.", drawn, note)
            curve = precision_recall_curve(rows)
            if declared.classes == 2 and len(curve):
                drawn = predictions.precision_recall(curve)
                yield html.plot(f"{place}-precision", f"{task}: precision and recall of class 1.", drawn)


def errors(facts: Facts, key: str) -> str:
    """The worst predictions on `search`, as a table that filters."""
    texts, missing = texts_of(facts.record)
    rows = error_rows(facts.record, facts.predictors, texts)
    if not rows:
        return html.paragraph("No predictions on `search` are stored, or none is wrong.")
    note = (
        "The worst predictions on `search`, the worst of each task first; in parentheses the probability of the "
        "predicted class. Rows of `held` are not shown: who reads them selects on them."
    )
    parts = [html.paragraph(note, "note"), *([html.paragraph(missing, "warning")] if missing else [])]
    return "".join([*parts, html.filtered(f"{key}-errors", rows, "task")])


def reproduce(facts: Facts, key: str) -> str:
    """Command, environment, and the fingerprints of data and base."""
    record = facts.record
    command = shlex.join(["hpo", *record.argv]) if record.argv else "not recorded"
    sources = {"data": record.data.place, "data fingerprint (SHA-256)": record.data.fingerprint}
    sources |= {f"{name} (SHA-256)": digest for name, digest in record.data.inputs.items()}
    started = [f"warm start from {each.sweep} (SHA-256)" for each in record.warm_start]
    sources |= dict(zip(started, (each.sha256 for each in record.warm_start), strict=True))
    resources = {name.replace("_", " "): cell(value) for name, value in asdict(record.resources).items()}
    return "".join(
        [
            html.heading("Command of the first launch"),
            html.code(command),
            html.heading("Data and base"),
            html.facts(
                {
                    **sources,
                    "base": record.base.name,
                    "base weights (SHA-256)": record.base.sha256,
                    "search space (SHA-256)": record.space_hash,
                    "seed": record.seed,
                    "began": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created)),
                }
            ),
            html.heading("Environment"),
            html.facts({**record.versions, **resources}),
        ]
    )


SECTIONS: Sequence[Section] = (
    Section("Result", headline),
    Section("Progress", progress),
    Section("Best trials", best_trials),
    Section("Parameters", parameters),
    Section("Cost", cost),
    Section("Seeds", seeds),
    Section("Workers", workers),
    Section("Failures", failures),
    Section("Predictions", quality),
    Section("Errors", errors),
    Section("Reproduce", reproduce),
)
"""The sections of a sweep, in the order of the page."""
