"""Generations, one driver per sweep: numbers, heartbeats, refusals, takeovers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.processes import host, process_start, this_process
from hpo.driver import generations
from hpo.driver.generations import BusyError, Generation, active, claim, newest, total_trials
from results.files import Disk
from results.places import locate
from results.store import Store
from tests.results.samples import META, fill


def write(sweep: Path, number: int, age: float = 0.0, **changes: Any) -> Path:
    """Write the file of another driver."""
    values = asdict(this_process()) | {"number": number, "host": "elsewhere", "state": "live", "trials": 0}
    path = sweep / "generations" / f"{number:06d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values | changes))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_numbers_grow_and_an_ended_driver_does_not_matter(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        generation = claim(locate(tmp_path))
        assert generation.number == expected
        assert active(locate(tmp_path)) is not None
        generation.end()
    assert active(locate(tmp_path)) is None


def test_the_newest_launch_says_when_it_began_and_ended(tmp_path: Path) -> None:
    assert newest(locate(tmp_path)) is None
    first = claim(locate(tmp_path), since=1000.0)
    entry = newest(locate(tmp_path))
    assert entry is not None
    assert (entry.number, entry.state, entry.since, entry.until) == (1, "live", 1000.0, None)
    first.end()
    entry = newest(locate(tmp_path))
    assert entry is not None
    assert entry.state == "ended"
    assert entry.until == pytest.approx(time.time(), abs=60)
    write(tmp_path, 2, state="claimed")
    assert newest(locate(tmp_path)) == entry, "a claim that was not accepted is no launch"


def test_a_living_driver_refuses_another_and_the_claim_leaves_no_trace(tmp_path: Path) -> None:
    first = claim(locate(tmp_path))
    with pytest.raises(BusyError, match=rf"worked on by process {os.getpid()} on .*--takeover"):
        claim(locate(tmp_path))
    assert [path.name for path in (tmp_path / "generations").iterdir()] == ["000001.json"]
    first.end()


def test_of_drivers_that_claim_at_once_one_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(6)
    genuine = generations.check_free

    def check(sweep: Path) -> None:
        genuine(sweep)
        together.wait()  # every driver has found the sweep free

    monkeypatch.setattr(generations, "check_free", check)

    def attempt(_: int) -> Generation | None:
        try:
            return claim(locate(tmp_path))
        except BusyError:
            return None

    with ThreadPoolExecutor(6) as pool:
        [accepted] = [generation for generation in pool.map(attempt, range(6)) if generation is not None]
    assert accepted.number == 1
    assert [path.name for path in (tmp_path / "generations").iterdir()] == ["000001.json"]
    accepted.end()


def test_a_driver_that_came_between_look_and_claim_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[Generation] = []
    monkeypatch.setattr(generations, "check_free", lambda sweep: came.append(claim(sweep, takeover=True)))
    with pytest.raises(BusyError, match=f"process {os.getpid()}"):
        claim(locate(tmp_path))
    assert [path.name for path in (tmp_path / "generations").iterdir()] == ["000001.json"]
    came[0].end()


def test_a_store_restored_without_its_generations_goes_on(tmp_path: Path) -> None:
    folder = Store(tmp_path).create("s", META)
    for trial in range(2):
        generation = claim(folder.folder)
        with folder.writer(generation.number) as writer:
            fill(writer, 1, first=trial)
        generation.end()
    shutil.rmtree(folder.path / "generations")
    generation = claim(folder.folder)
    with folder.writer(generation.number) as writer:
        assert (writer.generation, writer.continued_from) == (3, 4)
    generation.end()


def test_a_sweep_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its drivers counted in `generations/`, writers in `fences/*.claim`; `hpo gc` left a number without a fence."""
    folder = Store(tmp_path).create("s", META)
    with folder.writer() as writer:
        fill(writer, 1)
    (folder.path / "fences" / "000001.claim").touch()
    write(folder.path, 1, age=1000, state="ended", trials=12, since=1.0, until=2.0)
    write(folder.path, 2, age=900, state="ended", since=3.0, launch=False)
    write(folder.path, 3, age=800, state="claimed")
    launch = newest(folder.folder)
    assert launch is not None
    assert (launch.number, launch.until, total_trials(8, folder.folder)) == (1, 2.0, 12)
    generation = claim(folder.folder)
    with folder.writer(generation.number) as writer:
        assert (writer.generation, writer.continued_from) == (4, 2)
    generation.end()


