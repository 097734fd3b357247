"""The promises of the driver, checked on what a sweep left behind. Each check returns what is broken, in words."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hpo.driver.finalise import is_done
from hpo.driver.ledger import Ledger
from hpo.launch.record import job_of, record_of
from hpo.search.states import CLOSED
from hpo.worker import trainer
from hpo.worker.checkpoints import complete
from hpo.worker.job import Assignment
from hpo.worker.paths import checkpoint_folder
from results.store import SweepFolder

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What is known after a sweep: the store, and what was noted outside of it."""

    folder: SweepFolder
    trials: int
    """Number of trials that were asked for."""
    rows: Sequence[Row]
    """All rows of `trials` and `reports`, in order."""
    appended: Sequence[Row]
    """Every row that a driver appended, as it noted it: generation, seq, table, trial, attempt, event, state, step."""
    acknowledged: Sequence[Row]
    """Generation and seq up to which a driver noted that rows are durable."""
    begun: Sequence[Row]
    """Trial and attempt of every training that began."""
    poisoned: frozenset[int]
    """Trials that trained with NaN weights."""

    def ends(self) -> dict[int, list[Row]]:
        """Trial -> the rows of its ends."""
        found: dict[int, list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.get("event") == "end":
                found[row["trial"]].append(row)
        return found


def accounted_for(evidence: Evidence) -> list[str]:
    ledger = Ledger.of(evidence.folder)
    problems = [f"trial {number} is missing" for number in sorted(set(range(evidence.trials)) - ledger.searched.keys())]
    problems += [f"trial {number} is {entry.state}" for number, entry in ledger.open.items()]
    starts = Counter((row["trial"], row["attempt"]) for row in evidence.rows if row.get("event") == "start")
    problems += [f"attempt {key} has {count} starts" for key, count in starts.items() if count > 1]
    problems += [
        f"the weights of trial {number} that a row names are missing: {kept.checkpoint}"
        for number, kept in ledger.kept.items()
        if kept.name not in complete(checkpoint_folder(evidence.folder.folder, number))
    ]
    if not problems and not is_done(evidence.folder, evidence.trials):
        problems.append("the sweep says that it is done, but a launch would have something to do")
    return problems


WHAT = ("table", "trial", "attempt", "event", "state", "step")
"""Fields that tell one row from another."""


def acknowledged_once(evidence: Evidence) -> list[str]:
    durable: dict[int, int] = {}
    for note in evidence.acknowledged:
        durable[note["generation"]] = max(durable.get(note["generation"], 0), note["seq"])
    stored: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in evidence.rows:
        stored[row["generation"], row["seq"]].append(row)
    problems = []
    for note in evidence.appended:
        key = note["generation"], note["seq"]
        if note["seq"] > durable.get(note["generation"], 0):
            continue
        same = [row for row in stored.get(key, []) if all(row.get(name) == note[name] for name in WHAT)]
        if len(same) != 1:
            problems.append(f"row {note['seq']} of generation {note['generation']} is stored {len(same)} times: {note}")
    twice = [seq for seq, count in Counter(row["seq"] for row in evidence.rows).items() if count > 1]
    return problems + [f"rows share the number {seq}" for seq in twice]


def finished_once(evidence: Evidence) -> list[str]:
    problems: list[str] = []
    closed: dict[int, str] = {}
    for row in evidence.rows:
        if row["trial"] in closed and row.get("event") != "end":
            what = "starts" if row.get("event") == "start" else "reports"
            problems.append(f"trial {row['trial']} {what} after its end, as attempt {row['attempt']}")
        if row.get("event") != "end" or row["state"] not in CLOSED:
            continue
        if (first := closed.setdefault(row["trial"], row["state"])) != row["state"]:
            problems.append(f"trial {row['trial']} has ended as {first} and as {row['state']}")
    starts = {(row["trial"], row["attempt"]) for row in evidence.rows if row.get("event") == "start"}
    begun = Counter((note["trial"], note["attempt"]) for note in evidence.begun)
    problems += [f"attempt {key} has trained {count} times" for key, count in begun.items() if count > 1]
    return problems + [f"attempt {key} has trained without a start in the store" for key in begun if key not in starts]


def no_healthy_failure(evidence: Evidence) -> list[str]:
    problems = []
    trained = {note["trial"] for note in evidence.begun}
    for trial, ends in sorted(evidence.ends().items()):
        state, reason = ends[-1]["state"], ends[-1].get("reason")
        if state == "failed":
            problems.append(f"trial {trial} has failed: {reason}")
        if (state == "diverged") != (trial in evidence.poisoned and trial in trained) and state != "failed":
            problems.append(f"trial {trial}, {'' if trial in evidence.poisoned else 'not '}poisoned, is {state}")
    return problems


def best_reproduced(evidence: Evidence) -> list[str]:
    """The best trial, and of the finished ones the one with most attempts, run again here without any fault."""
    ledger = Ledger.of(evidence.folder)
    finished = [trial for trial in ledger.ranking() if ledger.trials[trial].state == "complete"]
    if not finished:
        return ["no trial is complete"]
    interrupted = max(finished, key=lambda trial: (ledger.trials[trial].attempts, -trial))
    return [problem for trial in sorted({finished[0], interrupted}) for problem in differences(evidence, trial)]


def differences(evidence: Evidence, trial: int) -> list[str]:
    """Where another run of a trial differs from its stored reports."""
    torch.set_num_threads(1)
    record = record_of(evidence.folder)
    start = next(row for row in evidence.rows if row["trial"] == trial and row.get("event") == "start")
    stored = {
        row["step"]: row["overall"] for row in evidence.rows if row["trial"] == trial and row["table"] == "reports"
    }
    config = start["config"]
    assignment = Assignment(trial, 0, json.loads(config) if isinstance(config, str) else config, start["seed"])
    with tempfile.TemporaryDirectory() as fresh:
        resources = record.resources.choose(1, 0)
        job = job_of(record, evidence.folder.folder, resources, trainer=record.trainer)
        job = replace(job, folder=fresh)
        again = {report.step: report.overall for report in trainer.train(job, assignment, lambda: False)}
    return [
        f"trial {trial} has {value!r} at step {step}, and {again.get(step)!r} when it runs again"
        for step, value in stored.items()
        if again.get(step) != value
    ]


PROMISES: Mapping[str, Callable[[Evidence], list[str]]] = {
    "every trial is accounted for": accounted_for,
    "every acknowledged row is stored exactly once": acknowledged_once,
    "no finished trial ran twice": finished_once,
    "no healthy trial failed": no_healthy_failure,
    "the best score is reproduced by another run": best_reproduced,
}
"""What is promised -> its check."""
