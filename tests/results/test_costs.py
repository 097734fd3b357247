"""Costs of a trial, from rows of `reports`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from results import views
from results.costs import columns, cost
from results.query import query
from results.rows import to_table
from tests.results.samples import end, report, start, sweep

REPORTED = {
    "examples": 400, "seconds": 10.0, "evaluation_seconds": 2.0, "trainable_parameters": 5, "total_parameters": 50,
    "stage_seconds": 60.0, "peak_memory_bytes": 2**30, "examples_per_task": {"colour": 300, "length": 100},
}  # fmt: skip


def test_cost_of_a_report() -> None:
    assert cost(REPORTED) == {
        "trainable_parameters": 5,
        "trainable_share": 0.1,
        "seconds_per_1000": pytest.approx(20.0),
        "stage_seconds": 60.0,
        "peak_memory_bytes": 2**30,
        "examples_per_task": {"colour": 300, "length": 100},
    }


def test_costs_as_columns_are_those_of_each_report() -> None:
    reports = [
        REPORTED,
        {},
        *(REPORTED | {name: value} for name in REPORTED for value in (None, 0) if name[-4:] != "task"),
    ]
    key = {"seq": 1, "generation": 1, "trial": 0, "attempt": 0, "step": 100}
    found = columns(to_table("reports", [key | report for report in reports]), ["colour", "other"])
    for place, expected in enumerate(map(cost, reports)):
        tasks = expected.pop("examples_per_task")
        assert found["examples_colour"][place].as_py() == tasks.get("colour")
        assert found["examples_other"][place].as_py() is None
        assert {name: found[name][place].as_py() for name in expected} == pytest.approx(expected)


def test_costs_that_a_report_does_not_hold_are_none() -> None:
    names = ("trainable_parameters", "trainable_share", "seconds_per_1000", "stage_seconds", "peak_memory_bytes")
    empty = dict.fromkeys(names)
    assert cost({}) == {**empty, "examples_per_task": {}}
    assert cost({"seconds": 1.0, "examples": 0, "trainable_parameters": 1, "total_parameters": None}) == {
        **empty, "trainable_parameters": 1, "examples_per_task": {}
    }  # fmt: skip
    assert cost({"seconds": 1.0, "examples": 500, "evaluation_seconds": None})["seconds_per_1000"] == 2.0


def test_costs_are_columns_of_every_trial(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        writer.append("trials", start(0))
        writer.append("reports", report(0, 100, 0.5, **{k: v for k, v in REPORTED.items() if k != "examples"}))
        writer.append("trials", start(1))
        writer.append("trials", end(1, "failed"))
    frame = views.trials_frame(folder).set_index("trial")
    assert frame.loc[0, "seconds_per_1000"] == pytest.approx(8000 / 101)
    assert frame.loc[0, "examples_colour"] == 300
    assert pd.isna(frame.loc[1, "trainable_parameters"])
    assert list(frame.columns).index("params") > list(frame.columns).index("examples_length")
    assert views.top(folder, where="trainable_share < 0.2 AND examples_colour > 200")["trial"].tolist() == [0]
    assert views.show(folder, 0)["reports"][0]["cost"]["trainable_share"] == 0.1
    assert views.show(folder, 1)["peak_memory_bytes"] is None
    answer = query(folder, "SELECT sum(peak_memory_bytes) AS total FROM trials")
    assert answer["total"].tolist() == [2**30]
