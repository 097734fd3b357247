"""A sweep as a pure function of its events: it decides which trial starts next and whether a trial continues.

`Sweep` joins a searcher (with its study), a scheduler (with its judge) and the states of trials. It uses no Ray, no
files and no clock. `replay` takes the store's rows in the order of their `seq`; the sweep then has the state of the
interrupted one and continues as an uninterrupted sweep would. Resume and extend work by replay alone.

    sweep.next()    the next start: interrupted trials first, then the default configuration (trial 0), then the start
                    configurations, then draws; once all of these have ended, repeats (`hpo.search.repeats`)
    sweep.report()  a value at a milestone; the verdict ends the trial (complete, pruned, diverged) or lets it continue
    sweep.end()     an end that the driver observes (`hpo.search.endings`): the trial fails, or is issued again
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from hpo.samplers.problem import Parameters, Problem
from hpo.search.costs import Costs, Example, Shared, no_parts
from hpo.search.endings import Ending, Endings
from hpo.search.records import check_integer
from hpo.search.repeats import Repeat, Run, missing
from hpo.search.schedulers import EXEMPT, NoStopping, Scheduler
from hpo.search.searchers import Searcher
from hpo.search.states import CLOSED, INTERRUPTIONS, REPEAT, End, Start, TrialRecord, Verdict, configuration_id, sharing
from hpo.search.study import Study, derived_seed
from hpo.space.space import Space
from hpo.space.tree import Nested

DRAWS = 10
"""Most draws for one trial."""


def training_seed(sweep_seed: int, trial: int, replicate: int) -> int:
    """Seed of the training of a configuration's replicate; `trial`: place of the trial that drew it (`Sweep.place`).

    Seeds are independent. Without `trial` among the parts they would be paired: equal for all trials of a replicate.
    """
    return derived_seed(sweep_seed, "train", trial, replicate)


class Sweep:
    """A sweep of `trials` trials over `space`, fewer if the searcher has no more to try; `workers` run at once.

    `milestones` are the scheduler's, fixed when the sweep began. `complete` fills in the defaults of a nested
    configuration and raises ValueError if it is illegal. `start` holds configurations to run right after the default
    one. The scheduler stops the `exempt` trials early only if they diverge. The space's pins hold in every trial that
    has the parameter. `warm` holds complete configurations of other sweeps, which a searcher may change; they do not
    run themselves. `cost` is what an example costs under a complete configuration, relative to the default one, and
    `shared` what the work costs that trials share; see `hpo.search.costs`.
    `repeats`: further replicates of each finalist after the search; they do not count as trials. Rungs, ranks and
    repeats go by the overall score; `further` are objectives beside it, for the searcher: the gain of each, from a row
    of a report.
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
        exempt: Collection[int] = EXEMPT,
        warm: Sequence[dict[str, Any]] = (),
        cost: Example | None = None,
        shared: Shared | None = None,
        repeats: int = 0,
        further: Sequence[Callable[[Mapping[str, Any]], float]] = (),
    ) -> None:
        check_integer("trials", trials, 1)
        check_integer("workers", workers, 1)
        check_integer("repeats", repeats, 0)
        if 1 + len(start) > trials:
            raise ValueError(f"`trials` must cover the default configuration and the {len(start)} given ones: "
                             f"at least {1 + len(start)}, not {trials}.")
        if not milestones or list(milestones) != sorted(set(milestones)):
            raise ValueError(f"`milestones` must be ascending numbers of examples, not {milestones!r}.")
        self.seed, self.workers = seed, workers
        self.milestones = tuple(milestones)
        self.searcher, self.scheduler = searcher, scheduler
        self._further = tuple(further)
        self.halted = False
        self.records: dict[int, TrialRecord] = {}
        self.unwritten_ends: list[tuple[int, int, Verdict]] = []
        """After a replay: (trial, attempt, verdict) of each trial that ended without an end row; the driver adds it."""
        self.warnings: list[str] = []
        """After a replay: one line for each row that could not be used."""
        self._space = space
        self._first_configs = [space.apply(config, complete) for config in ({}, *start)]
        """Configurations of the first trials, which are not drawn."""
        self._complete = complete
        self._costs = None if cost is None else Costs(cost, shared or no_parts)
        self.judge = scheduler.build(self.milestones, exempt)
        first_params = [space.parameters(config, complete) for config in self._first_configs]
        default = tuple(first_params[:1]) if first_params[0] else ()
        problem = Problem(space.leaves, default, self._warm(warm, default), self._cost_of_drawn())
        self.study = Study(problem, seed, searcher)
        most = searcher.most(space.leaves)
        if most is not None:  # trials that are not drawn take configurations of the space, or lie outside it
            inside = [params for place, params in enumerate(first_params) if params not in ({}, *first_params[:place])]
            most += len(first_params) - len(inside)
        self.trials = trials if most is None else min(trials, most)
        """Number of trials, the first ones that are not drawn included."""
        self._identities: set[tuple[str, int]] = set()
        """(configuration, replicate) of every trial."""
        self._replicates = repeats
        self._judge_of_repeats = NoStopping().build(self.milestones)
        self._to_repeat: list[Repeat] | None = None
        """Repeats that have yet to start, in reverse order; None: the search has not ended."""
        self._repeated: list[int] = []
        """Numbers of the repeats that have started."""
        self._running = self._ended = 0
        """Numbers of attempts that run, and of trials of the search that have ended."""
        self._waiting: set[int] = set()
        self._damaged: dict[int, int] = {}
        """Trial whose start row is missing -> highest attempt among its other rows."""
        self._next_new = 0
        """No lower number is free for a new trial."""

    # --- the next start ---------------------------------------------------------------------------------------------

    def next(self, resting: Collection[int] = ()) -> Start | None:
        """The next start; None while `workers` trials run, after `halt`, and when all trials have started.

        `resting`: interrupted trials that may not start yet.
        """
        if self.halted or self._running >= self.workers:
            return None
        if waiting := self._waiting.difference(resting):
            record = self.records[min(waiting)]
            restart = replace(record.start, attempt=record.start.attempt + 1)
            self._reopen(record, restart)
            return restart
        start = self._new_start()
        if start is None:
            return None
        if start.trial in self._damaged:  # the old attempts' rows may belong to another configuration
            start = replace(start, attempt=self._damaged[start.trial] + 1)
        self._enter(start)
        return start

    def _new_start(self) -> Start | None:
        """The first start of a trial or, after the search, of a repeat, under the lowest free number; None: no more."""
        while self._next_new in self.records:
            self._next_new += 1
        if len(self.records) - len(self._repeated) < self.trials:
            return self._new_trial(self._next_new)
        if not self.searched or not (to_repeat := self._repeats_left()):
            return None
        return self._new_repeat(self._next_new, to_repeat.pop())

    def place(self, number: int) -> int:
        """Place of a trial among the trials of the search, from 0: its number, unless repeats took lower ones. An
        extended sweep draws by place, and so what a longer one would have drawn."""
        return number - sum(repeat < number for repeat in self._repeated)

    def _new_trial(self, number: int) -> Start:
        """The start of a trial of the search."""
        place = self.place(number)
        seed = training_seed(self.seed, place, 0)
        if place < len(self._first_configs):
            config = self._first_configs[place]
            params = self._space.parameters(config, self._complete)
            origin: Literal["given", "default"] = "given" if place else "default"
            return Start(number, 0, config, params, seed, origin, configuration_id(config))
        return self._drawn_start(number, seed)

    def _drawn_start(self, number: int, seed: int) -> Start:
        """A start with a new configuration. After DRAWS repeated ones the last is taken: the space may have no other,
        and its trials then compare seeds."""
        for attempt in range(DRAWS):
            drawn = self.study.draw(self.place(number), attempt)
            try:
                config = self._space.apply(drawn.config, self._complete)
            except ValueError:  # a rare combination that no check met: the worker raises too, and the trial fails
                config = drawn.config
            identity = configuration_id(config)
            start = Start(number, 0, config, drawn.params, seed, "sampler", identity, searcher=drawn.searcher)
            if (identity, start.replicate) not in self._identities:
                break
        return start

    def _warm(self, configs: Sequence[dict[str, Any]], known: Sequence[Parameters]) -> tuple[Parameters, ...]:
        """The parameters of configurations of other sweeps, as far as the space has them; without repetitions."""
        found: list[Parameters] = []
        for config in configs:
            params = self._space.carried(config, self._complete).params
            if params and params not in (*known, *found):
                found.append(params)
        return tuple(found)

    def _cost_of_drawn(self) -> Callable[[Nested], float] | None:
        """Cost of a configuration as it is drawn; an illegal one costs as much as the default."""
        costs = self._costs
        if costs is None:
            return None

        def of_drawn(config: Nested) -> float:
            try:
                return costs.of(self._space.apply(config, self._complete))
            except ValueError:
                return 1.0

        return of_drawn

    def _new_repeat(self, number: int, repeat: Repeat) -> Start:
        seed = training_seed(self.seed, self.place(repeat.of), repeat.replicate)
        return replace(
            self.records[repeat.of].start, trial=number, attempt=0, seed=seed, origin=REPEAT,
            replicate=repeat.replicate, searcher=None,
        )  # fmt: skip

    def _repeats_left(self) -> list[Repeat]:
        """Repeats that have yet to start, in reverse order, once the search has ended."""
        if self._to_repeat is None:
            runs = [
                Run(number, record.start.config_id, record.start.replicate, record.start.origin, record.state,
                    record.last)
                for number, record in sorted(self.records.items())
            ]  # fmt: skip
            self._to_repeat = missing(runs, self.milestones[-1], self._replicates)[::-1]
        return self._to_repeat

    def _enter(self, start: Start) -> None:
        """Add a trial that starts for the first time."""
        config = sharing(start.config, self._first_configs[0])
        self.records[start.trial] = TrialRecord(replace(start, config=config))
        if self._costs is not None:
            self._costs.begin(config)
        self._identities.add((start.config_id, start.replicate))
        if start.repeat:
            self._repeated.append(start.trial)
        else:
            self.study.add(start.trial, start.params, start.searcher)
        self._running += 1

    def _reopen(self, record: TrialRecord, start: Start) -> None:
        """Start another attempt of a trial, which may have failed before."""
        self._waiting.discard(start.trial)
        record.start = start
        if record.failed:
            record.failed = False
            if not start.repeat:
                self.study.add(start.trial, start.params, start.searcher)
                for step, value in sorted(record.values.items()):
                    self.study.report(start.trial, step, value)
        if record.state != "running":
            self._running += 1
        record.state = "running"

    # --- reports and ends -------------------------------------------------------------------------------------------

    def report(
        self,
        trial: int,
        attempt: int,
        step: int,
        value: float,
        *,
        diverged: bool,
        row: Mapping[str, Any] | None = None,
    ) -> Verdict:
        """The verdict on a trial whose overall score `value` arrives at the milestone `step`.

        The value of a diverged trial is not read. `row`: the report as a row of `reports`, for the further objectives;
        None: their gains are not known. The first value of (trial, step) counts, later ones change nothing. The verdict
        does not depend on `attempt`: all attempts of a trial do the same work, so the report of an attempt that was
        lost meanwhile is as good as its repetition.
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
        record.further[step] = tuple(gain(row or {}) for gain in self._further)
        verdict = self._judge(record, step, math.nan if diverged else float(value))
        record.verdicts[step] = verdict
        if verdict.state in CLOSED:
            self._close(record, verdict.state, verdict.reason)
        return verdict

    def _judge(self, record: TrialRecord, step: int, value: float) -> Verdict:
        record.values[step] = value
        record.endings.progress()
        if record.start.repeat:
            return self._judge_of_repeats.report(record.start.trial, step, value)
        self.study.report(record.start.trial, step, value)
        return self.judge.report(record.start.trial, step, value)

    def end(self, trial: int, attempt: int, ending: Ending) -> Verdict:
        """The verdict on an attempt whose end the driver observed: failed, lost or paused (`hpo.search.endings`).

        The end of an older attempt, or of a trial that has ended, changes nothing.
        """
        record = self._record(trial)
        if record.state in CLOSED:
            return record.verdict()
        if attempt != record.start.attempt or attempt in record.ended:
            return Verdict("stop", "paused", f"attempt {attempt} ended earlier")
        state = record.endings.add(ending)
        reason = record.endings.why(ending.reason) if state == "failed" else ending.reason
        self._interrupt(record, state, reason)
        return Verdict("stop", state, reason)

    def _interrupt(self, record: TrialRecord, state: Literal["failed", "lost", "paused"], reason: str) -> None:
        """End the last attempt of a trial."""
        record.ended.add(record.start.attempt)
        record.reason = reason
        if state == "failed":
            self._close(record, "failed", reason)
        else:
            self._running -= record.state == "running"
            record.state = "waiting"
            self._waiting.add(record.start.trial)

    def _close(self, record: TrialRecord, state: End, reason: str) -> None:
        """End a trial."""
        self._running -= record.state == "running"
        self._waiting.discard(record.start.trial)
        record.state, record.reason = state, reason
        record.failed = state == "failed"
        record.ended.add(record.start.attempt)
        if record.start.repeat:
            return
        self._ended += 1
        last = self.milestones[-1]
        value = record.values.get(last) if state == "complete" else None
        self.study.finish(record.start.trial, state, value, record.further.get(last, ()))

    def _record(self, trial: int) -> TrialRecord:
        if trial not in self.records:
            raise ValueError(f"Trial {trial} was never started; the sweep has started {len(self.records)} trials.")
        return self.records[trial]

    def retry_failed(self) -> list[int]:
        """Open the failed trials again; returns their numbers. They wait for their next start."""
        failed = [number for number, record in sorted(self.records.items()) if record.state == "failed"]
        for number in failed:
            self._open_again(self.records[number])
        return failed

    def _open_again(self, record: TrialRecord) -> None:
        """Let a failed trial wait for its next start; its endings are counted anew."""
        record.state, record.endings = "waiting", Endings()
        self._waiting.add(record.start.trial)
        self._ended -= not record.start.repeat

    def halt(self) -> None:
        """Start no more trials; running ones may still report and end."""
        self.halted = True

    # --- state ------------------------------------------------------------------------------------------------------

    @property
    def searched(self) -> bool:
        """Whether every trial of the search has started and ended; repeats may be to come."""
        return self._ended == len(self.records) - len(self._repeated) >= self.trials

    @property
    def finished(self) -> bool:
        """Whether every trial and every repeat has started and ended."""
        if not self.searched or self._repeats_left():
            return False
        return all(self.records[number].state in CLOSED for number in self._repeated)

    @property
    def open_trials(self) -> tuple[int, ...]:
        """Numbers of the trials that run now, ascending."""
        return tuple(sorted(number for number, record in self.records.items() if record.state == "running"))

    # --- replay -----------------------------------------------------------------------------------------------------

    def replay(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Restore the sweep from the store's rows of `trials` and `reports`, in the order of `seq`.

        Trials that ran when the driver died wait for their next start. Repeated rows change nothing. Ends that were not
        recorded are derived again from the last verdict; `unwritten_ends` lists them.
        """
        if self.records:
            raise ValueError("replay() must be called before the first start, report or end of a sweep.")
        ends_written: set[int] = set()
        for row in rows:
            trial = int(row["trial"])
            if row.get("event") == "start":
                self._replay_start(row)
            elif trial not in self.records:
                self.warnings.append(f"a row of trial {trial} was ignored: the row of the trial's start is missing")
                self._damaged[trial] = max(self._damaged.get(trial, 0), int(row["attempt"]))
            elif row.get("event") == "end":
                self._replay_end(row)
                if self.records[trial].state in CLOSED:
                    ends_written.add(trial)
            else:
                self._replay_report(row)
        for number in self.open_trials:  # they ran when the driver died
            self.end(number, self.records[number].start.attempt, Ending("driver", "the driver was gone"))
        for number, record in sorted(self.records.items()):
            if record.state in CLOSED and number not in ends_written:
                self.unwritten_ends.append((number, record.start.attempt, record.verdict()))

    def _replay_start(self, row: Mapping[str, Any]) -> None:
        trial, attempt, config = int(row["trial"]), int(row["attempt"]), _parsed(row["config"])
        # Older stores recorded no identity.
        identity = row.get("config_id") or configuration_id(config), int(row.get("replicate") or 0)
        drawn = _parsed(row["params"]), int(row["seed"]), row["origin"]
        start = Start(trial, attempt, config, *drawn, *identity, row.get("searcher"))
        record = self.records.get(trial)
        if record is None:
            self._enter(start)
        elif attempt > record.start.attempt and (record.state not in CLOSED or record.state == "failed"):
            if record.state == "failed":  # a launch opened the failed trials again
                self._open_again(record)
            self._reopen(record, start)

    def _replay_report(self, row: Mapping[str, Any]) -> None:
        trial, attempt, step = int(row["trial"]), int(row["attempt"]), int(row["step"])
        self.report(trial, attempt, step, row["overall"], diverged=row["diverged"], row=row)

    def _replay_end(self, row: Mapping[str, Any]) -> None:
        state, reason = row["state"], row.get("reason") or ""
        record = self.records[int(row["trial"])]
        if record.state in CLOSED:
            return  # the row says whose weights are kept
        if state not in ("failed", *INTERRUPTIONS):  # the row of its last report was lost
            self._close(record, state, reason)
        elif int(row["attempt"]) == record.start.attempt and record.start.attempt not in record.ended:
            # The row's state counts: an earlier version may have decided by another rule, and recorded no cause.
            cause: Any = row.get("cause") or ("place" if state == "lost" else "driver")
            record.endings.add(Ending(cause, reason, row.get("place") or "", row.get("reached") or 0))
            self._interrupt(record, state, reason)


def _parsed(value: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(value) if isinstance(value, str) else dict(value)
    return parsed
