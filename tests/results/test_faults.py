"""Faults that the store survives: kill -9, a full disk, damaged and foreign files, a folder that cannot be written."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from results import files
from results.store import Store, StoreError
from tests.results.places import Place
from tests.results.samples import META, fill, report, seqs, start, sweep

ROOT = Path(__file__).resolve().parents[2]
WRITING = """
import sys
from results.store import Store
from tests.results.samples import start, report
folder = Store(sys.argv[1]).open("one")
writer = folder.writer(period=0.01)
trial = writer.continued_from
while True:
    writer.append("trials", start(trial))
    writer.append("reports", report(trial, 100, 0.5))
    print(writer.barrier(), flush=True)
    trial += 1
    if trial % 7 == 0:
        folder.compact()
"""


@pytest.mark.parametrize("place", ["disk", "s3"], indirect=True)
def test_kill_at_any_instant_loses_nothing_acknowledged(place: Place) -> None:
    place.store().create("one", META)
    pause = random.Random(5)
    acknowledged = 0
    for generation in range(1, 6):
        command = [sys.executable, "-c", WRITING, place.uri]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        assert int(first) > acknowledged, "seq continues from the durable rows"
        time.sleep(pause.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().splitlines()
        process.wait()
        # The process prints acknowledged seqs. A number that was cut in the pipe would only be smaller.
        acknowledged = int(lines[-1]) if lines else int(first)
        folder = place.store().open("one")
        visible = seqs(folder)
        assert folder.generation == generation
        assert visible == list(range(1, len(visible) + 1)), "a prefix of the appended rows"
        assert len(visible) >= acknowledged
        acknowledged = len(visible)
        assert folder.warnings == []


def last_of_page(content: bytes) -> int:
    """Place of the last byte of the first column's values."""
    column = pq.read_metadata(io.BytesIO(content)).row_group(0).column(0)
    return int((column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize("damage", ["empty", "half", "value", "name", "text"])
def test_damaged_file_is_named_and_skipped(place: Place, damage: str) -> None:
    folder = place.store().create("one", META)
    with folder.writer() as writer:
        fill(writer, 3)
    reports = folder.folder.child("reports")
    victim = reports.names()[1]
    content = bytes(reports.read(victim))
    damages = {
        "empty": b"",
        "half": content[: len(content) // 2],
        "value": flipped(content, last_of_page(content)),
        "name": flipped(content, content.index(b"overall")),
        "text": b"id,x\n1,2\n",
    }
    reports.write(victim, damages[damage])
    fresh = place.store().open("one")
    assert seqs(fresh) == [1, 2, 3, 5, 6]
    assert len(fresh.warnings) == 1
    assert victim in fresh.warnings[0]


def test_foreign_files_and_temporaries_are_left_alone(place: Place) -> None:
    folder = place.store().create("one", META)
    with folder.writer() as writer:
        fill(writer, 1)
    trials, reports, fences = (folder.folder.child(name) for name in ("trials", "reports", "fences"))
    trials.write("notes.txt", b"mine")
    trials.write("evil.parquet", pickle.dumps({"a": 1}))
    trials.write(".half.parquet.1-ab.tmp", b"PAR1")
    trials.write("other.parquet", reports.read(reports.names()[0]))
    fences.write("zzz.json", b"[]")
    fences.write("more.json", b"{")
    runs = place.store()._folder
    runs.child("no sweep").make()
    runs.child("no sweep").write("x", b"")
    runs.write("file", b"")
    assert place.store().sweeps() == ["one"]
    assert seqs(folder) == [1, 2]
    for name in ("notes.txt", "evil.parquet", "other.parquet", "zzz.json", "more.json"):
        assert sum(name in warning for warning in folder.warnings) == 1, name
    assert not any("half" in warning for warning in folder.warnings)
    folder.compact()
    assert seqs(folder) == [1, 2]
    assert trials.exists("notes.txt")


def test_damaged_sweep_json_is_named(place: Place) -> None:
    place.store().create("one", META).folder.write("sweep.json", b"{")
    with pytest.raises(StoreError, match="sweep.json` is damaged"):
        _ = place.store().open("one").meta


def test_foreign_sweep_json_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    place = Path(folder.path) / "sweep.json"
    genuine = json.loads(place.read_text())
    for content, message in (
        ({}, "`name` must be a text, found None"),
        ([], "found list"),
        ({**genuine, "tasks": {}}, "`tasks` of sweep.json must name each task's kind, metric and weight; found {}"),
        ({**genuine, "tasks": {"colour": {"kind": "classification"}}}, "`tasks.colour` of sweep.json must have a kind"),
    ):
        place.write_text(json.dumps(content))
        with pytest.raises(StoreError, match=rf"one/sweep.json` is damaged or foreign: .*{re.escape(message)}"):
            _ = Store(tmp_path / "runs").open("one").meta


def test_warnings_of_one_key_outlive_the_reading_of_another(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    row = {"task": "a", "split": "held", "row": 0, "id": "x", "label": 1.0}
    for key in "fg":
        folder.write_table("examples", [row], key)
    (Path(folder.path) / "examples" / "f.parquet").write_bytes(b"PAR1")
    for key in "fg":
        folder.read("examples", keys=[key])
    assert ["f.parquet" in warning for warning in folder.warnings] == [True]


def test_damaged_key_is_written_again(place: Place) -> None:
    folder = place.store().create("one", META)
    row = {"task": "a", "split": "held", "row": 0, "id": "x", "label": 1.0, "place": 2}
    folder.write_table("examples", [row], "f")
    folder.folder.child("examples").write("f.parquet", b"PAR1")
    assert not folder.has("examples", "f")
    assert folder.write_table("examples", [row], "f")
    assert folder.read("examples").to_pylist() == [row]


def test_full_disk_is_raised_and_nothing_acknowledged_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path)
    writer = folder.writer(period=60)
    fill(writer, 2)
    genuine = files._write_synced

    def full(path: str, content: bytes) -> None:
        with open(path, "wb") as file:
            file.write(content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "_write_synced", full)
    waiting = writer.append("trials", start(2))
    with pytest.raises(StoreError, match="No space left on device; free some space"):
        writer.barrier()
    with pytest.raises(StoreError, match="No space"):
        writer.append("trials", start(3))
    assert writer.durable_seq == 4
    assert seqs(folder) == [1, 2, 3, 4]
    monkeypatch.setattr(files, "_write_synced", genuine)
    assert writer.barrier() == waiting
    assert writer.append("trials", start(3)) == waiting + 1
    writer.close()
    assert seqs(folder) == [1, 2, 3, 4, 5, 6]
    assert not list(Path(folder.path).rglob(".*")), "no temporary files are left"


def test_error_of_a_group_commit_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = sweep(tmp_path).writer(period=0.01)

    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "_write_synced", broken)

    def append_for_a_while() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            writer.append("trials", start(0))
            time.sleep(0.01)

    with pytest.raises(StoreError, match="Input/output error"):
        append_for_a_while()
    assert writer.durable_seq == 0
    with pytest.raises(StoreError, match="Input/output error"):
        writer.close()


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        folder = Store(disk).create("one", META)
        writer = folder.writer(period=60)
        acknowledged = 0

        def fill_the_disk() -> None:
            nonlocal acknowledged
            for trial in range(200):
                writer.append("reports", report(trial, 1, 0.5, checkpoint=random.Random(trial).randbytes(4000).hex()))
                acknowledged = writer.barrier()

        with pytest.raises(StoreError, match="No space left"):
            fill_the_disk()
        assert acknowledged > 0
        assert seqs(folder) == list(range(1, acknowledged + 1))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_unwritable_store_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "runs"):
        store = Store(place)
        with pytest.raises(StoreError, match=r"Cannot write to the store .*file"):
            store.create("one", META)
    assert Store(tmp_path / "new" / "runs").sweeps() == []


def test_an_interrupted_create_may_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "runs" / "one" / "trials").mkdir(parents=True)
    assert Store(tmp_path / "runs").sweeps() == []
    assert sweep(tmp_path).meta["seed"] == 7


