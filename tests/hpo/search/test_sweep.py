"""The sweep: order of starts, limits, verdicts, retries, repeated reports."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hpo.search.endings import Ending
from hpo.search.schedulers import Asha, NoStopping
from hpo.search.searchers import Random, Searcher, Tpe
from hpo.search.states import CLOSED, Start, Verdict, ranking
from hpo.search.sweep import Sweep
from hpo.space.space import Space
from tests.hpo.simulation import (
    CURVES,
    MILESTONES,
    Cluster,
    Faults,
    complete,
    counts,
    fingerprint,
    new_sweep,
    optimum,
)

FIRST, SECOND, THIRD, LAST = MILESTONES
PLACE, DRIVER = Ending("place"), Ending("driver")


def started(sweep: Sweep) -> Start:
    start = sweep.next()
    assert start is not None
    return start


def report(sweep: Sweep, trial: int, step: int, value: float, attempt: int = 0) -> Verdict:
    return sweep.report(trial, attempt, step, value, diverged=math.isnan(value))


def test_default_first_then_given_then_draws() -> None:
    inside: dict[str, Any] = {"adapter": {"kind": "lora", "rank": 4, "targets": ["q", "k"]}, "x": 0.25}
    inside["optimizer"] = {"encoder_lr": 1e-3}
    sweep = new_sweep(trials=4, workers=4, start=[inside, {"x": 0.75, "taper": {"sst": 0.0}}])
    starts = [started(sweep) for _ in range(4)]
    assert [start.origin for start in starts] == ["default", "given", "given", "sampler"]
    assert [start.trial for start in starts] == [0, 1, 2, 3]
    assert [start.attempt for start in starts] == [0] * 4
    assert starts[0].config == complete({})
    assert starts[1].config == complete(inside)
    assert starts[1].params["adapter.lora/targets"] == "q+k"
    assert starts[1].params["adapter.lora//optimizer/encoder_lr"] == 1e-3
    assert starts[2].params == {}, "a taper of 0 lies outside the space: no parameter is entered, not all but one"
    assert starts[3].config == complete(starts[3].config), "stored configurations are complete"
    assert len({start.seed for start in starts}) == 4


def test_no_draw_is_ahead_of_the_results() -> None:
    sweep = new_sweep(trials=5, workers=2)
    started(sweep)
    started(sweep)
    assert sweep.next() is None
    assert sweep.open_trials == (0, 1)
    report(sweep, 1, FIRST, 0.5)
    assert sweep.next() is None
    report(sweep, 1, LAST, 0.5)
    assert started(sweep).trial == 2


def test_verdicts_of_a_rung() -> None:
    sweep = new_sweep(trials=5, workers=5)
    for _ in range(5):
        started(sweep)
    assert report(sweep, 0, FIRST, 0.3).action == "continue"
    first = report(sweep, 1, FIRST, 0.6)
    assert (first.action, first.state) == ("continue", None)
    stopped = report(sweep, 2, FIRST, 0.5)
    assert (stopped.action, stopped.state) == ("stop", "pruned")
    assert stopped.reason == "0.5000 at the rung of 1,000 examples is rank 2 of 2; the best goes on"
    diverged = report(sweep, 3, FIRST, math.nan)
    assert (diverged.action, diverged.state) == ("stop", "diverged")
    assert sweep.report(4, 0, FIRST, 0.9, diverged=True).state == "diverged", "its value is not read"
    for trial in (0, 1):
        at_budget = report(sweep, trial, LAST, 0.1)
        assert (at_budget.action, at_budget.state) == ("stop", "complete")
    assert sweep.finished
    assert counts(sweep) == {"complete": 2, "pruned": 1, "diverged": 2}
    row = sweep.judge.rows()[0]
    assert (row.step, row.reports, row.stopped, row.diverged, row.exempt) == (FIRST, 5, 1, 2, 1)
    assert ranking(sweep.records) == [0, 1, 2]


@pytest.mark.parametrize("exempt", [(0,), (0, 2), ()])
def test_exempt_trials_run_to_the_end_and_the_searcher_sees_their_curve(exempt: tuple[int, ...]) -> None:
    sweep = new_sweep(trials=4, workers=4, start=[{"x": 0.1}, {"x": 0.2}], exempt=exempt)
    for _ in range(4):
        started(sweep)
    for trial in (3, 2, 1, 0):
        report(sweep, trial, FIRST, 0.1 * trial)
    assert {number for number, record in sweep.records.items() if record.state == "running"} == {3, *exempt}
    curves = [trial.intermediate_values for trial in sweep.study.trials()]
    assert curves == [{FIRST: pytest.approx(0.1 * trial)} for trial in range(4)]


def test_an_exempt_trial_that_diverges_ends() -> None:
    sweep = new_sweep(trials=1)
    started(sweep)
    assert report(sweep, 0, FIRST, math.nan).state == "diverged"
    assert sweep.finished


def test_a_report_counts_once() -> None:
    sweep = new_sweep(trials=3, workers=3)
    for _ in range(3):
        started(sweep)
    first = report(sweep, 0, FIRST, 0.6)
    assert report(sweep, 0, FIRST, 0.1) == first
    assert report(sweep, 0, FIRST, math.nan, attempt=1) == first
    report(sweep, 1, FIRST, 0.6)
    stopped = report(sweep, 2, FIRST, 0.5)
    assert report(sweep, 2, FIRST, 0.9) == stopped
    assert report(sweep, 2, SECOND, 0.9).state == "pruned", "too late for a trial that has ended"
    assert [row.reports for row in sweep.judge.rows()] == [3, 0, 0, 0]


def test_a_lost_trial_comes_back_first_and_fails_with_the_third_place_in_a_row() -> None:
    sweep = new_sweep(trials=3, workers=1)
    first = started(sweep)
    for attempt in range(2):
        assert sweep.end(0, attempt, PLACE).state == "lost"
        again = started(sweep)
        assert (again.trial, again.attempt) == (0, attempt + 1)
        assert (again.config, again.params, again.seed) == (first.config, first.params, first.seed)
    verdict = sweep.end(0, 2, Ending("place", "node gone"))
    assert verdict.state == "failed"
    assert verdict.reason == "lost at 3 places in a row: node gone"
    assert started(sweep).trial == 1


def test_a_resting_trial_does_not_start_and_others_do() -> None:
    sweep = new_sweep(trials=3, workers=2)
    started(sweep)
    sweep.end(0, 0, PLACE)
    new = sweep.next(resting={0})
    assert new is not None
    assert new.trial == 1
    assert started(sweep).trial == 0


def test_a_new_report_gives_a_trial_its_places_back() -> None:
    """A long trial may lose many machines without being at fault."""
    sweep = new_sweep(trials=1, workers=1)
    started(sweep)
    for attempt in range(2):
        assert sweep.end(0, attempt, PLACE).state == "lost"
        started(sweep)
    assert report(sweep, 0, FIRST, 0.5, attempt=2).action == "continue"
    for attempt in range(2, 4):
        assert sweep.end(0, attempt, PLACE).state == "lost"
        started(sweep)
    assert report(sweep, 0, FIRST, 0.5, attempt=4).action == "continue", "a repeated report is no progress"
    assert sweep.end(0, 4, PLACE).state == "failed"


def test_what_the_driver_ends_costs_a_trial_nothing() -> None:
    sweep = new_sweep(trials=2, workers=1)
    started(sweep)
    for attempt in range(10):
        assert sweep.end(0, attempt, DRIVER).state == "paused"
        assert counts(sweep)["waiting"] == 1
        assert started(sweep).attempt == attempt + 1
    assert sweep.end(0, 10, PLACE).state == "lost"


def test_a_refused_trial_is_not_tried_again() -> None:
    sweep = new_sweep(trials=2, workers=1)
    started(sweep)
    assert sweep.end(0, 0, Ending("refused", "ConfigError: x")).state == "failed"
    assert sweep.end(0, 0, PLACE).state == "failed", "its worker's exit afterwards changes nothing"
    assert started(sweep).trial == 1
    assert sweep.records[0].reason == "ConfigError: x"


def test_failed_trials_are_opened_again_and_start_before_new_ones() -> None:
    sweep = new_sweep(trials=3, workers=3)
    for _ in range(2):
        started(sweep)
    assert report(sweep, 1, FIRST, 0.4).action == "continue"
    for trial in range(2):
        sweep.end(trial, 0, Ending("refused", "x"))
    assert sweep.retry_failed() == [0, 1]
    assert [(again.trial, again.attempt) for again in (started(sweep), started(sweep))] == [(0, 1), (1, 1)]
    assert [trial.state.name for trial in sweep.study.trials()] == ["RUNNING", "RUNNING"]
    assert sweep.study.trials()[1].intermediate_values == {FIRST: 0.4}, "what it reported before still counts"
    assert sweep.end(0, 1, PLACE).state == "lost", "its endings are counted anew"
    assert started(sweep).trial == 0
    assert report(sweep, 0, LAST, 0.5, attempt=2).state == "complete"


def test_the_end_of_an_old_attempt_changes_nothing() -> None:
    sweep = new_sweep(trials=2, workers=1)
    started(sweep)
    sweep.end(0, 0, PLACE)
    started(sweep)
    sweep.end(0, 0, PLACE)
    sweep.end(0, 0, Ending("refused"))
    assert sweep.open_trials == (0,)


def test_a_report_that_outlived_its_worker_is_used() -> None:
    sweep = new_sweep(trials=2, workers=1)
    started(sweep)
    sweep.end(0, 0, PLACE)
    assert report(sweep, 0, LAST, 0.5).state == "complete"
    assert started(sweep).trial == 1, "trial 0 has ended and is not started again"


def test_a_halted_sweep_starts_nothing_and_takes_reports_and_ends() -> None:
    sweep = new_sweep(trials=3, workers=2)
    started(sweep)
    started(sweep)
    sweep.halt()
    sweep.end(0, 0, DRIVER)
    assert sweep.next() is None
    assert report(sweep, 1, LAST, 0.5).state == "complete"
    assert sweep.open_trials == ()
    assert not sweep.finished


def test_one_worker_and_one_seed_make_one_sweep() -> None:
    sweeps = []
    for _ in range(2):
        sweeps.append(new_sweep(workers=1, seed=5))
        Cluster(sweeps[-1]).run()
    assert fingerprint(sweeps[0]) == fingerprint(sweeps[1])
    reseeded = new_sweep(workers=1, seed=6)
    Cluster(reseeded).run()
    assert fingerprint(reseeded)["trials"] != fingerprint(sweeps[0])["trials"]


@pytest.mark.parametrize("curve", CURVES)
def test_every_verdict_is_the_brute_force_rule(curve: Any) -> None:
    sweep = new_sweep(trials=40, workers=4)
    rows = Cluster(sweep, curve, Faults(fail=0.02, lose=0.1, diverge=0.05), seed=1).run()
    values: dict[int, list[float]] = {step: [] for step in MILESTONES}
    seen = 0
    for row in rows:
        if row["table"] == "reports":
            here = values[row["step"]]
            if row["trial"]:
                here.append(-math.inf if row["diverged"] else row["overall"])
            rank = sum(value >= here[-1] for value in here)  # of equal values the last ranks worst
            best = row["trial"] == 0 or rank <= math.ceil(len(here) / 3)
            goes_on = best and not row["diverged"] and row["step"] != LAST
            assert row["verdict"] == ("continue" if goes_on else "stop")
            seen += 1
    assert seen > 60
    assert [len(values[step]) for step in MILESTONES] == [row.reports - row.exempt for row in sweep.judge.rows()]
    assert sweep.judge.rows()[0].exempt == 1


def test_a_sweep_of_falling_scores_still_reaches_full_budget() -> None:
    """Early scores are the highest here: they mislead a search that takes a stopped trial's score for its result."""
    sweep = new_sweep(trials=30, workers=2)
    Cluster(sweep, CURVES[2]).run()
    best = ranking(sweep.records)[0]
    assert sweep.records[best].state == "complete"
    assert counts(sweep)["complete"] >= 3


