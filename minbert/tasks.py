"""Tasks as data: which columns a row has, what is predicted, how it is scored.

Nothing outside this file knows how many tasks there are or what they are called. The three tasks and their
metrics are those of the papers: SST-5 sentiment, Quora question pairs, STS-B similarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Task:
    """One supervised task of the shared encoder."""

    name: str
    """Key of the task in configurations, scores and files."""
    columns: tuple[str, ...]
    """Text columns of a row: one for a sentence task, two for a sentence-pair task."""
    label: str
    """Column of the label."""
    kind: Literal["classification", "regression"]
    """Classification uses cross-entropy over `classes` logits; regression the squared error of one score."""
    classes: int
    """Number of classes C; 1 for regression."""
    low: float
    """Smallest legal label."""
    high: float
    """Largest legal label."""
    metric: Literal["accuracy", "pearson"]
    """Name in `minbert.metrics.METRICS`."""
    files: Mapping[str, str]
    """File name of each of the splits train, dev and test, inside the data folder."""
    leaderboard: tuple[str, str]
    """File prefix and column title of the class leaderboard format."""
    weight: float = 1.0
    """Weight w_k of the task in the overall score."""
    search_rows: int | None = None
    """Largest number of dev rows that the search may look at; None takes half of the dev set."""

    @property
    def is_pair(self) -> bool:
        return len(self.columns) == 2


_SST = Task(
    name="sst",
    columns=("sentence",),
    label="sentiment",
    kind="classification",
    classes=5,
    low=0,
    high=4,
    metric="accuracy",
    files={"train": "ids-sst-train.csv", "dev": "ids-sst-dev.csv", "test": "ids-sst-test-student.csv"},
    leaderboard=("sst", "Predicted_Sentiment"),
)

_QQP = Task(
    name="qqp",
    columns=("sentence1", "sentence2"),
    label="is_duplicate",
    kind="classification",
    classes=2,
    low=0,
    high=1,
    metric="accuracy",
    files={"train": "quora-train.csv", "dev": "quora-dev.csv", "test": "quora-test-student.csv"},
    leaderboard=("para", "Predicted_Is_Paraphrase"),
    # 2,000 pairs give a standard error of 0.009: enough to rank trials; the other 18,000 stay unseen.
    search_rows=2000,
)

_STS = Task(
    name="sts",
    columns=("sentence1", "sentence2"),
    label="similarity",
    kind="regression",
    classes=1,
    low=0,
    high=5,
    metric="pearson",
    files={"train": "sts-train.csv", "dev": "sts-dev.csv", "test": "sts-test-student.csv"},
    leaderboard=("sts", "Predicted_Similiary"),  # spelled so in the class format
)

TASKS: dict[str, Task] = {task.name: task for task in (_SST, _QQP, _STS)}
"""Every task, in the order in which tables show them."""
