"""Predictions for texts of one's own: what both command lines ask for, read, predicted and written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from minbert.data.inputs import read_inputs
from minbert.tasks import Task, named_or_only
from minbert.training import outputs


class Predicted(Protocol):
    """Predictions for rows of one task."""

    @property
    def values(self) -> NDArray[np.float64]:
        """Predicted classes or scores [R]."""

    @property
    def probabilities(self) -> NDArray[np.floating[Any]] | None:
        """Probabilities of the classes [R, C]; None for a regression."""


@dataclass(frozen=True)
class TextRequest:
    """Texts to predict, and where their predictions go."""

    source: Path | None
    """File of texts; None or `-`: standard input."""
    task: str | None = None
    """Task whose head predicts; None: the only one."""
    columns: str | None = None
    """Text columns with commas between, in the order of the task's; None: named as the task's."""
    format: str | None = None
    """Key of `minbert.data.inputs.FORMATS`; None: by the suffix."""
    out: Path | None = None
    """File for the predictions; None: standard output."""
    as_json: bool = False
    """Whether JSON lines are written to a file of any suffix and to standard output."""
    overwrite: bool = False

    def answer(self, tasks: Mapping[str, Task], predict: Callable[[str, Sequence[tuple[str, ...]]], Predicted]) -> None:
        """Read the texts, predict them by `predict(task, texts)`, and write the predictions. Raises ValueError."""
        task = named_or_only(tasks, self.task)
        if self.out is not None:
            outputs.check_out(self.out, overwrite=self.overwrite)
        columns = None if self.columns is None else self.columns.split(",")
        source = sys.stdin if self.source is None or self.source == Path("-") else self.source
        rows = read_inputs(source, task, columns=columns, format=self.format)
        predicted = predict(task.name, rows.texts)
        form = outputs.format_of(self.out, as_json=self.as_json)
        text = outputs.text_of(rows.ids, predicted.values, predicted.probabilities, form)
        if self.out is None:
            sys.stdout.write(text)
        else:
            outputs.write(text, self.out)
