"""Tasks as data: the columns of a row, the label that is predicted, and its metric.

A run trains a mapping from name to `Task`. No other file depends on the number or the names of the tasks, and none
reads the table below while it is imported. Command lines choose from the table by name (`choose_tasks`). In Python your
own task is one more `Task` in the mapping:

    tasks = {"topics": Task(name="topics", columns=("text",), label="topic", kind="classification", classes=3, low=0,
                            high=2, metric="accuracy", files={"train": "topics-train.tsv", "dev": "topics-dev.tsv"})}
    data = open_data(folder, base, tasks=tasks)
    config = Config.from_dict({}, tasks)

The table declares SST-5 sentiment, Quora question pairs and STS-B similarity, which are the three tasks of the papers'
multitask models with their metrics, and CFIMDB, whole film reviews, which `beyond_bert` and `pal_lora` use in their
single-task studies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from minbert.fields import ConfigError, unknown

TaskKind = Literal["classification", "regression"]
Metric = Literal["accuracy", "pearson"]


@dataclass(frozen=True)
class Task:
    """One supervised task of the shared encoder."""

    name: str
    """Key of the task in configurations, scores and files: letters, digits, _ and -."""
    columns: tuple[str, ...]
    """Text columns of a row: one for a sentence task, two for a sentence-pair task."""
    label: str
    """Column of the label."""
    kind: TaskKind
    """Classification: cross-entropy over `classes` logits; regression: squared error of one score."""
    classes: int
    """Number of classes C; 1 for regression."""
    low: float
    """Smallest legal label."""
    high: float
    """Largest legal label."""
    metric: Metric
    """Name in `minbert.metrics.METRICS`."""
    files: Mapping[str, str]
    """File name inside the data folder of train, dev and, where there is one, test."""
    leaderboard: tuple[str, str] = ("", "")
    """File prefix and column title in the class leaderboard format; empty means the task's name and Prediction."""
    weight: float = 1.0
    """Weight w_k of the task in the overall score."""
    search_rows: int | None = None
    """Most dev rows that the search may see; it sees at most half of the dev set. None: half."""
    # Fingerprints are made of `repr`; these fields are not in it, as they do not change what is read or scored.
    headline_rows: int | None = field(default=None, repr=False)
    """Most rows of `held` that headlines are estimated on, the first in the order of `held`. None: all."""
    max_length: int = field(default=128, repr=False)
    """Default of the longest sequence in word pieces, special tokens included."""
    augmented: bool = field(default=False, repr=False)
    """Whether augmentations add training rows; `multi_extended` augments SST, the task that overfits."""

    def __post_init__(self) -> None:
        prefix, title = self.leaderboard
        object.__setattr__(self, "leaderboard", (prefix or self.name, title or "Prediction"))
        for fault in _faults(self):
            raise ConfigError(f"Task `{self.name}`: {fault}.")

    @property
    def is_pair(self) -> bool:
        return len(self.columns) == 2


def _faults(task: Task) -> Iterator[str]:
    """Faults of a declaration, each as rule and value found."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", task.name):
        yield f"`name` must hold letters, digits, _ and - alone, found {task.name!r}"
    for field_name, value, literal in (("kind", task.kind, TaskKind), ("metric", task.metric, Metric)):
        if value not in get_args(literal):
            yield str(unknown(field_name, value, get_args(literal))).removesuffix(".")
    if len(task.columns) not in (1, 2) or len(set(task.columns)) != len(task.columns):
        yield f"`columns` must be one text column or two different ones, found {task.columns!r}"
    if task.kind == "classification" and (task.classes < 2 or (task.low, task.high) != (0, task.classes - 1)):
        yield (
            "a classification has 2 `classes` or more, `low` 0 and `high` classes - 1, "
            f"found {task.classes}, {task.low:g} and {task.high:g}"
        )
    if task.kind == "regression" and (task.classes != 1 or not task.low < task.high):
        yield (
            "a regression has 1 `classes`, and `low` below `high`, "
            f"found {task.classes}, {task.low:g} and {task.high:g}"
        )
    if not {"train", "dev"} <= task.files.keys() <= {"train", "dev", "test"}:
        yield f"`files` must name a train and a dev file, and perhaps a test file, found {dict(task.files)!r}"
    if task.augmented and task.is_pair:
        yield "`augmented` is for one text column, found two"
    if not task.weight > 0:
        yield f"`weight` must be above 0, found {task.weight:g}"
    if task.search_rows is not None and task.search_rows < 1:
        yield f"`search_rows` must be at least 1, found {task.search_rows}"
    if task.headline_rows is not None and task.headline_rows < 1:
        yield f"`headline_rows` must be at least 1, found {task.headline_rows}"
    if not 8 <= task.max_length <= 512:
        yield f"`max_length` must be from 8 to 512, found {task.max_length}"


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
    # 2,000 pairs give a standard error of 0.009, enough to rank trials; the other 18,000 stay unseen.
    search_rows=2000,
    # A standard error of 0.006, and a paired one below that. The other 13,000 are twice as many rows as all the rest.
    headline_rows=5000,
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
    max_length=512,  # most reviews exceed 128 word pieces, many exceed 512, the number of BERT's positions
)

TASKS: dict[str, Task] = {task.name: task for task in (_SST, _QQP, _STS, _CFIMDB)}
"""Every declared task, in the order in which tables show them."""

DEFAULT_TASKS: tuple[str, ...] = ("sst", "qqp", "sts")
"""Tasks of a run that names none: those of the papers' multitask models."""


def choose_tasks(
    names: str | Iterable[str] | None = None, declared: Mapping[str, Task] = TASKS
) -> dict[str, Task]:
    """Choose tasks from `declared` by name: `sst,qqp` or a list of names; None: `DEFAULT_TASKS`.

    The result has declared order. Raises ConfigError for an unknown name, a repeated name, or no name.
    """
    if names is None:
        names = DEFAULT_TASKS
    chosen = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    for name in chosen:
        if name not in declared:
            raise unknown("task", name, declared)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ConfigError(f"`tasks` must name each task once, found {', '.join(chosen) or 'none'}. "
                          f"Expected some of: {', '.join(declared)}.")  # fmt: skip
    return {name: task for name, task in declared.items() if name in chosen}


def named_or_only(tasks: Mapping[str, Task], name: str | None) -> Task:
    """The task of this name, or for None the only one. Raises ConfigError."""
    if name is None and len(tasks) > 1:
        raise ConfigError(f"`task` must name one of {', '.join(tasks)}.")
    if name is not None and name not in tasks:
        raise unknown("task", name, tasks)
    return tasks[name or next(iter(tasks))]


def run_tasks(tasks: Mapping[str, Task] | None) -> dict[str, Task]:
    """Check that each task stands under its own name; None: the default tasks. Raises ConfigError."""
    if tasks is None:
        return choose_tasks()
    for name, task in tasks.items():
        if name != task.name:
            raise ConfigError(f"`tasks` must hold each task under its own name, found {task.name} under {name}.")
    return dict(tasks)
