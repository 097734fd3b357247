"""Upkeep of a store: what goes, what stays, and what a kill leaves behind. Real files and rows, no Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpo.driver import generations
from hpo.driver.ledger import Ledger
from hpo.driver.selection import FORMER, Needed, record_choice, recorded, select, still_needed
from hpo.driver.upkeep import GRACE, Upkeep, free, free_all
from minbert.disk import bytes_on_disk
from minbert.training.checkpoints import is_complete
from results.schemas import TABLES
from results.store import Store, SweepFolder
from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo
from tests.hpo.files import checkpoint_folder

WEIGHTS = "weights.safetensors"


def checkpoint(sweep: Path, trial: int, name: str, *, complete: bool = True, age: float = 0.0) -> Path:
    """Write a checkpoint of 64 KiB of weights and as much state of training."""
    path = checkpoint_folder(sweep, trial) / name
    path.mkdir(parents=True)
    for file in (WEIGHTS, "optimizer.safetensors", *(["done.json"] if complete else [])):
        (path / file).write_bytes(b"x" * 2**16)
        older(path / file, age)
    older(path, age)
    return path


def older(path: Path, seconds: float) -> None:
    """Let a file or folder look as if it was changed so long ago."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def names(sweep: Path) -> dict[int, set[str]]:
    """Checkpoints of each trial."""
    folders = (sweep / "checkpoints").iterdir()
    return {int(folder.name): {path.name for path in folder.iterdir()} for folder in sorted(folders)}


def kinds(upkeep: Upkeep) -> dict[str, int]:
    found: dict[str, int] = {}
    for item in upkeep.waste:
        found[item.kind] = found.get(item.kind, 0) + 1
    return found


def rows(folder: SweepFolder) -> dict[str, Any]:
    return {name: folder.read(name).to_pylist() for name in TABLES}


@pytest.fixture
def finished(tmp_path: Path) -> SweepFolder:
    """A finished sweep: trials 0 to 3 have weights, evidence and predictions, 4 and 5 have left files behind."""
    folder = stored.make(tmp_path / "runs", unpredicted=True)
    folder.write_table("predictions", stored.predictions(3), key="3-0")
    generations.claim(folder.folder).end()  # the launch that wrote the rows
    for trial in range(4):
        checkpoint(folder.path, trial, "0-302")
    checkpoint(folder.path, 3, "0-102")
    checkpoint(folder.path, 4, "0-102")
    checkpoint(folder.path, 5, "0-50", complete=False)
    return folder


def test_what_no_row_names_goes_and_a_dry_run_says_it(finished: SweepFolder) -> None:
    before, content, claimed = bytes_on_disk(finished.path), rows(finished), finished.generation
    planned = free(finished, dry_run=True)
    assert bytes_on_disk(finished.path) == before
    assert finished.generation == claimed, "a dry run claims nothing"
    assert kinds(planned) == {"checkpoints": 2 + 1 + 4}, "two folders, an older checkpoint, four states of training"
    done = free(finished)
    assert done == planned
    assert names(finished.path) == {trial: {"0-302"} for trial in range(4)}
    assert {path.name for path in checkpoint_folder(finished.path, 2).rglob("*.*")} == {
        WEIGHTS,
        "done.json",
    }
    freed = before - bytes_on_disk(finished.path)
    assert abs(sum(item.size for item in done.waste) - freed) < 2**15, "its own generation file and folder entries"
    assert rows(finished) == content
    assert free(finished).waste == []


def test_weights_beyond_the_best_go_with_a_row_each(finished: SweepFolder) -> None:
    content, chosen = rows(finished), select(finished, Ledger(finished.events())).trials
    going = sorted({1, 2} - set(chosen))
    assert going, "the sweep's own ensemble must not hold all trials"
    assert kinds(free(finished, keep=1))["weights"] == len(going)
    assert sorted(names(finished.path)) == sorted({0, 1, 2, 3} - set(going))
    assert sorted(Ledger(finished.events()).kept) == sorted(names(finished.path))
    now = rows(finished)
    added = now["trials"][len(content["trials"]) :]
    assert now["trials"][: len(content["trials"])] == content["trials"]
    assert [(row["trial"], row["event"], row["state"], row["checkpoint"]) for row in added] == [
        (trial, "end", "complete", None) for trial in going
    ]
    assert {name: now[name] for name in now if name != "trials"} == {n: content[n] for n in content if n != "trials"}


