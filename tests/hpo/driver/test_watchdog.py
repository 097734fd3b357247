"""The watchdog: trials that are silent, trials that hang, trials that only wait."""

from __future__ import annotations

from hpo.driver.watchdog import HUNG, LOOK, SILENT, Watchdog


def test_a_silent_trial_is_returned_once_and_a_hung_one_until_it_is_gone() -> None:
    signs: dict[str, object] = {"0-0": b"a", "1-0": b"b"}
    dog = Watchdog(signs.get)
    assert dog.look(signs, 0.0) == ([], [])
    assert dog.look(signs, SILENT) == ([], [])
    signs["1-0"] = b"c"
    assert dog.look(signs, SILENT + LOOK) == (["0-0"], [])
    assert dog.look(signs, SILENT + 2 * LOOK) == ([], []), "returned before"
    signs["1-0"] = b"d"
    for late in (HUNG + LOOK, HUNG + 2 * LOOK):
        assert dog.look(signs, late) == ([], ["0-0"])
    del signs["0-0"]
    signs["0-1"] = b"e"
    assert dog.look(signs, HUNG + 3 * LOOK) == ([], [])


def test_a_trial_that_has_not_begun_is_reported_and_never_killed() -> None:
    dog = Watchdog(lambda tune_id: None)
    dog.look(["0-0"], 0.0)
    assert dog.look(["0-0"], SILENT + 1) == (["0-0"], [])
    assert dog.look(["0-0"], 10 * HUNG) == ([], [])


def test_looks_are_rare() -> None:
    asked: list[str] = []
    dog = Watchdog(asked.append)
    for now in range(int(2 * LOOK)):
        dog.look(["0-0"], float(now))
    assert len(asked) == 2
