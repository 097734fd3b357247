"""Kept weights: those of the best trials that have ended, in any order of their ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.driver.ledger import Ledger
from hpo.driver.weights import EndRow, Shelf
from hpo.search.states import ranking
from results.places import locate
from tests.hpo.files import checkpoint_folder


class Bench:
    """A shelf, the ledger that it reads, and trials that have checkpoints at 100 and 300 examples."""

    def __init__(self, sweep: Path, keep: int) -> None:
        self.sweep = sweep
        self.ledger = Ledger()
        self.shelf = Shelf(locate(sweep), keep)

    def report(self, trial: int, value: float) -> str:
        """Start a trial and let it report; returns the path of its checkpoint at 300 examples."""
        if trial not in self.ledger.trials:
            self.ledger.feed({"trial": trial, "attempt": 0, "event": "start"})
        for step in (100, 300):
            path = checkpoint_folder(self.sweep, trial) / f"0-{step}"
            path.mkdir(parents=True)
            (path / "weights").write_text("x")
            row = {"trial": trial, "attempt": 0, "step": step, "overall": value, "diverged": False}
            self.ledger.feed(row | {"checkpoint": str(path)})
        return str(path)

    def end(self, trial: int, value: float, state: str = "complete") -> list[tuple[int, str | None]]:
        """Let a trial report and end; returns trial and checkpoint name of each end row that is written."""
        rows = self.shelf.end_rows(self.ledger, EndRow(trial, 0, state, "", self.report(trial, value)))
        for row in rows:
            self.write(row)
        return [(row.trial, row.checkpoint and Path(row.checkpoint).name) for row in rows]

    def write(self, end: EndRow) -> None:
        self.ledger.feed({"event": "end", **vars(end)})

    def tidy(self, trials: list[int] | None = None) -> None:
        self.shelf.tidy(self.ledger, trials)
        assert self.shelf.tidied() == []

    def names(self, trial: int) -> list[str]:
        folder = checkpoint_folder(self.sweep, trial)
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def kept(self) -> list[int]:
        return ranking({trial: self.ledger.trials[trial] for trial in self.ledger.kept})


def test_the_best_stay_and_the_displaced_are_named_before_they_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=2)
    assert bench.end(1, 0.1) == [(1, "0-300")]
    assert bench.end(2, 0.3) == [(2, "0-300")]
    assert bench.end(3, 0.2) == [(3, "0-300"), (1, None)]
    assert bench.names(1) == ["0-100", "0-300"], "nothing is deleted before the rows are written"
    bench.tidy()
    assert [bench.names(trial) for trial in (1, 2, 3)] == [[], ["0-300"], ["0-300"]]
    assert bench.kept() == [2, 3]


def test_the_row_of_a_displaced_trial_repeats_its_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=1)
    first = EndRow(1, 0, "pruned", "below the cutoff", bench.report(1, 0.1))
    bench.write(bench.shelf.end_rows(bench.ledger, first)[0])
    _, displaced = bench.shelf.end_rows(bench.ledger, EndRow(2, 0, "complete", "", bench.report(2, 0.2)))
    assert displaced == EndRow(1, 0, "pruned", "below the cutoff", None)


def test_the_baseline_stays_however_it_ranks(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=1)
    for trial, value in ((0, 0.1), (1, 0.2), (2, 0.3)):
        bench.end(trial, value, "pruned")
    bench.tidy()
    assert bench.kept() == [2, 0]
    assert [bench.names(trial) for trial in (0, 1, 2)] == [["0-300"], [], ["0-300"]]


def test_kept_weights_drop_what_only_training_needs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=1)
    bench.end(1, 0.1)
    moments = checkpoint_folder(tmp_path, 1) / "0-300" / "optimizer.safetensors"
    moments.write_text("x")
    bench.tidy()
    assert not moments.exists()
    assert (moments.parent / "weights").exists()


def test_a_trial_that_ranks_below_the_kept_ones_leaves_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=1)
    bench.end(0, 0.2)
    assert bench.end(1, 0.1) == [(1, None)]
    bench.tidy([1])
    assert bench.names(1) == []
    assert bench.names(0) == ["0-100", "0-300"], "only the named trials are tidied"


def test_running_trials_take_no_place(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=1)
    bench.report(9, 0.9)
    assert bench.end(3, 0.3, "pruned") == [(3, "0-300")]


def test_fewer_weights_are_kept_where_a_later_launch_asks_for_fewer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=3)
    for trial, value in ((1, 0.1), (2, 0.2), (3, 0.3)):
        bench.end(trial, value)
    bench.shelf = Shelf(locate(tmp_path), keep=1)
    assert bench.end(4, 0.05) == [(4, None), (1, None), (2, None)]


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_failed_and_diverged_trials_leave_nothing(tmp_path: Path, state: str) -> None:
    bench = Bench(tmp_path, keep=5)
    assert bench.end(0, 0.5, state) == [(0, None)]
    bench.tidy()
    assert bench.names(0) == []


def test_tidying_all_finds_what_a_crash_left_behind(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=2)
    for trial, state, named in ((0, "complete", False), (1, "complete", True), (2, "lost", False)):
        path = bench.report(trial, 0.5)
        bench.write(EndRow(trial, 0, state, "", path if named else None))
    bench.tidy()
    assert bench.names(0) == []
    assert bench.names(1) == ["0-300"]
    assert bench.names(2) == ["0-100", "0-300"], "a trial that has not ended owns its folder"


def test_what_a_crash_left_half_deleted_goes(tmp_path: Path) -> None:
    leftover = checkpoint_folder(tmp_path, 1).with_name(".1.removed")
    (leftover / "0-300").mkdir(parents=True)
    bench = Bench(tmp_path, keep=1)
    bench.tidy([])
    assert leftover.is_dir(), "another process may be deleting it"
    bench.tidy()
    assert not leftover.exists()


def test_weights_of_repeats_stay_and_take_no_place(tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep=1)
    bench.end(0, 0.1)
    bench.end(1, 0.3)
    bench.ledger.feed({"trial": 2, "attempt": 0, "event": "start", "origin": "repeat"})
    assert bench.end(2, 0.9) == [(2, "0-300")], "no trial is displaced"
    assert bench.end(3, 0.4) == [(3, "0-300"), (1, None)]
    bench.tidy()
    assert [bench.names(trial) for trial in range(4)] == [["0-300"], [], ["0-300"], ["0-300"]]
