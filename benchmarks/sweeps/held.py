"""Held-out scores of the trials that a sweep would have returned at each minute; the same code scores both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import rival
from benchmarks.sweeps.data import held_rows, labels_of
from benchmarks.sweeps.stock_trial import TASKS_HERE, build, predictions
from benchmarks.sweeps.timeline import Setup, Timeline, incumbents
from minbert.data.files import read_corpus
from minbert.data.tokens import open_data
from minbert.encoder.base import find_base
from minbert.training.evaluation import Values, judge, predict_rows
from minbert.training.predict import load_model

Predict = Callable[[Path], Values]
"""Function from a path of weights to predictions and labels of the held rows."""


def of_ours(setup: Setup, most: int | None) -> Predict:
    """The prediction function for checkpoints of our sweep, on at most `most` held rows of each task."""
    corpus = read_corpus(setup.data)
    data = open_data(setup.data, find_base(), corpus=corpus)
    chosen = held_rows(corpus, most)
    labels = labels_of(corpus, chosen)

    def predict(path: Path) -> Values:
        model = load_model(path, data)
        return {
            name: (predict_rows(model, data, name, "dev", rows).values, labels[name]) for name, rows in chosen.items()
        }

    return predict


def of_stock(setup: Setup, most: int | None) -> Predict:
    """The prediction function for weights of the stock sweep, on at most `most` held rows of each task."""
    corpus, base = read_corpus(setup.data), find_base()
    assert base.path is not None
    tokenizer, chosen = rival.tokenizer_of(base.path), held_rows(corpus, most)
    labels = labels_of(corpus, chosen)
    rows = {name: rival.tokenised(corpus.rows[name, "dev"], numbers, tokenizer) for name, numbers in chosen.items()}

    def predict(path: Path) -> Values:
        config = json.loads((path.parent.parent / "params.json").read_text())
        model = build(config, str(base.path))
        model.load_state_dict(torch.load(path, weights_only=True))
        return predictions(model.to(rival.device()), rows, labels, tokenizer)

    return predict


def scores(timeline: Timeline, predict: Predict) -> dict[str, float]:
    """The overall score on `held` of each incumbent, by the path of its weights."""
    paths = [report.weights for report in incumbents(timeline.reports)]
    return {path: judge(TASKS_HERE, predict(Path(path))).overall for path in paths}


def size(setup: Setup, most: int | None) -> int:
    """Number of held rows of all tasks together."""
    return int(np.sum([len(rows) for rows in held_rows(read_corpus(setup.data), most).values()]))
