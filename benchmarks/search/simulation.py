"""Simulation: one sweep on W workers in simulated time.

A unit of time is what the default configuration needs for one training example. A trial's work up to a report takes
(examples) x (relative cost of its configuration) + EVALUATION. Workers that are free ask the engine for a trial; the
engine judges every report. Examples count as they are trained, those of running trials too.

The answer of a sweep is the trial at the highest milestone with the best observed score there; it is a trial that used
its full budget as soon as there is one. What counts is its true score less the default's. Beside it stands the answer
of `hpo run`, which repeats finalists (`benchmarks.search.answers`).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from benchmarks.search.observations import Observer

BUDGET = 20_000
"""Examples of a trial at full budget."""
EVALUATION = 300.0
"""Cost of a report, in examples."""
SEARCHED = 0.8
"""Share of a sweep's examples that its search uses where finalists are repeated."""
CHECKPOINTS = (3, 6, 12, 24, 50, 100)
"""Full-trial equivalents at which the answer is looked at."""


@dataclass
class Trial:
    """A trial, or a part of one, that a worker trains."""

    number: int
    params: Mapping[str, Any]
    """Parameters by Optuna's names."""
    steps: Sequence[int]
    """Milestones in examples at which it reports, ascending."""
    cost: float = 1.0
    """Cost of an example relative to the default configuration."""
    trained: int = 0
    """Examples that are trained already."""
    replicate: int = 0


class Engine(Protocol):
    """What decides: a searcher with its scheduler."""

    def ask(self) -> Trial | None:
        """The next trial to start; None: none before another report."""
        ...

    def report(self, trial: Trial, step: int, value: float) -> bool:
        """Whether a trial that reports this value continues."""
        ...


@dataclass(frozen=True)
class Answer:
    """The answer of a sweep at one moment."""

    equivalents: float
    """Full-trial equivalents of examples trained so far."""
    time: float
    """Time so far in units of a worker that trains the default, divided by BUDGET, times the number of workers."""
    gain: float
    """True score of the answer less the default's."""
    default: bool
    """Whether the answer is the default configuration."""
    trials: int
    """Trials started."""
    complete: int
    """Trials that used their full budget."""
    ruled: float | None = None
    """Gain of the answer by the rule with repeats, which take a part of the same examples."""


@dataclass
class _Running:
    trial: Trial
    begun: float
    """Time at which the work up to the next report began."""
    ends: float
    examples: int
    """Examples of this work."""


@dataclass
class Simulation:
    """One sweep. `run` yields nothing until its end: a list of answers, one for each of `checkpoints`."""

    engine: Engine
    observer: Observer
    workers: int
    checkpoints: Sequence[float] = CHECKPOINTS
    by_time: bool = False
    """Whether checkpoints are full-trial equivalents of the workers' time, instead of examples."""
    rule: Callable[[Simulation], float] | None = None
    """Gain of the answer by the rule with repeats; called when SEARCHED of a checkpoint's examples are used."""
    ruled: list[float] = field(default_factory=list)
    """What `rule` gave, by checkpoint."""
    clock: float = 0.0
    examples: int = 0
    """Examples of finished work."""
    params: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Trial -> parameters."""
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    """Trial -> milestone -> observed score."""
    asking: float = 0.0
    """CPU seconds that the engine used for its draws."""

    def run(self) -> list[Answer]:
        """Run until the last checkpoint, or until the engine has no more trials."""
        queue: list[tuple[float, int]] = []
        running: dict[int, _Running] = {}
        answers: list[Answer] = []
        ticket = 0
        while len(answers) < len(self.checkpoints):
            while len(running) < self.workers and (trial := self._ask()) is not None:
                self.params[trial.number] = trial.params
                running[ticket] = self._work(trial)
                heapq.heappush(queue, (running[ticket].ends, ticket))
                ticket += 1
            if not queue:
                break
            now, number = heapq.heappop(queue)
            spent = self._spent(now, running)
            if self.rule is not None:
                while len(self.ruled) < len(self.checkpoints) and spent >= SEARCHED * self.checkpoints[len(self.ruled)]:
                    self.ruled.append(self.rule(self))
            while len(answers) < len(self.checkpoints) and spent >= self.checkpoints[len(answers)]:
                answers.append(self._answer(now, running, len(answers)))
            self.clock = now
            work = running.pop(number)
            self.examples += work.examples
            if self._report(work.trial):
                running[number] = self._work(work.trial)
                heapq.heappush(queue, (running[number].ends, number))
        return answers

    def _ask(self) -> Trial | None:
        before = time.process_time()
        trial = self.engine.ask()
        self.asking += time.process_time() - before
        return trial

    def _work(self, trial: Trial) -> _Running:
        examples = next(step for step in trial.steps if step > trial.trained) - trial.trained
        return _Running(trial, self.clock, self.clock + examples * trial.cost + EVALUATION, examples)

    def _report(self, trial: Trial) -> bool:
        step = trial.trained = next(step for step in trial.steps if step > trial.trained)
        value = self.observer.observed(trial.params, step / BUDGET, trial.number, trial.replicate)
        self.values.setdefault(trial.number, {})[step] = value
        return self.engine.report(trial, step, value)

    def _equivalents(self, now: float, running: Mapping[int, _Running]) -> float:
        """Full-trial equivalents of the examples trained until now."""
        partly = sum(work.examples * (now - work.begun) / (work.ends - work.begun) for work in running.values())
        return (self.examples + partly) / BUDGET

    def _spent(self, now: float, running: Mapping[int, _Running]) -> float:
        return now * self.workers / BUDGET if self.by_time else self._equivalents(now, running)

    def _answer(self, now: float, running: Mapping[int, _Running], place: int) -> Answer:
        default = next(iter(self.params.values()))  # every engine begins with it
        best = self.best()
        params = default if best is None else self.params[best]
        return Answer(
            equivalents=self._equivalents(now, running),
            time=now * self.workers / BUDGET,
            gain=self.observer.response.score(params),
            default=params == default,
            trials=len(self.params),
            complete=sum(BUDGET in values for values in self.values.values()),
            ruled=self.ruled[place] if self.rule is not None else None,
        )

    def best(self) -> int | None:
        """The trial at the highest milestone with the best observed score there, of equal ones the oldest."""
        reached = [(*max(values.items()), -number) for number, values in self.values.items()]
        return -max(reached)[-1] if reached else None
