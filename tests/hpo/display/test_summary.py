"""The closing screen and exit code of a launch; the driver is replaced by one that has already finished."""

from __future__ import annotations

import errno
import json
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.display import status
from hpo.display.units import plural
from hpo.driver import session
from hpo.driver.running import SupersededError
from hpo.launch.request import Relaunch
from hpo.search.snapshot import Snapshot
from results.places import locate
from results.store import Store, StoreError
from tests.hpo import stored
from tests.hpo.cli import SWEEP, hpo, refused


@pytest.fixture
def store(tmp_path: Path) -> Path:
    stored.make(tmp_path / "my runs", unpredicted=True)  # trial 3 has yet to predict, so a launch has work to do
    return tmp_path / "my runs"


def ending(state: Any, store: Path, seen: list[tuple[str, str, Relaunch]]) -> Callable[..., session.Outcome]:
    """A driver's `resume` that shows one snapshot, lets trial 3 predict, and ends in `state`."""

    def resume(where: str, name: str, relaunch: Relaunch, observer: Callable[[Snapshot], None]) -> session.Outcome:
        seen.append((where, name, relaunch))
        folder = Store(store).open(SWEEP)
        if name in folder.meta["name"] and folder.events():
            folder.write_table("predictions", stored.predictions(3), key="3-0")
        snapshot = status.read(folder)
        if state == "stopped":
            snapshot = replace(snapshot, phase="stopped", trials_total=9, messages=("SIGINT arrived: no new trials",))
        observer(snapshot)
        quarantined = {"node7 GPU 3": "2 trials failed there alike: CUDA error"} if state == "stopped" else {}
        return session.Outcome(name, state, snapshot, quarantined)

    return resume


def test_a_finished_sweep_closes_with_trials_ensemble_folder_and_next_commands(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, Relaunch]] = []
    monkeypatch.setattr(session, "resume", ending("done", store, seen))
    done = hpo("extend", SWEEP, "--trials", "6", "--time", "2m", store=store)
    assert done.exit_code == 0, done.output
    assert seen == [(str(store), SWEEP, Relaunch(trials=6, time=120.0))]
    text = done.stdout
    assert "small-1 is done after 20s: 4 finished, 1 stopped, 1 failed, 1,310 examples." in text
    assert [line.split()[0] for line in text.split("best trials")[1].splitlines()[3:8]] == ["3", "2", "1", "0", "4"]
    for words in (
        "held out, seen by no choice (n = 60",
        "selected on (n = 117",
        "best single trial on `search` (3)",
    ):
        assert words in text
    [name] = [path.stem for path in (store / SWEEP / "ensembles").iterdir()]
    assert "Answer: the default (trial 0), as no configuration is better" in text, "40 rows of `search` tell too little"
    assert "trial 3 against default, held out: +" in text
    assert text.index("best trials") < text.index("Answer:") < text.index(f"ensemble {name}")
    assert f"Everything is in {store / SWEEP}" in text


def test_the_next_commands_work_as_they_stand(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "resume", ending("done", store, []))
    monkeypatch.chdir(tmp_path)
    text = hpo("resume", SWEEP, store=store).stdout
    commands = [line.split(" # ")[0].strip() for line in text.splitlines() if line.startswith("  hpo ")]
    assert len(commands) == 3
    for command in commands:
        _, *arguments = shlex.split(command)
        done = hpo(*arguments)
        assert done.exit_code == 0, (command, done.output)
    assert (tmp_path / "predictions" / "sst-test-output.csv").exists()


def test_a_stopped_sweep_says_how_to_go_on_and_exits_3(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "resume", ending("stopped", store, []))
    done = hpo("resume", SWEEP, store=store)
    assert done.exit_code == 3
    assert "is stopped, resumable, after 20s" in done.stdout
    assert "3 to come" in done.stdout
    best = "Best so far (furthest rung first, then score on `search`): trial 3 with 0.7583 at 300 examples."
    assert best in done.stdout
    assert "! SIGINT arrived" in done.stdout
    assert "! in quarantine: node7 GPU 3: 2 trials failed there alike: CUDA error" in done.stdout
    assert f"Go on with: hpo resume {SWEEP} --store {shlex.quote(str(store))}" in done.stdout


