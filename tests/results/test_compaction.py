"""Compaction: readers see the same rows before, during and after a merge."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from results import compaction, reading
from results.files import Disk
from results.store import Store, SweepFolder
from tests.results.places import Place
from tests.results.samples import META, end, fill, report, seqs, start, sweep

TABLES = ("trials", "reports", "evidence")


def names(folder: SweepFolder, table: str = "trials") -> list[str]:
    return folder.folder.child(table).names()


def test_merged_reading_equals_unmerged(place: Place) -> None:
    folder = place.store().create("one", META)
    with folder.writer() as writer:
        fill(writer, 20)
    before = folder.events()
    folder.compact()
    folder.compact()
    merged = [name for name in names(folder) if name.startswith(reading.MERGED)]
    assert len(merged) == 1
    assert len(names(folder)) == 21, "the replaced files stay for a while"
    assert place.store().open("one").events() == before


def test_replaced_files_go_after_ten_minutes(place: Place) -> None:
    folder = place.store().create("one", META)
    with folder.writer() as writer:
        fill(writer, 5)
        before = folder.events()
        folder.compact()
        trials = folder.folder.child("trials")
        assert compaction.discard(trials, "trials", now=time.time() + 590) == []
        assert len(compaction.discard(trials, "trials", now=time.time() + 610)) == 5
        fill(writer, 5, first=5)
        folder.compact()  # merges the merged file too
        compaction.discard(trials, "trials", now=time.time() + 610)
    assert len(names(folder)) == 1 or len(names(folder)) == 2
    assert place.store().open("one").events()[: len(before)] == before


def test_replaced_files_stay_if_the_merged_one_is_damaged(place: Place) -> None:
    folder = place.store().create("one", META)
    with folder.writer() as writer:
        fill(writer, 5)
    before = folder.events()
    folder.compact()
    trials = folder.folder.child("trials")
    [merged] = [name for name in trials.names() if name.startswith(reading.MERGED)]
    trials.write(merged, trials.read(merged)[:100])
    assert compaction.discard(trials, "trials", now=time.time() + 1e6) == []
    fresh = place.store().open("one")
    assert fresh.events() == before
    assert merged in fresh.warnings[0]


def test_two_compactors_do_no_harm(place: Place) -> None:
    folder = place.store().create("one", META)
    with folder.writer() as writer:
        fill(writer, 6)
    before = folder.events()
    trials = folder.folder.child("trials")
    tables = list(reading.listing(trials, "trials").tables.items())
    for number, part in enumerate((tables, tables[:4])):
        merged = reading.joined("trials", [table for _, table in part])
        trials.write(f"merged-{number}.parquet", reading.encode("trials", merged, [name for name, _ in part]))
    assert place.store().open("one").events() == before


def test_late_rows_stay_fenced_when_merged(place: Place) -> None:
    folder = place.store().create("one", META)
    old = folder.writer(period=60)
    fill(old, 2)
    new = folder.writer(period=60)
    old.append("trials", start(99))
    with pytest.raises(ValueError, match="has begun"):
        old.barrier()
    fill(new, 2, first=2)
    before = folder.events()
    assert [row["trial"] for row in before if row["table"] == "trials"] == [0, 1, 2, 3]
    folder.compact()
    assert place.store().open("one").events() == before
    new.close()


def test_a_writer_merges_as_it_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("results.writer.FEWEST", 8)
    monkeypatch.setattr(compaction.compact_sweep, "__kwdefaults__", {"fewest": 8, "grace": 600.0, "cache": None})
    folder = place.store().create("one", META)
    with folder.writer(period=0.02) as writer:
        for trial in range(100):
            fill(writer, 1, first=trial)
            if any(name.startswith(reading.MERGED) for name in names(folder, "reports")):
                break
            time.sleep(0.01)
        else:
            pytest.fail("nothing was merged")
        assert writer.warnings == []
    assert seqs(folder) == list(range(1, 2 * trial + 3))


def test_passes_with_a_cache_merge_as_passes_without_and_open_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    genuine = Disk.open

    def counted(self: Disk, name: str) -> pa.NativeFile:
        opened.append(f"{self.path}/{name}")
        return genuine(self, name)

    monkeypatch.setattr(Disk, "open", counted)
    cache: reading.Cache = {}
    folders = [sweep(tmp_path, "with"), sweep(tmp_path, "without")]
    with folders[0].writer(period=60) as left, folders[1].writer(period=60) as right:
        for trial in range(24):
            for writer in (left, right):
                writer.append("trials", start(trial, time=0.0))
                writer.append("reports", report(trial, 100, 0.5, time=0.0), {"colour": np.zeros(3, np.float32)})
                writer.append("trials", end(trial, "complete" if trial % 3 else "pruned", time=0.0))
                writer.barrier()
            if trial % 3 == 0:
                opened.clear()
                compaction.compact_sweep(folders[0].folder, fewest=4, cache=cache)
                first = len(opened)
                compaction.compact_sweep(folders[1].folder, fewest=4)
                assert first <= len(opened) - first
                opened.clear()
                compaction.compact_sweep(folders[0].folder, fewest=100, cache=cache)
                assert len(opened) <= 4, "the merged files of the pass before, each with the columns that are asked for"
    spans = [
        {table: [name.rpartition("-")[0] or name for name in names(folder, table)] for table in TABLES}
        for folder in folders
    ]
    assert spans[0] == spans[1]
    assert folders[0].events() == folders[1].events()
    assert folders[0].read("evidence").equals(folders[1].read("evidence"))
    assert {path for path, _, _ in cache} <= {folders[0].folder.child(table).path for table in TABLES}
    assert {name for _, name, _ in cache} <= {name for table in TABLES for name in names(folders[0], table)}


@pytest.mark.parametrize("place", ["disk", "s3"], indirect=True)  # an NFS client may see one table later than another
def test_concurrent_readers_see_every_acknowledged_row(place: Place) -> None:
    folder = place.store().create("one", META)
    problems: list[str] = []
    stop = threading.Event()
    acknowledged = 0

    def read() -> None:
        while not stop.is_set():
            floor = acknowledged
            visible = seqs(place.store().open("one"))
            if visible != list(range(1, len(visible) + 1)) or len(visible) < floor:
                problems.append(f"acknowledged {floor}, visible {visible[-3:]} ({len(visible)})")

    reader = threading.Thread(target=read)
    with folder.writer(period=60) as writer:
        reader.start()
        for trial in range(60):
            fill(writer, 1, first=trial)
            acknowledged = writer.durable_seq
            if trial % 10 == 9:
                for table in ("trials", "reports"):
                    small = folder.folder.child(table)
                    compaction.compact(small, table, fewest=2, now=time.time())
                    compaction.discard(small, table, now=time.time() + 1e4)  # no grace: readers must list again
        stop.set()
        reader.join()
    assert problems == []


def test_a_reader_whose_file_vanishes_lists_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        fill(writer, 3)
    before = folder.events()
    genuine = Disk.read
    vanished = []

    def read(self: Disk, name: str) -> bytes:
        if not vanished and self.path.endswith("trials"):
            vanished.append(name)
            compaction.compact(self, "trials", fewest=2)
            compaction.discard(self, "trials", now=time.time() + 1e4)
        return genuine(self, name)

    monkeypatch.setattr(Disk, "read", read)
    assert Store(tmp_path / "runs").open("one").events() == before
    assert vanished


def test_old_temporary_files_are_deleted(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    stale = folder.path / "trials" / ".x.parquet.1-00.tmp"
    stale.write_bytes(b"x")
    folder.compact()
    assert stale.exists()
    compaction.discard(folder.folder.child("trials"), "trials", now=time.time() + 1000)
    assert not stale.exists()
