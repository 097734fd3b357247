"""Held-out scores of what a sweep would have handed over at each minute, by one code for both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks import rival
from benchmarks.sweeps.data import held_rows, labels_of
from benchmarks.sweeps.stock_trial import TASKS_HERE, build, predictions
from benchmarks.sweeps.timeline import Given, Timeline, incumbents
from minbert.data.files import read_corpus
from minbert.data.tokens import open_data
from minbert.encoder.base import find_base
from minbert.training.evaluation import Values, judge, predict_rows
from minbert.training.predict import load_model

Predict = Callable[[Path], Values]
"""From a path of weights to predictions and labels on the held rows."""


def of_ours(given: Given, most: int | None) -> Predict:
    corpus = read_corpus(given.data)
    data = open_data(given.data, find_base(), corpus=corpus)
    chosen = held_rows(corpus, most)
    labels = labels_of(corpus, chosen)

    def predict(path: Path) -> Values:
        model = load_model(path, data)
        return {
            name: (predict_rows(model, data, name, "dev", rows).values, labels[name]) for name, rows in chosen.items()
        }

    return predict


def of_stock(given: Given, most: int | None) -> Predict:
    corpus, base = read_corpus(given.data), find_base()
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
    """The overall score on `held` of every incumbent, by the path of its weights."""
    found = {}
    for report in incumbents(timeline.reports):
        found[report.weights] = judge(TASKS_HERE, predict(Path(report.weights))).overall
    return found


def size(given: Given, most: int | None) -> int:
    """Held rows of all tasks together."""
    return int(np.sum([len(rows) for rows in held_rows(read_corpus(given.data), most).values()]))