def test_one_of_many_simultaneous_creators_succeeds(place: Place) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def create(number: int) -> bool:
        try:
            place.store().create("one", {"by": number})
        except StoreError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(16))) == 1


def test_removing_a_link_leaves_its_target(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    os.symlink(folder.path, tmp_path / "elsewhere" / "link")
    Store(tmp_path / "elsewhere").remove("link")
    assert Store(tmp_path / "runs").sweeps() == ["one"]
    assert not (tmp_path / "elsewhere" / "link").is_symlink()


def test_an_unknown_error_of_the_commit_thread_reaches_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sweep(tmp_path)
    writer = folder.writer(period=0.01)
    fill(writer, 1)
    with monkeypatch.context() as patch:
        patch.setattr("results.writer.encode", lambda *_: (_ for _ in ()).throw(ValueError("an unknown fault")))
        writer.append("trials", start(1))
        deadline = time.monotonic() + 30
        while writer._error is None and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(StoreError, match="Cannot commit: ValueError.*an unknown fault"):
            writer.append("trials", start(2))
    writer.barrier()
    writer.close()
    assert seqs(folder) == [1, 2, 3], "once the fault is gone, the row is written"


def test_an_unknown_error_of_a_compaction_is_a_warning_and_commits_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(sweep: object, cache: object) -> None:
        raise MemoryError("no room to merge")

    monkeypatch.setattr("results.writer.compact_sweep", broken)
    monkeypatch.setattr("results.writer.FEWEST", 1)
    folder = sweep(tmp_path)
    with folder.writer(period=0.01) as writer:
        for trial in range(2):
            seq = writer.append("trials", start(trial))
            deadline = time.monotonic() + 30
            while (writer.durable_seq < seq or len(writer.warnings) <= trial) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert writer.durable_seq == seq
        assert writer.warnings == ["Small files were not merged: MemoryError('no room to merge')"] * 2
