"""The fold in columns equals the plain one, row by row, on random stores."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from results import views
from results.query import query
from results.reading import fenced, joined, listing, report_per_step
from results.rows import to_rows
from results.store import Store, SweepFolder
from tests.results import plain
from tests.results.samples import end, report, start, sweep

STEPS = (100, 300, 900)
STATES = ("complete", "pruned", "diverged", "failed", "lost", "paused")


def draw(chance: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration and drawn parameters of a trial: branches, groups, lists, values of several types, and nulls."""
    rate = chance.choice([0.1, 1e-05, 3, None])
    kind = chance.choice(["none", "lora", "pal"])
    if kind == "none":
        return {"adapter": {"kind": kind}, "lr": rate}, {"adapter/kind": kind, "adapter.none//lr": rate}
    if kind == "lora":
        targets = chance.choice([["query"], ["query", "value"], []])
        adapter = {"kind": kind, "rank": chance.choice([1, 8]), "targets": targets, "dropout": 0.5}
        params = {"adapter/kind": kind, "adapter.lora/rank": adapter["rank"]}
        return {"adapter": adapter, "lr": 0.3}, params | ({"adapter.lora/targets": "q+v"} if targets else {})
    adapter = {"kind": kind, "rank": "low", "dropout": {"sst": 0.3}, "bias": chance.random() < 0.5}
    params = {"adapter/kind": kind, "adapter.pal/rank": "low", "adapter.pal/dropout/sst": 0.3}
    return {"adapter": adapter, "batch": {"sst": 3}}, params | {"adapter.pal/bias": adapter["bias"], "batch": "3/2"}


def rows(chance: random.Random, trial: int) -> list[tuple[str, dict[str, Any]]]:
    """What happens to a trial: attempts that repeat steps, repeated rows, reports that are not finite."""
    config, params = draw(chance)
    identity = {"config_id": chance.choice([f"{trial}", "shared", None]), "seed": chance.choice([2**60 + trial, None])}
    identity |= {
        "origin": chance.choice(["default", "sampler", "repeat", None]),
        "replicate": chance.choice([0, 1, None]),
    }
    found: list[tuple[str, dict[str, Any]]] = []
    for attempt in range(chance.randint(1, 3)):
        found.append(("trials", start(trial, attempt, config=config, params=params, **identity)))
        for step in STEPS[: chance.randint(0, 3)]:
            value = chance.choice([math.nan, 0.5, chance.random(), chance.random()])
            costs = {"seconds": chance.choice([None, 10 * chance.random()]), "examples_per_task": {"colour": step}}
            costs |= {"trainable_parameters": 5, "total_parameters": chance.choice([0, 10, None])}
            row = report(trial, step, value, attempt, checkpoint=chance.choice([None, f"{attempt}-{step}"]), **costs)
            found.append(("reports", row if chance.random() < 0.9 else row | {"scores": None, "examples": None}))
            if chance.random() < 0.1:
                found.append(found[-1])
        if chance.random() < 0.8:
            error, weights = chance.choice([None, "", "Traceback"]), chance.choice([None, "kept"])
            found.append(("trials", end(trial, chance.choice(STATES), attempt, error=error, checkpoint=weights)))
            if chance.random() < 0.3:
                found.append(("trials", found[-1][1] | {"checkpoint": None}))
    return found


def random_store(path: Path, seed: int) -> SweepFolder:
    """A sweep of three generations with interleaved trials; some files are damaged, some merged."""
    chance = random.Random(seed)
    folder = sweep(path)
    histories = [rows(chance, trial) for trial in range(24)]
    for _ in range(3):
        with folder.writer(period=3600) as writer:
            for _ in range(60):
                waiting = [history for history in histories if history]
                if waiting:
                    table, row = chance.choice(waiting).pop(0)
                    writer.append(table, row)
                if chance.random() < 0.3:
                    writer.barrier()
        if chance.random() < 0.5:
            folder.compact(fewest=4)
    for table in ("trials", "reports"):
        files = sorted((folder.path / table).iterdir())
        for file in chance.sample(files, min(len(files), chance.choice([0, 0, 1, 3]))):
            file.write_bytes(file.read_bytes()[:-9])
    return folder


@pytest.fixture(scope="module", params=range(8))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """A random store. Tests only read it."""
    return random_store(tmp_path_factory.mktemp("store"), request.param)


