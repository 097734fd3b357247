"""The ledger: the state of each trial, computed row by row from the rows of `trials` and `reports` in the order of
`seq`.

All code of the driver that needs a trial's state from rows uses a ledger. The recorder feeds its ledger with every row
that it appends, and decides by it whose weights are kept. The monitor (`hpo.driver.monitor`) feeds another ledger with
durable rows only, so nothing shown can be lost again. Readers of a stored sweep make one from `SweepFolder.events()`.

`results.views` computes the same for users of `results`, by the same rule: the first report of a (trial, step) that has
not diverged counts; if all have diverged, the first one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hpo.search.repeats import Repeat, Run, missing
from hpo.search.states import CLOSED, INTERRUPTIONS, REPEAT, State, configuration_id, ranking


class StepReport(NamedTuple):
    """One report, read from its row."""

    step: int
    """Nominal milestone, in examples."""
    examples: int
    """Examples used by then."""
    overall: float
    """Overall score; NaN where the trial diverged."""
    scores: Mapping[str, float]
    """Task -> score."""
    diverged: bool


class KeptWeights(NamedTuple):
    """The kept weights of a trial that has ended, read from its last end row."""

    trial: int
    attempt: int
    checkpoint: str
    """Path of the checkpoint when the row was written. Only its last part is used: the store may have moved."""


@dataclass
class TrialEntry:
    """One trial as its rows describe it."""

    state: State = "running"
    lost: bool = False
    """Whether the newest attempt ended with its process or its node."""
    attempt: int = 0
    """The newest attempt."""
    attempts: int = 0
    """Number of starts."""
    origin: str | None = None
    """Where the configuration comes from (`hpo.search.states.Origin`); None where the row does not say."""
    config_id: str = ""
    """Identity of the configuration; empty where the row holds no configuration."""
    replicate: int = 0
    """Which repetition of the configuration the trial is."""
    reason: str = ""
    """Why the newest attempt ended."""
    reports: dict[int, StepReport] = field(default_factory=dict)
    """Step (milestone, in examples) -> the report that counts there."""
    examples: int = 0
    """Largest number of examples that a report of the trial names."""
    checkpoint: str | None = None
    """Path of the checkpoint that the newest report names."""

    @property
    def repeat(self) -> bool:
        """Whether the trial runs a configuration of the search again (`hpo.search.repeats`)."""
        return self.origin == REPEAT

    @property
    def last_report(self) -> StepReport | None:
        """The report that counts at the highest step; None before the first one."""
        return self.reports[max(self.reports)] if self.reports else None

    @property
    def last(self) -> tuple[int, float] | None:
        """Step and overall score of the last report."""
        report = self.last_report
        return None if report is None else (report.step, report.overall)


class Ledger:
    """The trials of a sweep, computed from the rows fed so far."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.trials: dict[int, TrialEntry] = {}
        self.kept: dict[int, KeptWeights] = {}
        """Trial -> its kept weights; trials without kept weights are absent."""
        self.examples_used = 0
        """Examples used by all trials together; examples that were trained twice count once."""
        self.rows = 0
        """Number of rows fed."""
        for row in rows:
            self.feed(row)

    def feed(self, row: Mapping[str, Any]) -> None:
        """Take the next row of `trials` or `reports`."""
        self.rows += 1
        trial, event = int(row["trial"]), row.get("event")
        if event == "start":
            self.trials.setdefault(trial, TrialEntry())
        elif trial not in self.trials:
            return  # the row of its start is lost: the trial is drawn again, and this is of an unknown configuration
        entry = self.trials[trial]
        entry.attempt = max(entry.attempt, int(row["attempt"]))
        if event == "start":
            entry.state, entry.lost, entry.reason, entry.origin = "running", False, "", row.get("origin")
            entry.attempts += 1
            if entry.attempts == 1:
                entry.config_id, entry.replicate = _config_id(row), int(row.get("replicate") or 0)
        elif event == "end":
            self._end(trial, entry, row)
        else:
            self._report(entry, row)

    def _end(self, trial: int, entry: TrialEntry, row: Mapping[str, Any]) -> None:
        entry.state, entry.lost = "waiting" if row["state"] in INTERRUPTIONS else row["state"], row["state"] == "lost"
        entry.reason = row.get("reason") or ""
        self.kept.pop(trial, None)
        if checkpoint := row.get("checkpoint"):
            self.kept[trial] = KeptWeights(trial, int(row["attempt"]), str(checkpoint))

    def _report(self, entry: TrialEntry, row: Mapping[str, Any]) -> None:
        step, diverged = int(row["step"]), bool(row["diverged"])
        overall = math.nan if diverged else float(row["overall"])
        report = StepReport(step, int(row.get("examples") or step), overall, dict(row.get("scores") or {}), diverged)
        if step not in entry.reports or (entry.reports[step].diverged and not diverged):
            entry.reports[step] = report
        self.examples_used += max(0, report.examples - entry.examples)
        entry.examples = max(entry.examples, report.examples)
        entry.checkpoint = row.get("checkpoint") or entry.checkpoint

    def loss(self, trial: int) -> str | None:
        """Why a trial that is to be issued again was lost; None if it was paused or has never started."""
        entry = self.trials.get(trial)
        if entry is None:
            return None
        if entry.state == "running":
            return "its launch broke off"
        return entry.reason or "no reason is known" if entry.lost else None

    def ranking(self) -> list[int]:
        """Trials of the search with a score, best first (see `hpo.search.states.ranking`)."""
        return ranking(self.searched)

    @property
    def searched(self) -> dict[int, TrialEntry]:
        """The trials of the search, without repeats."""
        return {number: entry for number, entry in self.trials.items() if not entry.repeat}

    @property
    def repeats(self) -> dict[int, TrialEntry]:
        """The repeats that have started."""
        return {number: entry for number, entry in self.trials.items() if entry.repeat}

    def repeat_of(self, trial: int) -> int | None:
        """The trial of the search whose configuration a repeat runs again; None for a trial of the search."""
        if not self.trials[trial].repeat:
            return None
        config_id = self.trials[trial].config_id
        return next((number for number, entry in self.searched.items() if entry.config_id == config_id), None)

    def runs(self) -> list[Run]:
        """Every trial and repeat, by number."""
        return [
            Run(number, entry.config_id, entry.replicate, entry.origin, entry.state, entry.last)
            for number, entry in sorted(self.trials.items())
        ]

    def search_ended(self, trials: int) -> bool:
        """Whether the search has ended: `trials` trials, repeats not counted."""
        return sum(entry.state in CLOSED for entry in self.searched.values()) >= trials

    def repeats_to_start(self, trials: int, budget: int, replicates: int) -> list[Repeat]:
        """The repeats that have yet to start; none are known before the search of `trials` trials has ended."""
        return missing(self.runs(), budget, replicates) if self.search_ended(trials) else []

    def ended(self, trials: int, budget: int, replicates: int) -> bool:
        """Whether the search and all repeats have ended."""
        if not self.search_ended(trials) or self.repeats_to_start(trials, budget, replicates):
            return False
        return all(entry.state in CLOSED for entry in self.repeats.values())


def _config_id(row: Mapping[str, Any]) -> str:
    """Identity of the configuration in the row of a start; rows of older stores hold the configuration alone."""
    if row.get("config_id") or not row.get("config"):
        return str(row.get("config_id") or "")
    config = row["config"]
    return configuration_id(json.loads(config) if isinstance(config, str) else config)
