"""Quarantines in the store: written when they change, read with the begin and the end of each, also after a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpo.driver import generations
from hpo.driver.quarantines import Quarantine, QuarantineLog, quarantines, quarantines_frame
from results.frames import attempts_frame
from results.store import Store
from tests.hpo import stored


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the log writes; a test sets its only entry."""
    now = [stored.START]
    monkeypatch.setattr("hpo.driver.quarantines.time.time", lambda: now[0])
    return now


def test_each_quarantine_has_its_begin_and_end(tmp_path: Path, clock: list[float]) -> None:
    folder = stored.make(tmp_path)
    first = generations.claim(folder.folder, since=stored.START)
    log = QuarantineLog(folder.folder, first.number, pytest.fail)
    for seconds, places in ((0, {}), (3, {"n0 GPU 3": "dead"}), (4, {"n0 GPU 3": "dead"}),
                            (5, {"n0 GPU 3": "dead", "n1": "full"}), (9, {"n1": "full"})):  # fmt: skip
        clock[0] = stored.START + seconds
        log.follow(places)
    assert len(list((folder.path / "quarantines").iterdir())) == 3, "one file for each change"
    gone, there = quarantines(folder.folder)
    assert gone == Quarantine("n0 GPU 3", "dead", stored.START + 3, stored.START + 9)
    assert there == Quarantine("n1", "full", stored.START + 5, None), "its launch goes on"
    frame = quarantines_frame(folder, attempts_frame(folder))
    assert frame["place"].tolist() == ["n0 GPU 3", "n1"]
    assert frame["begin"].tolist() == [3.0, 5.0], "seconds since the first row"
    assert frame["end"].tolist() == [9.0, attempts_frame(folder)["end"].max()]
    clock[0] = stored.START + 20
    first.end()
    assert quarantines(folder.folder)[1].end == stored.START + 20, "it ends with its launch"


def test_a_quarantine_of_a_driver_that_died_ends_with_the_next_launch(tmp_path: Path, clock: list[float]) -> None:
    folder = Store(tmp_path).create("s", stored.record("s").to_json())
    dead = generations.claim(folder.folder, since=stored.START)
    QuarantineLog(folder.folder, dead.number, pytest.fail).follow({"n0": "dead"})
    dead._stop.set()  # as after a kill: no word of its end
    later = generations.claim(folder.folder, takeover=True, since=stored.START + 50)
    QuarantineLog(folder.folder, later.number, pytest.fail).follow({"n2": "hot"})
    (folder.path / "quarantines" / "000002-000002.json").write_bytes(b"{")
    (folder.path / "quarantines" / "000002-000003.json").write_text(json.dumps([1]))
    found = [(each.place, each.end) for each in quarantines(folder.folder)]
    assert found == [("n0", stored.START + 50), ("n2", None)], "damaged files are left out"
    later.end()


def test_a_full_disk_costs_the_log_and_not_the_search(tmp_path: Path) -> None:
    folder = Store(tmp_path).create("s", stored.record("s").to_json())
    (folder.path / "quarantines").write_text("no folder")
    messages: list[str] = []
    log = QuarantineLog(folder.folder, 1, messages.append)
    log.follow({"n0": "dead"})
    log.follow({"n0": "dead"})
    assert [message.split(":")[0] for message in messages] == ["the places in quarantine were not recorded"]
