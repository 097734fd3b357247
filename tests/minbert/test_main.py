"""`python -m minbert train` from the command line."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minbert.__main__ import BAD_INPUT, DONE, STOPPED, main, parser
from minbert.training import checkpoints


@pytest.fixture
def options(corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    common = ["--data", str(corpus_folder), "--base", "tiny", "--threads", "1", "--out", str(tmp_path / "out")]
    return ["train", *common]


def test_one_configuration_is_trained_and_scored(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--budget", "128", "--set", "adapter/kind=lora", "--set", "adapter/rank=2", "--json"]
    assert main([*options, *more]) == DONE
    out, err = capsys.readouterr()
    scores = json.loads(out)
    assert scores.keys() == {"search", "held out", "full dev (selected on)", "details", "cost"}
    assert scores["search"].keys() == {"overall", "sst", "qqp", "sts"}
    assert err.count("examples  overall") == 3
    details, cost = scores["details"], scores["cost"]
    assert details["sst"]["accuracy"] == scores["held out"]["sst"]
    assert details["sst"].keys() == {"accuracy", "off_by_one", "confusion"}
    assert details["qqp"].keys() == {"accuracy", "precision", "recall", "f1", "confusion"}
    assert details["sts"].keys() == {"pearson", "spearman", "rmse", "outliers"}
    assert 0 < cost["trainable_share"] < 1
    assert cost["seconds_per_1000"] > 0
    assert sum(cost["examples_per_task"].values()) == 128


def test_dev_scores_are_printed_as_a_table(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*options, "--budget", "64", "--reports", "1"]) == DONE
    out = capsys.readouterr().out
    assert "held out" in out
    assert "selected on" in out
    for words in ("off by one", "spearman", "labels down, predictions across", "of the model", "s per 1,000"):
        assert words in out


def test_odd_rows_of_the_data_are_shown(
    options: list[str], corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(corpus_folder, folder)
    with (folder / "ids-sst-train.csv").open("a") as file:
        file.write("".join(f"{row}\t[red]\t\t0\n" for row in range(25)))
    options[options.index("--data") + 1] = str(folder)
    assert main([*options, "--tasks", "sst", "--budget", "16", "--reports", "1"]) == DONE
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("data ")]
    assert lines[0].startswith("data ids-sst-dev.csv: `search` has 12 rows to compare trials on, fewer than 50")
    assert "data ids-sst-train.csv:98: `sentence` is empty; row kept" in lines
    assert any("`id` '[red]' is that of line 98 too" in line for line in lines)
    assert (len(lines), lines[-1]) == (21, "data and 31 more")


@pytest.mark.parametrize("flag", ["--base", "--checkpoint"])
def test_the_base_encoder_has_two_flags(flag: str) -> None:
    assert parser().parse_args(["train", flag, "tiny"]).base == "tiny"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "adapter/kind=lorra"], "Did you mean `lora`"),
        (["--tasks", "sst", "--set", "batch_size/qqp=8"], "Unknown task `qqp` in `batch_size`. This run"),
        (["--budget", "0"], "`--budget` must be at least 1 training example, found 0."),
        (["--budget", "8", "--reports", "9"], "`--reports` must be from 1 to the budget of 8, found 9."),
        (["--threads", "-1"], "`--threads` must be at least 1"),
        (["--out", __file__], "`--out` needs a folder that can be written"),
        (["--resume"], "`--resume` needs the folder of an earlier run"),
        (["--data", "nowhere"], "`data` must be a folder"),
        (["--base", "./nowhere"], "`base` names no directory"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    options: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, *more]) == BAD_INPUT
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_legal_value_that_is_rarely_meant_gets_a_note(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*options, "--budget", "64", "--reports", "1", "--set", "dropout/head=0.9"]) == DONE
    assert "note `dropout/head` = 0.9: a rate above 0.5 drops more than it leaves" in capsys.readouterr().err


def test_stages_before_training_are_shown(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    stages = ["--set", "stages/mlm/kind=mlm", "--set", "stages/mlm/epochs=0.2"]
    assert main([*options, "--budget", "64", "--reports", "1", *stages]) == DONE
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("data ")]
    assert lines[:2] == ["stage MLM: 3 steps", "stage MLM: over"], lines
    assert any("64/64 examples" in line for line in lines)


def test_a_finished_run_is_not_overwritten(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*options, "--budget", "64"]) == DONE
    assert main([*options, "--budget", "64"]) == BAD_INPUT
    assert "add --resume or name another folder" in capsys.readouterr().err


def test_ctrl_c_writes_a_checkpoint_and_exits_3(options: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "minbert", *options, "--budget", "200000", "--reports", "1000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy())
    while not checkpoints.newest(tmp_path / "out") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == STOPPED, err
    assert "--resume" in err
    assert checkpoints.newest(tmp_path / "out") is not None


def test_predict_reads_lines_files_and_folders(
    options: list[str],
    corpus_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert main([*options, "--budget", "64", "--reports", "1"]) == DONE
    command = ["predict", str(tmp_path / "out"), "--threads", "1"]
    monkeypatch.setattr("sys.stdin", io.StringIO("a good film\na bad film\n"))
    capsys.readouterr()
    assert main([*command, "--task", "sst"]) == DONE
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.startswith("id,prediction,probability_0,") and [row[:2] for row in rows] == ["1,", "2,"]
    # A file of the class, row by row as --data predicts it.
    scores, folder = tmp_path / "scores.jsonl", tmp_path / "files"
    source = str(corpus_folder / "sts-test-student.csv")
    assert main([*command, "--task", "sts", "--input", source, "--out", str(scores)]) == DONE
    assert main([*command, "--data", str(corpus_folder), "--out", str(folder)]) == DONE
    written = [folder / f"{task}-{part}-output.csv" for task in ("sst", "para", "sts") for part in ("dev", "test")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in written]
    header, *lines = (folder / "sts-test-output.csv").read_text().splitlines()
    assert header == "id \t Predicted_Similiary"
    predicted = [json.loads(line) for line in scores.read_text().splitlines()]
    assert lines == [f"{row['id']} , {row['prediction']:.6f}" for row in predicted]
    assert len((folder / "sst-dev-output.csv").read_text().splitlines()) == 25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "sst"], "holds no model"),
        (["--data", "nosuch", "--out", "x"], "`--data` must be a folder"),
        (["--data", "."], "`--data` needs `--out`"),
        (["--data", ".", "--out", "x", "--task", "sst"], "`--task` is for --input"),
        (["--threads", "0"], "`--threads` must be at least 1"),
    ],
)
def test_predict_refuses(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(tmp_path), *arguments]) == BAD_INPUT
    out, err = capsys.readouterr()
    assert words in err and out == ""
