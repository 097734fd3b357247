"""Predictions from the weights of a trial: for a data folder, part by part, or for any texts without training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minbert.config import Config
from minbert.data.tokens import Data, TaskFile, Texts, word_piece
from minbert.encoder.base import Base, find_base
from minbert.tasks import Task, choose_tasks
from minbert.training import checkpoints, exported
from minbert.training.evaluation import Prediction, predict_file, predict_rows
from minbert.training.model import MultitaskModel
from minbert.training.train import default_device

PARTS = ("held", "dev", "test")
"""Parts of what can be predicted: the rows of `held` on which headlines are estimated, all other rows of the dev files,
the test files."""


def part_rows(data: Data, task: str, part: str) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """(split, row numbers) of a task's rows in one of `PARTS`."""
    most = data.tasks[task].headline_rows
    held = data.parts[task, "held"]
    headline = len(held) if most is None else most
    rows = {
        "held": [("held", held[:headline])],
        "dev": [("search", data.parts[task, "search"]), ("held", held[headline:]), ("dev", data.parts[task, "dev"])],
        "test": [("test", data.parts[task, "test"])] if (task, "test") in data.parts else [],
    }
    yield from ((split, numbers) for split, numbers in rows[part] if len(numbers))


def load_model(checkpoint: Path, data: Data, device: torch.device | None = None) -> MultitaskModel:
    """Model of a trial checkpoint, with its weights, for the data of its training. Raises TrialCheckpointError."""
    trial, _ = checkpoints.read_trial(checkpoint)
    model = model_of(checkpoint, data.base, data.tasks)
    if trial["data"] != data.fingerprint:
        raise checkpoints.TrialCheckpointError(
            f"{checkpoint} was trained on data with fingerprint {trial['data']}, these files have {data.fingerprint}: "
            "predictions for different rows cannot be compared with it."
        )
    return model.to(device or default_device())


def model_of(checkpoint: Path, base: Base, tasks: dict[str, Task]) -> MultitaskModel:
    """Model of a trial checkpoint, with its weights, on the CPU. Raises TrialCheckpointError."""
    trial, _ = checkpoints.read_trial(checkpoint)
    if trial["base"]["sha256"] != base.sha256:
        raise checkpoints.TrialCheckpointError(
            f"{checkpoint} was trained from base {trial['base']['name']} with SHA-256 {trial['base']['sha256']}, "
            f"not from {base.name} with {base.sha256}."
        )
    model = MultitaskModel(Config.from_dict(trial["config"], tasks), base, tasks, trial["seed"])
    weights = checkpoints.read_tensors(checkpoint, "weights")
    mismatch = model.load_state_dict(weights, strict=False)
    if mismatch.unexpected_keys or set(model.trainable()) - set(weights):
        raise checkpoints.TrialCheckpointError(f"{checkpoint} does not hold the tensors that its configuration trains.")
    model.dtype = getattr(torch, trial["arithmetic"])
    return model


def predict(
    checkpoint: Path, data: Data, parts: Sequence[str] = PARTS, *, device: torch.device | None = None
) -> Iterator[tuple[str, str, Prediction]]:
    """(task, split, prediction) for the rows of some of `PARTS` that the data has. Raises TrialCheckpointError."""
    yield from predictions(load_model(checkpoint, data, device), data, parts)


def predictions(
    model: MultitaskModel, data: Data, parts: Sequence[str] = PARTS
) -> Iterator[tuple[str, str, Prediction]]:
    """(task, split, prediction) of a model for the rows of some of `PARTS` that the data has."""
    for part in parts:
        for task in data.tasks:
            for split, rows in part_rows(data, task, part):
                yield task, split, predict_rows(model, data, task, split, rows)


@dataclass(frozen=True)
class Predictor:
    """A trained model that predicts texts."""

    model: MultitaskModel
    base: Base
    """The encoder that the model was built from; its vocabulary cuts the texts into word pieces."""

    @classmethod
    def of(cls, model: MultitaskModel, base: Base, device: torch.device | None = None) -> Predictor:
        """Predictor with a model, which moves to the device (None: the first GPU, else the CPU)."""
        model.caches_features = False  # that cache is for rows that many trials read again
        return cls(model.to(device or default_device()), base)

    def __call__(self, task: str, texts: Sequence[tuple[str, ...]]) -> Prediction:
        """Predictions for rows of one task, each with a text for every column of the task, in their order."""
        tokenizer = word_piece(self.base.vocabulary, self.base.lowercase)
        columns = [Texts.of(column, tokenizer) for column in zip(*texts, strict=True)]
        file = TaskFile(tuple(columns), np.full(len(texts), np.nan, dtype=np.float32))
        return predict_file(self.model, task, file, np.arange(len(texts), dtype=np.int32))


def open_predictor(path: Path, base: str | None = None) -> Predictor:
    """Predictor of an exported model, of a trial checkpoint, or of a training folder, whose newest checkpoint counts.

    `base` says where a checkpoint's base encoder lies; None: where it lay in training. Raises ExportError,
    TrialCheckpointError, BaseEncoderError.
    """
    if exported.is_exported(path):
        return Predictor.of(*exported.read(path))
    checkpoint = path if checkpoints.is_complete(path) else checkpoints.newest(path)
    if checkpoint is None:
        raise checkpoints.TrialCheckpointError(
            f"{path} holds no model: expected an exported directory with {exported.RECORD}, or a folder with a "
            "complete checkpoint."
        )
    trial, _ = checkpoints.read_trial(checkpoint)
    found = find_base(trial["base"]["name"] if base is None else base)
    return Predictor.of(model_of(checkpoint, found, choose_tasks(trial["consumed"])), found)
