"""Tasks as data: which columns a row has, what is predicted, how it is scored.

Nothing outside this file knows how many tasks there are or what they are called. SST-5 sentiment, Quora question pairs
and STS-B similarity, with these metrics, are the three tasks of the papers' multitask models; CFIMDB, whole film
reviews, is the fourth set, of the single-task studies in `beyond_bert` and `pal_lora`. A run trains those it names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from minbert.fields import ConfigError, unknown


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
    # Not in `repr`, which fingerprints are made of: it decides nothing of what is read or scored.
    max_length: int = field(default=128, repr=False)
    """Longest sequence in word pieces, special tokens included, unless a configuration says otherwise."""
    augmented: bool = field(default=False, repr=False)
    """Whether an augmentation adds to its training rows: `multi_extended` augments the task that overfits, SST."""

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
    augmented=True,
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

_CFIMDB = Task(
    name="cfimdb",
    columns=("sentence",),
    label="sentiment",
    kind="classification",
    classes=2,
    low=0,
    high=1,
    metric="accuracy",
    files={"train": "ids-cfimdb-train.csv", "dev": "ids-cfimdb-dev.csv", "test": "ids-cfimdb-test-student.csv"},
    leaderboard=("cfimdb", "Predicted_Sentiment"),
    max_length=512,  # most reviews are longer than 128 word pieces, many than 512, where BERT's positions end
)

TASKS: dict[str, Task] = {task.name: task for task in (_SST, _QQP, _STS, _CFIMDB)}
"""Every declared task, in the order in which tables show them."""

DEFAULT_TASKS: tuple[str, ...] = ("sst", "qqp", "sts")
"""The tasks of a run that names none: those of the papers' multitask models."""


def choose_tasks(names: str | Iterable[str] | None = None) -> tuple[str, ...]:
    """The tasks of a run in declared order, from `sst,qqp` or a list of names; None: `DEFAULT_TASKS`.

    Raises ConfigError for an unknown or repeated name, or none at all.
    """
    if names is None:
        return DEFAULT_TASKS
    given = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    for name in given:
        if name not in TASKS:
            raise unknown("task", name, TASKS)
    if not given or len(set(given)) != len(given):
        raise ConfigError(f"`tasks` must name each task once, found {', '.join(given) or 'none'}. "
                          f"Expected some of: {', '.join(TASKS)}.")  # fmt: skip
    return tuple(name for name in TASKS if name in given)
