"""The ledger: the state of each trial, computed row by row from the rows of `trials` and `reports` in the order of
`seq`.

All code of the driver that needs a trial's state from rows uses a ledger. The recorder feeds its ledger with every row
that it appends, and decides by it whose weights are kept. The monitor (`hpo.driver.monitor`) feeds another ledger with
durable rows only, so nothing shown can be lost again. Readers of a stored sweep make one from `results.fold`, which
computes the same in columns (`Ledger.of`).

Both go by one rule: the first report of a (trial, step) that has not diverged counts; if all have diverged, the first
one.
"""

from __future__ import annotations

import bisect
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hpo.search.repeats import Repeat, Run, missing
from hpo.search.states import CLOSED, INTERRUPTIONS, REPEAT, STATES, UNRANKED, State, configuration_id

if TYPE_CHECKING:
    import pyarrow as pa

    from results.fold import Fold
    from results.store import SweepFolder


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
    """Path or URI of the checkpoint when the row was written."""

    @property
    def name(self) -> str:
        """Name of the checkpoint's folder. Only this part of the path is used: the store may have moved."""
        return name_of(self.checkpoint)


def name_of(checkpoint: str) -> str:
    """Name of a checkpoint's folder, from its path or URI."""
    return checkpoint.rpartition("/")[2]


@dataclass(slots=True)
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
    steps: tuple[int, ...] = ()
    """Steps (milestones, in examples) with a report, in the order of their first ones."""
    last_report: StepReport | None = None
    """The report that counts at the highest step; None before the first one."""
    examples: int = 0
    """Largest number of examples that a report of the trial names."""
    checkpoint: str | None = None
    """Path of the checkpoint that the newest report names."""

    @property
    def repeat(self) -> bool:
        """Whether the trial runs a configuration of the search again (`hpo.search.repeats`)."""
        return self.origin == REPEAT

    @property
    def last(self) -> tuple[int, float] | None:
        """Step and overall score of the last report."""
        report = self.last_report
        return None if report is None else (report.step, report.overall)