def test_pins_hold_in_every_trial_and_leave_the_rest_free() -> None:
    sweep = new_sweep(trials=12, workers=12, pinned={"adapter": {"kind": "lora", "rank": 8}, "batch_size": {"sst": 4}})
    starts = [started(sweep) for _ in range(12)]
    assert {start.config["adapter"]["rank"] for start in starts} == {8}
    assert {start.config["batch_size"]["sst"] for start in starts} == {4}
    assert len({start.config["x"] for start in starts}) == 12
    assert not any("adapter/kind" in start.params or "adapter.lora/rank" in start.params for start in starts)


def test_a_space_with_nothing_to_vary_runs_all_the_same() -> None:
    parts: dict[str, Any] = {"searcher": Tpe(), "scheduler": Asha(), "complete": complete}
    sweep = Sweep(Space({}), seed=0, trials=3, milestones=MILESTONES, workers=1, **parts)
    Cluster(sweep).run()
    assert sweep.finished
    assert {str(record.start.params) for record in sweep.records.values()} == {"{}"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"trials": 0}, "`trials` must be an integer of at least 1, not 0"),
        ({"workers": 0}, "`workers` must be an integer of at least 1"),
        ({"trials": 2, "start": [{}, {}]}, "at least 3, not 2"),
        ({"start": [{"xx": 1}]}, "Unknown parameter `xx`"),
        ({"milestones": (3, 1)}, "`milestones` must be ascending"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        new_sweep(**more)


def test_reports_and_ends_that_no_trial_can_have_are_refused() -> None:
    sweep = new_sweep()
    with pytest.raises(ValueError, match="Trial 7 was never started"):
        report(sweep, 7, FIRST, 0.5)
    started(sweep)
    with pytest.raises(ValueError, match="reported at step 12; expected one of the milestones 1000, 3000"):
        report(sweep, 0, 12, 0.5)
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"reported {value} at step 1000; expected a finite value or `diverged`"):
            sweep.report(0, 0, FIRST, value, diverged=False)


