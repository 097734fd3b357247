"""Predictions for the rows of a data folder, part by part, from the weights of a trial's checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minbert.config import Config
from minbert.data.tokens import Data
from minbert.training import checkpoints
from minbert.training.evaluation import Prediction, predict_rows
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
    checkpoint: Path, data: Data, parts: Sequence[str] = PARTS, *, device: torch.device | None = None
) -> Iterator[tuple[str, str, Prediction]]:
    """(task, split, prediction) for the rows of some of `PARTS` that the data has. Raises TrialCheckpointError."""
    model = load_model(checkpoint, data, device)
    for part in parts:
        for task in data.tasks:
            for split, rows in part_rows(data, task, part):
                yield task, split, predict_rows(model, data, task, split, rows)