class Ledger:
    """The trials of a sweep, computed from the rows fed so far.

    What a display asks for again and again (counts, the best trials) is kept up to date with every row, so that a row
    and a look cost the same after 10,000 trials as after ten.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.trials: dict[int, TrialEntry] = {}
        self.kept: dict[int, KeptWeights] = {}
        """Trial -> its kept weights; trials without kept weights are absent."""
        self.searched: dict[int, TrialEntry] = {}
        """The trials of the search, without repeats."""
        self.repeats: dict[int, TrialEntry] = {}
        """The repeats that have started."""
        self.open: dict[int, TrialEntry] = {}
        """The trials and repeats that have not ended."""
        self.examples_used = 0
        """Examples used by all trials together; examples that were trained twice count once."""
        self.rows = 0
        """Number of rows fed."""
        self.standings = Standings()
        """The trials of the search with a score, in order."""
        self._counts = {False: Counter[State](), True: Counter[State]()}
        self._drawn: dict[str, int] = {}
        """Configuration -> the trial of the search that drew it."""
        self._missing: tuple[int, list[Repeat]] = (-1, [])
        """Number of rows fed, and the repeats to start after them."""
        self._runs: tuple[int, list[Run]] = (-1, [])
        """Number of rows fed, and every run after them."""
        for row in rows:
            self.feed(row)

    @classmethod
    def of(cls, folder: SweepFolder, found: Fold | None = None) -> Ledger:
        """The ledger of a stored sweep: equal to one fed with `folder.events()`, in a fraction of the time.

        `found`: the sweep's fold, if it is known.
        """
        from results.fold import fold

        found, ledger = found or fold(folder), cls()
        for trial, entry, kept in entries_of(folder, found):
            ledger.trials[trial] = entry
            ledger.examples_used += entry.examples
            if kept is not None:
                ledger.kept[trial] = kept
            ledger._count(trial, entry, None)
        ledger.rows = found.rows
        ledger.standings.fill({trial: _ranked(entry) for trial, entry in ledger.searched.items()})
        return ledger

    def feed(self, row: Mapping[str, Any]) -> None:
        """Take the next row of `trials` or `reports`."""
        self.rows += 1
        trial, event = int(row["trial"]), row.get("event")
        entry = self.trials.get(trial)
        before = None if entry is None else entry.state
        if entry is None:
            if event != "start":
                return  # the row of its start is lost: the trial is drawn again, and this configuration is unknown
            entry = self.trials[trial] = TrialEntry()
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
        self._count(trial, entry, before)
        if not entry.repeat:
            self.standings.update(trial, _ranked(entry))

    def _count(self, trial: int, entry: TrialEntry, before: State | None) -> None:
        """Bring counts and open trials up to date after a row of a trial; `before`: its state until then."""
        if before is None:
            (self.repeats if entry.repeat else self.searched)[trial] = entry
            if not entry.repeat:
                self._drawn.setdefault(entry.config_id, trial)
        if entry.state != before:
            counts = self._counts[entry.repeat]
            counts[entry.state] += 1
            if before is not None:
                counts[before] -= 1
            if entry.state in CLOSED:
                self.open.pop(trial, None)
            else:
                self.open[trial] = entry

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
        last = entry.last_report
        if last is None or step > last.step or (step == last.step and last.diverged and not diverged):
            entry.last_report = report
        if step not in entry.steps:
            entry.steps += (step,)
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
        return self.standings.trials()

    def counts(self, repeats: bool = False) -> dict[str, int]:
        """Trials of the search by state, or repeats."""
        return {state: self._counts[repeats][state] for state in STATES}

    def repeat_of(self, trial: int) -> int | None:
        """The trial of the search whose configuration a repeat runs again; None for a trial of the search."""
        return self._drawn.get(self.trials[trial].config_id) if self.trials[trial].repeat else None

    def runs(self) -> list[Run]:
        """Every trial and repeat, by number."""
        if self._runs[0] != self.rows:
            runs = [
                Run(number, entry.config_id, entry.replicate, entry.origin, entry.state, entry.last)
                for number, entry in sorted(self.trials.items())
            ]
            self._runs = self.rows, runs
        return self._runs[1]

    def search_ended(self, trials: int) -> bool:
        """Whether the search has ended: `trials` trials, repeats not counted."""
        return sum(self._counts[False][state] for state in CLOSED) >= trials

    def repeats_to_start(self, trials: int, budget: int, replicates: int) -> list[Repeat]:
        """The repeats that have yet to start; none are known before the search of `trials` trials has ended."""
        if not self.search_ended(trials):
            return []
        if self._missing[0] != self.rows:
            self._missing = self.rows, missing(self.runs(), budget, replicates)
        return self._missing[1]

    def ended(self, trials: int, budget: int, replicates: int) -> bool:
        """Whether the search and all repeats have ended."""
        if not self.search_ended(trials) or self.repeats_to_start(trials, budget, replicates):
            return False
        return all(entry.state in CLOSED for entry in self.repeats.values())


class Standings:
    """Trials in the order of `hpo.search.states.ranking`, and the best of each task, kept up to date one by one."""

    def __init__(self) -> None:
        self._reports: dict[int, StepReport] = {}
        self._order: list[tuple[float, ...]] = []
        """(-step, -overall, trial) of each trial, ascending."""
        self._tasks: dict[str, list[tuple[float, ...]]] = {}
        """Task -> (-score, -step, -overall, trial) of each trial, ascending."""

    def update(self, trial: int, report: StepReport | None) -> None:
        """Give a trial another last report; None: it has no rank."""
        before = self._reports.pop(trial, None)
        if report is not before:
            for order, key in self._keys(trial, before):
                del order[bisect.bisect_left(order, key)]
            for order, key in self._keys(trial, report):
                bisect.insort(order, key)
        if report is not None:
            self._reports[trial] = report

    def fill(self, reports: Mapping[int, StepReport | None]) -> None:
        """Give many trials their last reports at once, before any other."""
        for trial, report in reports.items():
            for order, key in self._keys(trial, report):
                order.append(key)
        self._reports = {trial: report for trial, report in reports.items() if report is not None}
        for order in (self._order, *self._tasks.values()):
            order.sort()

    def _keys(
        self, trial: int, report: StepReport | None
    ) -> Iterator[tuple[list[tuple[float, ...]], tuple[float, ...]]]:
        """Every list that a trial stands in, with its key there."""
        if report is None:
            return
        key = (-report.step, -report.overall, trial)
        yield self._order, key
        for task, score in report.scores.items():
            if not math.isnan(score):
                yield self._tasks.setdefault(task, []), (-score, *key)

    def trials(self, most: int | None = None) -> list[int]:
        """The best trials, best first; None: all."""
        return [int(key[-1]) for key in self._order[:most]]

    def best_per_task(self) -> dict[str, tuple[int, float]]:
        """Task -> the trial with the highest score, of equal ones the better ranked, and that score."""
        return {task: (int(order[0][-1]), -order[0][0]) for task, order in self._tasks.items() if order}


def _ranked(entry: TrialEntry) -> StepReport | None:
    """The report by which a trial is ranked; None: it has no rank."""
    report = entry.last_report
    return None if report is None or entry.state in UNRANKED or math.isnan(report.overall) else report


def entries_of(folder: SweepFolder, found: Fold) -> Iterator[tuple[int, TrialEntry, KeptWeights | None]]:
    """Each trial of a folded sweep, by number, with its kept weights."""
    from results.fold import latest

    event, report, end = found.event, found.report, found.end
    facts = zip(
        found.trials.tolist(), _lists(event, "event", "state", "reason"), found.starts.tolist(),
        found.newest["origin"].to_pylist(), _identities(folder, found), found.first["replicate"].to_pylist(),
        latest(found), _lists(report, "step", "examples", "overall", "scores", "diverged"),
        _lists(end, "attempt", "checkpoint"), strict=True,
    )  # fmt: skip
    for trial, (kind, state, reason), starts, origin, config_id, replicate, rest, last, (attempt, path) in facts:
        ended = kind == "end"
        entry = TrialEntry(
            state="running" if not ended else "waiting" if state in INTERRUPTIONS else state,
            lost=ended and state == "lost",
            attempt=rest.attempt,
            attempts=starts,
            origin=origin,
            config_id=config_id,
            replicate=replicate or 0,
            reason=(reason or "") if ended else "",
            steps=rest.steps,
            last_report=_step_report(*last),
            examples=rest.examples,
            checkpoint=rest.checkpoint,
        )
        yield trial, entry, KeptWeights(trial, attempt, path) if path else None


def _lists(table: pa.Table, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _step_report(step: int | None, examples: int, overall: float, scores: Any, diverged: bool) -> StepReport | None:
    if step is None:
        return None
    value = math.nan if diverged or overall is None else overall
    return StepReport(step, examples or step, value, dict(scores or {}), bool(diverged))


def _identities(folder: SweepFolder, found: Fold) -> list[str]:
    """Identity of each trial's configuration; only rows of older stores are read for it."""
    known: list[str] = found.first["config_id"].to_pylist()
    if not all(known):
        stored = folder.read("trials", columns=("config",))
        configs = dict(zip(stored["seq"].to_pylist(), stored["config"].to_pylist(), strict=True))
        seqs = found.first["seq"].to_pylist()
        known = [key or _config_id({"config": configs[seq]}) for key, seq in zip(known, seqs, strict=True)]
    return known


def _config_id(row: Mapping[str, Any]) -> str:
    """Identity of the configuration in the row of a start; rows of older stores hold the configuration alone."""
    if row.get("config_id") or not row.get("config"):
        return str(row.get("config_id") or "")
    config = row["config"]
    return configuration_id(json.loads(config) if isinstance(config, str) else config)
