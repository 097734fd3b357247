"""What has to be predicted once a search has ended."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from hpo.driver.ledger import Ledger
from hpo.driver.selection import (
    LAUNCH,
    Choice,
    Needed,
    conclude,
    lacking,
    needed,
    noise,
    record_choice,
    recorded,
    select,
    settle,
    settled,
    still_needed,
)
from results.predictions import PARTS
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


def launched(folder: SweepFolder, ledger: Ledger, without: Collection[int] = ()) -> Needed:
    """What the end of a launch needs."""
    return needed(folder, ledger, select(folder, ledger, without=without), without=without)


def test_only_the_chosen_predict_and_only_what_is_missing(folder: SweepFolder) -> None:
    ledger = Ledger(folder.events())
    chosen = select(folder, ledger)
    assert chosen.best_single == 3
    assert launched(folder, ledger).trials == chosen.trials
    assert {0, 3} <= set(chosen.trials) < {0, 1, 2, 3}
    assert parts(launched(folder, ledger)) == [(trial, "held") for trial in chosen.trials]
    predict(folder, 3, "held")
    assert launched(folder, ledger).waiting == sorted(set(chosen.trials) - {3})
    both = needed(folder, ledger, chosen, Choice(full_dev=True))
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
    assert select(folder, ledger).ensemble is None
    assert parts(launched(folder, ledger)) == [(trial, "dev") for trial in range(4)]
    assert parts(launched(folder, ledger, without=[3, 0])) == [(trial, "dev") for trial in (1, 2)]
    for trial in range(4):
        predict(folder, trial, "dev")
    again = select(folder, ledger)
    assert again.trials == with_evidence.trials, "predictions choose as evidence does"
    assert parts(launched(folder, ledger)) == [(trial, "held") for trial in again.trials]


def test_trials_without_weights_are_no_candidates(folder: SweepFolder) -> None:
    with folder.writer() as writer:
        writer.append("trials", {"trial": 3, "attempt": 0, "event": "end", "state": "complete", "reason": "displaced"})
    ledger = Ledger(folder.events())
    for part in (None, "held", "dev"):
        if part:  # predicted before the weights went
            predict(folder, 3, part)
        chosen = select(folder, ledger)
        assert 3 not in chosen.trials
        assert list(chosen.candidates.members) == [2, 1, 0]


@pytest.mark.parametrize("names", [["3-0"], [f"3-0-{part}" for part in PARTS]], ids=["one file", "all parts"])
def test_trials_that_have_predicted_everything_need_no_weights(folder: SweepFolder, names: list[str]) -> None:
    with folder.writer() as writer:
        writer.append("trials", {"trial": 3, "attempt": 0, "event": "end", "state": "complete", "reason": "displaced"})
    for name in names:
        rows = [row for row in stored.predictions(3) if row["split"] in SPLITS.get(name[4:], (row["split"],))]
        folder.write_table("predictions", rows, name)
    assert list(select(folder, Ledger(folder.events())).candidates.members) == [3, 2, 1, 0]


def test_trials_that_cannot_predict_are_left_out_and_the_choice_is_made_again(folder: SweepFolder) -> None:
    ledger = Ledger(folder.events())
    with pytest.raises(StoreError, match=r"Trials \[3.*have not predicted `held`; run `hpo ensemble small-1`"):
        conclude(folder, ledger, select(folder, ledger))
    asked: list[list[int]] = []

    def all_but_3(needs: Needed) -> dict[int, str]:
        asked.append(needs.waiting)
        for trial in set(needs.waiting) - {3}:
            predict(folder, trial, "held")
        return {3: "trial 3 could not predict"}

    found = settle(folder, ledger, all_but_3)
    assert found is not None
    assert 3 in asked[0]
    assert not any(3 in trials for trials in asked[1:]), "it is asked once"
    assert found.failed == [3]
    assert found.selection.trials == select(folder, ledger, without=[3]).trials
    assert settled(folder, ledger).trials == found.selection.trials, "a reader sees who could not predict"
    record = conclude(folder, ledger, found.selection)
    assert record["best_single"] == 2
    assert record["skipped"] == ["trial 3: its predictions are missing or damaged"]
    assert settle(folder, ledger, lambda needs: None) is None, "stopped early: trial 3 is still wanted"


def test_what_a_launch_chose_is_read_and_not_chosen_again(
    folder: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(folder.events())
    needs = launched(folder, ledger)
    assert still_needed(folder, ledger, choose=False) is None, "nothing is recorded yet"
    record_choice(folder, ledger, needs, [])

    def chosen_again(*arguments: Any, **options: Any) -> None:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr("results.choice.select", chosen_again)
        assert still_needed(folder, ledger) == needs
        for trial in needs.trials:
            predict(folder, trial, "held")
        assert still_needed(folder, ledger) == Needed(needs.trials, [])
    with folder.writer() as writer:
        writer.append("trials", {"trial": 9, "attempt": 0, "event": "start"})
    later = Ledger(folder.events())
    assert recorded(folder, later) is None, "rows were added since"
    record_choice(folder, later, needs, [3])
    assert recorded(folder, later) == (later.rows, "held", needs.trials, [3])
    for content in ("", "[]", "{}", '{"rows": 1}'):
        (folder.path / "chosen.json").write_text(content)
        assert recorded(folder, later) is None, content


def test_gains_know_the_noise_of_seeds_where_a_configuration_ran_twice(folder: SweepFolder) -> None:
    assert noise(folder, Ledger(folder.events())) is None
    config = next(row["config"] for row in folder.events() if row["trial"] == 3 and row["event"] == "start")
    key = {"trial": 6, "attempt": 0}
    step = stored.MILESTONES[-1]
    with folder.writer() as writer:
        writer.append("trials", key | {"event": "start", "origin": "repeat", "replicate": 1, "config": config})
        scores = {"diverged": False, "overall": 0.7, "scores": stored.scores(2, step)}
        writer.append("reports", key | {"step": step, "examples": step} | scores, stored.evidence(2))
        writer.append("trials", key | {"event": "end", "state": "complete", "checkpoint": "checkpoints/6/0-300"})
    ledger = Ledger(folder.events())
    known = noise(folder, ledger)
    assert known is not None and known > 0
    chosen = select(folder, ledger, Choice(compare=True))
    assert chosen.seeds == (3, 6), "both runs of the best single trial's configuration"
    assert 6 in chosen.trials
    assert select(folder, ledger).seeds == ()
    for trial in chosen.trials:
        rows = [row | {"trial": trial} for row in stored.predictions(min(trial, 3)) if row["split"] == "held"]
        folder.write_table("predictions", rows, f"{trial}-0-held")
    record = conclude(folder, ledger, chosen)
    assert {member["trial"]: member["repeat_of"] for member in record["members"]}.get(6, 3) == 3
    assert all(member["repeat_of"] is None for member in record["members"] if member["trial"] != 6)
    assert record["noise"] == known
    assert record["gain_over_default"]["seeds"]["low"] < record["gain_over_default"]["low"]


def test_a_launch_chooses_by_cross_validation_and_compares_its_answer() -> None:
    assert (LAUNCH.method, LAUNCH.answer, Choice().answer) == ("auto", True, False)
