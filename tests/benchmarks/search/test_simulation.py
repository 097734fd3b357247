"""The simulated clock: order of events, examples that count, answers at checkpoints, equal results from equal seeds."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from benchmarks.search.observations import CURVES, NOISES, Observer
from benchmarks.search.responses import Plan, good, uniform
from benchmarks.search.rivals import ENGINES, Setting
from benchmarks.search.simulation import BUDGET, EVALUATION, Simulation, Trial

HERE = [name for name in ENGINES if not name.startswith("priorband") and name not in ("grid", "gp", "nsga2")]
"""Engines that need no other environment and search the space of these tests."""


@dataclass
class Script:
    """An engine of given trials; it stops those of `stops` at their first report."""

    trials: list[Trial]
    stops: frozenset[int] = frozenset()
    events: list[tuple[int, int]] = field(default_factory=list)

    def ask(self) -> Trial | None:
        return self.trials.pop(0) if self.trials else None

    def report(self, trial: Trial, step: int, value: float) -> bool:
        self.events.append((trial.number, step))
        return step < BUDGET and trial.number not in self.stops


def simulation(plan: Plan, engine: object, workers: int = 2, **more: object) -> Simulation:
    observer = Observer(good(plan, random.Random(0)), CURVES["rising"], NOISES["low"], 0)
    return Simulation(engine, observer, workers, **more)  # type: ignore[arg-type]


def trials(plan: Plan, costs: list[float]) -> list[Trial]:
    return [Trial(number, uniform(plan, random.Random(number)), (BUDGET // 2, BUDGET), cost)
            for number, cost in enumerate(costs)]  # fmt: skip


def test_reports_come_in_the_order_of_the_clock(plan: Plan) -> None:
    engine = Script(trials(plan, [1.0, 0.4, 1.0]))
    run = simulation(plan, engine, checkpoints=(50,))
    assert run.run() == []
    half = BUDGET // 2
    assert engine.events == [(1, half), (1, BUDGET), (0, half), (2, half), (0, BUDGET), (2, BUDGET)]
    last = 2 * (0.4 * half + EVALUATION) + 2 * (half + EVALUATION)
    assert run.clock == pytest.approx(last)
    assert run.examples == 3 * BUDGET


def test_a_stopped_trial_frees_its_worker(plan: Plan) -> None:
    engine = Script(trials(plan, [1.0, 1.0, 1.0]), stops=frozenset({0}))
    run = simulation(plan, engine, workers=1, checkpoints=(50,))
    run.run()
    half = BUDGET // 2
    assert engine.events == [(0, half), (1, half), (1, BUDGET), (2, half), (2, BUDGET)]
    assert run.examples == 2 * BUDGET + half


def test_a_promoted_trial_trains_only_the_rest(plan: Plan) -> None:
    (first,) = trials(plan, [1.0])
    again = Trial(0, first.params, (BUDGET,), trained=BUDGET // 2)
    run = simulation(plan, Script([Trial(0, first.params, (BUDGET // 2,)), again], frozenset({0})), workers=1)
    run.run()
    assert run.examples == BUDGET
    assert run.values.keys() == {0} and run.values[0].keys() == {BUDGET // 2, BUDGET}


def test_examples_of_running_trials_count(plan: Plan) -> None:
    """Trial 0 ends its first half after 10,300 units; by then trial 1, of cost 10, has trained a tenth of it."""
    engine = Script(trials(plan, [1.0, 10.0]))
    (answer,) = simulation(plan, engine, checkpoints=(0.5,)).run()
    half = BUDGET // 2
    done = (half + EVALUATION) / (10 * half + EVALUATION) * half
    assert answer.equivalents == pytest.approx((half + done) / BUDGET)
    assert answer.time == pytest.approx(2 * (half + EVALUATION) / BUDGET)


def test_the_answer_is_the_best_at_the_highest_milestone(plan: Plan) -> None:
    run = simulation(plan, Script([]))
    assert run.best() is None
    run.values = {0: {2222: 0.9, 6666: 0.5}, 1: {2222: 0.1, 6666: 0.6}, 2: {2222: 0.99}, 3: {2222: 0.2, 6666: 0.6}}
    assert run.best() == 1
    run.values[0][BUDGET] = 0.3
    assert run.best() == 0


@pytest.mark.parametrize("engine", HERE)
@pytest.mark.parametrize("workers", [2, 8])
def test_a_seed_decides_a_sweep(engine: str, workers: int, plan: Plan, setting: Setting) -> None:
    runs = []
    for _ in range(2):
        made = ENGINES[engine](Setting(**{**vars(setting), "workers": workers}))
        run = simulation(plan, made, workers=workers, checkpoints=(1, 2, 3))
        runs.append((run.run(), run.params, run.values))
    assert runs[0] == runs[1]
    answers, params, values = runs[0]
    assert [round(answer.equivalents) for answer in answers] == sorted(round(each.equivalents) for each in answers)
    assert len(answers) == 3 and answers[-1].trials == len(params) >= workers
    assert next(iter(params.values())) == setting.default()
    assert all(step <= BUDGET for reported in values.values() for step in reported)
