"""Repeats in a sweep: after the search, outside rungs, searcher and count; replayed, resumed and extended."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from hpo.driver.ledger import Ledger
from hpo.search.endings import Ending
from hpo.search.repeats import most
from hpo.search.schedulers import NoStopping
from hpo.search.states import CLOSED, Start
from hpo.search.sweep import Sweep, training_seed
from tests.hpo.search.test_sweep_replay import FAULTS, follow, repeated
from tests.hpo.simulation import MILESTONES, Cluster, Faults, fingerprint, new_sweep, rising

BUDGET = MILESTONES[-1]


def noisy(start: Start, step: int) -> float:
    """A rising curve whose values depend on the seed of the training too."""
    return rising(start, step) + random.Random(f"{start.seed}/{step}").gauss(0, 0.05)


def full(**changes: Any) -> Sweep:
    """A sweep long enough for all repeats, as every trial uses its full budget."""
    usual: dict[str, Any] = {"trials": 34, "workers": 3, "repeats": 2, "scheduler": NoStopping()}
    return new_sweep(**usual | changes)


def repeats(sweep: Sweep) -> dict[int, Start]:
    return {number: record.start for number, record in sweep.records.items() if record.start.repeat}


def test_repeats_follow_the_search_and_count_nowhere() -> None:
    plain, sweep = full(repeats=0), full()
    rows = Cluster(plain, noisy).run()
    more = Cluster(sweep, noisy).run()
    assert sweep.finished
    assert more[: len(rows)] == rows, "the search is the same"
    assert len(repeats(sweep)) == most(2)
    assert sorted(repeats(sweep)) == list(range(34, 42))
    alone, both = fingerprint(plain), fingerprint(sweep)
    assert (both["rungs"], both["optuna"]) == (alone["rungs"], alone["optuna"])
    scores = {number: record.values[BUDGET] for number, record in plain.records.items() if number}
    best = sorted(scores, key=lambda number: -scores[number])[:3]
    order = [best[0], 0, *best[1:]] * 2
    for of, start in zip(order, repeats(sweep).values(), strict=True):
        drawn = sweep.records[of].start
        assert (start.config, start.params, start.config_id) == (drawn.config, drawn.params, drawn.config_id)
        assert (start.origin, start.attempt) == ("repeat", 0)
        assert start.seed == training_seed(sweep.seed, of, start.replicate)
    assert [start.replicate for start in repeats(sweep).values()] == [1] * 4 + [2] * 4
    assert len({record.start.seed for record in sweep.records.values()}) == 42


def test_no_repeat_starts_before_the_last_trial_has_ended() -> None:
    sweep = full(trials=5, workers=5, repeats=1)
    starts = [sweep.next() for _ in range(5)]
    assert None not in starts
    for trial in (0, 1, 2, 3):
        sweep.report(trial, 0, BUDGET, 0.5 + trial / 10, diverged=False)
        assert sweep.next() is None
        assert not sweep.searched
    sweep.report(4, 0, BUDGET, 0.1, diverged=False)
    assert (sweep.searched, sweep.finished) == (True, False)
    repeat = sweep.next()
    assert repeat is not None
    assert (repeat.trial, repeat.config_id, repeat.replicate) == (5, sweep.records[3].start.config_id, 1)
    assert sweep.next() is None, "a fifth of six full trials is one"
    sweep.end(5, 0, Ending("place"))
    assert not sweep.finished
    again = sweep.next()
    assert again is not None
    assert (again.trial, again.attempt, again.seed) == (5, 1, repeat.seed)
    sweep.report(5, 1, BUDGET, 0.4, diverged=False)
    assert sweep.finished


def test_a_repeat_stops_early_only_if_it_diverges() -> None:
    def started(workers: int) -> Sweep:
        sweep = new_sweep(trials=8, workers=workers, repeats=2)
        for trial in range(8):
            assert sweep.next() is not None
            for step in MILESTONES:
                sweep.report(trial, 0, step, 0.5 + trial / 100, diverged=False)
        assert (start := sweep.next()) is not None
        assert start.repeat
        return sweep

    sweep = started(1)
    states = [sweep.report(8, 0, step, -1.0, diverged=False).state for step in MILESTONES]
    assert states == [None, None, None, "complete"]
    assert started(1).report(8, 0, MILESTONES[0], math.nan, diverged=True).state == "diverged"


def test_with_early_stopping_a_short_sweep_repeats_its_best_trial_at_least() -> None:
    sweep = new_sweep(trials=40, workers=2, repeats=2)
    Cluster(sweep, noisy).run()
    used = sum(max(record.values) for record in sweep.records.values() if not record.start.repeat)
    assert 0 < len(repeats(sweep)) == used // (4 * BUDGET)


@pytest.mark.parametrize("seed", range(6))
def test_any_prefix_replayed_goes_on_as_the_unbroken_sweep(seed: int) -> None:
    rng = random.Random(seed)
    whole = full(seed=seed, workers=rng.randrange(1, 6))
    rows = Cluster(whole, noisy, FAULTS, seed).run()
    assert whole.finished
    first = next(place for place, row in enumerate(rows) if row.get("origin") == "repeat")
    for cut in (first, len(rows), *(rng.randrange(first, len(rows)) for _ in range(4)), rng.randrange(first)):
        again = full(seed=seed, workers=whole.workers)
        again.replay(repeated(rows[:cut], rng))
        assert not again.warnings
        follow(again, rows[cut:])
        assert fingerprint(again) == fingerprint(whole)
        assert again.finished


def test_with_one_worker_a_sweep_killed_among_its_repeats_is_the_unbroken_one() -> None:
    whole = full(workers=1)
    every = Cluster(whole, noisy).run()
    first = next(place for place, row in enumerate(every) if row.get("origin") == "repeat")
    for crash in (first, first + 1, first + 4, len(every) - 3):
        sweep = full(workers=1)
        sweep.replay(every[:crash])
        reached = {trial: len({row["step"] for row in every[:crash] if "step" in row and row["trial"] == trial})
                   for trial in sweep.records}  # fmt: skip
        Cluster(sweep, noisy, rows=every[:crash], reached=reached).run()
        assert fingerprint(sweep) == fingerprint(whole)


def test_an_extended_sweep_draws_what_a_longer_one_would_have_drawn() -> None:
    long, short = full(trials=40, workers=1), full(trials=30, workers=1)
    Cluster(long, noisy).run()
    rows = Cluster(short, noisy).run()
    taken = sorted(repeats(short))
    assert taken == list(range(30, 37))
    extended = full(trials=40, workers=1)
    extended.replay(rows)
    assert not extended.searched
    Cluster(extended, noisy, rows=list(rows)).run()
    assert extended.finished

    def search(sweep: Sweep) -> list[tuple[Any, ...]]:
        return [
            (start.config, start.params, start.seed, start.origin, record.values)
            for record in sweep.records.values()
            if not (start := record.start).repeat
        ]

    assert search(extended) == search(long)
    assert fingerprint(extended)["optuna"] == fingerprint(long)["optuna"]
    assert [number for number in extended.records if number >= 37][:10] == list(range(37, 47)), "taken ones are skipped"
    assert len(repeats(extended)) <= 40 // 4
    finalists = {start.config_id for start in repeats(long).values()}
    assert finalists <= {start.config_id for start in repeats(extended).values()}


def test_a_trial_whose_start_is_lost_is_drawn_again_beside_repeats() -> None:
    rows = Cluster(full(workers=1), noisy).run()
    sweep = full(workers=1)
    sweep.replay([row for row in rows if not (row.get("event") == "start" and row["trial"] == 3)])
    start = sweep.next()
    assert start is not None
    lost = next(row for row in rows if row.get("event") == "start" and row["trial"] == 3)
    assert (start.trial, start.attempt, start.seed) == (3, 1, lost["seed"])


@pytest.mark.parametrize("seed", range(4))
def test_ledger_and_sweep_agree_on_the_repeats(seed: int) -> None:
    """Displays and `hpo resume` know from rows alone what the search would do."""
    sweep = full(seed=seed, trials=24)
    rows = [{"examples": row["step"], **row} if "step" in row else row
            for row in Cluster(sweep, noisy, Faults(fail=0.02, lose=0.05, diverge=0.03), seed).run()]  # fmt: skip
    for cut in (*range(len(rows) // 2, len(rows), 7), len(rows)):
        ledger = Ledger(rows[:cut])
        again = full(seed=seed, trials=24)
        again.replay(rows[:cut])
        if again.unwritten_ends:
            continue  # the driver writes these rows first
        assert ledger.search_ended(24) == again.searched
        assert ledger.ended(24, BUDGET, 2) == again.finished
        assert set(ledger.repeats) == set(repeats(again))
        left = [] if not again.searched else again._repeats_left()[::-1]
        assert ledger.repeats_to_start(24, BUDGET, 2) == left
    assert ledger.ended(24, BUDGET, 2)
    assert all(entry.state in CLOSED for entry in ledger.repeats.values())
    of = {number: ledger.repeat_of(number) for number in ledger.repeats}
    assert all(json.dumps(sweep.records[number].start.config) == json.dumps(sweep.records[trial].start.config)
               for number, trial in of.items() if trial is not None)  # fmt: skip
    assert None not in of.values()