def test_a_sweep_without_any_score_closes_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store(tmp_path).create(SWEEP, stored.record(SWEEP).to_json())
    monkeypatch.setattr(session, "resume", ending("done", tmp_path, []))
    done = hpo("resume", SWEEP, store=tmp_path)
    assert done.exit_code == 0, done.output
    assert "no trial has a score" in done.stdout
    assert "what went wrong" in done.stdout


def test_damaged_predictions_do_not_undo_a_finished_sweep(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (store / SWEEP / "predictions").iterdir():
        path.write_bytes(b"PAR1")
    monkeypatch.setattr(session, "resume", ending("done", store, []))
    done = hpo("resume", SWEEP, store=store)
    assert done.exit_code == 0, done.output
    assert "Everything is in" in done.stdout
    [record] = (store / SWEEP / "ensembles").iterdir()
    assert [member["trial"] for member in json.loads(record.read_text())["members"]] == [3], "those that can be read"
    for trial in (0, 2):
        assert f"left out: trial {trial}: its predictions are missing or damaged" in done.stdout
    assert "0-0.parquet is skipped" in done.stderr


@pytest.mark.parametrize(
    ("number", "path", "words"),
    [
        (errno.EACCES, "/runs/s/stop-request", "/runs/s/stop-request: Permission denied; let this user"),
        (errno.EPERM, "/runs/s", "/runs/s: Operation not permitted; let this user"),
        (errno.EROFS, "/runs/s", "/runs/s: Read-only file system; mount it writable"),
        (errno.ENOSPC, None, "No space left on device; free some space"),
        (errno.EPERM, None, None),
        (errno.EIO, "/runs/s", None),
        (errno.ENOENT, "/runs/s", None),
    ],
)
def test_an_error_of_the_system_that_the_caller_can_fix_is_a_message(
    store: Path, monkeypatch: pytest.MonkeyPatch, number: int, path: str | None, words: str | None
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(session, "resume", broken)
    done = hpo("resume", SWEEP, store=store)
    if words is None:
        assert isinstance(done.exception, OSError)
    else:
        assert words in refused(done)


def test_a_full_disk_names_the_folder_of_generations(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.driver import generations

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("results.files._write_synced", full)
    with pytest.raises(StoreError, match=rf"Cannot write to `{store / SWEEP}/generations`: No space left"):
        generations.claim(locate(store / SWEEP))
    assert [path.name for path in (store / SWEEP / "generations").iterdir()] == ["000001.json"], "that of its rows"


def test_resume_refuses_while_another_driver_works(store: Path) -> None:
    from hpo.driver import generations

    generation = generations.claim(locate(store / SWEEP))
    try:
        assert "--takeover" in refused(hpo("resume", SWEEP, store=store))
    finally:
        generation.end()


def test_a_mistake_of_the_caller_is_a_message_and_a_bug_keeps_its_traceback(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: Any, **__: Any) -> None:
        raise SupersededError("another driver has it")

    def broken(*_: Any, **__: Any) -> None:
        int("no number")  # raised by Python itself, but in a frame of this test

    monkeypatch.setattr(session, "resume", mistaken)
    done = hpo("resume", SWEEP, store=store)
    assert done.exit_code == 2
    assert "hpo: another driver has it" in done.stderr
    monkeypatch.setattr(session, "resume", broken)
    assert isinstance(hpo("resume", SWEEP, store=store).exception, ValueError)


def test_plural() -> None:
    assert (plural(1, "trial"), plural(2_000, "trial")) == ("1 trial", "2,000 trials")


def test_a_sweep_whose_ensemble_cannot_be_chosen_names_the_command_that_chooses_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / SWEEP / "ensembles").rmdir()
    (store / SWEEP / "ensembles").write_text("in the way")
    monkeypatch.setattr(session, "resume", ending("done", store, []))
    done = hpo("resume", SWEEP, store=store)
    assert done.exit_code == 0, done.output
    assert "warning: no ensemble was chosen" in done.stderr
    assert f"run: hpo ensemble {SWEEP} --store" in done.stderr
