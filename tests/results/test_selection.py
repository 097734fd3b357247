"""Ensemble selection from stored predictions: chosen on `search`, estimated on `held`, saved, used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from results import predictions, selection
from results.ensembles import ENSEMBLES
from results.store import StoreError, SweepFolder
from tests.results.samples import SCORING, end, predict, report, start, sweep


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setattr(
        selection.estimates.bootstrap, "__kwdefaults__", {"resamples": 60, "seed": 1, "confidence": 0.95}
    )
    stored = sweep(tmp_path)
    with stored.writer() as writer:
        for trial in range(4):
            writer.append("trials", start(trial))
            writer.append("reports", report(trial, 300, 0.1 * trial))
            writer.append("trials", end(trial, "complete", checkpoint="weights"))
    predict(stored, [0.3, 0.6, 0.7, 0.8])
    return stored


@pytest.mark.parametrize("method", ENSEMBLES)
def test_an_ensemble_is_chosen_estimated_and_saved(folder: SweepFolder, method: str) -> None:
    record = selection.choose(folder, SCORING, method=method, size=3)
    assert record == selection.load(folder, f"{method}-3")
    assert record["candidates"] == [3, 2, 1, 0]
    assert sum(member["weight"] for member in record["members"]) <= 3
    held = record["estimates"]["ensemble"]["held"]
    assert held["overall"]["n"] == 60
    assert held["tasks"]["colour"]["n"] == 30
    assert record["estimates"]["ensemble"]["dev"]["overall"]["n"] == 120
    for role in ("ensemble", "best_single", "default"):
        estimate = record["estimates"][role]["held"]["overall"]
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
    best, default = (record["estimates"][role]["held"]["overall"]["value"] for role in ("best_single", "default"))
    assert best > default
    value = held["overall"]["value"]
    assert record["gain"]["value"] == pytest.approx(value - best)
    if method == "greedy":
        ensemble, single = (
            record["estimates"][role]["search"]["overall"]["value"] for role in ("ensemble", "best_single")
        )
        assert ensemble >= single


def test_held_labels_do_not_choose(tmp_path: Path, folder: SweepFolder) -> None:
    """With random labels on `held` the same members are chosen."""
    expected = selection.choose(folder, SCORING, size=4)["members"]
    file = folder.path / "examples" / "fingerprint.parquet"
    rows = folder.read("examples").to_pylist()
    file.unlink()
    noise = np.random.default_rng(0)
    wrong = [row | ({"label": float(noise.integers(0, 3))} if row["split"] == "held" else {}) for row in rows]
    folder.write_table("examples", wrong, "fingerprint")
    assert selection.choose(folder, SCORING, size=4)["members"] == expected


def test_combined_predictions_cover_every_row(folder: SweepFolder) -> None:
    record = selection.choose(folder, SCORING, method="top-k", size=3)
    dev = selection.combined(folder, record, ("search", "held", "dev"))
    assert dev["colour"].rows.tolist() == list(range(60))
    assert set(dev["colour"].values) <= {0.0, 1.0, 2.0}
    members = [predictions.member(folder, entry["trial"], ("test",)) for entry in record["members"]]
    test = selection.combined(folder, record, ("test",))
    assert test["length"].values == pytest.approx(np.mean([member["length"].values for member in members], axis=0))


def test_the_latest_attempt_counts(folder: SweepFolder) -> None:
    before = predictions.member(folder, 0, ("held",))["colour"].values
    predict(folder, [1.0], attempt=2)
    after = predictions.member(folder, 0, ("held",))["colour"].values
    assert predictions.predicted(folder) == {0: 2, 1: 0, 2: 0, 3: 0}
    assert not np.array_equal(before, after)


def test_incomplete_predictions_are_left_out(folder: SweepFolder) -> None:
    rows = folder.read("predictions", keys=["3-0"]).to_pylist()
    folder.write_table("predictions", [row | {"attempt": 1} for row in rows if row["row"] != 7], "3-1")
    record = selection.choose(folder, SCORING)
    assert record["candidates"] == [2, 1, 0]
    assert record["skipped"] == ["trial 3: its predictions are incomplete or not finite"]


def test_errors_say_what_would_work(tmp_path: Path, folder: SweepFolder) -> None:
    with pytest.raises(StoreError, match="Unknown ensemble method `best`. Expected one of: top-k, greedy"):
        selection.choose(folder, SCORING, method="best")
    with pytest.raises(StoreError, match="is not allowed"):
        selection.choose(folder, SCORING, name="../x")
    with pytest.raises(StoreError, match=r"Trials \[9\] of `one` have no predictions"):
        selection.choose(folder, SCORING, trials=[1, 9])
    with pytest.raises(StoreError, match="Trial 9 of `one` has no predictions. Trials with predictions: 0, 1, 2, 3"):
        predictions.member(folder, 9, ("held",))
    with pytest.raises(StoreError, match="No ensemble `x` in sweep `one`"):
        selection.load(folder, "x")
    with pytest.raises(ValueError, match="at least 1"):
        selection.choose(folder, SCORING, size=0)
    with pytest.raises(StoreError, match="No trial of `empty` has predictions on all of `search`"):
        selection.choose(sweep(tmp_path, "empty"), SCORING)


def test_parts_together_are_one_file_of_an_earlier_version(folder: SweepFolder) -> None:
    rows = folder.read("predictions", keys=["3-0"]).to_pylist()
    before = {split: predictions.member(folder, 3, (split,)) for split in ("search", "held", "test")}
    (folder.path / "predictions" / "3-0.parquet").unlink()
    headline = [row for row in rows if row["split"] == "held" and row["row"] < 20]
    dev = [row for row in rows if row["split"] != "test" and row not in headline]
    tests = [row for row in rows if row["split"] == "test"]
    for part, chosen in (("held", headline), ("dev", dev), ("test", tests)):
        assert folder.write_table("predictions", chosen, predictions.key(3, 0, part))
    for split, member in before.items():
        for task, prediction in predictions.member(folder, 3, (split,)).items():
            np.testing.assert_array_equal(prediction.rows, member[task].rows)
            np.testing.assert_array_equal(prediction.values, member[task].values)
    assert predictions.headline(folder, 3)["colour"].rows.tolist() == list(range(0, 20, 2))
    record = selection.choose(folder, SCORING)
    assert record["estimates"]["ensemble"]["held"]["overall"]["n"] == 20, "rows that all of the chosen have predicted"
    assert record["estimates"]["ensemble"]["dev"]["overall"]["n"] == 120


def test_the_full_dev_set_is_estimated_only_if_it_was_predicted(folder: SweepFolder) -> None:
    rows = folder.read("predictions").to_pylist()
    for trial in range(4):
        (folder.path / "predictions" / f"{trial}-0.parquet").unlink()
        own = [row for row in rows if row["trial"] == trial]
        folder.write_table("predictions", [row for row in own if row["split"] == "held"], f"{trial}-0-held")
        search = [row for row in own if row["split"] == "search"]
        folder.write_table("predictions", search if trial else search[1:], f"{trial}-0-dev")
    record = selection.choose(folder, SCORING, trials=[1, 2, 3])
    assert "dev" in record["estimates"]["ensemble"]
    record = selection.choose(folder, SCORING)
    assert record["candidates"] == [3, 2, 1]
    assert record["default"] == 0, "it is compared with on `held`, without predictions on all of `search`"
    assert record["estimates"]["default"].keys() == {"held"}
    assert record["gain_over_default"]["n"] == 60
    assert "dev" not in record["estimates"]["ensemble"]