def same(found: pd.DataFrame, expected: list[dict[str, Any]]) -> None:
    """Whether a frame holds exactly these rows; a missing value is None or NaN."""
    assert len(found) == len(expected)
    for got, row in zip(found.to_dict("records"), expected, strict=True):
        assert set(got) == set(row)
        for name, value in row.items():
            missing = value is None or value != value
            assert pd.isna(got[name]) if missing else got[name] == value, (row["trial"], name)


def drawn(rows: list[dict[str, Any]]) -> set[str]:
    """The parameters that any of these trials has drawn, by path."""
    return {path for row in rows for path in json.loads(row["params"])}


def test_the_table_of_trials(folder: SweepFolder) -> None:
    expected = plain.trials_table(folder)
    assert len(expected) > 10
    same(views.trials_frame(folder), expected)
    best = views.top(Store(folder.path.parent).open("one"), 5)
    by_trial = {row["trial"]: row for row in expected}
    rows = [by_trial[trial] for trial in best["trial"]]
    undrawn = drawn(expected) - drawn(rows)  # the best trials' parameters alone are columns
    rows = [{name: value for name, value in row.items() if name not in undrawn} for row in rows]
    same(best.drop(columns=["runs", "mean", "like_best"]), rows)
    some = query(folder, "SELECT trial, adapter/rank, config FROM trials WHERE adapter/kind = 'lora' ORDER BY trial")
    names = ("trial", "adapter/rank", "config")
    chosen = [row for row in expected if row["adapter/kind"] == "lora"]
    assert [str(row) for row in some["adapter/rank"]] == [str(row["adapter/rank"]) for row in chosen]
    assert list(some["config"]) == [row["config"] for row in chosen]
    assert list(some.columns) == list(names)


def test_the_rows_that_count(folder: SweepFolder) -> None:
    counted = {}
    continued = {int(file.stem): json.loads(file.read_text()) for file in (folder.path / "fences").glob("*.json")}
    fences = {number: content["continued_from"] for number, content in continued.items()}
    for table in ("trials", "reports"):
        files = listing(folder.folder.child(table), table).tables
        stored = to_rows(fenced(joined(table, list(files.values())), fences))
        random.Random(0).shuffle(stored)
        counted[table] = plain.in_order(table, stored)
        assert repr(to_rows(folder.read(table))) == repr(counted[table])
        part = folder.read(table, columns=("trial", "time"))
        assert part["time"].to_pylist() == [row["time"] for row in counted[table]]
        earlier = [row for row in counted[table] if row["seq"] <= 90]
        later = to_rows(folder.read(table, after=90))
        assert min((row["seq"] for row in later), default=91) > 90
        assert repr(plain.in_order(table, earlier + later)) == repr(counted[table])
    per_step = report_per_step(folder.read("reports"), folder.read("trials"))
    assert repr(to_rows(per_step)) == repr(plain.report_per_step(counted["reports"], counted["trials"]))


def test_one_trial_in_detail(folder: SweepFolder) -> None:
    frame = views.trials_frame(folder)
    trial = int(frame["trial"].iloc[-1])
    facts = views.show(folder, trial)
    [row] = [row for row in plain.trials_table(folder) if row["trial"] == trial]
    assert facts["config"] == json.loads(row["config"])
    assert facts["params"] == json.loads(row["params"])
    reports = [each for each in to_rows(folder.read("reports")) if each["trial"] == trial]
    assert [each["seq"] for each in facts["reports"]] == [each["seq"] for each in reports]
    assert facts["state"] == row["state"]


def test_a_statement_reads_the_columns_that_it_may_use(folder: SweepFolder) -> None:
    """Statements that name no parameter, but may read one."""
    whole = views.trials_frame(folder)
    assert list(query(folder, "SELECT * FROM trials").columns) == ["sweep", *whole.columns]
    struct = query(folder, "SELECT t FROM trials t ORDER BY trial LIMIT 1")["t"][0]
    assert list(struct) == ["sweep", *whole.columns]
    place = 2 + list(whole.columns).index("adapter/kind")
    by_position = query(folder, f"SELECT #{place} AS kind FROM trials ORDER BY trial")["kind"]
    named = query(folder, "SELECT adapter/kind AS kind FROM trials ORDER BY trial")["kind"]
    assert by_position.tolist() == named.tolist() == whole["adapter/kind"].tolist()
    assert query(folder, "SELECT count(COLUMNS('adapter.kind')) AS n FROM trials").iloc[0, 0] == len(whole)
    in_query = "WITH a AS (SELECT trial, adapter/kind AS kind FROM trials) SELECT count(DISTINCT kind) AS n FROM a"
    assert query(folder, in_query)["n"][0] == len(set(whole["adapter/kind"]))
