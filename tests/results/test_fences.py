"""One counter of generations: claims at once, stale listings, kills between claim and fence, cut files, a full disk,
and stores of earlier versions."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from results import fences, files
from results.store import Store, StoreError, Superseded
from tests.results.places import Place
from tests.results.samples import META, fill, seqs, start, sweep

ROOT = Path(__file__).resolve().parents[2]
DYING = """
import os, signal, sys
from results import fences
from results.store import Store
fences.fence = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
Store(sys.argv[1]).open("one").writer()
"""


def test_drivers_that_claim_at_once_get_numbers_without_gaps(place: Place) -> None:
    place.store().create("one", META)
    together = threading.Barrier(6)

    def claim(_: int) -> int:
        folder = place.store().open("one").folder
        assert fences.generation(folder) == 0
        together.wait()
        return fences.claim(folder)

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(claim, range(6))) == [1, 2, 3, 4, 5, 6]


def test_every_number_that_was_taken_may_end_the_claim(place: Place) -> None:
    folder = place.store().create("one", META).folder
    fences.claim(folder)
    asked = []

    def allow(number: int) -> None:
        asked.append(number)
        if number == 3:
            raise StoreError("somebody works here")
        fences.claim(place.store().open("one").folder)  # another driver is faster

    with pytest.raises(StoreError, match="somebody works here"):
        fences.claim(folder, allow=allow)
    assert asked == [1, 2, 3]
    assert place.store().open("one").generation == 3, "a claim that has ended leaves no file"


def test_a_remembered_listing_decides_nothing(tmp_path: Path) -> None:
    place = Place("nfs", str(tmp_path / "runs"))
    here, there = place.store().create("one", META), place.store().open("one")
    assert not fences.superseded(there.folder, 2)
    assert here.generation == there.generation == 0
    assert not there.folder.child("generations").exists("000003.json")
    assert [fences.claim(here.folder) for _ in range(3)] == [1, 2, 3]
    assert there.generation == 0, "this machine remembers the old listing"
    assert not there.folder.child("generations").exists("000003.json"), "and what was missing"
    assert fences.claim(there.folder) == 4
    assert fences.superseded(there.folder, 2)
    assert fences.superseded(here.folder, 3)
    assert not fences.superseded(there.folder, 4)


def test_a_kill_between_claim_and_fence_costs_a_number_and_no_row(place: Place) -> None:
    if place.kind == "nfs":
        pytest.skip("the child sees a disk")
    old = place.store().create("one", META).writer(period=60)
    acknowledged = fill(old, 2)
    child = subprocess.run([sys.executable, "-c", DYING, place.uri], cwd=ROOT, check=False)
    assert child.returncode == -signal.SIGKILL
    folder = place.store().open("one")
    assert folder.generation == 2
    assert fences.fences(folder.folder)[0].keys() == {1}
    old.append("trials", start(99))
    with pytest.raises(Superseded, match="Generation 2 of"):
        old.barrier()
    with folder.writer() as new:
        assert new.generation == 3
        assert new.continued_from >= acknowledged[-1]
        fill(new, 1, first=2)
    rows = seqs(place.store().open("one"))
    assert rows == list(range(1, len(rows) + 1))
    assert rows[: len(acknowledged)] == acknowledged


def test_cut_files_keep_their_numbers(place: Place) -> None:
    folder = place.store().create("one", META)
    for trial in range(2):
        with folder.writer() as writer:
            fill(writer, 1, first=trial)
    folder.folder.child("generations").write("000002.json", b'{"num')
    folder.folder.child("fences").write("000002.json", b'{"generation": 2, "cont')
    fresh = place.store().open("one")
    assert seqs(fresh) == [1, 2, 3, 4]
    assert [warning for warning in fresh.warnings if "fences/000002.json is skipped" in warning] == fresh.warnings
    with fresh.writer() as writer:
        assert (writer.generation, writer.continued_from) == (3, 4)


def test_a_claim_on_a_full_disk_takes_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path)
    genuine = files._write_synced

    def full(path: str, content: bytes) -> None:
        genuine(path, content[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write_synced", full)
        with pytest.raises(StoreError, match=r"generations`: No space left on device"):
            folder.writer()
    assert list((folder.path / "generations").iterdir()) == []
    assert folder.writer().generation == 1


def _as_earlier(sweep: Path) -> None:
    """Turn a sweep into one of an earlier version: its writers claimed `fences/<number>.claim`."""
    for fence in list((sweep / "fences").glob("*.json")):
        fence.with_suffix(".claim").touch()
        (sweep / "generations" / fence.name).unlink()
    (sweep / "generations").rmdir()


def test_a_sweep_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    old = folder.writer(period=60)
    fill(old, 1)
    new = folder.writer(period=60)
    old.append("trials", start(99))
    with pytest.raises(Superseded):
        old.barrier()
    fill(new, 1, first=1)
    new.close()
    _as_earlier(folder.path)
    before = folder.events()
    assert [row["trial"] for row in before] == [0, 0, 1, 1], "the late row does not count"
    (folder.path / "fences" / "000003.claim").touch()  # killed between claim and fence
    again = Store(tmp_path / "runs").open("one")
    assert (again.events(), again.warnings, again.generation) == (before, [], 3)
    with again.writer() as writer:
        assert (writer.generation, writer.continued_from) == (4, 4)
        fill(writer, 1, first=2)
    assert seqs(again) == [1, 2, 3, 4, 5, 6]
