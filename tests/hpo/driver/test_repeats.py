"""Repeats in whole sweeps on Ray, with a trainer that needs no model: recorded, shown, predicted, resumed, extended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster.connection import Cluster
from hpo.driver import session
from hpo.driver.answer import of_sweep, runs_at_full_budget
from hpo.driver.ledger import Ledger
from hpo.search.repeats import missing
from hpo.search.snapshot import Snapshot
from results.store import Store
from tests.hpo.cli import answer
from tests.hpo.cli import hpo as command
from tests.hpo.conftest import FAKES, calls, launch, script
from tests.hpo.driver.test_interruptions import descendants, driver, events, gone, story, wait

# Seconds on an idle machine; a loaded one may take ten times as long to start a process.
pytestmark = pytest.mark.timeout(400)

BUDGET = 900
PARTS: dict[str, Any] = {"scheduler": "none", "grace": None, "repeats": 2}
"""Without early stopping a sweep of nine trials may repeat two."""


def test_a_sweep_repeats_predicts_shows_resumes_and_extends(ray_cluster: Cluster, tmp_path: Path) -> None:
    snapshots: list[Snapshot] = []
    outcome = session.run(launch(tmp_path, trials=9, keep=2, workers=2, **PARTS), snapshots.append)
    assert outcome.state == "done"
    folder = Store(tmp_path).open("s")
    ledger = Ledger(folder.events())
    assert sorted(ledger.repeats) == [9, 10]
    starts = {row["trial"]: row for row in folder.events() if row.get("event") == "start"}
    best = ledger.ranking()[0]
    assert best != 0
    assert [ledger.repeat_of(number) for number in (9, 10)] == [best, 0]
    for number, of in ((9, best), (10, 0)):
        begun = starts[number]
        assert (begun["origin"], begun["replicate"], begun["searcher"]) == ("repeat", 1, None)
        assert all(starts[number][name] == starts[of][name] for name in ("config", "config_id", "params"))
        assert starts[number]["seed"] != starts[of]["seed"]

    final = outcome.snapshot
    assert sum(final.counts.values()) == final.trials_total == 9
    assert (final.repeats_ended, final.repeats_total, final.ended) == (2, 2, True)
    assert [row.reports for row in final.rungs] == [9] * len(final.rungs)
    assert not {9, 10} & {leader.trial for leader in final.best}
    phases = list(dict.fromkeys(snapshot.phase for snapshot in snapshots))
    # The repeats of this small sweep may end between two snapshots.
    assert [phase for phase in phases if phase != "repeating"] == ["starting", "searching", "finalising", "done"]
    assert "repeating" not in phases or phases.index("repeating") == 2
    running = {trial.trial: trial.repeat_of for shown in snapshots for trial in shown.running}
    assert {9: best, 10: 0}.items() >= {number: of for number, of in running.items() if number > 8}.items()

    assert {0, best, 9, 10} <= ledger.kept.keys()
    assert runs_at_full_budget(ledger, BUDGET)[0] == [0, 10]
    predicted = set(folder.read("predictions")["trial"].to_pylist())
    assert {0, best, 9, 10} <= predicted, "every run of the answer and of the default"
    decision = of_sweep(folder)
    assert decision is not None
    assert decision.held is not None
    assert (decision.held.trial, decision.held.runs, decision.held.default_runs) == (best, (best, 9), (0, 10))

    shown = answer("top", "s", store=tmp_path)
    assert sorted(row["trial"] for row in shown) == list(range(9)), "repeats have no rows"
    assert {row["trial"]: row["runs"] for row in shown} == dict.fromkeys(range(9), 1) | {best: 2, 0: 2}
    assert shown[0]["mean"] == pytest.approx(shown[0]["overall"]), "the trainer knows no seeds"
    facts = answer("show", "s", str(best), store=tmp_path)
    assert [run["trial"] for run in facts["runs"]] == [best, 9]
    assert facts["answer"]["held"]["runs"] == [best, 9]
    state = answer("status", "s", store=tmp_path)
    assert (state["phase"], state["repeats_total"], state["repeats"]["complete"]) == ("done", 2, 2)
    assert answer("list", store=tmp_path)[0]["repeats"] == "2 of 2"
    text = command("show", "s", "9", store=tmp_path).stdout
    assert "runs of this configuration" in text
    assert "against default, held out" in text
    assert "training trial 9 from 0" in command("logs", "s", "9", store=tmp_path).stdout

    before = calls(tmp_path / "s")
    assert session.resume(str(tmp_path), "s", FAKES).state == "done"
    assert calls(tmp_path / "s") == before, "nothing is left to do"
    longer = session.resume(str(tmp_path), "s", replace(FAKES, trials=13))
    assert longer.state == "done"
    after = Ledger(Store(tmp_path).open("s").events())
    assert set(after.searched) - set(ledger.searched) == {11, 12, 13, 14}
    assert len(after.repeats) == 3
    assert missing(after.runs(), BUDGET, 2) == []
    assert longer.snapshot.trials_total == 13


@pytest.mark.slow
def test_a_driver_killed_during_a_repeat_is_resumed_as_if_nothing_had_been(
    ray_cluster: Cluster, tmp_path: Path
) -> None:
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    script(broken / "s", slow=0.1)
    with driver("run", broken, trials=5, **PARTS) as process:
        wait(lambda: (5, "start") in events(broken), 200, "the start of the repeat")
        children = descendants(process.pid)
        process.kill()
        process.communicate()
        wait(lambda: gone(children), 60, f"the end of processes {sorted(children)}")
    state = answer("status", "s", store=broken)
    assert (state["phase"], state["repeats"]["waiting"], state["repeats_total"]) == ("interrupted", 1, 1)
    assert "answer" in answer("show", "s", "0", store=broken)
    assert answer("show", "s", "0", store=broken)["answer"] is None, "not before the repeats have ended"
    script(broken / "s")
    resumed = session.resume(str(broken), "s", FAKES)
    assert resumed.state == "done"
    assert [call[:2] for call in calls(broken / "s")][-1] == (5, 1)
    session.run(launch(unbroken, trials=5, **PARTS))
    assert story(broken) == story(unbroken)
    shown = [json.dumps(answer("show", "s", "0", store=store)["answer"]) for store in (broken, unbroken)]
    assert shown[0] == shown[1]
