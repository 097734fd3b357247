"""`hpo ensemble` and `hpo predict`: the estimates that are shown, the files that are written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.launch.record import BaseRecord
from minbert.encoder.base import find_base
from minbert.tasks import TASKS as DECLARED
from results.ensembles import METHODS
from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo, refused
from tests.hpo.stored import TASKS


@pytest.fixture(scope="module")
def kept_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests only read, or add ensembles to."""
    path = tmp_path_factory.mktemp("store")
    stored.make(path)
    return path


@pytest.mark.parametrize("method", ["auto", "greedy", "stack"])
def test_ensemble(kept_store: Path, method: str) -> None:
    record = answer("ensemble", SWEEP, "--method", method, "--size", "3", "--name", f"e-{method}", store=kept_store)
    assert record["best_single"] == 2
    held = record["estimates"]["ensemble"]["held"]["overall"]
    labelled = [row for row in stored.examples() if row["split"] == "held"]
    assert held["n"] == len(labelled)
    assert held["low"] <= held["value"] <= held["high"]
    assert (kept_store / SWEEP / "ensembles" / f"e-{method}.json").exists()
    text = hpo("ensemble", SWEEP, "--method", method, "--size", "3", store=kept_store).stdout
    for words in (
        "held out",
        "full dev, as papers report it: selected on",
        "best single trial on `search` (2)",
        "default (0)",
        "95 % interval",
        "adds, search",
        "predicting takes",
        "by cross-validation, optimism",
        "of this sweep had a score on `held` shown so far",
    ):
        assert words in text


def test_compare_shows_every_method_by_cross_validation(kept_store: Path) -> None:
    text = hpo("ensemble", SWEEP, "--compare", "--size", "2", store=kept_store).stdout
    table = text.split("methods by cross-validation on `search`")[1].split("\n\n")[0]
    assert {line.split()[0] for line in table.splitlines() if line.rstrip().endswith("chosen")} < {"best", *METHODS}
    assert all(f"\n{method} " in table for method in METHODS)
    assert "best single trial" in table
    assert "no soup is saved" in text
    record = answer("ensemble", SWEEP, "--compare", "--method", "stack", "--size", "2", store=kept_store)
    assert record["method"] == "stack", "the one that was asked for"
    assert {line["method"] for line in record["compared"]} == METHODS.keys()
    assert record["seeds"] == []


def test_ensemble_of_an_unknown_method(kept_store: Path) -> None:
    assert "greedy" in refused(hpo("ensemble", SWEEP, "--method", "gredy", store=kept_store))


FILES = {
    f"{task.leaderboard[0]}-{file}-output.csv": (name, file) for name, task in TASKS.items() for file in ("dev", "test")
}


