"""Ensemble selection from stored predictions: chosen on `search`, estimated on `held`, saved, used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results import choice, predictions, selection
from results.choice import Ensemble, Selection
from results.ensembles import AUTO, METHODS
from results.looks import look, looks
from results.predictions import predicted
from results.store import StoreError, SweepFolder
from results.views import ranking, trials_frame
from tests.results.samples import SCORING, end, predict, report, start, sweep


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    stored = sweep(tmp_path)
    with stored.writer() as writer:
        for trial in range(4):
            writer.append("trials", start(trial))
            writer.append("reports", report(trial, 300, 0.1 * trial, evaluation_seconds=1.0 + trial))
            writer.append("trials", end(trial, "complete", checkpoint="weights"))
    predict(stored, [0.3, 0.6, 0.7, 0.8])
    return stored


def choose(folder: SweepFolder, method: str = "greedy", size: int = 5, **options: Any) -> Selection:
    """A selection among all trials that have predicted."""
    order = ranking(trials_frame(folder)) or sorted(predicted(folder))
    return choice.select(folder, SCORING, method=method, size=size, trials=order, **options)


def conclude(folder: SweepFolder, method: str = "greedy", size: int = 5, **options: Any) -> dict[str, Any]:
    return selection.conclude(folder, SCORING, choose(folder, method, size, **options))


@pytest.mark.parametrize("method", [AUTO, *METHODS])
def test_an_ensemble_is_chosen_estimated_and_saved(folder: SweepFolder, method: str) -> None:
    record = conclude(folder, method, 3)
    assert record == selection.load(folder, f"{record['method']}-{record['size']}")
    assert record["candidates"] == [3, 2, 1, 0]
    assert record["method"] == method or method == AUTO
    assert len(record["members"]) <= 3
    for task in ("colour", "length"):
        assert sum(member["weights"][task] for member in record["members"]) == pytest.approx(1)
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


def test_the_record_says_what_each_member_adds_and_costs_and_how_the_methods_compare(folder: SweepFolder) -> None:
    record = conclude(folder, "average", 3)
    for part in ("search", "held"):
        added = [member["gain"][part] for member in record["members"]]
        assert added[0] is None
        whole = record["estimates"]["ensemble"][part]["overall"]["value"]
        first = record["estimates"]["best_single"][part]["overall"]["value"]
        assert record["members"][0]["trial"] == record["best_single"]
        assert first + sum(added[1:]) == pytest.approx(whole), part
    for member in record["members"]:  # trial k took k + 1 seconds
        assert member["seconds"] == pytest.approx((1 + member["trial"]) / (1 + record["best_single"]))
    assert record["seconds"] == pytest.approx(sum(member["seconds"] for member in record["members"]))
    single, tried = record["compared"]
    assert (single["method"], single["size"], single["members"]) == ("top-k", 1, 1)
    chosen = record["estimates"]["ensemble"]["search"]["overall"]["value"]
    assert tried["value"] + tried["optimism"] == pytest.approx(chosen)
    assert tried["gain"]["value"] == pytest.approx(tried["value"] - single["value"])


def test_methods_are_compared_on_request_and_the_seeds_of_the_best_configuration_are_an_ensemble(
    folder: SweepFolder,
) -> None:
    best = choose(folder).best_single
    runs = [0, best]
    record = conclude(folder, "top-k", 2, compare=[runs, [1]])
    assert (record["method"], record["seeds"]) == ("top-k", runs)
    assert {line["method"] for line in record["compared"]} == set(METHODS)
    parts = [predictions.headline(folder, trial)["length"].values for trial in runs]
    rows = {task: prediction.rows for task, prediction in predictions.headline(folder, 1).items()}
    labels = choice.labels_of(folder, SCORING, ("held",), rows)
    r = SCORING.score("pearson", np.mean(parts, axis=0), labels["length"])
    assert record["estimates"]["seeds"]["held"]["tasks"]["length"]["value"] == pytest.approx(r)
    assert not choose(folder, compare=[[0, 1], [best]]).seeds, "one run is no ensemble"


def test_every_predictor_that_is_shown_on_held_counts_once(folder: SweepFolder) -> None:
    assert conclude(folder, "average", 3)["looks"] == 3, "the ensemble, the best single trial, the default"
    assert conclude(folder, "average", 3)["looks"] == 3, "the same again"
    assert conclude(folder, "average", 2)["looks"] == 4
    assert conclude(folder, "top-k", 2)["looks"] == 5, "the same members by vote predict otherwise"
    assert conclude(folder, "top-k", 1)["looks"] == 5, "the best single trial was shown"
    look(folder, {0: {"length": 1.0, "colour": 1.0}})
    assert looks(folder) == 5, "so was the default"
    look(folder, {1: {"length": 1.0, "colour": 1.0}})
    assert looks(folder) == 6


def test_gains_allow_for_other_seeds_where_their_noise_is_known(folder: SweepFolder) -> None:
    chosen = choose(folder, "average", 2)
    gain = selection.conclude(folder, SCORING, chosen)["gain"]
    assert gain["seeds"] is None
    wide = selection.conclude(folder, SCORING, chosen, noise=0.02)["gain"]
    spread = 0.02 * np.sqrt(0.5**2 + 0.5**2)  # half of trial 3 and half of trial 2, minus trial 3
    assert (wide["low"], wide["high"]) == (gain["low"], gain["high"])
    half = np.hypot(gain["high"] - gain["value"], 1.959964 * spread)
    assert wide["seeds"]["high"] - wide["value"] == pytest.approx(half, rel=1e-5)


def test_the_heaviest_members_of_an_ensemble_alone() -> None:
    weights = {"colour": np.array([0.6, 0.4, 0.0]), "length": np.array([0.0, 0.25, 0.75])}
    ensemble = Ensemble((5, 2, 7), weights)
    assert ensemble.first(1).weights == {"colour": [1.0], "length": [1.0]}, "no weight: they count alike"
    assert ensemble.first(2).weights["colour"].tolist() == [0.6, 0.4]
    assert ensemble.first(2).weights["length"].tolist() == [0.0, 1.0]
    assert ensemble.shares == pytest.approx({5: 0.3, 2: 0.325, 7: 0.375})


@pytest.mark.parametrize("method", [AUTO, *METHODS])
def test_held_labels_do_not_choose(folder: SweepFolder, method: str) -> None:
    """With random labels on `held`, and labels for the test files, method, members and weights stay the same."""

    def chosen() -> tuple[Any, ...]:
        found = choose(folder, method, 4)
        assert found.ensemble is not None
        weights = {task: own.tolist() for task, own in found.ensemble.weights.items()}
        return found.method, found.size, found.ensemble.trials, weights, found.tried

    expected = chosen()
    file = folder.path / "examples" / "fingerprint.parquet"
    rows = folder.read("examples").to_pylist()
    file.unlink()
    noise = np.random.default_rng(0)
    wrong = [row if row["split"] == "search" else row | {"label": float(noise.integers(0, 3))} for row in rows]
    folder.write_table("examples", wrong, "fingerprint")
    assert chosen() == expected


def test_combined_predictions_cover_every_row(folder: SweepFolder) -> None:
    record = conclude(folder, "top-k", 3)
    dev = selection.combined(folder, record, ("search", "held", "dev"))
    assert dev["colour"].rows.tolist() == list(range(60))
    assert set(dev["colour"].values) <= {0.0, 1.0, 2.0}
    members = [predictions.member(folder, entry["trial"], ("test",)) for entry in record["members"]]
    test = selection.combined(folder, record, ("test",))
    assert test["length"].values == pytest.approx(np.mean([member["length"].values for member in members], axis=0))


def test_members_with_weights_by_task_and_those_of_an_earlier_version_are_combined(folder: SweepFolder) -> None:
    members = [{"trial": 3, "weight": 3}, {"trial": 1, "weight": 1}]
    own, other = (predictions.member(folder, trial, ("test",))["length"].values for trial in (3, 1))
    record = {"name": "old", "combination": "average", "members": members}
    test = selection.combined(folder, record, ("test",))
    assert test["length"].values == pytest.approx(0.75 * own + 0.25 * other)
    shares = ({"colour": 1.0, "length": 0.2}, {"colour": 0.0, "length": 0.8})
    record["members"] = [member | {"weights": share} for member, share in zip(members, shares, strict=True)]
    test = selection.combined(folder, record, ("test",))
    assert test["length"].values == pytest.approx(0.2 * own + 0.8 * other)
    assert np.array_equal(test["colour"].values, predictions.member(folder, 3, ("test",))["colour"].values)


def test_the_latest_attempt_counts(folder: SweepFolder) -> None:
    before = predictions.member(folder, 0, ("held",))["colour"].values
    predict(folder, [1.0], attempt=2)
    after = predictions.member(folder, 0, ("held",))["colour"].values
    assert predictions.predicted(folder) == {0: 2, 1: 0, 2: 0, 3: 0}
    assert not np.array_equal(before, after)


def test_incomplete_predictions_are_left_out(folder: SweepFolder) -> None:
    rows = folder.read("predictions", keys=["3-0"]).to_pylist()
    folder.write_table("predictions", [row | {"attempt": 1} for row in rows if row["row"] != 7], "3-1")
    record = conclude(folder)
    assert record["candidates"] == [2, 1, 0]
    assert record["skipped"] == ["trial 3: its predictions are incomplete or not finite"]


def test_errors_say_what_would_work(tmp_path: Path, folder: SweepFolder) -> None:
    with pytest.raises(ValueError, match="Unknown ensemble method `best`. Expected one of: auto, top-k"):
        choose(folder, "best")
    with pytest.raises(StoreError, match="is not allowed"):
        selection.conclude(folder, SCORING, choose(folder), name="../x")
    with pytest.raises(StoreError, match="Trial 9 of `one` has no predictions. Trials with predictions: 0, 1, 2, 3"):
        predictions.member(folder, 9, ("held",))
    with pytest.raises(StoreError, match="No ensemble `x` in sweep `one`"):
        selection.load(folder, "x")
    with pytest.raises(ValueError, match="at least 1"):
        choose(folder, size=0)
    with pytest.raises(StoreError, match="No trial of `empty` has predictions on all of `search`"):
        conclude(sweep(tmp_path, "empty"))


def test_too_few_rows_for_cross_validation_are_no_error(tmp_path: Path) -> None:
    small = sweep(tmp_path, "small")
    predict(small, [0.5, 0.9], rows=6)
    chosen = choose(small, AUTO, 2)
    assert (chosen.method, chosen.tried) == ("greedy", [])
    assert selection.conclude(small, SCORING, chosen)["compared"] == []


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
    record = conclude(folder)
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
    with_dev = choice.select(folder, SCORING, method="greedy", trials=[3, 2, 1])
    record = selection.conclude(folder, SCORING, with_dev)
    assert "dev" in record["estimates"]["ensemble"]
    record = conclude(folder)
    assert record["candidates"] == [3, 2, 1]
    assert record["default"] == 0, "it is compared with on `held`, without predictions on all of `search`"
    assert record["estimates"]["default"].keys() == {"held"}
    assert record["gain_over_default"]["n"] == 60
    assert "dev" not in record["estimates"]["ensemble"]
