"""Predictions part by part: together the parts are every row of the dev and test files, each once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minbert.data.tokens import Data
from minbert.tasks import TASKS
from minbert.training.predict import PARTS, part_rows, predict
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
