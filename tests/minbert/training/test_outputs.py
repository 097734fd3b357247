"""Predictions as CSV and JSON lines: every digit that float32 has, whole or not at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from minbert.training.outputs import check_out, format_of, text_of, write

IDS = ["7", 'a,"b"', "ü"]
VALUES = np.array([2, 0, 1], np.float64)
CHANCES = np.random.default_rng(0).dirichlet([0.1, 1, 5], 3).astype(np.float32)
SCORES = np.array([1 / 3, 5e-9, 4.75], np.float32).astype(np.float64)


def test_classes_with_probabilities() -> None:
    header, *rows = csv.reader(text_of(IDS, VALUES, CHANCES, "csv").splitlines())
    assert header == ["id", "prediction", "probability_0", "probability_1", "probability_2"]
    assert [row[:2] for row in rows] == [[name, str(int(value))] for name, value in zip(IDS, VALUES, strict=True)]
    assert (np.array([row[2:] for row in rows], np.float32) == CHANCES).all()
    lines = [json.loads(line) for line in text_of(IDS, VALUES, CHANCES, "jsonl").splitlines()]
    assert [(line["id"], line["prediction"]) for line in lines] == list(zip(IDS, VALUES, strict=True))
    assert (np.array([line["probabilities"] for line in lines], np.float32) == CHANCES).all()


def test_scores() -> None:
    header, *rows = csv.reader(text_of(IDS, SCORES, None, "csv").splitlines())
    assert header == ["id", "prediction"]
    assert (np.array([row[1] for row in rows], np.float32) == SCORES.astype(np.float32)).all()
    lines = [json.loads(line) for line in text_of(IDS, SCORES, None, "jsonl").splitlines()]
    assert all(line.keys() == {"id", "prediction"} for line in lines)
    with pytest.raises(ValueError, match='row a,"b" is not finite'):
        text_of(IDS, np.array([1.0, np.nan, 2.0]), None, "jsonl")


def test_files_are_replaced_on_request(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.jsonl"
    assert [format_of(path), format_of(None), format_of(None, as_json=True)] == ["jsonl", "csv", "jsonl"]
    check_out(path)
    write("first\n", path)
    with pytest.raises(ValueError, match="exists; name another file, or add --overwrite"):
        check_out(path)
    check_out(path, overwrite=True)
    write("second\n", path)
    assert path.read_text() == "second\n" and [one.name for one in path.parent.iterdir()] == ["scores.jsonl"]
    with pytest.raises(ValueError, match="is a folder"):
        check_out(tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="`--out`: cannot write"):
        write("", path / "below.csv")