@pytest.mark.parametrize("known", [False, True])
def test_what_the_sweep_has_chosen_stays_chosen(finished: SweepFolder, known: bool) -> None:
    ledger = Ledger(finished.events())
    if known:
        record_choice(finished, ledger, Needed([0, 2, 3], []), [1])
    before, chosen = select(finished, ledger, FORMER), recorded(finished, ledger)
    free(finished, keep=0)
    ledger = Ledger(finished.events())
    after = select(finished, ledger, FORMER)
    assert (after.trials, after.best_single, after.default) == (before.trials, before.best_single, before.default)
    if chosen is not None:
        assert recorded(finished, ledger) == chosen._replace(rows=ledger.rows)
        assert names(finished.path).keys() >= set(chosen.trials)
    needs = still_needed(finished, ledger)
    assert needs is not None
    assert not needs.pending
    store = finished.path.parent
    assert answer("status", SWEEP, store=store)["phase"] == "done"
    assert hpo("ensemble", SWEEP, store=store).exit_code == 0


def test_members_of_a_saved_ensemble_stay(finished: SweepFolder) -> None:
    from hpo.driver.jury import scoring
    from results import choice, selection

    score = scoring(finished)
    selection.conclude(finished, score, choice.select(finished, score, method="top-k", size=1, trials=[1]), name="mine")
    free(finished, keep=0)
    assert 1 in names(finished.path)
    ensemble = finished.path / "ensembles" / "mine.json"
    ensemble.write_text("{")
    (alone,) = (upkeep for upkeep in free_all(Store(finished.path.parent), None, keep=0) if upkeep.place == SWEEP)
    assert "mine.json` is damaged" in alone.left_alone
    assert 1 in names(finished.path)


def interrupted(store: Path) -> SweepFolder:
    """A sweep whose driver died: trial 0 has ended, trial 1 waits with several checkpoints."""
    folder = Store(store).create("cut", stored.record("cut").to_json())
    with folder.writer() as writer:
        start = {"attempt": 0, "event": "start", "config": "{}", "seed": 0}
        report = {"attempt": 0, "step": 100, "examples": 100, "overall": 0.5, "diverged": False}
        for trial in (0, 1):
            writer.append("trials", {"trial": trial, **start})
            writer.append("reports", {"trial": trial, **report, "checkpoint": f"/gone/{trial}/0-100"})
        end = {"attempt": 0, "event": "end", "state": "complete", "checkpoint": "/gone/0/0-100"}
        writer.append("trials", {"trial": 0, **end})
    checkpoint(folder.path, 0, "0-100")
    for name in ("0-50", "0-100", "0-150", "1-180"):
        checkpoint(folder.path, 1, name)
    checkpoint(folder.path, 1, "1-200", complete=False, age=GRACE + 60)
    checkpoint(folder.path, 1, "1-220", complete=False)
    return folder


