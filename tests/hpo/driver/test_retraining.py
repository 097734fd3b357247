"""The printed command trains a trial again: the same weights and scores, bit by bit, on one CPU thread."""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.driver.retraining import train_command
from hpo.launch.request import Launch, from_options
from minbert.__main__ import main
from minbert.training.checkpoints import newest, read_trial
from results.store import StoreError
from tests.hpo import inline
from tests.hpo.cli import hpo
from tests.minbert.conftest import make_corpus


@pytest.fixture
def signals() -> Iterator[None]:
    """The handlers of signals, which the command changes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_the_command_gives_the_trial_again(signals: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"adapter": {"kind": "lora", "rank": 4}, "encoding": {"sts": {"kind": "bi"}}, "selection": "best"}
    (tmp_path / "given.json").write_text(json.dumps(given))
    options: dict[str, Any] = {"space": "quickstart", "data": str(make_corpus(tmp_path / "data")), "base": "tiny"}
    options |= {"store": str(tmp_path / "runs"), "name": "real", "trials": 3, "budget": 200, "repeats": 0}
    options |= {"searcher": "random", "scheduler": "none", "start": (tmp_path / "given.json",)}
    folder = inline.run(from_options(Launch, options))
    monkeypatch.chdir(tmp_path)
    for trial in (1, 2):
        printed = hpo("show", "real", trial, "--command", store=tmp_path / "runs").stdout
        assert printed == train_command(folder, trial) + "\n"
        words = shlex.split(printed)
        assert words[:4] == ["python", "-m", "minbert", "train"]
        assert main(words[3:]) == 0
        last = max((row for row in folder.events() if row["table"] == "reports" and row["trial"] == trial),
                   key=lambda row: row["step"])  # fmt: skip
        checkpoint = newest(tmp_path / "trained" / f"real-{trial}")
        assert checkpoint is not None
        report = read_trial(checkpoint)[1]
        assert report is not None
        assert report["scores"] == last["scores"], "bit by bit"
        assert report["overall"] == last["overall"]
        assert report["losses"] == last["losses"]
        assert report["checkpoint_sha256"] == last["checkpoint_sha256"], "and the weights"
    with pytest.raises(StoreError, match="No trial 9 in sweep `real`. It has trials 0 to 2."):
        train_command(folder, 9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--milestones", "300,100"], "`--milestones` must be ascending numbers of examples, such as 100,300,900"),
        (["--milestones", "a"], "found 'a'"),
        (["--milestones", "100", "--budget", "100"], "already says when to report; leave out `--budget`"),
    ],
)
def test_wrong_milestones_are_refused(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--base", "tiny", *words]) == 2
    assert message in capsys.readouterr().err
