"""`hpo importance` on stored sweeps."""

from __future__ import annotations

import importlib.util
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.space.source import to_json
from hpo.space.tree import compose, expand, leaves
from results.store import Store
from search_spaces.domains import Float, Int, Kind, Node
from tests.hpo import stored
from tests.hpo.cli import answer, hpo, refused

SPACE: dict[str, Node] = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": Float(1e-6, 1e-4, log=True)},
        lora={"rank": Int(1, 64, log=True), "/optimizer/encoder_lr": Float(1e-4, 1e-2, log=True)},
    ),
    "x": Float(0.0, 1.0),
    "y": Float(0.0, 1.0),
}
TREE = expand(SPACE, ())


def make(store: Path, name: str, count: int = 40) -> None:
    """A raced sweep that still runs: x decides SST, y decides QQP, STS is noise. Every second trial was stopped at the
    first rung; the last one diverged; one more has begun."""
    record = replace(stored.record(name, trials=count + 1), space=to_json(TREE))
    writer = Store(store).create(name, record.to_json()).writer()
    source = random.Random(0)

    def add(table: str, **row: Any) -> None:
        writer.append(table, {"attempt": 0, "time": stored.START, "host": "somewhere", **row})

    for trial in range(count + 1):
        config, params = compose(leaves(TREE), lambda leaf: leaf.random(source))
        add("trials", trial=trial, event="start", origin="sampler", config=json.dumps(config),
            params=json.dumps(params), seed=trial)  # fmt: skip
        if trial == count:
            break
        scores = {"sst": 1 - abs(params["x"] - 0.7), "qqp": 1 - abs(params["y"] - 0.2), "sts": source.random()}
        pruned, diverged = trial % 2 == 0, trial == count - 1
        for step in stored.MILESTONES[:1] if pruned or diverged else stored.MILESTONES:
            add("reports", trial=trial, step=step, examples=step, diverged=diverged, seconds=1.0,
                overall=float("nan") if diverged else stored.overall(scores), scores=scores)  # fmt: skip
        add("trials", trial=trial, event="end",
            state="diverged" if diverged else "pruned" if pruned else "complete")  # fmt: skip
    writer.barrier()
    writer.close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests only read."""
    path = tmp_path_factory.mktemp("store")
    make(path, "raced")
    stored.make(path)
    return path


def test_importance_of_every_task_side_by_side(store: Path) -> None:
    result = answer("importance", "raced", store=store)
    assert (result["method"], result["rung"], result["trials"], result["selected"]) == ("ped-anova", 100, 39, False)
    assert result["left_out"] == {"diverged": 1, "not at this rung": 1}
    assert result["targets"] == ["overall", "sst", "qqp", "sts"]
    entries = {entry["name"]: entry for entry in result["parameters"]}
    assert set(entries) == {"adapter/kind", "adapter/rank", "x", "y", "optimizer/encoder_lr (adapter=lora)",
                            "optimizer/encoder_lr (adapter=none)"}  # fmt: skip
    assert max(entries.values(), key=lambda entry: entry["importance"]["sst"])["name"] == "x"
    assert max(entries.values(), key=lambda entry: entry["importance"]["qqp"])["name"] == "y"
    assert entries["x"]["chance"]["sst"] == pytest.approx(1 / 40)
    text = hpo("importance", "raced", store=store).stdout
    for words in (
        "importance of the parameters of raced (ped-anova), from 39 trials at the rung of 100 examples",
        "optimizer/encoder_lr (adapter=lora)", "overall", "sst", "qqp", "sts",
        "trials left out: 1 diverged, 1 not at this rung", "of 39 random scorings",
    ):  # fmt: skip
        assert words in text
    [row] = [line.split() for line in text.splitlines() if line.startswith("x ")]
    assert row[2] == f"{entries['x']['importance']['sst']:.2f}*"
    assert row[-1] == "39"


def test_importance_of_one_task_equals_its_column(store: Path) -> None:
    parameters = answer("importance", "raced", store=store)["parameters"]
    every = {entry["name"]: entry["importance"]["qqp"] for entry in parameters}
    alone = answer("importance", "raced", "--task", "qqp", store=store)
    assert alone["targets"] == ["qqp"]
    assert {entry["name"]: entry["importance"]["qqp"] for entry in alone["parameters"]} == every
    assert alone["parameters"][0]["name"] == "y"
    text = hpo("importance", "raced", "--task", "qqp", "-n", "2", store=store).stdout
    assert "sst" not in text
    assert "4 parameters with less importance not shown: -n 6 shows all" in text


def test_fanova(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("sklearn") is not None:
        result = answer("importance", "raced", "--method", "fanova", "--task", "sst", store=store)
        assert result["parameters"][0]["name"] == "x"
        text = hpo("importance", "raced", "--method", "fanova", store=store).stdout
        assert "3 parameters left out, because not every compared trial has them" in text
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install scikit-learn" in refused(hpo("importance", "raced", "--method", "fanova", store=store))


def test_importance_refuses_what_it_cannot_answer(store: Path) -> None:
    message = refused(hpo("importance", "small-1", store=store))
    assert "needs 20 trials" in message
    assert "left out: 5 outside the space, 1 failed" in message
    message = refused(hpo("importance", "raced", "--rung", "300", store=store))
    assert "at the rung of 300 examples 19 have one" in message
    assert "(100, 300 examples), not 7" in refused(hpo("importance", "raced", "--rung", "7", store=store))
    message = refused(hpo("importance", "raced", "--task", "ssd", store=store))
    assert "Unknown task `ssd`. Expected one of: overall, sst, qqp, sts" in message
    assert "ped-anova, fanova" in refused(hpo("importance", "raced", "--method", "anova", store=store))


def test_a_rung_whose_trials_were_selected_says_so(tmp_path: Path) -> None:
    make(tmp_path, "longer", 44)
    text = hpo("importance", "longer", "--rung", "300", store=tmp_path).stdout
    assert "from 21 trials at the rung of 300 examples" in text
    assert "these trials passed the rungs below" in text
