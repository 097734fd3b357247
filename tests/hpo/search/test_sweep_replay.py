"""Replay: the sweep is a function of the store's rows, however many of them were written.

Property over random faults, prefixes and repeated rows: a sweep is replayed from a prefix of the rows and then
continued with the other rows. It draws, judges and ranks as the uninterrupted sweep did.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Hashable, Mapping
from typing import Any

import pytest

from hpo.search.endings import Ending
from hpo.search.schedulers import SCHEDULERS, Scheduler
from hpo.search.searchers import SEARCHERS, Changes, Searcher
from hpo.search.states import State
from hpo.search.sweep import Sweep
from tests.hpo.simulation import (
    CURVES,
    MILESTONES,
    Cluster,
    Faults,
    complete,
    counts,
    examples,
    fingerprint,
    new_sweep,
)

FAULTS = Faults(fail=0.03, lose=0.1, pause=0.1, again=0.05, diverge=0.04)


def follow(sweep: Sweep, rows: list[dict[str, Any]]) -> None:
    """Repeat the events of the uninterrupted sweep in the same order and compare every answer."""
    for row in rows:
        while counts(sweep)["waiting"]:  # interrupted trials come first
            again = sweep.next()
            assert again is not None
            assert again.attempt > 0
        if row.get("event") == "start":
            if row["attempt"] == 0:
                start = sweep.next()
                assert start is not None
                assert (start.trial, start.seed, start.origin) == (row["trial"], row["seed"], row["origin"])
                assert start.config == json.loads(row["config"])
                assert start.params == json.loads(row["params"])
        elif row.get("event") == "end":
            attempt = sweep.records[row["trial"]].start.attempt
            if row["state"] in ("failed", "lost", "paused"):
                ending = Ending(row["cause"], row["reason"])
                assert sweep.end(row["trial"], attempt, ending).state == row["state"]
        else:
            verdict = sweep.report(
                row["trial"], row["attempt"], row["step"], row["overall"], diverged=row["diverged"], row=row)
            assert verdict.action == row["verdict"]


def repeated(rows: list[dict[str, Any]], rng: random.Random) -> list[dict[str, Any]]:
    """The rows, some of them a second time, at once or later."""
    result: list[dict[str, Any]] = []
    for row in rows:
        result.append(row)
        if rng.random() < 0.3:
            result.append(rng.choice(result))
    return result


@pytest.mark.parametrize("seed", range(12))
def test_any_prefix_replayed_goes_on_as_the_unbroken_sweep(seed: int) -> None:
    rng = random.Random(seed)
    workers = rng.randrange(1, 6)
    whole = new_sweep(trials=20, workers=workers, seed=seed)
    rows = Cluster(whole, CURVES[seed % 3], FAULTS, seed).run()
    assert whole.finished
    for cut in (0, len(rows), *(rng.randrange(len(rows)) for _ in range(6))):
        again = new_sweep(trials=20, workers=workers, seed=seed)
        again.replay(repeated(rows[:cut], rng))
        assert not again.open_trials
        assert not again.warnings
        follow(again, rows[cut:])
        assert fingerprint(again) == fingerprint(whole)


def rank_of(config: Mapping[str, Any]) -> dict[Hashable, float]:
    """Something dear that all trials with a rank share."""
    adapter = config["adapter"]
    return {adapter["rank"].bit_length() // 3: 2.0} if adapter["kind"] == "lora" else {}


def test_who_first_asks_for_what_trials_share_pays_for_it_in_a_replay_too() -> None:
    parts: dict[str, Any] = {"searcher": Changes(prior_trust=0.0), "cost": lambda config: 1.0}
    rows = Cluster(new_sweep(trials=60, shared=rank_of, **parts)).run()
    first = [rank_of(json.loads(row["config"])) for row in rows if row.get("event") == "start"]
    assert len({tuple(each) for each in first}) > 2, "several ranks"
    for cut in (0, 20, 40):
        again = new_sweep(trials=60, shared=rank_of, **parts)
        again.replay(rows[:cut])
        follow(again, rows[cut:])
    forgetful = new_sweep(trials=60, shared=rank_of, **parts)
    forgetful._costs.begin = lambda config: None  # type: ignore[union-attr, method-assign, assignment]
    assert Cluster(forgetful).run() != rows, "the draws depend on it"


def test_a_replayed_sweep_has_the_state_of_the_live_one() -> None:
    for most in (1, 5, 17, 40, 61):
        live = new_sweep(trials=30, workers=4)
        cluster = Cluster(live, CURVES[0], FAULTS)
        cluster.run(most)
        again = new_sweep(trials=30, workers=4)
        again.replay(cluster.rows)
        assert fingerprint(again) == fingerprint(live)
        assert counts(again)["waiting"] == len(live.open_trials) + counts(live)["waiting"]


@pytest.mark.parametrize("seed", range(4))
def test_with_one_worker_a_crashed_and_resumed_sweep_is_the_unbroken_one(seed: int) -> None:
    """The resumed sweep runs by itself to the end, from checkpoints."""
    rng = random.Random(seed)
    curve = CURVES[seed % 3]
    whole = new_sweep(workers=1, seed=seed)
    total = len(Cluster(whole, curve, seed=seed).run())
    for _ in range(4):
        rows: list[dict[str, Any]] = []
        reached: dict[int, int] = {}
        for crash in (*sorted(rng.sample(range(1, total), 2)), None):
            sweep = new_sweep(workers=1, seed=seed)
            sweep.replay(rows)
            rows = rows + [
                {"event": "end", "trial": trial, "attempt": attempt, "state": verdict.state, "reason": verdict.reason}
                for trial, attempt, verdict in sweep.unwritten_ends
            ]
            cluster = Cluster(sweep, curve, seed=seed, rows=rows, reached=reached)
            rows = cluster.run(crash)
            reached = {
                trial: len({row["step"] for row in rows if "step" in row and row["trial"] == trial})
                for trial in sweep.records
            }
        assert sweep.finished
        assert fingerprint(sweep) == fingerprint(whole)


def test_extending_goes_on_as_a_longer_sweep_would_have() -> None:
    long = new_sweep(trials=30, workers=1)
    Cluster(long).run()
    short = new_sweep(trials=12, workers=1)
    rows = Cluster(short).run()
    extended = new_sweep(trials=30, workers=1)
    extended.replay(rows)
    assert not extended.finished
    Cluster(extended, rows=list(rows)).run()
    assert fingerprint(extended) == fingerprint(long)


def test_an_end_that_was_not_recorded_is_derived_from_the_reports_and_listed() -> None:
    live = new_sweep(trials=12, workers=3)
    rows = Cluster(live, CURVES[0], Faults(diverge=0.1)).run()
    without_ends = [{**row, "verdict": None} for row in rows if row.get("event") != "end"]
    again = new_sweep(trials=12, workers=3)
    again.replay(without_ends)
    assert fingerprint(again) == fingerprint(live)
    ends = {(row["trial"], row["state"]) for row in rows if row.get("event") == "end"}
    assert {(trial, verdict.state) for trial, _, verdict in again.unwritten_ends} == ends
    whole = new_sweep(trials=12, workers=3)
    whole.replay(rows)
    assert whole.unwritten_ends == []


def test_rows_without_their_trials_start_are_named_and_the_trial_is_drawn_again() -> None:
    rows = Cluster(new_sweep(trials=8, workers=1), CURVES[0]).run()
    damaged = [row for row in rows if not (row.get("event") == "start" and row["trial"] == 3)]
    sweep = new_sweep(trials=8, workers=1)
    sweep.replay(damaged)
    assert sweep.warnings
    assert "trial 3" in sweep.warnings[0]
    start = sweep.next()
    assert start is not None
    assert (start.trial, start.attempt) == (3, 1), "the old rows of attempt 0 may be of another configuration"


class Launches:
    """One trial whose launches die or lose places, and its rows."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def start_again(self) -> int | None:
        """Replay the rows in a new launch and start the trial; returns the attempt. The launch then dies."""
        sweep = new_sweep(trials=1, workers=1)
        sweep.replay(self.rows)
        start = sweep.next()
        if start is not None:
            self.rows.append({"event": "start", "trial": 0, "attempt": start.attempt, "config": start.config,
                              "params": start.params, "seed": start.seed, "origin": start.origin})
        return None if start is None else start.attempt

    def lose(self, reached: int = 0) -> State:
        """End the last attempt as the live launch would have, by its place."""
        sweep = new_sweep(trials=1, workers=1)
        sweep.replay(self.rows[:-1])
        start = sweep.next()
        assert start is not None
        verdict = sweep.end(0, start.attempt, Ending("place", reached=reached))
        self.rows.append({"event": "end", "trial": 0, "attempt": start.attempt, "state": verdict.state,
                          "reason": verdict.reason, "cause": "place", "place": "a", "reached": reached})
        return sweep.records[0].state


