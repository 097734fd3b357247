"""Evaluation: predictions and scores of a model on a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from minbert.data.batches import by_length
from minbert.data.tokens import Data, TaskFile
from minbert.metrics import is_constant, overall, score
from minbert.tasks import Task
from minbert.training import evidence
from minbert.training.evidence import Array
from minbert.training.model import MultitaskModel

BATCH_TOKENS = 4096
"""Tokens of an evaluation batch: enough to fill the matrix units, few enough for 1 GiB of activations."""


class Interrupted(Exception):  # noqa: N818  a request, not an error
    """Raised when `should_pause()` asks for a pause during an evaluation."""


def never() -> bool:
    """A `should_pause` that never asks for a pause."""
    return False


@dataclass(frozen=True)
class Prediction:
    """A model's outputs on rows of one task."""

    rows: NDArray[np.int32]
    """Row numbers in the task's file [R]."""
    values: NDArray[np.float64]
    """Predicted class or score [R]."""
    probabilities: NDArray[np.float32] | None
    """Class probabilities [R, C]; None for a regression."""

    def evidence(self) -> Array:
        """The prediction as evidence of a report; see `minbert.training.evidence`."""
        if self.probabilities is None:
            return evidence.scores(self.values)
        return evidence.probabilities(self.values, self.probabilities)

    @staticmethod
    def of(rows: NDArray[np.int32], array: Array) -> Prediction:
        """The prediction that evidence holds: its values exactly, its probabilities rounded to float16."""
        if array.dtype == np.float32:
            return Prediction(rows, array.astype(np.float64), None)
        chances = array.astype(np.float32)
        if chances.ndim == 1:
            return Prediction(rows, (array > 0.5).astype(np.float64), np.stack([1 - chances, chances], axis=1))
        return Prediction(rows, array.argmax(1).astype(np.float64), chances)

    def then(self, other: Prediction) -> Prediction:
        """This prediction and one of further rows of the same task, joined."""
        chances = None
        if self.probabilities is not None and other.probabilities is not None:
            chances = np.concatenate([self.probabilities, other.probabilities])
        rows, values = np.concatenate([self.rows, other.rows]), np.concatenate([self.values, other.values])
        return Prediction(rows, values, chances)


def predict_rows(
    model: MultitaskModel,
    data: Data,
    task: str,
    split: str,
    rows: NDArray[np.int32],
    should_pause: Callable[[], bool] = never,
) -> Prediction:
    """Predict rows of a split; see `predict_file`."""
    return predict_file(model, task, data.file(task, split), rows, should_pause)


@torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
def predict_file(
    model: MultitaskModel,
    task: str,
    file: TaskFile,
    rows: NDArray[np.int32],
    should_pause: Callable[[], bool] = never,
) -> Prediction:
    """Predict rows of a file without dropout, in batches of similar length.

    Raises Interrupted before a batch if `should_pause()` returns True.
    """
    reading = model.readings[task]
    batches = []
    for group in by_length(reading.encoding.lengths(file, reading.limit)[:, rows], BATCH_TOKENS):
        if should_pause():
            raise Interrupted
        batches.append((group, model([model.batch(task, file, rows[group])])[0]))
    outputs = torch.empty(len(rows), model.tasks[task].classes)
    for group, values in batches:  # after all batches: each copy waits for the device
        outputs[torch.from_numpy(group)] = values.cpu()
    if model.tasks[task].kind == "regression":
        return Prediction(rows, outputs[:, 0].double().numpy(), None)
    # Logits that are not finite give no class but NaN, which no metric scores.
    values = torch.where(outputs.isfinite().all(-1), outputs.argmax(-1).double(), torch.nan)
    return Prediction(rows, values.numpy(), outputs.softmax(-1).numpy())


@dataclass(frozen=True)
class Scores:
    """Scores of each task and overall."""

    tasks: dict[str, float]
    """Score by task, on the task's metric."""
    overall: float
    """Overall score."""
    flags: tuple[str, ...]
    """`constant:<task>` where a correlation is undefined and counted as 0."""


def scored_rows(data: Data, task: str, split: str) -> NDArray[np.int32]:
    """Labelled dev rows of a split: `search`, `held`, or `labelled` (both)."""
    if split in ("search", "held"):
        return data.parts[task, split]
    return np.concatenate([data.parts[task, "search"], data.parts[task, "held"]])


Values = dict[str, tuple[NDArray[np.float64], NDArray[np.float32]]]
"""By task: predicted classes or scores [R], and the labels [R] of the same rows."""


def predict_dev(
    model: MultitaskModel,
    data: Data,
    split: str = "search",
    *,
    sizes: Mapping[str, int] | None = None,
    after: Mapping[str, int] | None = None,
    should_pause: Callable[[], bool] = never,
) -> dict[str, Prediction]:
    """Predictions by task on the dev split `search`, `held` or `labelled`; see `scored_rows`.

    `sizes` limits them to the first rows of each task that it names, and `after` leaves out so many of these. Raises
    Interrupted if `should_pause()` returns True.
    """
    first, end = after or {}, sizes or {}
    rows = {name: scored_rows(data, name, split)[first.get(name, 0) : end.get(name)] for name in data.tasks}
    return {name: predict_rows(model, data, name, "dev", rows[name], should_pause) for name in data.tasks}


def with_labels(data: Data, predictions: Mapping[str, Prediction]) -> Values:
    """Predicted values with the labels of their rows, by task, of rows of the dev files."""
    return {
        name: (prediction.values, data.file(name, "dev").labels[prediction.rows])
        for name, prediction in predictions.items()
    }


def judge(tasks: Mapping[str, Task], values: Values) -> Scores:
    """Score predictions against labels: each task by its metric, all tasks by `minbert.metrics.overall`."""
    scores = {name: score(tasks[name].metric, *columns) for name, columns in values.items()}
    flags = [
        f"constant:{name}"
        for name, (predicted, _) in values.items()
        if tasks[name].metric == "pearson" and is_constant(predicted)
    ]
    metrics = {name: task.metric for name, task in tasks.items()}
    weights = {name: task.weight for name, task in tasks.items()}
    return Scores(scores, overall(scores, metrics, weights), tuple(flags))


def evaluate(model: MultitaskModel, data: Data, split: str = "search") -> Scores:
    """Score a model on the dev split `search`, `held` or `labelled`; see `scored_rows`."""
    return judge(data.tasks, with_labels(data, predict_dev(model, data, split)))
