"""Sweeps that Python launches: options, callbacks, the display in a notebook."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import hpo
from hpo.cluster.connection import Cluster
from hpo.display import live
from hpo.driver.callbacks import Callbacks
from hpo.launch.request import LaunchError
from results.store import Store
from tests.hpo.conftest import SPACE, script
from tests.hpo.display.test_live import snapshot

pytestmark = pytest.mark.timeout(400)

OPTIONS: dict[str, Any] = {
    "base": "tiny", "name": "s", "budget": 900, "grace": 100, "workers": 2, "gpus_per_trial": 0.0, "repeats": 0,
    "trainer": "tests.hpo.fakes",
}  # fmt: skip


class Notes(hpo.Callback):
    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def started(self, row: Mapping[str, Any]) -> None:
        self.events.append(("started", row))

    def reported(self, row: Mapping[str, Any]) -> None:
        self.events.append(("reported", row))

    def ended(self, row: Mapping[str, Any]) -> None:
        self.events.append(("ended", row))

    def phase(self, name: str) -> None:
        self.events.append(("phase", name))

    def message(self, text: str) -> None:
        self.events.append(("message", text))

    def finished(self, row: Mapping[str, Any]) -> None:
        self.events.append(("finished", row))

    def of(self, event: str) -> list[Any]:
        return [row for name, row in self.events if name == event]


class Broken(hpo.Callback):
    def reported(self, row: Mapping[str, Any]) -> None:
        raise RuntimeError("no network")

    def message(self, text: str) -> None:
        raise RuntimeError(text)  # a new error for each message


def test_callbacks_are_told_of_every_event_and_harm_nothing(ray_cluster: Cluster, tmp_path: Path) -> None:
    notes = Notes()
    script(tmp_path / "s", faults={2: {"kind": "raise", "at": 1}})
    with pytest.warns(UserWarning, match=re.escape("a callback failed: Broken.reported: RuntimeError: no network")):
        sweep = hpo.run(
            SPACE, store=str(tmp_path), trials=4, keep=1, callbacks=[Broken(), notes], progress=False, **OPTIONS
        )
    assert sweep.state == "done"
    rows = Store(tmp_path).open("s").events()

    def keys(found: Any) -> list[tuple[Any, ...]]:
        return [(row["trial"], row["attempt"], row.get("step")) for row in found]

    assert keys(notes.of("started")) == keys(row for row in rows if row.get("event") == "start")
    assert keys(notes.of("reported")) == keys(row for row in rows if row["table"] == "reports")
    ends = [(row["trial"], row["attempt"]) for row in notes.of("ended")]
    assert sorted(ends) == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0)], "each attempt once; an error is tried again"
    start = notes.of("started")[1]
    assert start["config"]["optimizer"]["encoder_lr"] == start["params"]["optimizer/encoder_lr"]
    assert {row["trial"]: row["state"] for row in notes.of("ended")}[2] == "failed"
    assert notes.of("phase") == ["starting", "searching", "repeating", "finalising", "done"]
    assert any("trial 2" in message for message in notes.of("message"))
    assert notes.events[-1][0] == "finished", "and every row was told before"
    [end] = notes.of("finished")
    assert (end["sweep"], end["state"], end["answer"]) == ("s", "done", sweep.answer.answer.trial)
    assert sum(end["members"].values()) == pytest.approx(1)

    later = Notes()
    script(tmp_path / "s")
    longer = hpo.resume("s", str(tmp_path), trials=5, trainer="tests.hpo.fakes", callbacks=[later], progress=False)
    assert [row["trial"] for row in later.of("started")] == [4], "what happened before is no news"
    assert [row["trial"] for row in later.of("ended")] == [4]
    assert len(longer.trials) == 5


def test_an_attempt_ends_once_for_callbacks() -> None:
    notes = Notes()
    callbacks = Callbacks([notes], print)
    end = {"event": "end", "attempt": 0, "state": "complete", "checkpoint": "here"}
    callbacks.recall([end | {"trial": 0}])
    dropped = {"checkpoint": None}  # as the recorder writes when the weights of an ended trial lose
    callbacks([end | {"trial": 1}, end | {"trial": 0} | dropped, end | {"trial": 1} | dropped])
    assert [(row["trial"], row.get("checkpoint")) for row in notes.of("ended")] == [(1, "here")]


def test_bad_options_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"Unknown option `trails`. Did you mean `trials`\? Accepted: address, base"):
        hpo.run("quickstart", trails=3)
    with pytest.raises(LaunchError, match="`trials`: give options to the Launch, not beside it"):
        hpo.run(hpo.Launch("quickstart"), trials=3)
    with pytest.raises(LaunchError, match="`settings` must be a list"):
        hpo.run("quickstart", settings="adapter/kind=lora")
    with pytest.raises(ValueError, match=r"`callbacks\[0\]` must be an object of a subclass of hpo.Callback, not <"):
        Callbacks([print], print)  # type: ignore[list-item]


def test_a_notebook_shows_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Mapping[str, str]] = []

    def display(content: Mapping[str, str], **options: Any) -> Any:
        assert options == {"raw": True, "display_id": True}
        shown.append(content)
        return types.SimpleNamespace(update=lambda content, raw: shown.append(content))

    module = types.ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    with live.observer(Console(force_jupyter=True), activity="loading Ray") as observer:
        observer(snapshot())
    first, second = shown
    assert first["text/plain"] == "starting: loading Ray ..."
    assert "quickstart-1" in second["text/plain"]
    assert "0.6812" in second["text/html"]
    assert second["text/html"].startswith("<pre")
