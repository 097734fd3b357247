"""Predictions part by part, each row of the dev and test files once; predictions for any texts equal them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minbert.data.files import read_file
from minbert.data.tokens import Data
from minbert.encoder.base import BaseEncoderError
from minbert.tasks import TASKS
from minbert.training.checkpoints import TrialCheckpointError
from minbert.training.predict import PARTS, open_predictor, part_rows, predict
from minbert.training.train import State, train
from tests.minbert.configs import configure


@pytest.mark.parametrize("most", [None, 1, 5, 999])
def test_parts_are_every_row_once_and_the_headline_is_a_prefix_of_held(data: Data, most: int | None) -> None:
    tasks = {name: replace(task, headline_rows=most) for name, task in data.tasks.items()}
    capped = replace(data, tasks=tasks)
    for task in tasks:
        found: dict[str, list[int]] = {}
        for part in PARTS:
            for split, rows in part_rows(capped, task, part):
                assert part != "held" or rows.tolist() == data.parts[task, "held"][:most].tolist()
                found.setdefault(split, []).extend(rows.tolist())
        expected = {split: data.parts[task, split].tolist() for split in ("search", "held", "dev", "test")}
        assert found == {split: rows for split, rows in expected.items() if rows}


def test_headlines_use_5000_pairs_of_qqp_and_all_of_the_others() -> None:
    assert {name: task.headline_rows for name, task in TASKS.items()} == {
        "sst": None, "qqp": 5000, "sts": None, "cfimdb": None
    }  # fmt: skip


def test_a_part_predicts_what_all_parts_together_do(data: Data, tmp_path: Path) -> None:
    path = Path(next(train(configure(), data, State.fresh(0, (64,), tmp_path))).checkpoint)
    together = [(task, split, prediction.values) for task, split, prediction in predict(path, data)]
    apart = [(task, split, found.values) for part in PARTS for task, split, found in predict(path, data, [part])]
    for (*first, values), (*second, others) in zip(together, apart, strict=True):
        assert first == second
        np.testing.assert_array_equal(values, others)


@pytest.fixture(scope="module")
def checkpoint(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a trained tiny model."""
    folder = tmp_path_factory.mktemp("trained")
    return Path(next(train(configure("adapter/kind=lora"), data, State.fresh(0, (64,), folder))).checkpoint)


@pytest.mark.parametrize("task", ["sst", "qqp", "sts"])
def test_texts_are_predicted_as_the_rows_of_a_data_folder(
    task: str, data: Data, checkpoint: Path, corpus_folder: Path
) -> None:
    texts = read_file(corpus_folder / TASKS[task].files["test"], TASKS[task], labelled=False)[0].texts
    found = open_predictor(checkpoint.parent)(task, texts)
    for name, split, expected in predict(checkpoint, data, ["test"]):
        if name == task:
            assert split == "test"
            np.testing.assert_array_equal(found.values, expected.values)
            np.testing.assert_array_equal(found.rows, expected.rows)
            assert found.probabilities is None or (found.probabilities == expected.probabilities).all()


def test_a_frozen_encoder_predicts_texts_without_the_feature_cache(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(next(train(configure("adapter/kind=frozen"), data, State.fresh(0, (64,), tmp_path / "t"))).checkpoint)
    expected = {task: prediction for task, _, prediction in predict(path, data, ["test"])}
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    texts = [("one 0", "two 0"), ("one 1", "two 1")]
    np.testing.assert_allclose(open_predictor(path)("sts", texts).values, expected["sts"].values[:2], atol=1e-5)
    assert not (tmp_path / "cache").exists()


def test_what_is_no_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(TrialCheckpointError, match="holds no model: expected an exported directory"):
        open_predictor(tmp_path)
    with pytest.raises(BaseEncoderError, match="names no directory"):
        open_predictor(checkpoint, "./nosuch")
