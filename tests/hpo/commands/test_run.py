"""`hpo run` as far as it goes without running, and `hpo spaces`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpo.commands import run as launch
from tests.hpo import stored
from tests.hpo.cli import SWEEP, hpo, refused
from tests.minbert.conftest import make_corpus


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of the test's own."""
    stored.make(tmp_path / "runs")
    return tmp_path / "runs"


def test_spaces() -> None:
    rows = json.loads(hpo("spaces", "--json").stdout)
    assert {"full", "quickstart"} <= {row["space"] for row in rows}
    assert "adapter/rank" in hpo("spaces", "full").stdout
    assert "`quickstart`" in refused(hpo("spaces", "quickstat"))


def test_dry_run_says_all_and_writes_nothing(tmp_path: Path) -> None:
    done = hpo("run", "quickstart", "--dry-run", "--checkpoint", "tiny", "--set", "adapter/kind=lora", "--trials", "5",
               store=tmp_path / "runs")  # fmt: skip
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    for words in (
        "search space",
        "adapter/rank",
        "defaults taken",
        "max_length",
        "milestones",
        "expected",
        "evaluation",
        "time",
    ):
        assert words in text
    assert "adapter/kind = lora" in text
    assert not (tmp_path / "runs").exists()


MISTAKES = [
    (["--set", "adapter/kin=lora"], "adapter/kin"),
    (["--set", "adapter/kind=lorra"], "lora"),
    (["--data", "/no/such/folder"], "/no/such/folder"),
    (["--checkpoint", "/no/such/model"], "/no/such/model"),
    (["--start", "/no/such.json"], "/no/such.json"),
    (["--trials", "0"], "--trials"),
    (["--time", "soon"], "15m"),
    (["--cpus-per-trial", "4096"], "4096"),
    (["--name", "../up"], "up"),
    (["--name", SWEEP], f"hpo resume {SWEEP}"),
]


@pytest.mark.parametrize(("options", "named"), MISTAKES, ids=[" ".join(options) for options, _ in MISTAKES])
def test_run_refuses_bad_input(store: Path, options: list[str], named: str) -> None:
    before = sorted(store.rglob("*"))
    arguments = [
        "run",
        "quickstart",
        "--dry-run",
        *([] if "--checkpoint" in options else ["--checkpoint", "tiny"]),
        *options,
    ]
    assert named in refused(hpo(*arguments, store=store))
    assert sorted(store.rglob("*")) == before


def test_run_refuses_an_unknown_space(tmp_path: Path) -> None:
    assert "`quickstart`" in refused(hpo("run", "quickstat", store=tmp_path))


def test_run_refuses_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused(hpo("run", "quickstart", "--checkpoint", "tiny", "--dry-run", store=tmp_path / "file"))


@pytest.mark.parametrize("command", [("resume",), ("extend", "--trials", "9")], ids=["resume", "extend"])
def test_going_on_may_change_what_trials_get(
    store: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(launch, "_go_on", lambda store, sweep, **changes: seen.update(changes))
    done = hpo(*command, SWEEP, "--cpus-per-trial", "2", "--gpus-per-trial", "0.5", "--data", "moved", store=store)
    assert done.exit_code == 0, done.output
    assert (seen["cpus_per_trial"], seen["gpus_per_trial"], seen["data"]) == (2, 0.5, "moved")


def test_odd_data_is_shown_by_a_dry_run_and_counted_by_a_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_corpus(tmp_path / "data", dev=100)
    with (folder / "ids-sst-train.csv").open("a") as file:
        file.write("96\tlast\t\t0\n97\tlast\tthe film is good\t4\n")
    command = ("run", "quickstart", "--tasks", "sst", "--data", folder, "--checkpoint", "tiny", "--budget", "60")
    shown = hpo(*command, "--dry-run", store=tmp_path / "runs")
    assert shown.exit_code == 0, shown.output
    assert "note: ids-sst-train.csv:98: `sentence` is empty; row kept\n" in shown.stdout
    assert "note: ids-sst-train.csv:99: `id` 'last' is that of line 98 too; row kept\n" in shown.stdout
    monkeypatch.setattr(launch, "_watched", lambda store, work: None)
    counted = hpo(*command, store=tmp_path / "runs")
    assert counted.exit_code == 0, counted.output
    assert "2 notes on the data, the first: ids-sst-train.csv:98: `sentence` is empty" in counted.stderr


def test_a_folder_in_place_of_a_data_file_is_refused(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "data")
    (folder / "sts-dev.csv").unlink()
    (folder / "sts-dev.csv").mkdir()
    done = hpo("run", "quickstart", "--data", folder, "--checkpoint", "tiny", "--dry-run", store=tmp_path / "runs")
    assert "sts-dev.csv must be a file of tab-separated text with a header; it is a folder." in refused(done)
