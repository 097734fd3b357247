"""`hpo list`, `status`, `stop`, `logs` and `rm`: sweeps are watched and controlled through the store alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from results.places import locate
from tests.hpo import stored
from tests.hpo.cli import SWEEP, answer, hpo, refused


@pytest.fixture(scope="module")
def kept_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests only read, or add ensembles to."""
    path = tmp_path_factory.mktemp("store")
    stored.make(path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of the test's own."""
    stored.make(tmp_path / "runs")
    return tmp_path / "runs"


def test_list(kept_store: Path) -> None:
    assert [row["sweep"] for row in answer("list", store=kept_store)] == [SWEEP]
    row = answer("list", store=kept_store)[0]
    assert (row["state"], row["closed"], row["trials"], row["by trial"]) == ("done", 6, 6, 3)
    assert row["best"] == pytest.approx(stored.overall(stored.scores(3, 300)))
    assert SWEEP in hpo("list", store=kept_store).stdout


def test_list_of_an_empty_store_says_how_to_start(tmp_path: Path) -> None:
    done = hpo("list", store=tmp_path / "none")
    assert done.exit_code == 0
    assert "hpo run quickstart" in done.stdout
    assert answer("list", store=tmp_path / "none") == []


def test_store_comes_from_the_environment(kept_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_STORE", str(kept_store))
    assert SWEEP in hpo("list").stdout


def test_status(kept_store: Path) -> None:
    facts = answer("status", SWEEP, store=kept_store)
    assert facts["counts"] == {"running": 0, "complete": 4, "pruned": 1, "diverged": 0, "failed": 1, "waiting": 0}
    assert facts["phase"] == "done"
    assert facts["best"][0][0] == 3
    assert facts["rungs"][0] | {"cutoff": 0, "best": 0} == {
        "step": 100, "reports": 5, "stopped": 1, "cutoff": 0, "best": 0, "diverged": 0, "exempt": 1
    }  # fmt: skip
    text = hpo("status", SWEEP, store=kept_store).stdout
    assert "6 of 6 closed" in text
    assert "4 finished" in text


def test_status_watch_of_a_sweep_that_is_over_ends(kept_store: Path) -> None:
    done = hpo("status", SWEEP, "--watch", store=kept_store)
    assert done.exit_code == 0
    assert "phase    done" in done.stdout


def begun(store: Path, time: float) -> Path:
    """A sweep `cut` with one trial that has not ended; returns its folder."""
    from results.store import Store

    folder = Store(store).create("cut", stored.record("cut").to_json())
    with folder.writer() as writer:
        writer.append("trials", {"trial": 0, "attempt": 0, "event": "start", "config": "{}", "time": time, "seed": 0})
    return Path(folder.path)


def launch(sweep: Path, number: int, **facts: float | str | None) -> None:
    """Write the generation file of a launch whose process on this machine is gone."""
    from hpo.cluster.processes import this_process

    entry = {"number": number, **asdict(this_process()), "started": -1.0, "state": "ended", **facts}
    path = sweep / "generations" / f"{number:06d}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entry))


@pytest.mark.parametrize(("state", "phase"), [("live", "interrupted"), ("ended", "stopped"), ("claimed", "stopped")])
def test_a_sweep_whose_last_driver_died_is_interrupted(tmp_path: Path, state: str, phase: str) -> None:
    sweep = begun(tmp_path, time=1.0)
    launch(sweep, 1, state="ended", since=1.0, until=2.0)
    launch(sweep, 2, state=state, since=None if state == "claimed" else 1.0)
    facts = answer("status", "cut", store=tmp_path)
    assert facts["phase"] == phase
    assert (facts["counts"]["running"], facts["counts"]["waiting"], facts["running"]) == (0, 1, [])
    assert answer("list", store=tmp_path)[0]["state"] == phase
    assert "1 interrupted" in hpo("status", "cut", store=tmp_path).stdout


def test_a_finished_sweep_whose_driver_was_killed_at_the_end_is_done(store: Path) -> None:
    launch(store / SWEEP, 1, state="live", since=stored.START)
    assert answer("status", SWEEP, store=store)["phase"] == "done"


def test_time_counts_from_the_last_launch(tmp_path: Path) -> None:
    def elapsed() -> float:
        return float(answer("status", "cut", store=tmp_path)["elapsed"])

    sweep = begun(tmp_path, time=1000.0)
    assert elapsed() == 0.0, "without launches, time counts from row to row"
    launch(sweep, 1, state="ended", since=990.0, until=1050.0)
    assert elapsed() == 60.0, "the time that the launch took"
    launch(sweep, 2, state="live", since=970.0)
    assert elapsed() == 30.0, "its driver died: until the last row"
    launch(sweep, 3, state="ended", since=2000.0, until=2004.0)
    assert elapsed() == 4.0, "the last launch, not all"


def test_status_and_the_live_picture_count_from_the_same_moment(store: Path) -> None:
    """The file that `hpo status` reads holds the beginning of the launch, from which the live picture counts."""
    from hpo.driver import generations

    began = time.time() - 100
    generation = generations.claim(locate(store / SWEEP), since=began)
    try:
        facts = answer("status", SWEEP, store=store)
    finally:
        generation.end()
    assert facts["started"] == began
    assert 100 <= facts["elapsed"] <= time.time() - began


def test_a_sweep_whose_chosen_trials_have_not_predicted_is_not_done(tmp_path: Path) -> None:
    stored.make(tmp_path, unpredicted=True)
    assert answer("list", store=tmp_path)[0]["state"] == "stopped"
    facts = answer("status", SWEEP, store=tmp_path)
    assert facts["phase"] == "stopped"
    assert facts["messages"] == [f"no predictions yet of trials 3: hpo resume {SWEEP}"]


@pytest.mark.parametrize("command", [["status"], ["top"], ["stop"], ["rm"], ["ensemble"], ["resume"], ["importance"],
                                     ["show", "0"]])  # fmt: skip
def test_an_unknown_sweep_names_the_nearest(kept_store: Path, command: list[str]) -> None:
    name, *arguments = command
    message = refused(hpo(name, "smal-1", *arguments, store=kept_store))
    assert "`smal-1`" in message
    assert "`small-1`" in message


def test_a_sweep_name_cannot_leave_the_store(kept_store: Path) -> None:
    refused(hpo("rm", "../other", "--yes", store=kept_store))
    refused(hpo("status", "..", store=kept_store))


def test_logs(kept_store: Path) -> None:
    assert hpo("logs", SWEEP, "3", store=kept_store).stdout == "step 1\nstep 2\n"
    assert "Its trials are 0 to 5" in refused(hpo("logs", SWEEP, "9", store=kept_store))


def test_logs_follow_refuses_a_trial_that_cannot_exist(kept_store: Path) -> None:
    assert "no trial 999: it has 6 in all" in refused(hpo("logs", SWEEP, "999", "-f", store=kept_store))


def damage(store: Path) -> None:
    """A truncated file, a foreign file, and three folders that are no sweeps of ours."""
    victim = next((store / SWEEP / "reports").glob("*.parquet"))
    (victim.parent / "cut.parquet").write_bytes(victim.read_bytes()[:100])
    (store / SWEEP / "trials" / "notes.txt").write_text("mine")
    for name, content in (("foreign", "{}"), ("halved", '{"name": "h')):
        (store / name).mkdir()
        (store / name / "sweep.json").write_text(content)
    (store / "papers").mkdir()


@pytest.mark.parametrize(
    "command",
    [["list"], ["query", "SELECT count(*) FROM trials, reports"], ["top", SWEEP], ["show", SWEEP, "3"],
     ["status", SWEEP], ["status", SWEEP, "--watch"]],
)  # fmt: skip
def test_what_is_damaged_or_foreign_is_named_and_the_rest_answers(store: Path, command: list[str]) -> None:
    damage(store)
    done = hpo(*command, store=store)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip()
    named = ["cut.parquet", "notes.txt"]
    named += [str(store / name) for name in ("foreign", "halved", "papers")] if command[0] in ("list", "query") else []
    for name in named:
        lines = [line for line in done.stderr.splitlines() if name in line]
        assert lines, name
        assert all(line.startswith("hpo: warning: ") and "is skipped" in line for line in lines)


@pytest.mark.parametrize("command", ["status", "top", "resume", "importance"])
def test_a_foreign_sweep_json_is_refused_by_name(store: Path, command: str) -> None:
    damage(store)
    for name in ("foreign", "halved"):
        assert f"{name}/sweep.json` is damaged or foreign" in refused(hpo(command, name, store=store))


def test_logs_follow_prints_what_is_added(tmp_path: Path) -> None:
    from hpo.commands.watch import tail

    path = tmp_path / "3.log"
    path.write_text("one\n")
    lines: Iterator[str] = tail(locate(tmp_path), path.name, follow=True)
    assert next(lines) == "one\n"
    with path.open("a") as file:
        file.write("two\n")
    assert next(lines) == "two\n"


def test_stop_of_a_sweep_that_does_not_run(kept_store: Path) -> None:
    assert "hpo resume small-1" in refused(hpo("stop", SWEEP, store=kept_store))


def test_stop_leaves_a_request_and_rm_refuses_while_a_driver_is_alive(store: Path) -> None:
    from hpo.driver import generations
    from tests.hpo.files import stop_file

    generation = generations.claim(locate(store / SWEEP))
    try:
        done = hpo("stop", SWEEP, store=store)
        assert done.exit_code == 0, done.output
        assert f"process {os.getpid()}" in done.stderr
        assert stop_file(store / SWEEP).exists()
        assert "is running" in refused(hpo("rm", SWEEP, "--yes", store=store))
        facts = answer("status", SWEEP, store=store)
        assert (facts["phase"], facts["activity"]) == ("finalising", "choosing the trials that predict")
    finally:
        generation.end()


def test_rm_asks_first(store: Path) -> None:
    assert hpo("rm", SWEEP, store=store, typed="n\n").exit_code == 0
    assert (store / SWEEP / "sweep.json").exists()
    assert hpo("rm", SWEEP, store=store, typed="y\n").exit_code == 0
    assert answer("list", store=store) == []
    assert not (store / SWEEP).exists()
