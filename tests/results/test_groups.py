"""Groups of rows: one file a table, a kill between the files of a group, and how often a commit is due."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from results import writer as writing
from results.reading import complete
from tests.results.places import Place
from tests.results.samples import META, end, report, seqs, start, sweep

ROOT = Path(__file__).resolve().parents[2]
DYING = """
import os, signal, sys
from results.store import Store
from results.writer import Writer
from tests.results.samples import end, report, start
writer = Store(sys.argv[1]).open("one").writer(period=60)
writer.append("trials", start(0))
writer.append("trials", start(1))
print(writer.barrier(), flush=True)
genuine = Writer._write
def write(self, table, *rows):
    if table == "trials":
        os.kill(os.getpid(), signal.SIGKILL)
    genuine(self, table, *rows)
Writer._write = write
writer.append("reports", report(0, 100, 0.5))
writer.append("trials", end(0, "complete"))
writer.append("reports", report(1, 100, 0.5))
writer.barrier()
"""


def test_a_group_is_one_file_a_table(place: Place) -> None:
    folder = place.store().create("one", META)
    with folder.writer(period=60) as writer:
        for trial in range(5):
            writer.append("trials", start(trial))
            writer.append("reports", report(trial, 100, 0.5))
            writer.append("trials", end(trial, "complete"))
        assert writer.barrier() == 15
        assert writer.barrier() == 15, "an empty group makes no file"
    names = [folder.folder.child(table).names() for table in ("trials", "reports")]
    assert names == [["000001-000000000001-000000000015.parquet"], ["000001-000000000002-000000000014.parquet"]]
    assert seqs(place.store().open("one")) == list(range(1, 16))


@pytest.mark.parametrize("place", ["disk", "s3"], indirect=True)
def test_a_kill_between_the_files_of_a_group_leaves_a_prefix(place: Place) -> None:
    place.store().create("one", META)
    child = subprocess.run([sys.executable, "-c", DYING, place.uri], cwd=ROOT, capture_output=True, check=False)
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, b"2\n"), child.stderr
    folder = place.store().open("one")
    assert len(folder.read("reports")) == 2, "the reports of the group are there"
    assert seqs(folder) == [1, 2, 3], "the report behind the missing end does not count"
    assert [row["seq"] for row in folder.events(after=2)] == [3]
    with folder.writer() as writer:
        assert writer.continued_from == 3
        assert seqs(folder) == [1, 2, 3]
        assert writer.append("trials", end(0, "complete")) == 4
        writer.append("reports", report(1, 100, 0.7))
    fresh = place.store().open("one")
    assert [(row["seq"], row["generation"]) for row in fresh.events()] == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)]
    fresh.compact(grace=0.0)
    assert seqs(place.store().open("one")) == [1, 2, 3, 4, 5]


def test_complete_is_what_every_order_of_groups_allows() -> None:
    """Groups are drawn, and the last is cut after each of its files; a plain count says what is complete."""
    chance = random.Random(0)
    for _ in range(200):
        tables = [chance.choice(("trials", "reports")) for _ in range(chance.randrange(1, 12))]
        cuts = sorted({0, len(tables), *chance.sample(range(len(tables) + 1), min(2, len(tables)))})
        groups = [range(first + 1, last + 1) for first, last in itertools.pairwise(cuts)]
        written = [seq for group in groups[:-1] for seq in group]
        for kept in ((), ("reports",), ("reports", "trials")):
            there = {*written, *(seq for seq in groups[-1] if tables[seq - 1] in kept)}
            plain = next(seq for seq in itertools.count() if seq + 1 not in there)
            trials, reports = (
                np.array([seq for seq in there if tables[seq - 1] == table], np.int64)
                for table in ("trials", "reports")
            )
            assert complete(trials, reports) == plain
            after = chance.randrange(plain + 1)
            assert complete(trials[trials > after], reports[reports > after], after=after) == plain


def test_beside_a_damaged_file_every_row_counts() -> None:
    trials, reports = np.array([1, 2]), np.array([3, 6])
    assert complete(trials, reports) == 3
    assert complete(trials, reports, damaged=True) == 6


def test_a_quiet_time_saves_up_a_few_commits_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(writing.time, "monotonic", lambda: now[0])
    with sweep(tmp_path).writer(period=60) as writer:

        def commits() -> int:
            count = 0
            while writer.due:
                writer.append("trials", start(count))
                writer.barrier()
                count += 1
            return count

        assert commits() == writing.SAVED + 1
        for period in (1, 2, 3):
            now[0] += 60 * period
            assert commits() == period, "one a period on average"
        for _ in range(20):  # barriers that nobody asked about do not put off the next one for long
            writer.append("trials", start(0))
            writer.barrier()
        now[0] += 60
        assert writer.due
        now[0] += 1e5
        assert commits() == writing.SAVED + 1
