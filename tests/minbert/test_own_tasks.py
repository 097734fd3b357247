"""A user's own tasks, declared in this file: read, trained, scored and predicted without a change of the package."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from minbert.config import Config
from minbert.data.files import DataError, read_corpus
from minbert.data.tokens import Data, open_data
from minbert.encoder.base import Base
from minbert.fields import ConfigError
from minbert.metrics import METRICS, overall
from minbert.requirements import check
from minbert.tasks import TASKS, Metric, Task, choose_tasks
from minbert.training import checkpoints
from minbert.training.evaluation import evaluate
from minbert.training.outcome import outcome
from minbert.training.predict import load_model, predict
from minbert.training.train import State, train
from tests.minbert.configs import configure

TOPICS = Task(
    name="topics",
    columns=("headline",),
    label="topic",
    kind="classification",
    classes=3,
    low=0,
    high=2,
    metric="accuracy",
    files={"train": "news.train.tsv", "dev": "news.dev.tsv"},
    max_length=48,
)
LIKENESS = Task(
    name="like-ness",
    columns=("left", "right"),
    label="score",
    kind="regression",
    classes=1,
    low=-1,
    high=1,
    metric="pearson",
    files={"train": "pairs.train.tsv", "dev": "pairs.dev.tsv", "test": "pairs.test.tsv"},
    leaderboard=("likeness", "Score"),
    weight=3.0,
    search_rows=8,
)
OWN = {"topics": TOPICS, "like-ness": LIKENESS}
WORDS = ("rain", "goal", "shares")


def write(path: Path, header: str, rows: list[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    for part, count in (("train", 60), ("dev", 30)):
        news = [f"{i % 3}\tn{part}{i}\tmore {WORDS[i % 3]} on day {i}" for i in range(count)]
        write(folder / f"news.{part}.tsv", "topic\tid\theadline", news)
        pairs = [f"p{part}{i}\t{i % 5 / 2 - 1}\ta dog ran {i}\t{'a dog ran' if i % 5 > 2 else 'tea'} {i}"
                 for i in range(count)]  # fmt: skip
        write(folder / f"pairs.{part}.tsv", "id\tscore\tleft\tright", pairs)
    write(folder / "pairs.test.tsv", "id\tleft\tright", [f"x{i}\tone {i}\ttwo {i}" for i in range(4)])
    return folder


@pytest.fixture(scope="module")
def own(folder: Path, tiny: Base, tmp_path_factory: pytest.TempPathFactory) -> Data:
    return open_data(folder, tiny, tasks=OWN, cache=tmp_path_factory.mktemp("cache"))


def test_the_package_declares_no_own_task() -> None:
    assert not OWN.keys() & TASKS.keys()


def test_own_files_columns_and_labels_are_read(folder: Path) -> None:
    corpus = read_corpus(folder, OWN)
    assert corpus.tasks == OWN
    assert all(problem.line is None for problem in corpus.problems), "no note but that the splits are small"
    assert corpus.rows["topics", "train"].texts[1] == ("more goal on day 1",)
    assert corpus.rows["like-ness", "dev"].labels[:5].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    sizes = {name: [corpus.size(name, split) for split in ("train", "search", "held", "test")] for name in OWN}
    assert sizes == {"topics": [60, 15, 15, 0], "like-ness": [60, 8, 22, 4]}
    write(folder / "wrong.tsv", "topic\tid\theadline", ["3\ta\tb"])
    with pytest.raises(DataError, match="`topic` must be a whole number from 0 to 2, found '3'"):
        read_corpus(folder, {"topics": replace(TOPICS, files=dict(TOPICS.files) | {"dev": "wrong.tsv"})})


CONFIGS: dict[str, list[str]] = {
    "default": [],
    "pal, annealed": ["adapter/kind=pal", "adapter/dropout/topics=0.2", "mixing/kind=annealed",
                      "mixing/upweight/like-ness=4"],
    "one after the other": ["mixing/kind=sequential", "mixing/order=like-ness", "regularizer/topics/kind=smart",
                            "encoding/like-ness/kind=bi", "encoding/like-ness/head/kind=cosine"],
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_own_tasks_are_trained_scored_and_predicted(name: str, own: Data, folder: Path, tmp_path: Path) -> None:
    config = configure(*CONFIGS[name], tasks=OWN)
    check(config, read_corpus(folder, OWN), own.base)
    assert dict(config.max_length) == {"topics": 48, "like-ness": 128}
    *_, last = train(config, own, State.fresh(0, (100, 300), tmp_path / "out"))
    assert not last.diverged and tuple(last.scores) == tuple(last.examples_per_task) == tuple(OWN)
    metrics, weights = {"topics": "accuracy", "like-ness": "pearson"}, {"topics": 1.0, "like-ness": 3.0}
    assert last.overall == pytest.approx(overall(last.scores, metrics, weights))
    checkpoint = Path(last.checkpoint)
    assert evaluate(load_model(checkpoint, own, torch.device("cpu")), own).tasks == pytest.approx(last.scores)
    predictions = {(task, split): prediction for task, split, prediction in predict(checkpoint, own)}
    assert {key: len(prediction.values) for key, prediction in predictions.items()} == {
        ("topics", "search"): 15, ("topics", "held"): 15,
        ("like-ness", "search"): 8, ("like-ness", "held"): 22, ("like-ness", "test"): 4,
    }  # fmt: skip
    classes = predictions["topics", "held"]
    assert set(classes.values) <= {0, 1, 2}
    assert classes.probabilities is not None and classes.probabilities.shape == (15, 3)
    assert np.isfinite(predictions["like-ness", "test"].values).all()
    assert outcome(checkpoint, own)["details"]["topics"].keys() == {"accuracy", "off_by_one", "confusion"}


def test_a_trial_of_own_tasks_continues_from_its_checkpoint(own: Data, tmp_path: Path) -> None:
    config = configure(tasks=OWN)
    *_, whole = train(config, own, State.fresh(1, (60, 200), tmp_path / "a"))
    first = next(train(config, own, State.fresh(1, (60, 200), tmp_path / "b")))
    *_, resumed = train(config, own, State.resume(Path(first.checkpoint), (60, 200), tmp_path / "b", 1))
    expected, weights = (checkpoints.read_tensors(Path(last.checkpoint), "weights") for last in (whole, resumed))
    assert expected.keys() == weights.keys() and all(torch.equal(expected[name], weights[name]) for name in expected)


def test_own_and_declared_tasks_train_together(corpus_folder: Path, folder: Path, tiny: Base, tmp_path: Path) -> None:
    for path in (*corpus_folder.glob("ids-sst-*"), *folder.glob("news.*")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tasks = choose_tasks("topics,sst", TASKS | OWN)
    assert tuple(tasks) == ("sst", "topics")
    opened = open_data(tmp_path, tiny, tasks=tasks, cache=tmp_path / "cache")
    report = next(train(Config.from_dict({}, tasks), opened, State.fresh(0, (60,), tmp_path / "out")))
    assert tuple(report.scores) == ("sst", "topics")


def test_a_task_under_another_name_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="each task under its own name, found topics under news"):
        read_corpus(folder, {"news": TOPICS})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "Task `a/b`: `name` must hold letters, digits, _ and - alone, found 'a/b'"),
        ({"columns": ()}, "`columns` must be one text column or two different ones"),
        ({"columns": ("a", "a")}, "`columns` must be one text column or two different ones"),
        ({"columns": ("a", "b", "c")}, "`columns` must be one text column or two different ones"),
        ({"classes": 4}, "`low` 0 and `high` classes - 1, found 4, 0 and 2"),
        ({"classes": 1, "high": 0}, "a classification has 2 `classes` or more"),
        ({"low": 1, "high": 3}, "`low` 0 and `high` classes - 1, found 3, 1 and 3"),
        ({"kind": "regression"}, "a regression has 1 `classes`, and `low` below `high`, found 3, 0 and 2"),
        ({"kind": "regression", "classes": 1, "high": 0}, "`low` below `high`, found 1, 0 and 0"),
        ({"kind": "ranking"}, "Unknown kind `ranking`. Expected one of: classification, regression"),
        ({"metric": "acuracy"}, "Unknown metric `acuracy`. Did you mean `accuracy`"),
        ({"files": {"train": "a"}}, "`files` must name a train and a dev file, and perhaps a test file, found"),
        ({"files": {"train": "a", "dev": "b", "tset": "c"}}, "`files` must name a train and a dev file"),
        ({"columns": ("a", "b"), "augmented": True}, "`augmented` is for one text column, found two"),
        ({"weight": 0.0}, "`weight` must be above 0, found 0"),
        ({"search_rows": 0}, "`search_rows` must be at least 1, found 0"),
        ({"max_length": 1024}, "`max_length` must be from 8 to 512, found 1024"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TOPICS, **changes)


def test_every_metric_that_a_task_may_name_is_defined() -> None:
    assert set(get_args(Metric)) == METRICS.keys()


def test_leaderboard_names_are_the_tasks_own_unless_given() -> None:
    assert TOPICS.leaderboard == ("topics", "Prediction")
    assert LIKENESS.leaderboard == ("likeness", "Score")
