"""An ensemble from stored predictions: chosen on `search`, reported on `held`, saved, used."""

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
    made = sweep(tmp_path)
    with made.writer() as writer:
        for trial in range(4):
            writer.append("trials", start(trial))
            writer.append("reports", report(trial, 300, 0.1 * trial))
            writer.append("trials", end(trial, "complete", checkpoint="weights"))
    predict(made, [0.3, 0.6, 0.7, 0.8])
    return made


@pytest.mark.parametrize("method", ENSEMBLES)
def test_chosen_estimated_saved(folder: SweepFolder, method: str) -> None:
    record = selection.choose(folder, SCORING, method=method, size=3)
    assert record == selection.load(folder, f"{method}-3")
    assert record["candidates"] == [3, 2, 1, 0]
    assert sum(one["weight"] for one in record["members"]) <= 3
    held = record["estimates"]["ensemble"]["held"]
    assert held["overall"]["n"] == 60
    assert held["tasks"]["colour"]["n"] == 30
    assert record["estimates"]["ensemble"]["dev"]["overall"]["n"] == 120
    for who in ("ensemble", "best_single", "default"):
        about = record["estimates"][who]["held"]["overall"]
        assert about["low"] <= about["value"] <= about["high"]
    best, default = (record["estimates"][who]["held"]["overall"]["value"] for who in ("best_single", "default"))
    assert best > default
    value = held["overall"]["value"]
    assert record["gain"]["value"] == pytest.approx(value - best)
    if method == "greedy":
        on_search = {who: record["estimates"][who]["search"]["overall"]["value"] for who in ("ensemble", "best_single")}
        assert on_search["ensemble"] >= on_search["best_single"]


def test_held_labels_do_not_choose(tmp_path: Path, folder: SweepFolder) -> None:
    """Every held label turned into nonsense: the members are the same."""
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
    members = [predictions.member(folder, one["trial"], ("test",)) for one in record["members"]]
    test = selection.combined(folder, record, ("test",))
    assert test["length"].values == pytest.approx(np.mean([one["length"].values for one in members], axis=0))


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
    with pytest.raises(StoreError, match="is no name"):
        selection.choose(folder, SCORING, name="../x")
    with pytest.raises(StoreError, match=r"Trials \[9\] of `one` have no predictions"):
        selection.choose(folder, SCORING, trials=[1, 9])
    with pytest.raises(StoreError, match="Trial 9 of `one` has no predictions. Trials that have: 0, 1, 2, 3"):
        predictions.member(folder, 9, ("held",))
    with pytest.raises(StoreError, match="No ensemble `x` in sweep `one`"):
        selection.load(folder, "x")
    with pytest.raises(ValueError, match="at least 1"):
        selection.choose(folder, SCORING, size=0)
    with pytest.raises(StoreError, match="No labels of"):
        selection.choose(sweep(tmp_path, "empty"), SCORING)
