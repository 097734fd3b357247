"""Sweeps for tests of the page: one whose names and texts are markup, and one of many trials."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.driver.jury import scoring
from hpo.search.states import configuration_id
from hpo.space.source import to_json
from hpo.space.tree import compose, expand, leaves
from minbert.tasks import Task
from results import choice, selection
from results.store import Store, SweepFolder
from search_spaces.domains import Float, Kind, Node, OneOf
from tests.hpo import stored

EVIL = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>\u2028"
"""A text that runs a script wherever it is taken as markup."""
SPACE: dict[str, Node] = {
    "adapter": Kind(none={}, lora={"rank": OneOf(4, 8, 16)}),
    "kind": OneOf("plain", EVIL),
    "rate": Float(1e-6, 1e-3, log=True),
    **{f"share{number}": Float(0.0, 1.0) for number in range(6)},
}


def small(store: Path, name: str = "small-1") -> SweepFolder:
    """The sweep of `tests.hpo.stored`, with evidence and an ensemble. Its answer is the default, its best single trial
    on `search` is trial 2."""
    folder = stored.make(store, name, unpredicted=True)
    score = scoring(folder)
    chosen = choice.select(folder, score, method="greedy", size=3, trials=[2, 1, 0])
    selection.conclude(folder, score, chosen)
    return folder


@contextmanager
def other_tasks() -> Iterator[Mapping[str, Task]]:
    """Sweeps that are made meanwhile have three tasks of other names: of 3 classes, of 2 classes, and of scores."""
    sst, qqp, sts = (stored.TASKS[name] for name in ("sst", "qqp", "sts"))
    tasks = {
        "mood": replace(sst, name="mood", classes=3, high=2, leaderboard=("", "")),
        "same": replace(qqp, name="same", leaderboard=("", "")),
        "grade": replace(sts, name="grade", leaderboard=("", "")),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "TASKS", tasks)
        patch.setattr(stored, "scores", lambda trial, step: dict.fromkeys(tasks, 0.3 + 0.1 * trial + step / 1e4))
        patch.setattr(stored, "overall", lambda values: sum(values.values()) / len(values))
        yield tasks


def many(store: Path, name: str, count: int, evil: str = EVIL) -> SweepFolder:
    """A raced sweep of `count` trials that still runs: half stopped at the first rung, some failed, two repeats, a
    place in quarantine. Its texts are markup."""
    tree = expand(SPACE, ())
    record = replace(
        stored.record(name, trials=count + 1), space=to_json(tree), argv=["run", evil],
        base=replace(stored.record(name).base, name=evil), versions={evil: evil},
        data=replace(stored.record(name).data, folder=evil, fingerprint="g"),
    )  # fmt: skip
    folder = Store(store).create(name, record.to_json())
    source = random.Random(0)
    clock = [stored.START]

    def add(table: str, trial: int, evidence: Any = None, **row: Any) -> None:
        clock[0] += 0.3
        writer.append(table, {"trial": trial, "attempt": 0, "time": clock[0], "host": evil, **row}, evidence)

    with folder.writer() as writer:
        for trial in range(count):
            repeat = trial >= count - 2
            draw = random.Random(0 if repeat else trial)  # a repeat runs the default again
            config, params = compose(leaves(tree), lambda leaf, draw=draw: leaf.random(draw))
            add("trials", trial, event="start", origin="repeat" if repeat else "sampler" if trial else "default",
                config=json.dumps(config), params=json.dumps(params), seed=trial, pid=1,
                config_id=configuration_id(config))  # fmt: skip
            if trial % 10 == 4:
                add("trials", trial, event="end", state="failed", reason=f"Error: {evil}", error=f"Traceback {evil}")
                continue
            scores = {task: source.uniform(0.4, 0.8) for task in stored.TASKS}
            pruned = trial % 2 == 1 and not repeat
            for step in stored.MILESTONES[:1] if pruned else stored.MILESTONES:
                seen = stored.evidence(2) if trial < 3 and step == stored.MILESTONES[-1] else None
                add("reports", trial, seen, step=step, examples=step, overall=stored.overall(scores), scores=scores,
                    diverged=False, verdict="continue", seconds=step * source.uniform(0.5, 2), evaluation_seconds=0.0,
                    trainable_parameters=source.randrange(10_000, 10**7), total_parameters=10**7,
                    peak_memory_bytes=source.randrange(2**28, 2**30))  # fmt: skip
            add("trials", trial, event="end", state="pruned" if pruned else "complete", reason=evil)
        add("trials", count, event="start", origin="sampler", config="{}", params="{}", seed=0)
    closed = {"time": clock[0] - 10, "places": {evil: evil}}
    (folder.path / "quarantines").mkdir()
    (folder.path / "quarantines" / "000001-000001.json").write_text(json.dumps(closed))
    folder.write_table("examples", [row | {"id": evil} for row in stored.examples()], key="f")
    return folder
