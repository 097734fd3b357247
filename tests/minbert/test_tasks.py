"""Choosing the tasks of a run: one, two or four of them through training, evaluation and prediction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from minbert.__main__ import BAD_INPUT, DONE, main
from minbert.config import Config
from minbert.data.batches import bi_encode
from minbert.data.files import DataError, fingerprint, read_corpus
from minbert.data.tokens import open_data
from minbert.encoder.base import Base
from minbert.fields import ConfigError
from minbert.metrics import overall
from minbert.tasks import DEFAULT_TASKS, TASKS, choose_tasks
from minbert.training.evaluation import evaluate
from minbert.training.model import MultitaskModel
from minbert.training.predict import load_model, predict
from minbert.training.train import State, train

CHOICES = [("cfimdb",), ("sts",), ("sst", "cfimdb"), ("sst", "qqp", "sts", "cfimdb")]


def test_names_are_chosen_in_declared_order() -> None:
    assert tuple(choose_tasks()) == DEFAULT_TASKS == ("sst", "qqp", "sts")
    assert choose_tasks("sts, sst") == choose_tasks(["sts", "sst"]) == {"sst": TASKS["sst"], "sts": TASKS["sts"]}
    assert choose_tasks(",".join(TASKS)) == TASKS


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("sst,cfimbd", r"Unknown task `cfimbd`\. Did you mean `cfimdb`"),
        ("", "Unknown task ``"),
        ([], "`tasks` must name each task once, found none"),
        ("sst,sst", "`tasks` must name each task once, found sst, sst"),
    ],
)
def test_bad_names_are_refused(names: str | list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_tasks(names)


def test_a_fingerprint_covers_the_tasks_of_the_run_and_no_other(corpus_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(corpus_folder, tmp_path / "corpus"))
    before = {tasks: fingerprint(folder, choose_tasks(tasks)) for tasks in (DEFAULT_TASKS, *CHOICES)}
    assert len(set(before.values())) == len(before)
    file = folder / "ids-cfimdb-dev.csv"
    file.write_text(file.read_text().replace("awful", "dreadful"))
    for tasks, mark in before.items():
        assert (fingerprint(folder, choose_tasks(tasks)) != mark) == ("cfimdb" in tasks), tasks
    for path in folder.glob("ids-cfimdb-*"):
        path.unlink()
    assert fingerprint(folder, choose_tasks()) == before[DEFAULT_TASKS] == read_corpus(folder).fingerprint


def test_the_length_limit_is_not_in_the_fingerprint() -> None:
    """Sweeps that began before `max_length` was declared can still be resumed."""
    assert "max_length" not in repr(TASKS["cfimdb"])


def test_files_of_other_tasks_may_be_missing(corpus_folder: Path, tmp_path: Path) -> None:
    for path in corpus_folder.glob("ids-cfimdb-*"):
        shutil.copy(path, tmp_path)
    corpus = read_corpus(tmp_path, choose_tasks("cfimdb"))
    assert corpus.tasks == {"cfimdb": TASKS["cfimdb"]}
    assert [corpus.size("cfimdb", split) for split in ("train", "dev", "test")] == [96, 24, 6]
    with pytest.raises(DataError, match=r"lacks ids-sst-train.csv\. Expected there: ids-sst-train.csv, ids-sst-dev"):
        read_corpus(tmp_path)
    with pytest.raises(DataError, match="no `data` folder is given, and the sample corpus .* lacks ids-cfimdb-train"):
        read_corpus(None, choose_tasks("cfimdb"))


@pytest.mark.parametrize("tasks", CHOICES, ids="+".join)
def test_any_choice_of_tasks_is_trained_scored_and_predicted(
    tasks: tuple[str, ...], corpus_folder: Path, tiny: Base, tmp_path: Path
) -> None:
    data = open_data(corpus_folder, tiny, tasks=choose_tasks(tasks), cache=tmp_path / "cache")
    assert tuple(data.tasks) == tasks
    reports = list(train(Config.from_dict({}, data.tasks), data, State.fresh(0, (40, 120), tmp_path / "out")))
    last = reports[-1]
    assert tuple(last.scores) == tuple(last.examples_per_task) == tasks
    assert sum(last.examples_per_task.values()) == last.examples >= 120
    metrics = {name: TASKS[name].metric for name in tasks}
    assert last.overall == pytest.approx(overall(last.scores, metrics, dict.fromkeys(tasks, 1.0)))
    model = load_model(Path(last.checkpoint), data, torch.device("cpu"))
    assert set(model.heads) >= set(tasks)
    assert evaluate(model, data).tasks == pytest.approx(last.scores)
    predictions = {(task, split): prediction for task, split, prediction in predict(Path(last.checkpoint), data)}
    assert {task for task, _ in predictions} == set(tasks)
    for (task, split), prediction in predictions.items():
        assert len(prediction.values) == len(data.parts[task, split])
        assert np.isfinite(prediction.values).all()


def test_documents_keep_up_to_512_word_pieces_beside_shorter_tasks() -> None:
    assert dict(Config.from_dict({}, TASKS).max_length) == {"sst": 128, "qqp": 128, "sts": 128, "cfimdb": 512}


def test_a_batch_of_documents_is_cut_at_its_own_tasks_length(corpus_folder: Path, tiny: Base, tmp_path: Path) -> None:
    data = open_data(corpus_folder, tiny, tasks=choose_tasks("sst,cfimdb"), cache=tmp_path)
    lengths = np.diff(data.file("cfimdb", "train").texts[0].offsets) + 2
    assert (lengths > 128).any()
    room = tiny.config.max_position_embeddings
    for nested, limit in (({}, 512), ({"max_length": {"cfimdb": 32, "sst": 9}}, 32)):
        model = MultitaskModel(Config.from_dict(nested, data.tasks), tiny, data.tasks, 0)
        sequences = model.batch("cfimdb", data.file("cfimdb", "train"), range(96)).sequences
        assert [len(ids) for ids, _ in sequences] == np.minimum(lengths, min(limit, room)).tolist()


def test_real_reviews_are_read_whole(real_data: Path, tiny: Base, tmp_path: Path) -> None:
    corpus = read_corpus(real_data, choose_tasks("cfimdb"))
    assert [corpus.size("cfimdb", split) for split in ("train", "dev", "test")] == [1707, 245, 488]
    assert corpus.problems == ()
    file = open_data(real_data, tiny, corpus=corpus, cache=tmp_path).file("cfimdb", "train")
    lengths = np.diff(file.texts[0].offsets)
    assert np.mean(lengths > 128) > 0.5
    assert np.mean(lengths > 510) > 0.05
    cut = bi_encode(file, range(1707), 512, 0, 1)
    assert [len(ids) for ids, _ in cut] == np.minimum(lengths + 2, 512).tolist()


def test_the_command_line_takes_tasks_and_keeps_them(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    common = ["train", "--data", str(corpus_folder), "--base", "tiny", "--threads", "1"]
    run = [*common, "--out", str(tmp_path / "out"), "--json"]
    assert main([*run, "--budget", "32", "--reports", "1", "--tasks", "cfimdb,sst"]) == DONE
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["held out"]) == ["overall", "sst", "cfimdb"]
    assert summary["details"]["cfimdb"].keys() == {"accuracy", "precision", "recall", "f1", "confusion"}
    assert main([*run, "--resume"]) == DONE, "the tasks of the run that is continued"
    assert json.loads(capsys.readouterr().out)["held out"] == summary["held out"]
    assert main([*run, "--resume", "--tasks", "qqp"]) == BAD_INPUT
    assert "`--tasks` must be those of the run that is continued, sst,cfimdb; found qqp" in capsys.readouterr().err
    assert main([*common, "--out", str(tmp_path / "b"), "--tasks", "cfimbd"]) == BAD_INPUT
    assert "Unknown task `cfimbd`. Did you mean `cfimdb`" in capsys.readouterr().err
