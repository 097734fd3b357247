"""Kept weights: the best ones that have ended, whatever the order in which they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.driver.weights import Ended, Shelf
from hpo.worker.job import checkpoint_folder


def make(sweep: Path, trial: int, *names: str) -> str:
    for name in names:
        (checkpoint_folder(sweep, trial) / name).mkdir(parents=True)
        (checkpoint_folder(sweep, trial) / name / "weights").write_text("x")
    return str(checkpoint_folder(sweep, trial) / names[-1])


def end(sweep: Path, trial: int, state: str = "complete") -> Ended:
    return Ended(trial, 0, state, "", make(sweep, trial, "0-100", "0-300"))


def names(sweep: Path, trial: int) -> list[str]:
    folder = checkpoint_folder(sweep, trial)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_the_best_stay_and_the_displaced_are_named_before_they_go(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, keep=2)
    for trial, ranking in ((1, [1]), (2, [2, 1])):
        kept, gone = shelf.settle(end(tmp_path, trial), ranking)
        assert kept.checkpoint is not None
        assert gone == []
    kept, gone = shelf.settle(end(tmp_path, 3), [2, 3, 1])
    assert kept.checkpoint is not None
    assert [(one.trial, one.checkpoint) for one in gone] == [(1, None)]
    assert names(tmp_path, 1) == ["0-100", "0-300"], "nothing is deleted before the rows are written"
    shelf.tidy()
    assert [names(tmp_path, trial) for trial in (1, 2, 3)] == [[], ["0-300"], ["0-300"]]
    assert [one.trial for one in shelf.kept([2, 3, 1])] == [2, 3]


def test_the_baseline_stays_however_it_ranks(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, keep=1)
    ranking = [2, 1, 0]
    for trial in (0, 1, 2):
        shelf.settle(end(tmp_path, trial, "pruned"), [one for one in ranking if one <= trial])
    shelf.tidy()
    assert [one.trial for one in shelf.kept(ranking)] == [2, 0]
    assert [names(tmp_path, trial) for trial in (0, 1, 2)] == [["0-300"], [], ["0-300"]]


def test_kept_weights_drop_what_only_training_needs(tmp_path: Path) -> None:
    ended = end(tmp_path, 1)
    assert ended.checkpoint is not None
    moments = Path(ended.checkpoint) / "optimizer.safetensors"
    moments.write_text("x")
    shelf = Shelf(tmp_path, keep=1)
    shelf.settle(ended, [1])
    assert moments.exists(), "the row comes first"
    shelf.tidy()
    assert not moments.exists()
    assert (moments.parent / "weights").exists()


def test_a_trial_below_the_kept_ones_leaves_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, keep=1)
    shelf.settle(end(tmp_path, 0), [0])
    kept, gone = shelf.settle(end(tmp_path, 1), [0, 1])
    assert kept.checkpoint is None
    assert gone == []
    shelf.tidy([1])
    assert names(tmp_path, 1) == []
    assert names(tmp_path, 0) == ["0-100", "0-300"], "only the named trials are tidied"


def test_running_trials_take_no_place(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, keep=1)
    kept, _ = shelf.settle(end(tmp_path, 3, "pruned"), [9, 3])
    assert kept.checkpoint is not None


@pytest.mark.parametrize("state", ["failed", "diverged"])
def test_failed_and_diverged_trials_leave_nothing(tmp_path: Path, state: str) -> None:
    shelf = Shelf(tmp_path, keep=5)
    kept, _ = shelf.settle(end(tmp_path, 0, state), [])
    assert kept.checkpoint is None
    shelf.tidy()
    assert names(tmp_path, 0) == []


def test_recall_finds_what_a_crash_left_behind(tmp_path: Path) -> None:
    make(tmp_path, 0, "0-300")
    kept = make(tmp_path, 1, "0-300")
    running = make(tmp_path, 2, "0-100")
    shelf = Shelf(tmp_path, keep=2)
    common = {"attempt": 0, "reason": None}
    shelf.recall(
        [
            {"trial": 0, "event": "end", "state": "complete", "checkpoint": "somewhere", **common},
            {"trial": 1, "event": "end", "state": "complete", "checkpoint": kept, **common},
            {"trial": 2, "event": "end", "state": "lost", "checkpoint": None, **common},
            {"trial": 0, "event": "end", "state": "complete", "checkpoint": None, **common},
        ]
    )
    shelf.tidy()
    assert names(tmp_path, 0) == []
    assert names(tmp_path, 1) == ["0-300"]
    assert Path(running).is_dir(), "a trial that has not ended owns its folder"


def test_what_a_crash_left_half_deleted_goes(tmp_path: Path) -> None:
    grave = checkpoint_folder(tmp_path, 1).with_name(".1.removed")
    (grave / "0-300").mkdir(parents=True)
    shelf = Shelf(tmp_path, keep=1)
    shelf.tidy([])
    assert grave.is_dir(), "somebody may be at it"
    shelf.tidy()
    assert not grave.exists()