def test_predict_trial_writes_the_class_format(kept_store: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    listed = answer("predict", SWEEP, "--trial", "1", "--out", out, store=kept_store)["files"]
    assert sorted(Path(path).name for path in listed) == sorted(FILES) == sorted(path.name for path in out.iterdir())
    expected = {(row["task"], row["split"] == "test", row["row"]): row["value"] for row in stored.predictions(1)}
    for name, (task, file) in FILES.items():
        header, *lines = (out / name).read_bytes().decode().split("\n")
        assert header == f"id \t {TASKS[task].leaderboard[1]}"
        assert lines.pop() == ""
        assert len(lines) == (stored.ROWS if file == "dev" else stored.ROWS // 2)
        for row, line in enumerate(lines):
            identity, label = line.split(" , ")
            value = expected[task, file == "test", row]
            assert identity == stored.identity(task, file, row)
            assert label == (f"{value:.6f}" if task == "sts" else str(int(value)))


def test_leaderboard_titles_are_those_of_the_class() -> None:
    assert sorted(task.leaderboard for task in DECLARED.values()) == [
        ("cfimdb", "Predicted_Sentiment"), ("para", "Predicted_Is_Paraphrase"), ("sst", "Predicted_Sentiment"),
        ("sts", "Predicted_Similiary"),
    ]  # fmt: skip


def test_predict_ensemble_of_one_equals_its_member(kept_store: Path, tmp_path: Path) -> None:
    assert hpo("ensemble", SWEEP, "--size", "1", "--name", "one", store=kept_store).exit_code == 0
    assert hpo("predict", SWEEP, "--ensemble", "one", "--out", tmp_path / "e", store=kept_store).exit_code == 0
    assert hpo("predict", SWEEP, "--trial", "2", "--out", tmp_path / "t", store=kept_store).exit_code == 0
    for name in FILES:
        assert (tmp_path / "e" / name).read_text() == (tmp_path / "t" / name).read_text()


def test_predict_takes_the_answer_unless_told_otherwise(kept_store: Path, tmp_path: Path) -> None:
    done = hpo("predict", SWEEP, "--out", tmp_path / "p", store=kept_store)
    best = answer("best", SWEEP, store=kept_store)["trial"]
    assert f"trial {best} predicts, the best of {SWEEP}" in done.stderr
    assert hpo("predict", SWEEP, "--trial", best, "--out", tmp_path / "t", store=kept_store).exit_code == 0
    for name in FILES:
        assert (tmp_path / "p" / name).read_text() == (tmp_path / "t" / name).read_text()


def test_predict_refuses(kept_store: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "p"]
    both = ("--trial", "1", "--ensemble", "x")
    assert "exclude each other" in refused(hpo("predict", SWEEP, *both, *out, store=kept_store))
    assert "Trials with kept weights: 0, 1, 2" in refused(hpo("predict", SWEEP, "--trial", "4", *out, store=kept_store))
    assert "no trial 77" in refused(hpo("predict", SWEEP, "--trial", "77", *out, store=kept_store))
    assert "`nosuch`" in refused(hpo("predict", SWEEP, "--ensemble", "nosuch", *out, store=kept_store))
    file = tmp_path / "file"
    file.write_text("")
    assert "--out" in refused(hpo("predict", SWEEP, "--trial", "1", "--out", file, store=kept_store))
    assert not (tmp_path / "p").exists()


def test_predict_overwrites_only_if_told_to(kept_store: Path, tmp_path: Path) -> None:
    (tmp_path / "sst-dev-output.csv").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    command = ("predict", SWEEP, "--trial", "1", "--out", tmp_path)
    message = refused(hpo(*command, store=kept_store))
    assert f"`--out`: {tmp_path} holds sst-dev-output.csv already" in message
    assert "--overwrite" in message
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("sst-dev-output.csv", "notes.txt"), "mine"
    )
    assert hpo(*command, "--overwrite", store=kept_store).exit_code == 0
    assert (tmp_path / "sst-dev-output.csv").read_text().startswith("id \t Predicted_Sentiment")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def rows_of(trial: int, part: str) -> list[dict[str, Any]]:
    """Stored predictions of a part."""
    splits = {"held": ("held",), "dev": ("search", "dev"), "test": ("test",)}[part]
    return [row for row in stored.predictions(trial) if row["split"] in splits]


def test_a_kept_trial_predicts_on_demand_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from hpo.worker import trainer
    from results.predictions import Prediction

    calls: list[str] = []
    folders: list[Path] = []

    def predict(job: Any, checkpoint: Path, part: str) -> Iterator[tuple[str, str, Prediction]]:
        calls.append(f"{job.base} {checkpoint.name} {part}")
        folders.append(checkpoint.parent)
        for row in rows_of(3, part):
            values = np.array([row["value"]])
            chances = None if row["probabilities"] is None else np.array([row["probabilities"]])
            yield row["task"], row["split"], Prediction(np.array([row["row"]]), values, chances)

    monkeypatch.setattr(trainer, "predict", predict)
    stored.make(tmp_path / "runs", unpredicted=True)
    for _ in range(2):
        done = hpo("predict", SWEEP, "--trial", "3", "--out", tmp_path / "out", "--overwrite", store=tmp_path / "runs")
        assert done.exit_code == 0, done.output
    assert calls == ["tiny 0-302 held", "tiny 0-302 dev", "tiny 0-302 test"]
    assert len((tmp_path / "out" / "sst-dev-output.csv").read_text().splitlines()) == stored.ROWS + 1
    # A truncated file is written again, from the weights in the place to which the store has moved.
    (tmp_path / "runs").rename(tmp_path / "moved")
    (tmp_path / "moved" / SWEEP / "predictions" / "3-0-dev.parquet").write_bytes(b"PAR1")
    done = hpo("predict", SWEEP, "--trial", "3", "--out", tmp_path / "out", "--overwrite", store=tmp_path / "moved")
    assert done.exit_code == 0, done.output
    assert "trial 3 predicts the other rows of dev now (1 of 1)" in done.stderr
    places = [tmp_path / where / SWEEP / "checkpoints" / "3" for where in ("runs", "moved")]
    assert folders == [places[0]] * 3 + places[1:]


def test_an_ensemble_of_a_stopped_sweep_says_which_trial_predicts_and_how_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from hpo.worker import trainer
    from minbert.training.evaluation import Prediction

    def predict(job: Any, checkpoint: Path, part: str) -> Iterator[tuple[str, str, Prediction]]:
        for row in rows_of(int(checkpoint.parent.name), part):
            values = np.array([row["value"]])
            yield row["task"], row["split"], Prediction(np.array([row["row"]], dtype=np.int32), values, None)

    monkeypatch.setattr(trainer, "predict", predict)
    stored.make(tmp_path, unpredicted=True)
    for trial in range(3):
        (tmp_path / SWEEP / "predictions" / f"{trial}-0.parquet").unlink()
    done = hpo("ensemble", SWEEP, "--method", "top-k", "--size", "2", store=tmp_path)
    assert done.exit_code == 0, done.output
    assert "full dev" not in done.stdout
    lines = [line for line in done.stderr.splitlines() if "predicts" in line]
    words = "predicts the held-out rows of the headline now"
    assert lines == [f"hpo: trial {trial} {words} ({number} of 3)" for number, trial in ((1, 3), (2, 2), (3, 0))]
    done = hpo("ensemble", SWEEP, "--method", "top-k", "--size", "2", "--full-dev", store=tmp_path)
    assert "full dev, as papers report it: selected on (n = 117" in done.stdout
    lines = [line for line in done.stderr.splitlines() if "predicts the other rows of dev" in line]
    assert [line.split()[2] for line in lines] == ["3", "2", "0"]
    done = hpo("ensemble", SWEEP, "--method", "top-k", "--size", "2", "--full-dev", store=tmp_path)
    assert "predicts" not in done.stderr


def test_damaged_weights_leave_a_trial_out_of_an_ensemble_and_stop_its_own_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpo.worker import trainer
    from minbert.training.checkpoints import TrialCheckpointError

    def predict(job: Any, checkpoint: Path, part: str) -> Any:
        raise TrialCheckpointError(f"{checkpoint.name} is damaged")

    monkeypatch.setattr(trainer, "predict", predict)
    stored.make(tmp_path, unpredicted=True)
    done = hpo("ensemble", SWEEP, store=tmp_path)
    assert done.exit_code == 0, done.output
    assert done.stderr.count("trial 3 could not predict: 0-302 is damaged") == 1
    assert "left out: trial 3: its predictions are missing or damaged" in done.stdout
    message = refused(hpo("predict", SWEEP, "--trial", "3", "--out", tmp_path / "out", store=tmp_path))
    assert "trial 3 could not predict: 0-302 is damaged" in message


def test_damaged_predictions_without_weights_say_so(tmp_path: Path) -> None:
    from results.store import Store

    stored.make(tmp_path)
    with Store(tmp_path).open(SWEEP).writer() as writer:
        writer.append("trials", {"trial": 1, "attempt": 0, "event": "end", "state": "complete"})
    (tmp_path / SWEEP / "predictions" / "1-0.parquet").write_bytes(b"PAR1")
    message = refused(hpo("predict", SWEEP, "--trial", "1", "--out", tmp_path / "out", store=tmp_path))
    assert "predictions of trial 1 are incomplete or damaged" in message
    assert "Trials with kept weights: 0, 2" in message


@pytest.mark.parametrize("stem", ["../../outside", "/outside", "a/b", "..", ".hidden", "", "a\\b"])
def test_names_from_a_record_never_leave_the_folder(tmp_path: Path, stem: str) -> None:
    folder = stored.make(tmp_path / "runs")
    content = json.loads((folder.path / "sweep.json").read_text())
    content["tasks"]["qqp"]["leaderboard"][0] = stem
    (folder.path / "sweep.json").write_text(json.dumps(content))
    out = tmp_path / "deep" / "down" / "out"
    for options in ((), ("--overwrite",)):
        message = refused(hpo("predict", SWEEP, "--trial", "1", "--out", out, *options, store=tmp_path / "runs"))
        assert "`tasks.qqp.leaderboard` in" in message
        assert f"stay in `--out`, not {stem!r}" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (BaseRecord("tiny", "tiny", "another"), "base weights tiny (SHA-256): the sweep began with another, now "),
        (None, "data in the sample corpus (fingerprint): the sweep began with f, now "),
    ],
    ids=["base", "data"],
)
def test_predicting_here_refuses_other_weights_and_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: BaseRecord | None, message: str
) -> None:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    tiny = find_base("tiny")
    recorded = replace(stored.record(SWEEP), base=base or BaseRecord("tiny", tiny.name, tiny.sha256))
    monkeypatch.setattr(stored, "record", lambda name: recorded)
    stored.make(tmp_path / "runs", unpredicted=True)
    refusal = refused(hpo("predict", SWEEP, "--trial", "3", "--out", tmp_path / "out", store=tmp_path / "runs"))
    assert message in refusal
    assert not (tmp_path / "out").exists()