def test_a_writer_without_a_driver_is_no_driver(tmp_path: Path) -> None:
    folder = Store(tmp_path).create("s", META)
    folder.writer().close()
    assert active(folder.folder) is None
    generation = claim(folder.folder)
    assert generation.number == 2
    generation.end()


def test_a_young_heartbeat_of_another_machine_refuses_and_an_old_one_does_not(tmp_path: Path) -> None:
    write(tmp_path, 1, age=generations.YOUNG - 5)
    with pytest.raises(BusyError, match="elsewhere"):
        claim(locate(tmp_path))
    write(tmp_path, 1, age=generations.YOUNG + 5)
    generation = claim(locate(tmp_path))
    assert generation.number == 2
    generation.end()


def test_a_wrong_clock_of_this_machine_takes_nobody_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1, age=generations.YOUNG - 5)
    monkeypatch.setattr(generations.time, "time", lambda: 4e9)
    assert active(locate(tmp_path)) is not None
    assert [path.name for path in (tmp_path / "generations").iterdir()] == ["000001.json"]


def test_a_dead_process_of_this_host_does_not_refuse(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    write(tmp_path, 1, host=host(), pid=child.pid, started=5.0)
    generation = claim(locate(tmp_path))
    assert generation.number == 2
    generation.end()


def test_another_process_under_the_same_number_does_not_refuse(tmp_path: Path) -> None:
    started = process_start(os.getpid())
    assert started is not None
    write(tmp_path, 1, host=host(), pid=os.getpid(), started=started - 1)
    claim(locate(tmp_path)).end()


@pytest.mark.parametrize("other", [{"namespace": "pid:[1]"}, {"boot": "another"}, {"boot": "", "namespace": ""}])
def test_a_process_that_cannot_be_seen_from_here_is_not_taken_for_dead(tmp_path: Path, other: dict[str, str]) -> None:
    """Two containers may have one host name, and two machines too; an older driver recorded the name alone."""
    write(tmp_path, 1, host=host(), pid=999_999_999, **other)
    with pytest.raises(BusyError, match="process 999999999"):
        claim(locate(tmp_path))
    write(tmp_path, 1, age=generations.YOUNG + 5, host=host(), pid=999_999_999, **other)
    claim(locate(tmp_path)).end()


def test_takeover_makes_the_other_driver_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "BEAT", 0.02)
    first = claim(locate(tmp_path))
    second = claim(locate(tmp_path), takeover=True)
    deadline = time.monotonic() + 5
    while not first.superseded and time.monotonic() < deadline:
        time.sleep(0.01)
    assert first.superseded
    assert not second.superseded
    second.end()
    first.end()


def beats(path: Path) -> bool:
    """Whether a driver touches its file within five seconds."""
    os.utime(path, (1.0, 1.0))
    deadline = time.monotonic() + 5
    while path.stat().st_mtime == 1.0 and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.stat().st_mtime > 1.0


def test_heartbeats_touch_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "BEAT", 0.02)
    generation = claim(locate(tmp_path))
    path = tmp_path / "generations" / "000001.json"
    assert beats(path)
    generation.end()


def test_a_heart_beats_on_after_any_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "BEAT", 0.02)
    generation = claim(locate(tmp_path))
    path, touch, failed = tmp_path / "generations" / "000001.json", Disk.touch, threading.Event()

    def failing(self: Disk, name: str, *, past: bool = False) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a library's own error")
        touch(self, name, past=past)

    monkeypatch.setattr(Disk, "touch", failing)
    assert failed.wait(5)
    assert beats(path)
    generation.end()


def test_an_unreadable_file_still_takes_its_number(tmp_path: Path) -> None:
    folder = tmp_path / "generations"
    folder.mkdir()
    path = folder / "000007.json"
    path.write_text("{")
    os.utime(path, (1.0, 1.0))
    generation = claim(locate(tmp_path))
    assert generation.number == 8
    generation.end()


def test_an_extension_outlives_its_launch(tmp_path: Path) -> None:
    assert total_trials(8, locate(tmp_path)) == 8
    claim(locate(tmp_path), trials=12).end()
    claim(locate(tmp_path), trials=8).end()
    assert total_trials(8, locate(tmp_path)) == 12
