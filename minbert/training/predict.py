"""Predictions for every row of a data folder, from the weights of a trial's checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from minbert.config import Config
from minbert.data.tokens import Data
from minbert.training import checkpoints
from minbert.training.evaluation import Prediction, predict_rows
from minbert.training.model import MultitaskModel
from minbert.training.train import default_device

SPLITS = ("search", "held", "dev", "test")
"""Splits that have predictions: the dev file's two scored parts, its unlabelled rest, and the test file."""


def load_model(checkpoint: Path, data: Data, device: torch.device | None = None) -> MultitaskModel:
    """Model of a trial checkpoint, with its weights. Raises TrialCheckpointError."""
    trial, _ = checkpoints.read_trial(checkpoint)
    if trial["base"]["sha256"] != data.base.sha256:
        raise checkpoints.TrialCheckpointError(
            f"{checkpoint} was trained from base {trial['base']['name']} with SHA-256 {trial['base']['sha256']}, "
            f"not from {data.base.name} with {data.base.sha256}."
        )
    if trial["data"] != data.fingerprint:
        raise checkpoints.TrialCheckpointError(
            f"{checkpoint} was trained on data with fingerprint {trial['data']}, these files have {data.fingerprint}: "
            "predictions for different rows cannot be compared with it."
        )
    model = MultitaskModel(Config.from_dict(trial["config"], data.tasks), data.base, data.tasks, trial["seed"])
    weights = checkpoints.read_tensors(checkpoint, "weights")
    mismatch = model.load_state_dict(weights, strict=False)
    if mismatch.unexpected_keys or set(model.trainable()) - set(weights):
        raise checkpoints.TrialCheckpointError(f"{checkpoint} does not hold the tensors that its configuration trains.")
    model.dtype = getattr(torch, trial["arithmetic"])
    return model.to(device or default_device())


def predict(
    checkpoint: Path, data: Data, splits: Sequence[str] = SPLITS, *, device: torch.device | None = None
) -> Iterator[tuple[str, str, Prediction]]:
    """(task, split, prediction) for every task and split that the data has. Raises TrialCheckpointError."""
    model = load_model(checkpoint, data, device)
    for task in data.tasks:
        for split in splits:
            if (task, split) in data.parts:
                yield task, split, predict_rows(model, data, task, split, data.parts[task, split])
