"""`hpo run` as far as it goes without running, and `hpo spaces`."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.resources import ResourceRequest
from hpo.commands import options
from hpo.commands import run as run_commands
from hpo.driver import session
from hpo.launch.request import Launch, LaunchError, Relaunch
from hpo.search.schedulers import SCHEDULERS
from hpo.search.searchers import SEARCHERS
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


def test_a_dry_run_shows_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    done = hpo("run", "quickstart", "--dry-run", "--base", "tiny", "--set", "adapter/kind=lora", "--trials", "5",
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
    (["--base", "/no/such/model"], "/no/such/model"),
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
        *([] if "--base" in options else ["--base", "tiny"]),
        *options,
    ]
    assert named in refused(hpo(*arguments, store=store))
    assert sorted(store.rglob("*")) == before


def test_run_refuses_an_unknown_space(tmp_path: Path) -> None:
    assert "`quickstart`" in refused(hpo("run", "quickstat", store=tmp_path))


def test_run_refuses_a_store_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "file" in refused(hpo("run", "quickstart", "--base", "tiny", "--dry-run", store=tmp_path / "file"))


@pytest.mark.parametrize("command", [("resume",), ("extend", "--trials", "9")], ids=["resume", "extend"])
def test_resume_and_extend_may_change_resources_data_and_time(
    store: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[Any] = []
    monkeypatch.setattr(run_commands, "_launch_again", lambda *arguments: passed.extend(arguments))
    changes = ("--cpus-per-trial", "2", "--gpus-per-trial", "0.5", "--data", "moved", "--time", "2m")
    done = hpo(*command, SWEEP, *changes, store=store)
    assert done.exit_code == 0, done.output
    trials = 9 if "--trials" in command else None
    relaunch = Relaunch(trials=trials, resources=ResourceRequest(None, 2, 0.5), data="moved", time=120.0)
    assert passed == [str(store), SWEEP, relaunch]


def test_every_field_of_a_request_has_its_option() -> None:
    """All but the module that trains, and what one command alone takes (`--takeover`, `--retry-failed`, `--trials`)."""
    of_machines = {field.name for field in fields(ResourceRequest)}
    launched = {field.name for field in fields(Launch)} - {"resources", "trainer"}
    assert set(options.LAUNCH) == launched | of_machines
    resumed = {field.name for field in fields(Relaunch)}
    resumed -= {"resources", "takeover", "retry_failed", "trials", "keep", "trainer"}
    assert set(options.GOING_ON) == resumed | of_machines


def test_searchers_and_schedulers_are_chosen_by_name(tmp_path: Path) -> None:
    text = " ".join(hpo("run", "--help").stdout.split())
    assert all(name in text for name in (*SEARCHERS, *SCHEDULERS)), "the help names every one"
    common = ("run", "quickstart", "--dry-run", "--base", "tiny", "--trials", "5", "--budget", "900")
    shown = hpo(*common, "--searcher", "random", "--scheduler", "none", store=tmp_path / "runs")
    assert shown.exit_code == 0, shown.output
    words = " ".join(shown.stdout.split())
    assert "searcher random" in words
    assert "scheduler none: no trial is stopped early" in words
    assert "about 4,500 expected, 4,500 at most" in words
    wrong = (
        (("--searcher", "tp"), "Unknown searcher `tp`. Did you mean `tpe`? Expected one of: changes, gp, grid,"),
        (("--scheduler", "ahsa"), "Did you mean `asha`? Expected one of: asha, hyperband, median, none."),
        (("--scheduler", "none", "--eta", "4"), "`none` has no setting `eta`, which belongs to asha, hyperband."),
    )
    for options_, message in wrong:
        assert message in refused(hpo(*common, *options_, store=tmp_path / "runs"))


def test_a_warm_start_names_sweeps_of_the_store(store: Path) -> None:
    common = ("run", "quickstart", "--dry-run", "--base", "tiny")
    assert "No sweep `small-2`" in refused(hpo(*common, "--warm-start", "small-2", store=store))
    message = refused(hpo(*common, "--warm-start", SWEEP, "--searcher", "grid", store=store))
    assert "the searcher `grid` has neither parents nor priors" in message
    message = refused(hpo(*common, "--warm-start", SWEEP, store=store))
    assert f"trials of '{SWEEP}' cannot be compared with those of this sweep: its weights of tiny are others" in message
    assert "its data are others" in message


def test_options_become_a_request_with_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    launches: list[Launch] = []

    def prepare(launch: Launch, estimate: bool) -> None:
        launches.append(launch)
        raise LaunchError("no further")

    monkeypatch.setattr("hpo.launch.prepare.prepare", prepare)
    refused(hpo("run", "quickstart"))
    arguments = ("--set", "a=1", "--set", "b=2", "--start", "c.json", "--workers", "3", "--checkpoint", "tiny")
    refused(hpo("run", "quickstart", *arguments))
    settings, start = ("a=1", "b=2"), (Path("c.json"),)
    assert launches == [
        Launch("quickstart"),
        Launch("quickstart", settings=settings, start=start, base="tiny", resources=ResourceRequest(workers=3)),
    ]


def never(*_: Any) -> None:
    raise AssertionError("nothing must be started")


@pytest.mark.parametrize("arguments", [("resume",), ("extend", "--trials", "6")], ids=["resume", "extend"])
def test_a_sweep_that_is_done_says_so_at_once(
    store: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(store.rglob("*"))
    monkeypatch.setattr(run_commands, "_watched", never)
    done = hpo(*arguments, SWEEP, store=store)
    assert done.exit_code == 0, done.output
    message = " ".join(done.stderr.split())
    assert f"{SWEEP} is done: its 6 trials have ended and the chosen ones have predicted" in message
    assert f"hpo extend {SWEEP} --trials 12 --store {store}" in message
    assert sorted(store.rglob("*")) == before


def test_resume_in_python_needs_no_cluster_for_a_done_sweep(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.driver.session.connect", never)
    outcome = session.resume(str(store), SWEEP)
    assert (outcome.state, outcome.snapshot.phase) == ("done", "done")
    assert outcome.snapshot.counts["complete"] == 4
    assert outcome.snapshot.best[0][0] == 3


def test_a_sweep_with_something_left_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(run_commands, "_watched", lambda store, *_: started.append(store))
    stored.make(tmp_path / "done")
    stored.make(tmp_path / "unpredicted", unpredicted=True)
    stored.make(tmp_path / "damaged")
    (tmp_path / "damaged" / SWEEP / "predictions" / "0-0.parquet").write_bytes(b"PAR1")
    for name, arguments in (
        ("done", ("extend", "--trials", "7")),
        ("unpredicted", ("resume",)),
        ("damaged", ("resume",)),
    ):
        done = hpo(*arguments, SWEEP, store=tmp_path / name)
        assert done.exit_code == 0, done.output
    assert started == [str(tmp_path / name) for name in ("done", "unpredicted", "damaged")]
    assert "6 trials, a total of 5 would be fewer" in refused(
        hpo("extend", SWEEP, "--trials", "5", store=tmp_path / "done")
    )


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
    monkeypatch.setattr(run_commands, "_watched", lambda *_: None)
    counted = hpo(*command, store=tmp_path / "runs")
    assert counted.exit_code == 0, counted.output
    assert "2 notes on the data, the first: ids-sst-train.csv:98: `sentence` is empty" in counted.stderr


def test_a_folder_in_place_of_a_data_file_is_refused(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "data")
    (folder / "sts-dev.csv").unlink()
    (folder / "sts-dev.csv").mkdir()
    done = hpo("run", "quickstart", "--data", folder, "--checkpoint", "tiny", "--dry-run", store=tmp_path / "runs")
    assert "sts-dev.csv must be a file of tab-separated text with a header; it is a folder." in refused(done)
