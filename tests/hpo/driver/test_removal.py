"""A trial without its weights and predictions: its rows stay, and nothing else changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpo.display.status import read
from hpo.driver import generations
from hpo.driver.ledger import Ledger
from hpo.driver.selection import conclude, select, still_needed
from results import views
from results.predictions import predicted
from results.store import Store, StoreError, SweepFolder
from tests.hpo.cli import answer, hpo, refused


@pytest.fixture
def folder(two_sweeps: Path, tmp_path: Path) -> SweepFolder:
    shutil.copytree(two_sweeps, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path).open("a")


def test_rows_stay_while_weights_and_predictions_go(folder: SweepFolder, tmp_path: Path) -> None:
    before, scores = folder.events(), views.top(folder, 20)
    ledger = Ledger(before)
    selection = select(folder, ledger)
    assert selection.ensemble is not None
    conclude(folder, ledger, selection, "mine")
    trial = selection.ensemble.trials[0]
    assert trial in ledger.kept
    assert (folder.path / "checkpoints" / str(trial)).is_dir()
    assert trial in predicted(folder)
    snapshot = read(folder)

    done = hpo("rm", "a", "--trial", trial, "--yes", store=tmp_path)
    assert done.exit_code == 0, done.output
    assert "deleted its weights and 1 file of predictions" in done.stderr
    assert "a member of the ensemble mine" in done.stderr
    after = Store(tmp_path).open("a")
    assert after.events()[: len(before)] == before
    assert len(after.events()) == len(before) + 1
    assert not (folder.path / "checkpoints" / str(trial)).exists()
    assert trial not in predicted(after)
    assert Ledger(after.events()).kept.keys() == ledger.kept.keys() - {trial}
    assert Ledger(after.events()).ranking() == ledger.ranking()
    shown = views.top(after, 20)
    assert shown.drop(columns=["kept", "checkpoint"]).equals(scores.drop(columns=["kept", "checkpoint"]))
    assert read(after).elapsed == snapshot.elapsed, "no launch of the sweep"
    assert read(after).phase == "stopped"
    assert "hpo resume a lets" in done.stderr, "another trial takes its place in the ensemble"

    again = hpo("rm", "a", "--trial", trial, "--yes", store=tmp_path)
    assert "deleted no weights, as none were kept, and 0 files" in again.stderr
    facts = answer("rm", "a", "--trial", trial, "--yes", store=tmp_path)
    assert (facts["trial"], facts["weights"], facts["predictions"], facts["ensembles"]) == (trial, False, 0, ["mine"])
    assert answer("rm", "a", "--yes", store=tmp_path) == {"sweep": "a", "deleted": str(folder.path)}
    assert not folder.path.exists()


def test_a_trial_that_was_not_chosen_is_not_missed(folder: SweepFolder, tmp_path: Path) -> None:
    ledger = Ledger(folder.events())
    chosen = still_needed(folder, ledger)
    assert chosen is not None
    trial = next(trial for trial in ledger.kept if trial not in chosen.trials)
    done = hpo("rm", "a", "--trial", trial, "--yes", store=tmp_path)
    assert "note" not in done.stderr
    assert read(Store(tmp_path).open("a")).phase == "done"


def test_a_removal_is_refused(folder: SweepFolder, tmp_path: Path) -> None:
    assert "no trial 99" in refused(hpo("rm", "a", "--trial", "99", "--yes", store=tmp_path))
    generation = generations.claim(folder.folder)
    try:
        message = refused(hpo("rm", "a", "--trial", "1", "--yes", store=tmp_path))
        assert "is being worked on by process" in message
    finally:
        generation.end()
    assert hpo("rm", "a", "--trial", "1", store=tmp_path, typed="n\n").stderr.endswith("nothing was deleted\n")
    assert (
        "1" in {path.name for path in (folder.path / "checkpoints").iterdir()} or 1 not in Ledger(folder.events()).kept
    )
    with pytest.raises(StoreError, match="never deleted"):
        folder.remove_table("reports", "1")
