"""What has to be predicted once a search has ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.driver.ledger import Ledger
from hpo.driver.selection import Needed, conclude, lacking, needed, select, settled
from results.predictions import PARTS
from results.selection import usable
from results.store import StoreError, SweepFolder
from tests.hpo import stored

SPLITS = {"held": ("held",), "dev": ("search", "dev"), "test": ("test",)}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """Trials 0 to 3 have evidence and kept weights, and nobody has predicted."""
    made = stored.make(tmp_path, unpredicted=True)
    for path in (made.path / "predictions").iterdir():
        path.unlink()
    return made


def predict(folder: SweepFolder, trial: int, part: str) -> None:
    rows = [row for row in stored.predictions(trial) if row["split"] in SPLITS[part]]
    folder.write_table("predictions", rows, f"{trial}-0-{part}")


def parts(found: Needed) -> list[tuple[int, str]]:
    return [(entry.weights.trial, entry.part) for entry in found.pending]


def test_only_the_chosen_predict_and_only_what_is_missing(folder: SweepFolder) -> None:
    ledger = Ledger(folder.events())
    chosen = select(folder, ledger)
    assert chosen.best_single == 3
    assert needed(folder, ledger).trials == chosen.trials
    assert {0, 3} <= set(chosen.trials) < {0, 1, 2, 3}
    assert parts(needed(folder, ledger)) == [(trial, "held") for trial in chosen.trials]
    predict(folder, 3, "held")
    assert needed(folder, ledger).waiting == sorted(set(chosen.trials) - {3})
    both = needed(folder, ledger, chosen, full_dev=True)
    assert (3, "dev") in parts(both)
    assert (3, "held") not in parts(both)
    assert [entry.part for entry in lacking(folder, ledger, [3], PARTS)] == ["dev", "test"]


def test_one_file_of_an_earlier_version_is_all_parts(folder: SweepFolder) -> None:
    folder.write_table("predictions", stored.predictions(3), "3-0")
    assert lacking(folder, Ledger(folder.events()), [3], PARTS) == []


def test_without_evidence_and_predictions_every_kept_trial_predicts_search_first(folder: SweepFolder) -> None:
    with_evidence = select(folder, Ledger(folder.events()))
    for path in (folder.path / "evidence").iterdir():
        path.unlink()
    ledger = Ledger(folder.events())
    assert select(folder, ledger).picks == ()
    assert parts(needed(folder, ledger)) == [(trial, "dev") for trial in range(4)]
    for trial in range(4):
        predict(folder, trial, "dev")
    again = select(folder, ledger)
    assert again.picks == with_evidence.picks, "predictions choose as evidence does"
    assert parts(needed(folder, ledger)) == [(trial, "held") for trial in again.trials]


def test_trials_without_weights_are_no_candidates(folder: SweepFolder) -> None:
    with folder.writer() as writer:
        writer.append("trials", {"trial": 3, "attempt": 0, "event": "end", "state": "complete", "reason": "displaced"})
    ledger = Ledger(folder.events())
    for part in (None, "held", "dev"):
        if part:  # predicted before the weights went
            predict(folder, 3, part)
        chosen = select(folder, ledger)
        assert 3 not in chosen.trials
        assert list(chosen.candidates.members) == [2, 1, 0] == usable(folder)


@pytest.mark.parametrize("names", [["3-0"], [f"3-0-{part}" for part in PARTS]], ids=["one file", "all parts"])
def test_trials_that_have_predicted_everything_need_no_weights(folder: SweepFolder, names: list[str]) -> None:
    with folder.writer() as writer:
        writer.append("trials", {"trial": 3, "attempt": 0, "event": "end", "state": "complete", "reason": "displaced"})
    for name in names:
        rows = [row for row in stored.predictions(3) if row["split"] in SPLITS.get(name[4:], (row["split"],))]
        folder.write_table("predictions", rows, name)
    assert list(select(folder, Ledger(folder.events())).candidates.members) == [3, 2, 1, 0] == usable(folder)


def test_chosen_trials_that_could_not_predict_are_left_out(folder: SweepFolder) -> None:
    ledger = Ledger(folder.events())
    with pytest.raises(StoreError, match=r"Trials \[3.*have not predicted `held`; run `hpo ensemble small-1`"):
        conclude(folder, select(folder, ledger))
    for trial in (0, 1, 2):
        predict(folder, trial, "held")
    assert needed(folder, ledger).waiting == [3]
    assert needed(folder, ledger, without=[3]).waiting == []
    chosen = settled(folder, ledger)
    assert chosen.roles == select(folder, ledger, without=[3]).roles
    assert chosen.best_single == 2
    record = conclude(folder, chosen)
    assert record["skipped"] == ["trial 3: its predictions are missing or damaged"]
    assert 3 not in {member["trial"] for member in record["members"]}


def test_without_evidence_a_trial_that_could_not_predict_search_is_not_asked_again(folder: SweepFolder) -> None:
    for path in (folder.path / "evidence").iterdir():
        path.unlink()
    ledger = Ledger(folder.events())
    assert parts(needed(folder, ledger, without=[3, 0])) == [(trial, "dev") for trial in (1, 2)]
