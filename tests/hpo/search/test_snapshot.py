"""Snapshots: rates and the time that is left."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.search.snapshot import WINDOW, Tally


def report(trial: int, step: int, time: float, **more: Any) -> dict[str, Any]:
    return {"trial": trial, "attempt": 0, "step": step, "examples": step, "overall": 0.5, "time": time} | more


def start(trial: int) -> dict[str, Any]:
    return {"trial": trial, "attempt": 0, "event": "start", "time": 0.0}


def test_the_rate_counts_this_launch_and_the_last_minutes_only() -> None:
    tally = Tally("s", 4, (100, 1000), 3)
    tally.feed_all([start(0), report(0, 100, 1.0)])
    assert tally.snapshot("searching", started=1000.0, now=1010.0).examples_per_second == 0.0
    tally.feed(report(0, 1000, 1020.0))
    assert tally.snapshot("searching", 1000.0, 1030.0).examples_per_second == pytest.approx(900 / 30)
    assert tally.snapshot("searching", 1000.0, 1020.0 + 2 * WINDOW).examples_per_second == 0.0


def test_work_done_twice_counts_once() -> None:
    tally = Tally("s", 4, (100, 1000), 3)
    tally.feed_all([start(0), report(0, 100, 1.0), start(0), report(0, 100, 9.0, attempt=1)])
    assert tally.snapshot("searching", 0.0, 10.0).budget_examples_used == 100


def test_the_time_left_is_unknown_until_a_trial_has_ended() -> None:
    tally = Tally("s", 3, (100, 1000), 3)
    tally.feed_all([start(0), report(0, 100, 10.0)])
    assert tally.snapshot("searching", 0.0, 10.0).time_left is None
    tally.feed({"trial": 0, "attempt": 0, "event": "end", "state": "pruned", "time": 10.0})
    assert tally.snapshot("searching", 0.0, 10.0).time_left == pytest.approx(2 * 100 / 10)


def test_a_lost_trial_waits() -> None:
    tally = Tally("s", 3, (100, 1000), 3)
    tally.feed_all([start(0), {"trial": 0, "attempt": 0, "event": "end", "state": "lost", "time": 1.0}])
    assert tally.snapshot("searching", 0.0, 1.0).counts["waiting"] == 1
