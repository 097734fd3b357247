"""Tasks as data: which columns a row has, what is predicted, how it is scored.

A run trains the tasks that it is given, as a mapping from name to `Task`. Nothing outside this file knows how many
there are or what they are called, and no file reads the table below while it is imported. Command lines choose from it
by name (`choose_tasks`); in Python a task of one's own is one more `Task` in the mapping:

    tasks = {"topics": Task(name="topics", columns=("text",), label="topic", kind="classification", classes=3, low=0,
                            high=2, metric="accuracy", files={"train": "topics-train.tsv", "dev": "topics-dev.tsv"})}
    data = open_data(folder, base, tasks=tasks)
    config = Config.from_dict({}, tasks)

The table declares SST-5 sentiment, Quora question pairs and STS-B similarity, with these metrics the three tasks of
the papers' multitask models, and CFIMDB, whole film reviews, the set of the single-task studies in `beyond_bert` and
`pal_lora`.
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
    """Classification uses cross-entropy over `classes` logits; regression the squared error of one score."""
    classes: int
    """Number of classes C; 1 for regression."""
    low: float
    """Smallest legal label."""
    high: float
    """Largest legal label."""
    metric: Metric
    """Name in `minbert.metrics.METRICS`."""
    files: Mapping[str, str]
    """File name of each of the splits train, dev and test (which may be absent), inside the data folder."""
    leaderboard: tuple[str, str] = ("", "")
    """File prefix and column title of the class leaderboard format; empty: the name, and Prediction."""
    weight: float = 1.0
    """Weight w_k of the task in the overall score."""
    search_rows: int | None = None
    """Largest number of dev rows that the search may look at; None: half of the dev set."""
    # Not in `repr`, which fingerprints are made of: it decides nothing of what is read or scored.
    max_length: int = field(default=128, repr=False)
    """Longest sequence in word pieces, special tokens included, unless a configuration says otherwise."""
    augmented: bool = field(default=False, repr=False)
    """Whether an augmentation adds to its training rows: `multi_extended` augments the task that overfits, SST."""

    def __post_init__(self) -> None:
        prefix, title = self.leaderboard
        object.__setattr__(self, "leaderboard", (prefix or self.name, title or "Prediction"))
        for fault in _faults(self):
            raise ConfigError(f"Task `{self.name}`: {fault}.")

    @property
    def is_pair(self) -> bool:
        return len(self.columns) == 2


def _faults(task: Task) -> Iterator[str]:
    """What a declaration lacks or contradicts, each as rule and value found."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", task.name):
        yield f"`name` must hold letters, digits, _ and - alone, found {task.name!r}"
    for what, value, declared in (("kind", task.kind, TaskKind), ("metric", task.metric, Metric)):
        if value not in get_args(declared):
            yield str(unknown(what, value, get_args(declared))).removesuffix(".")
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


def choose_tasks(
    names: str | Iterable[str] | None = None, declared: Mapping[str, Task] = TASKS
) -> dict[str, Task]:
    """The tasks of a run by name, in declared order, from `sst,qqp` or a list of names; None: `DEFAULT_TASKS`.

    `declared` are the tasks to choose from. Raises ConfigError for an unknown or repeated name, or none at all.
    """
    if names is None:
        names = DEFAULT_TASKS
    given = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    for name in given:
        if name not in declared:
            raise unknown("task", name, declared)
    if not given or len(set(given)) != len(given):
        raise ConfigError(f"`tasks` must name each task once, found {', '.join(given) or 'none'}. "
                          f"Expected some of: {', '.join(declared)}.")  # fmt: skip
    return {name: task for name, task in declared.items() if name in given}


def run_tasks(tasks: Mapping[str, Task] | None) -> dict[str, Task]:
    """The tasks that a run is given, each under its own name; None: the default ones. Raises ConfigError."""
    if tasks is None:
        return choose_tasks()
    for name, task in tasks.items():
        if name != task.name:
            raise ConfigError(f"`tasks` must hold each task under its own name, found {task.name} under {name}.")
    return dict(tasks)
