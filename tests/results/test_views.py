"""Tables of trials, from the rows of a sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest

from results import views
from results.looks import looks
from results.reading import report_per_step
from results.rows import to_rows
from results.sql import QueryError
from results.store import StoreError, SweepFolder
from tests.results.samples import SCORING, end, predict, report, start, sweep

LORA = {"adapter": {"kind": "lora", "rank": 8, "targets": ["query", "value"]}, "optimizer": {"lr": 0.1}}


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    stored = sweep(tmp_path)
    with stored.writer() as writer:

        def add(table: str, row: dict) -> None:  # type: ignore[type-arg]
            writer.append(table, row)

        add("trials", start(0, origin="default", config=LORA, config_id="0123456789abcdef", replicate=0))
        add("reports", report(0, 100, 0.5, seconds=4.0))
        add(
            "trials",
            start(1, config={"adapter": {"kind": "none"}}, params={"adapter/kind": "none", "optimizer/lr": 0.2}),
        )
        add("reports", report(1, 100, 0.4))
        add("trials", end(1, "lost"))
        add("trials", start(1, attempt=1))
        add("reports", report(1, 100, math.nan, attempt=1))
        add("reports", report(1, 300, 0.45, attempt=1))
        add("trials", end(1, "complete", attempt=1, checkpoint="weights"))
        add("trials", end(0, "pruned", reason="below the cutoff"))
        add(
            "trials",
            start(2, config=LORA, params={"adapter/kind": "lora", "adapter.lora/rank": 8, "optimizer/lr": "low"}),
        )
        add("reports", report(2, 300, math.nan, diverged=True))
        add("trials", end(2, "diverged"))
        add("trials", start(3))
        add("trials", end(3, "failed", error="Traceback: boom"))
        add("trials", start(4))
        add("reports", report(4, 300, 0.44))
    return stored


def test_one_row_per_trial(folder: SweepFolder) -> None:
    frame = views.trials_frame(folder).set_index("trial")
    assert frame["state"].tolist() == ["pruned", "complete", "diverged", "failed", "running"]
    assert frame["attempts"].tolist() == [1, 2, 1, 1, 1]
    assert frame["step"].tolist() == [100, 300, 300, 0, 300]
    assert frame["kept"].tolist() == [False, True, False, False, False]
    assert frame.loc[1, "overall"] == 0.45
    assert frame.loc[1, "length"] == 0.225
    assert frame.loc[0, "seconds"] == 4.0
    assert frame.loc[3, "error"] == "Traceback: boom"
    assert math.isnan(frame.loc[2, "overall"])


def test_parameters_come_from_the_draw_or_the_configuration(folder: SweepFolder) -> None:
    frame = views.trials_frame(folder).set_index("trial")
    assert frame.loc[0, "adapter/kind"] == "lora"
    assert frame.loc[0, "adapter/rank"] == 8, "not drawn: the value of its configuration"
    assert math.isnan(frame.loc[1, "adapter/rank"]), "another branch has no rank"
    assert json.loads(frame.loc[2, "params"]) == {"adapter/kind": "lora", "adapter/rank": 8, "optimizer/lr": "low"}
    assert not [name for name in frame.columns if ".lora" in name]


def test_branches_of_a_parameter_share_one_column(tmp_path: Path) -> None:
    """A path holds a number in one branch and a group in another, and two branches give one path different domains."""
    stored = sweep(tmp_path)
    configs = [
        {"adapter": {"kind": "lora", "dropout": 0.1, "targets": ["query", "value"]}, "optimizer": {"lr": 0.2}},
        {"adapter": {"kind": "pal", "dropout": {"sst": 0.3}}, "optimizer": {"lr": 0.4}},
        {"adapter": {"kind": "dora", "dropout": 0.5, "targets": ["key"]}, "optimizer": {"lr": 0.6}},
    ]
    params = [
        {"adapter.lora/dropout": 0.1, "adapter.lora/targets": "q+v", "adapter.lora//optimizer/lr": 0.2},
        {"adapter.pal/dropout/sst": 0.3},
        {"adapter.dora//optimizer/lr": 0.6},
    ]
    with stored.writer() as writer:
        for trial in range(3):
            writer.append("trials", start(trial, config=configs[trial], params=params[trial]))
    frame = views.trials_frame(stored).astype(object)
    columns = {name: [None if pd.isna(value) else value for value in frame[name]] for name in frame if "/" in name}
    assert columns == {
        "adapter/dropout": [0.1, None, 0.5],
        "adapter/dropout/sst": [None, 0.3, None],
        "adapter/targets": ["q+v", None, "key"],
        "optimizer/lr": [0.2, 0.4, 0.6],
    }


def test_a_step_shows_its_first_finite_report(tmp_path: Path) -> None:
    stored = sweep(tmp_path)
    values = {(0, 100): [0.2, 0.3], (1, 100): [math.nan, 0.2, 0.3], (2, 100): [math.nan, None], (2, 300): [0.1]}
    with stored.writer() as writer:
        for trial in range(3):
            writer.append("trials", start(trial))
        for attempt in range(3):
            for (trial, step), reported in values.items():
                if attempt < len(reported):
                    writer.append("reports", report(trial, step, 0.0, attempt) | {"overall": reported[attempt]})
    chosen = to_rows(report_per_step(stored.read("reports"), stored.read("trials")))
    scores = {(row["trial"], row["step"]): (row["attempt"], row["overall"]) for row in chosen}
    assert len(chosen) == len(scores) == 4
    assert scores.pop((2, 100)) == (0, pytest.approx(math.nan, nan_ok=True))
    assert scores == {(0, 100): (0, 0.2), (1, 100): (1, 0.2), (2, 300): (0, 0.1)}
    assert [row["seq"] for row in chosen] == sorted(row["seq"] for row in chosen)


def test_repeats_stand_in_the_row_of_the_trial_that_they_repeat(tmp_path: Path) -> None:
    stored = sweep(tmp_path)
    scores = {0: (0.50, "a"), 1: (0.54, "b"), 2: (0.535, "c"), 3: (0.45, "d"), 4: (0.52, "b"), 5: (0.51, "a")}
    with stored.writer() as writer:
        for trial, (value, config_id) in scores.items():
            origin = "repeat" if trial > 3 else "sampler"
            writer.append("trials", start(trial, config_id=config_id, origin=origin, replicate=int(trial > 3)))
            writer.append("reports", report(trial, 300, value))
            writer.append("trials", end(trial, "complete"))
        writer.append("trials", start(6, config_id="e"))
        writer.append("reports", report(6, 100, 0.9))
        writer.append("trials", end(6, "pruned"))
    shown = views.top(stored)
    assert shown["trial"].tolist() == [1, 2, 0, 3, 6]
    assert shown["runs"].tolist() == [2, 1, 2, 1, 0]
    assert shown["mean"].tolist()[:4] == pytest.approx([0.53, 0.535, 0.505, 0.45])
    assert math.isnan(shown["mean"][4])
    alike = [None if pd.isna(value) else bool(value) for value in shown["like_best"]]
    assert alike == [True, True, False, False, None], "at a lower rung nothing can be compared"
    assert list(views.top(stored, 1)["like_best"]) == [True]
    assert [run["trial"] for run in views.show(stored, 5)["runs"]] == [0, 5]
    assert views.show(stored, 3)["runs"] == [{"trial": 3, "replicate": 0, "state": "complete", "overall": 0.45}]


def test_trials_without_an_identity_are_configurations_of_their_own(folder: SweepFolder) -> None:
    assert views.top(folder)["runs"].tolist() == [1, 0, 0]
    assert [None if pd.isna(value) else bool(value) for value in views.top(folder)["like_best"]] == [True, None, None]


def test_ranking_goes_by_step_then_overall(folder: SweepFolder) -> None:
    assert views.ranking(views.trials_frame(folder)) == [1, 4, 0]
    assert views.top(folder, 2)["trial"].tolist() == [1, 4]
    assert views.top(folder, where="overall > 0.44")["trial"].tolist() == [1, 0]
    assert views.top(folder, where="adapter/rank = 8 or state = 'running'")["trial"].tolist() == [4, 0]
    assert views.top(folder, where="state = 'nothing'").empty
    for bad in ("overall >", "1) ; DROP TABLE trials --", "nope = 1", "max(overall) > 0", "true) AS a, (true"):
        with pytest.raises(QueryError):
            views.top(folder, where=bad)


@pytest.mark.parametrize(
    ("where", "message"),
    [("", "found nothing"), (" ", "found nothing"), ("5", "found `5`, which is of type INTEGER"),
     ("state", "found `state`, which is of type VARCHAR"), ("overal > 1", "no column `overal`.*Nearest: over")],
)  # fmt: skip
def test_a_condition_must_be_true_or_false(folder: SweepFolder, where: str, message: str) -> None:
    with pytest.raises(QueryError, match=message) as error:
        views.top(folder, where=where)
    assert "such as overall > 0.6" in str(error.value) or "Nearest" in str(error.value)


def test_show_holds_one_trial_in_detail(folder: SweepFolder) -> None:
    facts = views.show(folder, 1)
    assert facts["rank"] == 1
    assert facts["config"] == {"adapter": {"kind": "none"}}
    assert [event["event"] for event in facts["attempts"]] == ["start", "end", "start", "end"]
    assert [row["step"] for row in facts["reports"]] == [100, 100, 300]
    identity = [(views.show(folder, trial)["config_id"], views.show(folder, trial)["replicate"]) for trial in (0, 3)]
    assert identity == [("0123456789abcdef", 0), (None, None)], "rows of an older version have none"
    assert views.show(folder, 3)["error"] == "Traceback: boom"
    assert views.show(folder, 0)["error"] is None
    json.dumps(facts)
    with pytest.raises(StoreError, match="No trial 9 in sweep `one`. It has trials 0 to 4"):
        views.show(folder, 9)


def test_held_scores(folder: SweepFolder) -> None:
    predict(folder, [1.0, 0.2])
    assert views.show(folder, 0)["held"] is None, "no scoring, no score"
    assert looks(folder) == 0
    shown = [views.show(folder, trial, SCORING)["held"] for trial in (0, 1, 4, 0)]
    assert looks(folder) == 2, "trials 0 and 1; trial 0 twice"
    assert shown[0] == {"colour": 1.0, "length": pytest.approx(1.0), "overall": pytest.approx(1.0)}
    assert shown[1]["colour"] < 0.6
    assert shown[2] is None, "it has predicted nothing"
    for frame in (views.trials_frame(folder), views.top(folder)):
        assert not [name for name in frame.columns if "held" in name], "nobody ranks or filters by `held`"
    with pytest.raises(QueryError, match="held_overall"):
        views.top(folder, where="held_overall > 0.5")


def test_an_empty_sweep(tmp_path: Path) -> None:
    empty = sweep(tmp_path)
    assert views.trials_frame(empty).empty
    assert views.top(empty).empty
    assert views.top(empty, where="overall > 0").empty
    with pytest.raises(StoreError, match="no trials yet"):
        views.show(empty, 0)


def test_rows_before_the_row_of_a_trials_start_count_nowhere(tmp_path: Path) -> None:
    """The start of trial 0's first attempt is lost with its file; the trial was drawn again, with other parameters."""
    stored = sweep(tmp_path)
    with stored.writer() as writer:
        writer.append("reports", report(0, 100, 0.9))
        writer.append("trials", start(0, attempt=1))
        writer.append("reports", report(0, 100, 0.1, 1))
        writer.append("reports", report(1, 100, 0.8))
    frame = views.trials_frame(stored)
    assert [(row.trial, row.overall, row.attempts) for row in frame.itertuples()] == [(0, 0.1, 1)]
    assert to_rows(report_per_step(stored.read("reports"), stored.read("trials")))[0]["overall"] == 0.1
