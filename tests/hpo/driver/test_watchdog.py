"""The watchdog: trials that are silent, trials that hang, trials that only wait."""

from __future__ import annotations

import pytest

from hpo.driver.watchdog import FACTOR, LONGEST, LOOK, SHORTEST, START, Watchdog

LIMIT = 100.0


def test_a_silent_trial_is_returned_once_and_a_hung_one_until_it_is_gone() -> None:
    signs: dict[str, object] = {"0-0": b"a", "1-0": b"b"}
    dog = Watchdog(signs.get, LIMIT)
    assert dog.look(signs, 0.0) == ({}, [])
    assert dog.look(signs, LIMIT / 2) == ({}, [])
    signs["1-0"] = b"c"
    assert dog.look(signs, LIMIT / 2 + LOOK) == ({"0-0": LIMIT}, [])
    assert dog.look(signs, LIMIT / 2 + 2 * LOOK) == ({}, []), "returned before"
    signs["1-0"] = b"d"
    for late in (LIMIT + LOOK, LIMIT + 2 * LOOK):
        assert dog.look(signs, late) == ({}, ["0-0"])
    del signs["0-0"]
    signs["0-1"] = b"e"
    assert dog.look(signs, LIMIT + 3 * LOOK) == ({}, [])


@pytest.mark.parametrize(("given", "limit"), [(None, START), (LIMIT, START), (2 * START, 2 * START)])
def test_a_worker_without_a_first_sign_has_a_limit_of_its_own(given: float | None, limit: float) -> None:
    signs: dict[str, object] = {"0-0": None, "1-0": None}
    dog = Watchdog(signs.get, given)
    dog.look(signs, 0.0)
    assert dog.look(signs, limit / 2 + 1) == ({"0-0": limit, "1-0": limit}, [])
    signs["1-0"] = b"first"
    assert dog.look(signs, limit - 1) == ({}, [])
    assert dog.look(signs, limit + LOOK) == ({}, ["0-0"])


def test_the_start_is_counted_from_when_a_worker_has_its_resources() -> None:
    dog = Watchdog(lambda tune_id: None)
    dog.look([], 0.0)
    dog.look(["0-0"], 10 * START)
    assert dog.look(["0-0"], 11 * START - 1) == ({"0-0": START}, [])
    assert dog.look(["0-0"], 11 * START + LOOK) == ({}, ["0-0"])


@pytest.mark.parametrize(
    ("gap", "limit"), [(LOOK, SHORTEST), (60.0, 60.0 * FACTOR), (LONGEST / 2, LONGEST)], ids=["fast", "slow", "slowest"]
)
def test_the_longest_silence_follows_from_the_times_between_signs(gap: float, limit: float) -> None:
    signs: dict[str, object] = {"0-0": None}
    dog = Watchdog(signs.get)
    dog.look(signs, 0.0)
    signs["0-0"] = b"first"
    dog.look(signs, 100.0)
    assert dog.limit == LONGEST, "a trial that waited for its first sign says nothing"
    signs["0-0"] = b"second"
    dog.look(signs, 100.0 + gap)
    assert dog.limit == limit


def test_looks_are_rare() -> None:
    asked: list[str] = []
    dog = Watchdog(asked.append)
    for now in range(int(2 * LOOK)):
        dog.look(["0-0"], float(now))
    assert len(asked) == 2
