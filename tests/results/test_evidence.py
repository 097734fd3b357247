"""Evidence of reports in the store: there with its row or not at all, read without reading everything."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from results import files, reading
from results.candidates import last_evidence, member_of, search_order
from results.evidence import EVIDENCE, Evidence, arrays
from results.files import Disk
from results.store import Store, StoreError, SweepFolder, Writer
from tests.results.samples import end, report, start, sweep

ROOT = Path(__file__).resolve().parents[2]


def evidence(trial: int, step: int, rows: int = 5) -> dict[str, Any]:
    """Evidence of three tasks, different for each report."""
    generator = np.random.default_rng([trial, step])
    chances = generator.random((rows, 3))
    return {
        "colour": (chances / chances.sum(1, keepdims=True)).astype(np.float16),
        "side": generator.random(rows).astype(np.float16),
        "length": generator.normal(size=rows).astype(np.float32),
    }


def add(writer: Writer, trial: int, steps: tuple[int, ...] = (100, 300), attempt: int = 0) -> None:
    """A trial's start and its reports with evidence, each in a commit of its own."""
    writer.append("trials", start(trial, attempt))
    for step in steps:
        writer.append("reports", report(trial, step, 0.5, attempt), evidence(trial, step))
        writer.barrier()


def stored(folder: SweepFolder) -> dict[tuple[int, int], dict[str, Any]]:
    """(trial, step) -> the evidence in the whole table, read the plain way."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for row, values in arrays(folder.read(EVIDENCE)):
        found.setdefault((row["trial"], row["step"]), {})[row["task"]] = values
    return found


def assert_equal(first: Evidence, second: Evidence) -> None:
    assert first.keys() == second.keys()
    for task, values in first.items():
        assert values.dtype == second[task].dtype
        np.testing.assert_array_equal(values, second[task])


def test_evidence_comes_back_as_it_was_given(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        for trial in range(3):
            add(writer, trial)
        add(writer, 3, steps=())
        writer.append("reports", report(3, 100, 0.5))  # without evidence, as a custom trainer's
    last = last_evidence(folder)
    assert last.keys() == {0, 1, 2}
    for trial, found in last.items():
        assert_equal(found, evidence(trial, 300))
    assert last_evidence(folder, [1]).keys() == {1}
    for (trial, step), found in stored(folder).items():
        assert_equal(found, evidence(trial, step))


def test_predictions_are_stored_without_a_dictionary(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        add(writer, 0)
    for file in (folder.path / EVIDENCE).iterdir():
        group = pq.ParquetFile(file).metadata.row_group(0)
        parts = [group.column(place) for place in range(group.num_columns)]
        plain = {part.path_in_schema for part in parts if "RLE_DICTIONARY" not in part.encodings}
        assert plain == {"probabilities.list.element", "scores.list.element"}


def test_evidence_says_which_rows_it_is_of(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    order = [7, 3, 9, 1, 5]
    rows = [
        {"task": "colour", "split": split, "row": row + shift, "id": "x", "label": 0.0, "place": place}
        for split, shift in (("held", 1), ("search", 0))
        for place, row in sorted(enumerate(order), key=lambda entry: entry[1])
    ]
    folder.write_table("examples", rows, "f")
    assert search_order(folder)["colour"].tolist() == order
    values = evidence(0, 100, rows=3)
    member = member_of(values, search_order(folder))
    assert member.keys() == {"colour"}, "the table knows no rows of the other tasks"
    assert member["colour"].rows.tolist() == [3, 7, 9]
    expected = values["colour"][[1, 0, 2]]
    np.testing.assert_array_equal(member["colour"].values, expected.argmax(1))
    np.testing.assert_array_equal(member["colour"].probabilities, expected.astype(float))


def test_predictions_are_those_of_the_encoding() -> None:
    values = {"side": np.array([0.5, 0.501, 0.2], np.float16), "length": np.array([1.5, -2, 0], np.float32)}
    member = member_of(values, dict.fromkeys(values, np.arange(9)))
    assert member["side"].values.tolist() == [0, 1, 0]
    chances = member["side"].probabilities
    assert chances is not None
    np.testing.assert_allclose(chances.sum(1), 1)
    np.testing.assert_array_equal(chances[:, 1], values["side"].astype(float))
    assert member["length"].values.tolist() == [1.5, -2, 0]
    assert member["length"].probabilities is None
    assert not member_of(values, {"side": np.arange(2)}), "more predictions than rows are of other data"


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((2, 2, 2), np.float16), np.zeros((2, 2), np.float32)])
def test_evidence_of_another_type_is_refused_with_its_row(tmp_path: Path, values: Any) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        writer.append("trials", start(0))
        with pytest.raises(StoreError, match="Evidence of task `colour` must be float16"):
            writer.append("reports", report(0, 100, 0.5), {"colour": values})
        assert writer.append("trials", end(0, "failed")) == 2


def test_an_attempt_that_reports_a_step_again_repeats_its_evidence(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        writer.append("trials", start(0))
        writer.append("reports", report(0, 100, 0.5))  # its evidence is missing
        add(writer, 0, steps=(100,), attempt=1)
    assert_equal(last_evidence(folder)[0], evidence(0, 100))


WRITING = """
import sys, time
from results import files
from results.store import Store
from tests.results.samples import report, start
from tests.results.test_evidence import evidence
cut = sys.argv[2]
genuine = files._write_synced
def write(path, content):
    genuine(path, content)
    if cut in path and cut != "none":
        print("cut", flush=True)
        time.sleep(60)