def test_the_search_beats_chance() -> None:
    """On a smooth problem, modelled draws end nearer to the optimum than uniform ones."""

    def later_half(seed: int, searcher: Searcher) -> float:
        sweep = new_sweep(trials=30, workers=2, seed=seed, searcher=searcher)
        Cluster(sweep, seed=seed).run()
        return sum(optimum(sweep.records[number].start.config) for number in range(15, 30)) / 15

    modelled = sum(later_half(seed, Tpe()) for seed in range(4)) / 4
    uniform = sum(later_half(seed, Random()) for seed in range(4)) / 4
    assert modelled > uniform + 0.1


def test_a_repeated_configuration_is_drawn_again_and_taken_where_there_is_no_other() -> None:
    from hpo.search.sweep import DRAWS
    from search_spaces.domains import OneOf

    tree = {"a": OneOf(*range(6), weights=(1000, 1000, 1, 1, 1, 1))}
    sweep = Sweep(Space(tree), seed=0, trials=30, milestones=(10,), workers=30, searcher=Random(), scheduler=Asha(),
                  complete=lambda config: {"a": 0, **config})
    draws: list[tuple[int, int]] = []
    draw = sweep.study.draw
    sweep.study.draw = lambda number, attempt=0: draws.append((number, attempt)) or draw(number, attempt)  # type: ignore[func-returns-value,method-assign]
    configs = []
    while (start := sweep.next()) is not None:
        configs.append(start.config["a"])
    assert configs[:2] == [0, 1], "the default, then what is not the default"
    assert len(configs) == 30, "a space without other configurations does not end the sweep"
    repeats = [number for number in range(1, 30) if configs[number] in configs[:number]]
    assert repeats
    for number in range(1, 30):
        attempts = [attempt for trial, attempt in draws if trial == number]
        assert attempts == list(range(len(attempts)))
        assert (len(attempts) == DRAWS) if number in repeats else (len(attempts) <= DRAWS)