def test_deaths_of_the_driver_cost_a_trial_nothing() -> None:
    """A killed driver leaves start rows without end rows."""
    launches = Launches()
    assert [launches.start_again() for _ in range(12)] == list(range(12))


def test_places_are_counted_over_all_launches_until_a_newer_checkpoint() -> None:
    launches = Launches()
    states = []
    for reached in (0, 500, 500, 800, 800, 800):
        assert launches.start_again() is not None
        assert launches.start_again() is not None, "the driver died too, which costs nothing"
        states.append(launches.lose(reached))
    assert states == ["waiting"] * 5 + ["failed"], "two places at 0 and 500, the third with no newer checkpoint at 800"
    assert launches.start_again() is None


def test_a_lost_trial_of_an_older_store_waits_as_it_did_then() -> None:
    """Older stores recorded no cause, and a trial failed only when it was lost for the fourth time."""
    rows: list[dict[str, Any]] = []
    for attempt in range(3):
        start = new_sweep(trials=1).next()
        assert start is not None
        rows.append({"event": "start", "trial": 0, "attempt": attempt, "config": start.config, "params": start.params,
                     "seed": start.seed, "origin": start.origin})
        rows.append({"event": "end", "trial": 0, "attempt": attempt, "state": "lost", "reason": "node gone"})
    sweep = new_sweep(trials=1)
    sweep.replay(rows)
    assert sweep.records[0].state == "waiting"


