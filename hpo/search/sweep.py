"""A sweep as a pure function of its events: which configuration is next, and what becomes of a trial.

`Sweep` joins a searcher (by the truthful study), a scheduler (by its judge) and the states of trials. It knows no Ray,
no files and no clock: it takes starts, reports and ends and answers with the next start or a verdict. Fed the store's
rows in the order of their `seq` it stands where the interrupted sweep stood and continues as the unbroken one would
have; resume and extend are nothing else.

    sweep.next()    unfinished trials first, then the default configuration (trial 0), given ones, then draws
    sweep.report()  a value at a milestone; the verdict ends a trial (complete, pruned, diverged) or lets it continue
    sweep.end()     what only the driver can know: failed (raised), lost (process or node gone), paused
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from hpo.search.records import check_integer
from hpo.search.schedulers import Scheduler
from hpo.search.searchers import Searcher
from hpo.search.states import CLOSED, INTERRUPTIONS, RETRIES, End, Start, TrialRecord, Verdict, configuration_id
from hpo.search.study import Study, derived_seed
from hpo.space.space import Space


class Sweep:
    """A sweep of `trials` trials over `space`, `workers` of them open at once.

    `milestones` are those that the scheduler gave when the sweep began. `complete` fills a nested configuration's
    defaults and validates it (ValueError). `start` holds configurations to run right after the default one. The space's
    pins hold in every trial that has the parameter.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        trials: int,
        milestones: tuple[int, ...],
        searcher: Searcher,
        scheduler: Scheduler,
        workers: int,
        complete: Callable[[dict[str, Any]], dict[str, Any]],
        start: Sequence[dict[str, Any]] = (),
    ) -> None:
        check_integer("trials", trials, 1)
        check_integer("workers", workers, 1)
        if 1 + len(start) > trials:
            raise ValueError(f"`trials` must cover the default configuration and the {len(start)} given ones: "
                             f"at least {1 + len(start)}, not {trials}.")
        if not milestones or list(milestones) != sorted(set(milestones)):
            raise ValueError(f"`milestones` must be ascending numbers of examples, not {milestones!r}.")
        self.seed, self.trials, self.workers = seed, trials, workers
        self.milestones = tuple(milestones)
        self.searcher, self.scheduler = searcher, scheduler
        self.halted = False
        self.records: dict[int, TrialRecord] = {}
        self.unwritten_ends: list[tuple[int, int, Verdict]] = []
        """After a replay: trials (number, attempt) that ended without an end row; the driver writes it."""
        self.warnings: list[str] = []
        """After a replay: rows that could not be used."""
        self._space = space
        self._given = [space.apply(config, complete) for config in ({}, *start)]
        self._complete = complete
        self.judge = scheduler.build(self.milestones)
        self.study = Study(space.leaves, seed, searcher)
        self._open = 0
        self._waiting: set[int] = set()
        self._damaged: dict[int, int] = {}
        """Trials whose start row is missing, and the highest attempt among their other rows."""
        self._cursor = 0

    # --- what is next -----------------------------------------------------------------------------------------------

    def next(self) -> Start | None:
        """The next trial to start; None while `workers` trials are open, after `halt`, or when there is no more."""
        if self.halted or self._open >= self.workers:
            return None
        if self._waiting:
            record = self.records[min(self._waiting)]
            again = replace(record.start, attempt=record.start.attempt + 1)
            self._reopen(record, again)
            return again
        while self._cursor in self.records:
            self._cursor += 1
        if self._cursor >= self.trials:
            return None
        start = self._draw(self._cursor)
        if start.trial in self._damaged:  # rows of an attempt belong to one configuration
            start = replace(start, attempt=self._damaged[start.trial] + 1)
        self._enter(start)
        return start

    def _draw(self, number: int) -> Start:
        seed = derived_seed(self.seed, "train", number)
        if number < len(self._given):
            config = self._given[number]
            params = self._space.parameters(config, self._complete)
            origin: Literal["given", "default"] = "given" if number else "default"
            return Start(number, 0, config, params, seed, origin, configuration_id(config))
        drawn, params = self.study.draw(number)
        try:
            config = self._space.apply(drawn, self._complete)
        except ValueError:  # a rare combination that no check met: its worker refuses it too, and this trial fails
            config = drawn
        return Start(number, 0, config, params, seed, "sampler", configuration_id(config))

    def _enter(self, start: Start) -> None:
        self.records[start.trial] = TrialRecord(start)
        self.study.add(start.trial, start.params)
        self._open += 1

    def _reopen(self, record: TrialRecord, start: Start) -> None:
        self._waiting.discard(start.trial)
        record.start = start
        if record.state != "running":
            self._open += 1
        record.state = "running"

    # --- what happens to a trial ------------------------------------------------------------------------------------

    def report(self, trial: int, attempt: int, step: int, value: float, *, diverged: bool) -> Verdict:
        """A trial's overall score at a milestone; whoever reports says whether the trial diverged, and the value of one
        that did is not read. Idempotent: the first value of (trial, step) is the one that counts.

        `attempt` does not matter to the verdict: attempts of a trial are the same work, and a report that outlived its
        worker is as true as its repetition.
        """
        record = self._record(trial)
        if step not in self.milestones:
            raise ValueError(f"Trial {trial} reported at step {step}; expected one of the milestones "
                             f"{', '.join(map(str, self.milestones))}.")
        if not diverged and not math.isfinite(value):
            raise ValueError(f"Trial {trial} reported {value!r} at step {step}; expected a finite value or `diverged`.")
        if record.state in CLOSED:
            return record.verdict()
        if step in record.verdicts:
            return record.verdicts[step]
        verdict = self._judge(record, step, math.nan if diverged else float(value))
        record.verdicts[step] = verdict
        if verdict.state in CLOSED:
            self._close(record, verdict.state, verdict.reason)
        return verdict

    def _judge(self, record: TrialRecord, step: int, value: float) -> Verdict:
        record.values[step] = value
        record.losses = 0
        self.study.report(record.start.trial, step, value)
        return self.judge.report(step, value)

    def end(self, trial: int, attempt: int, state: Literal["failed", "lost", "paused"], reason: str = "") -> Verdict:
        """An end that only the driver can know. A paused trial is always issued again, a lost one up to RETRIES times
        in a row without a new report.

        The verdict's state is what became of the trial: a trial lost once too often is `failed`. The end of an attempt
        that is not the newest, or of a trial that has ended, changes nothing.
        """
        if state not in ("failed", *INTERRUPTIONS):
            raise ValueError(f"A trial's end must be failed, lost or paused, not {state!r}.")
        record = self._record(trial)
        if record.state in CLOSED:
            return record.verdict()
        if attempt != record.start.attempt or attempt in record.ended:
            return Verdict("stop", state, f"attempt {attempt} had ended before")
        record.ended.add(attempt)
        record.losses += state == "lost"
        if state == "lost" and record.losses > RETRIES:
            state, reason = "failed", f"lost {record.losses} times{f': {reason}' * bool(reason)}"
        record.reason = reason
        if state == "failed":
            self._close(record, "failed", reason)
        else:
            self._open -= record.state == "running"
            record.state = "waiting"
            self._waiting.add(trial)
        return Verdict("stop", state, reason)

    def _close(self, record: TrialRecord, state: End, reason: str) -> None:
        self._open -= record.state == "running"
        self._waiting.discard(record.start.trial)
        record.state, record.reason = state, reason
        record.ended.add(record.start.attempt)
        value = record.last[1] if state == "complete" and record.last else None
        self.study.finish(record.start.trial, state, value)

    def _record(self, trial: int) -> TrialRecord:
        if trial not in self.records:
            raise ValueError(f"Trial {trial} was never started; {len(self.records)} trials are known.")
        return self.records[trial]

    def halt(self) -> None:
        """Start nothing more; running trials may still report and end."""
        self.halted = True

    # --- what is known ----------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Every trial was issued and has ended."""
        return sum(record.state in CLOSED for record in self.records.values()) >= self.trials

    @property
    def open_trials(self) -> tuple[int, ...]:
        """Trials that run now."""
        return tuple(sorted(number for number, record in self.records.items() if record.state == "running"))

    # --- replay -----------------------------------------------------------------------------------------------------

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Feed the store's rows of `trials` and `reports`, in the order of `seq`; trials that ran are unfinished then.

        Rows that repeat change nothing. A verdict whose consequence was not recorded is derived again, and so is the
        end of a trial that had no attempts left: `unwritten_ends` lists them.
        """
        if self.records:
            raise ValueError("replay() must come before anything else that happens to a sweep.")
        written: set[int] = set()
        for row in rows:
            trial = int(row["trial"])
            if row.get("event") == "start":
                self._replay_start(row)
            elif trial not in self.records:
                self.warnings.append(f"a row of trial {trial}, whose start is missing, was left out")
                self._damaged[trial] = max(self._damaged.get(trial, 0), int(row["attempt"]))
            elif row.get("event") == "end":
                self._replay_end(row)
                if self.records[trial].state in CLOSED:
                    written.add(trial)
            else:
                self._replay_report(row)
        self._interrupt()
        for number, record in sorted(self.records.items()):
            if record.state in CLOSED and number not in written:
                self.unwritten_ends.append((number, record.start.attempt, record.verdict()))

    def _replay_start(self, row: Mapping[str, Any]) -> None:
        trial, attempt, config = int(row["trial"]), int(row["attempt"]), _parsed(row["config"])
        # Rows of older stores hold no identity.
        identity = row.get("config_id") or configuration_id(config), int(row.get("replicate") or 0)
        start = Start(trial, attempt, config, _parsed(row["params"]), int(row["seed"]), row["origin"], *identity)
        record = self.records.get(trial)
        if record is None:
            self._enter(start)
        elif attempt > record.start.attempt and record.state not in CLOSED:
            record.losses += record.start.attempt not in record.ended  # its driver died before the row of its end
            self._reopen(record, start)

    def _replay_report(self, row: Mapping[str, Any]) -> None:
        self.report(int(row["trial"]), int(row["attempt"]), int(row["step"]), row["overall"], diverged=row["diverged"])

    def _replay_end(self, row: Mapping[str, Any]) -> None:
        trial, state = int(row["trial"]), row["state"]
        reason = row.get("reason") or ""
        record = self.records[trial]
        if state in ("failed", *INTERRUPTIONS):
            self.end(trial, int(row["attempt"]), state, reason)
        elif record.state not in CLOSED:  # its last report did not survive: the end is what is known
            self._close(record, state, reason)

    def _interrupt(self) -> None:
        """Whatever still runs lost its driver: it is unfinished now, or out of attempts."""
        for number in self.open_trials:
            record = self.records[number]
            self.end(number, record.start.attempt, "lost", "the driver was gone")


def _parsed(value: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(value) if isinstance(value, str) else dict(value)
    return parsed