files._write_synced = write
writer = Store(sys.argv[1]).open("one").writer(period=0.005)
trial = 0
while True:
    writer.append("trials", start(trial))
    for step in (100, 300):
        writer.append("reports", report(trial, step, 0.5), evidence(trial, step))
    if cut == "none" and trial > 20:
        print("cut", flush=True)
    trial += 1
    time.sleep(0.001)
"""


@pytest.mark.parametrize("cut", ["/evidence/", "/reports/", "/trials/", "none"])
def test_after_a_kill_a_report_and_its_evidence_are_there_or_neither(tmp_path: Path, cut: str) -> None:
    folder = sweep(tmp_path)
    command = [sys.executable, "-c", WRITING, str(tmp_path / "runs"), cut]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    for later in (False, True):
        if later:  # a next driver: the seqs of what was cut off are given again
            with folder.writer() as writer:
                add(writer, 1000)
        fresh = Store(tmp_path / "runs").open("one")
        reports = {(row["trial"], row["step"]) for row in fresh.events() if row["table"] == "reports"}
        last = last_evidence(fresh)
        assert last.keys() == {trial for trial, _ in reports}
        for trial, found in last.items():
            assert_equal(found, evidence(trial, max(step for number, step in reports if number == trial)))
        if later:
            assert stored(fresh).keys() == reports


def test_a_full_disk_leaves_no_report_without_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path)
    writer = folder.writer(period=60)
    add(writer, 0)
    genuine = files._write_synced

    def full(path: str, content: bytes) -> None:
        if "/reports/" in path:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        genuine(path, content)

    monkeypatch.setattr(files, "_write_synced", full)
    writer.append("trials", start(1))
    writer.append("reports", report(1, 100, 0.5), evidence(1, 100))
    with pytest.raises(StoreError, match="No space left"):
        writer.barrier()
    assert last_evidence(folder).keys() == {0}
    monkeypatch.setattr(files, "_write_synced", genuine)
    writer.barrier()
    writer.close()
    assert_equal(last_evidence(folder)[1], evidence(1, 100))


def test_late_evidence_of_a_superseded_writer_does_not_count(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    old = folder.writer(period=60)
    add(old, 0)
    new = folder.writer(period=60)
    old.append("trials", start(1))
    old.append("reports", report(1, 100, 0.5), evidence(1, 100))
    with pytest.raises(ValueError, match="has begun"):
        old.barrier()
    add(new, 1, steps=(300,))
    new.close()
    assert stored(folder).keys() == {(0, 100), (0, 300), (1, 300)}
    assert_equal(last_evidence(folder)[1], evidence(1, 300))


def test_damaged_evidence_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        for trial in range(3):
            add(writer, trial)
    victim = sorted((folder.path / EVIDENCE).iterdir())[3]  # of the last report of trial 1
    victim.write_bytes(victim.read_bytes()[:-20])
    fresh = Store(tmp_path / "runs").open("one")
    assert last_evidence(fresh).keys() == {0, 2}
    assert [victim.name in warning for warning in fresh.warnings] == [True]


def test_only_the_files_and_row_groups_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        for trial in range(12):
            add(writer, trial)
    opened: list[str] = []
    genuine = Disk.open
    monkeypatch.setattr(Disk, "open", lambda self, name: opened.append(self.path) or genuine(self, name))
    assert_equal(last_evidence(folder, [7])[7], evidence(7, 300))
    assert [path.endswith(EVIDENCE) for path in opened].count(True) == 1
    folder.compact()
    groups: list[int] = []
    read = reading.pq.ParquetFile.read_row_groups

    def counted(self: reading.pq.ParquetFile, chosen: list[int], **options: bool) -> Any:
        groups.append(len(chosen))
        return read(self, chosen, **options)

    monkeypatch.setattr(reading.pq.ParquetFile, "read_row_groups", counted)
    for file in (folder.path / EVIDENCE).glob("0*"):
        file.unlink()
    assert_equal(last_evidence(folder, [0])[0], evidence(0, 300))
    assert groups == [1], "of two"


def test_a_sweep_of_an_earlier_version_gets_evidence_too(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        writer.append("trials", start(0))
        writer.append("reports", report(0, 100, 0.5))
    (folder.path / EVIDENCE).rmdir()
    assert last_evidence(folder) == {}
    with folder.writer() as writer:
        add(writer, 1)
    assert last_evidence(folder).keys() == {1}


def after(steps: dict[int, set[int]]) -> set[tuple[int, int]]:
    return {(trial, step) for trial, chosen in steps.items() for step in chosen}


def test_compaction_keeps_what_may_be_asked_for(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    steps = (100, 300, 900)
    with folder.writer() as writer:
        for trial in range(6):
            add(writer, trial, steps)
        add(writer, 6, steps[:2])
        writer.append("reports", report(6, 900, float("nan")))
        writer.append("trials", end(0, "complete"))
        writer.append("trials", end(1, "complete", checkpoint="weights"))
        writer.append("trials", end(2, "pruned"))
        writer.append("trials", end(3, "complete", checkpoint="weights"))
        writer.append("trials", end(3, "complete"))  # other weights have displaced it
        writer.append("trials", end(4, "paused"))  # trial 5 still runs
        writer.append("trials", end(6, "diverged"))
    before, last = stored(folder), last_evidence(folder)
    folder.compact()
    for file in (folder.path / EVIDENCE).glob("0*"):
        file.unlink()
    fresh = Store(tmp_path / "runs").open("one")
    everything = {0, 1, 4, 5}
    expected = after({trial: set(steps) if trial in everything else {900} for trial in range(6)} | {6: {300}})
    assert stored(fresh).keys() == expected
    for key, found in stored(fresh).items():
        assert_equal(found, before[key])
    assert last_evidence(fresh).keys() == last.keys()
    for trial, found in last_evidence(fresh).items():
        assert_equal(found, last[trial])
    with folder.writer() as writer:  # what has ended since goes at the next merge
        writer.append("trials", end(5, "pruned"))
        add(writer, 7, (100,))
    folder.compact(fewest=1)
    assert {(5, 900), (7, 100)} <= stored(fresh).keys()
    assert not {(5, 100), (5, 300)} & stored(fresh).keys()


def test_compaction_drops_what_a_fence_excludes_and_nothing_whose_report_is_to_come(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer(period=60) as writer:
        add(writer, 0)
        writer.append("trials", start(1))
        writer.append("reports", report(1, 100, 0.5), evidence(1, 100))
        [late] = writer._pending[1:]
        writer._write(EVIDENCE, [late.seq], late.evidence)  # the driver dies here, or is about to write the report
        folder.compact()
        assert (1, 100) in stored(folder)
        writer._pending.clear()
    with folder.writer() as writer:
        add(writer, 2)
    folder.compact(fewest=1)
    assert stored(folder).keys() == after({0: {100, 300}, 2: {100, 300}})


def test_a_damaged_file_is_not_replaced_by_a_merge(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        for trial in range(4):
            add(writer, trial, (100,))
    victim = sorted((folder.path / EVIDENCE).iterdir())[2]
    content = bytearray(victim.read_bytes())
    numbers = reading.pq.ParquetFile(victim).metadata.row_group(0).column(6).data_page_offset + 20
    content[numbers] ^= 0xFF  # in the numbers: column `seq` can still be read
    victim.write_bytes(content)
    folder.compact()
    replaced = reading.listing(folder.folder.child(EVIDENCE), EVIDENCE).replaced.values()
    assert [len(names) for names in replaced] == [3]
    assert victim.name not in next(iter(replaced))
    assert last_evidence(folder).keys() == {0, 1, 3}