def test_a_sweep_whose_failed_trials_were_opened_again_is_replayed() -> None:
    whole = new_sweep(trials=12, workers=1)
    rows = Cluster(whole, CURVES[0], Faults(fail=0.3), seed=1).run()
    failed = [number for number, record in whole.records.items() if record.state == "failed"]
    assert len(failed) > 1
    retried = new_sweep(trials=14, workers=2)
    retried.replay(rows)
    assert retried.retry_failed() == failed
    cluster = Cluster(retried, CURVES[0], Faults(fail=0.1), seed=2, rows=list(rows))
    cluster.run()
    assert retried.finished
    assert counts(retried)["complete"] + counts(retried)["pruned"] > counts(whole)["complete"] + counts(whole)["pruned"]
    again = new_sweep(trials=14, workers=2)
    again.replay(cluster.rows)
    assert fingerprint(again) == fingerprint(retried)


@pytest.mark.parametrize("missing", [MILESTONES[-1:], MILESTONES], ids=["last report", "all reports"])
def test_an_end_whose_reports_are_missing_still_ends_the_trial(missing: tuple[int, ...]) -> None:
    rows = Cluster(new_sweep(trials=12, workers=1), CURVES[0]).run()
    damaged = [row for row in rows if row.get("step") not in missing]
    sweep = new_sweep(trials=12, workers=1)
    sweep.replay(damaged)
    assert sweep.finished
    assert sweep.unwritten_ends == []
    extended = new_sweep(trials=13, workers=1)
    extended.replay(damaged)
    assert extended.next() is not None, "the searcher can still model the trials"


@pytest.mark.parametrize("value", [None, math.nan, 0.9])
def test_a_row_says_whether_its_trial_diverged(value: float | None) -> None:
    live = new_sweep(trials=1)
    start = live.next()
    assert start is not None
    row = {"event": "start", "trial": 0, "attempt": 0, "config": start.config, "params": start.params,
           "seed": start.seed, "origin": start.origin}
    sweep = new_sweep(trials=1)
    sweep.replay([row, {"trial": 0, "attempt": 0, "step": MILESTONES[0], "overall": value, "diverged": True}])
    assert sweep.records[0].state == "diverged"


@pytest.mark.parametrize("searcher", examples(), ids=SEARCHERS)
@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_every_searcher_and_scheduler_replays(searcher: Searcher, scheduler: type[Scheduler]) -> None:
    parts = {"searcher": searcher, "scheduler": scheduler(), "exempt": (0, 3)}
    whole = new_sweep(trials=20, **parts)
    rows = Cluster(whole, CURVES[1], FAULTS, seed=7).run()
    assert whole.finished
    for cut in (0, len(rows) // 3, len(rows) // 2, len(rows)):
        again = new_sweep(trials=20, **parts)
        again.replay(rows[:cut])
        follow(again, rows[cut:])
        assert fingerprint(again) == fingerprint(whole)


def test_an_identity_is_fixed_at_the_first_start() -> None:
    rows = Cluster(new_sweep(trials=3, workers=1)).run()
    marked = [row | {"config_id": "0123456789abcdef", "replicate": 2} if row.get("event") == "start" else row
              for row in rows]
    sweep = new_sweep(trials=3, workers=1)
    sweep.replay(marked)
    assert {(record.start.config_id, record.start.replicate) for record in sweep.records.values()} == {
        ("0123456789abcdef", 2)}


def test_rows_of_an_older_store_get_the_identity_of_their_configuration() -> None:
    live = new_sweep(trials=3, workers=1)
    rows = [{name: value for name, value in row.items() if name not in ("config_id", "replicate")}
            for row in Cluster(live).run()]
    sweep = new_sweep(trials=3, workers=1)
    sweep.replay(rows)
    assert fingerprint(sweep) == fingerprint(live)


def test_replay_comes_first() -> None:
    sweep = new_sweep()
    sweep.next()
    with pytest.raises(ValueError, match="must be called before the first start"):
        sweep.replay([])


def test_a_warm_sweep_is_replayed_from_the_configurations_alone() -> None:
    warm = [complete({"x": 0.9, "steps": 4}), complete({"adapter": {"kind": "lora", "rank": 16}}), complete({})]

    def sweep() -> Sweep:
        return new_sweep(searcher=Changes(), warm=warm, trials=16, workers=1)

    parents = sweep().study.problem.warm
    known = [(each["adapter/kind"], each["x"], each["steps"]) for each in parents]
    assert known == [("none", 0.9, 1), ("lora", 0.5, 1)], "the default is a parent anyway"
    assert parents[1]["adapter.lora/rank"] == 16
    whole = sweep()
    rows = Cluster(whole).run()
    assert any(record.start.searcher == "changes/warm" for record in whole.records.values())
    for place, row in enumerate(rows):
        if row.get("event") == "start":
            again = sweep()
            again.replay(rows[:place])
            assert again.next() == whole.records[row["trial"]].start