def test_a_trial_that_waits_keeps_what_a_resume_needs(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    assert kinds(free(folder, keep=0)) == {"checkpoints": 3, "unfinished": 1}
    # the newest complete one, the one of its last report, and one that may just be being written
    assert names(folder.path) == {0: {"0-100"}, 1: {"0-100", "1-180", "1-220"}}
    assert Ledger(folder.events()).kept.keys() == {0}, "weights of a sweep that is not done stay"


def test_freeing_a_sweep_is_no_launch(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    generation = generations.claim(folder.folder)
    generation._stop.set()  # a driver that died: nothing records its end
    path = folder.path / "generations" / f"{generation.number:06d}.json"
    path.write_text(path.read_text().replace(f'"pid": {os.getpid()}', '"pid": 999999999'))
    assert answer("status", "cut", store=tmp_path)["phase"] == "interrupted"
    assert free(folder).waste
    assert answer("status", "cut", store=tmp_path)["phase"] == "interrupted"
    assert generations.claim(folder.folder).number == generation.number + 2


def test_a_sweep_with_a_live_driver_is_left_alone(finished: SweepFolder) -> None:
    generation = generations.claim(finished.folder)
    try:
        done = hpo("gc", "--keep", "0", store=finished.path.parent)
    finally:
        generation.end()
    assert done.exit_code == 0, done.output
    assert f"{SWEEP} is left alone: process {os.getpid()} on " in done.stdout
    assert sorted(names(finished.path)) == [0, 1, 2, 3, 4, 5]


def test_replaced_and_unfinished_files_go_after_their_time(finished: SweepFolder) -> None:
    trials = finished.path / "trials"
    with finished.writer() as writer:  # a second file; a repeated event does not count
        writer.append("trials", finished.read("trials").to_pylist()[-1])
    finished.compact()
    content, merged = rows(finished), list(trials.glob("merged-*"))
    temporary = trials / ".x.parquet.1-aa.tmp"
    temporary.touch()
    assert "merged" not in kinds(free(finished, dry_run=True))
    for path in (*merged, temporary):
        older(path, GRACE + 60)
    found = kinds(free(finished))
    assert found["merged"] >= 1
    assert found["unfinished"] == 1
    assert {path.name for path in trials.glob("*.parquet")} == {path.name for path in merged}
    assert not temporary.exists()
    assert rows(finished) == content


def test_the_command_prints_a_table_and_json(finished: SweepFolder) -> None:
    store = finished.path.parent
    half = store / ".gone.0a.removed"
    half.mkdir()
    (half / "file").write_bytes(b"x" * 2**16)
    for path in (half / "file", half):
        older(path, GRACE + 60)
    planned = answer("gc", "--keep", "1", "--dry-run", store=store)
    assert planned["dry_run"]
    assert {(row["place"], row["kind"]) for row in planned["rows"]} == {
        (SWEEP, "weights"), (SWEEP, "checkpoints"), (str(store), "unfinished")
    }  # fmt: skip
    assert "deletes nothing" in hpo("gc", "--keep", "1", "--dry-run", store=store).stdout
    assert half.exists()
    freed = answer("gc", "--keep", "1", store=store)
    assert freed["rows"] == planned["rows"]
    assert not half.exists()
    assert "freed 0 KiB" in hpo("gc", SWEEP, store=store).stdout
    assert "No sweep `smal-1`" in hpo("gc", "smal-1", store=store).stderr


def test_a_link_goes_without_its_target(finished: SweepFolder, tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "file").touch()
    (checkpoint_folder(finished.path, 3) / "0-90").symlink_to(target)
    checkpoint_folder(finished.path, 4).joinpath("0-90").symlink_to(target)
    free(finished)
    assert (target / "file").exists()
    assert names(finished.path) == {trial: {"0-302"} for trial in range(4)}


KILLS = """
import os, shutil, sys
from pathlib import Path
from hpo.driver.upkeep import free
from results.store import Store

store, copies, stride = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
changes = {"os.rename", "os.remove", "os.rmdir", "os.link"}  # Python reports each before it happens
step, code = 0, 9
while code == 9:
    copy = copies / str(step)
    shutil.copytree(store, copy)
    child = os.fork()
    if child == 0:
        left = step

        def hook(event, arguments):
            global left
            if event in changes:
                left -= 1
                if left < 0:
                    os._exit(9)

        sys.addaudithook(hook)
        free(Store(copy).open("small-1"), keep=0)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    step += stride
print(code)
"""


@pytest.mark.parametrize("stride", [16, pytest.param(3, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_a_kill_at_any_step_leaves_a_readable_store(finished: SweepFolder, tmp_path: Path, stride: int) -> None:
    """A process dies before a change of the file system: the first, the one `stride` later, and so on. What it leaves
    can be read, no row names missing weights, and a second call ends as an unbroken one does."""
    content, copies = rows(finished), tmp_path / "copies"
    command = [sys.executable, "-c", KILLS, str(finished.path.parent), str(copies), str(stride)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.stdout == "0\n", done.stderr  # the last copy was freed to the end
    *killed, last = sorted(copies.iterdir(), key=lambda path: int(path.name))
    whole = Store(last).open(SWEEP)
    assert len(killed) > 30 / stride
    states = set()
    for copy in killed:
        folder = Store(copy).open(SWEEP)
        kept = Ledger(folder.events()).kept
        states.add((len(kept), len(list((copy / SWEEP / "checkpoints").rglob("*")))))
        for trial, weights in kept.items():
            path = checkpoint_folder(folder.path, trial) / Path(weights.checkpoint).name
            assert is_complete(path), (copy.name, trial)
            assert (path / WEIGHTS).is_file()
        assert rows(folder)["reports"] == content["reports"]
        assert folder.warnings == []
        free(folder, keep=0)
        assert Ledger(folder.events()).kept.keys() == Ledger(whole.events()).kept.keys()
        assert names(folder.path) == names(whole.path)
    assert len(states) > 20 / stride, "the kills came at different steps"