def test_a_refused_draw_is_one_failed_trial_and_replays() -> None:
    from search_spaces.domains import OneOf

    def strict(config: dict[str, Any]) -> dict[str, Any]:
        if config.get("a") == config.get("b") == 2:
            raise ValueError("2 and 2 do not go together")
        return {"a": 1, "b": 1, **config}

    def make() -> Sweep:
        tree = {"a": OneOf(1, 2), "b": OneOf(1, 2)}
        parts: dict[str, Any] = {"searcher": Tpe(), "scheduler": NoStopping(), "complete": strict}
        return Sweep(Space(tree), seed=1, trials=16, milestones=(10,), workers=1, **parts)

    sweep, rows = make(), []
    while (start := sweep.next()) is not None:
        fields = {"config": start.config, "params": start.params, "seed": start.seed, "origin": start.origin,
                  "searcher": start.searcher}
        rows.append({"trial": start.trial, "attempt": 0, "event": "start", **fields})
        try:
            strict(start.config)  # as the worker does
        except ValueError as error:
            sweep.end(start.trial, 0, Ending("refused", str(error)))
            rows.append({"trial": start.trial, "attempt": 0, "event": "end", "state": "failed", "reason": str(error)})
        else:
            report(sweep, start.trial, 10, 0.5)
            rows.append({"trial": start.trial, "attempt": 0, "step": 10, "overall": 0.5, "diverged": False})
    assert sweep.finished
    assert 0 < counts(sweep)["failed"] < 16
    for length in range(0, len(rows) + 1, 2):
        again = make()
        again.replay(rows[:length])
        assert {number: record.start.config for number, record in again.records.items()}.items() <= {
            number: record.start.config for number, record in sweep.records.items()
        }.items()
    assert fingerprint(again) == fingerprint(sweep)


@pytest.mark.parametrize("seed", range(3))
def test_the_search_has_ended_once_every_trial_has(seed: int) -> None:
    sweep = new_sweep(trials=9, searcher=Random(), seed=seed, repeats=1)
    cluster = Cluster(sweep, faults=Faults(fail=0.1, lose=0.1, pause=0.1, diverge=0.1), seed=seed)
    ended = []
    for rows in range(1, 120):
        cluster.run(rows)
        trials = [record for record in sweep.records.values() if not record.start.repeat]
        ended.append(len(trials) == 9 and all(record.state in CLOSED for record in trials))
        assert sweep.searched == ended[-1]
    assert set(ended) == {False, True}
