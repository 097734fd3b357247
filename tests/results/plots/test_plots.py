"""Every figure of the table, on small tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from results.objectives import Objective
from results.plots import look, predictions, trials
from results.plots.table import PLOTS

EVIL = "<script>window.hit = 1</script>"
COST = Objective("seconds", minimised=True)

REPORTS = pd.DataFrame(
    {
        "trial": [0, 1, 2, 0, 2, 1, 3],
        "step": [100, 100, 100, 300, 300, 300, 300],
        "used": [100, 200, 300, 500, 700, 900, 1200],
        "elapsed": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0],
        "overall": [0.9, 0.3, 0.5, 0.4, math.nan, 0.6, 0.99],
        "state": ["complete", "complete", EVIL, "complete", EVIL, "complete", "complete"],
        "origin": ["default", "sampler", "sampler", "default", "sampler", None, "repeat"],
    }
)
TRIALS = pd.DataFrame(
    {
        "trial": [0, 1, 2, 3, 4],
        "state": ["complete", "complete", "complete", "pruned", "complete"],
        "origin": ["default", "sampler", None, "sampler", "repeat"],
        "config_id": ["a", "b", "c", "d", "a"],
        "overall": [0.5, 0.6, 0.55, 0.9, 0.7],
        "seconds": [10.0, 20.0, 30.0, 1.0, 1.0],
        "lr": [1e-5, 1e-3, math.nan, 1e-4, 1e-4],
        EVIL: [EVIL, "b", None, "b", True],
    }
)
ATTEMPTS = pd.DataFrame(
    {
        "trial": [0, 1, 2], "attempt": [0, 0, 0], "worker": [EVIL, "", EVIL], "slot": [1, 2, 1],
        "begin": [0.0, 5.0, 400.0], "end": [400.0, 100.0, 450.0], "state": ["complete", "lost", "pruned"],
        "reason": ["", EVIL, ""],
    }
)  # fmt: skip
IMPORTANCES = pd.DataFrame(
    {
        "parameter": ["lr", "lr", EVIL, EVIL], "target": ["overall", "sst"] * 2,
        "importance": [0.7, 0.2, 0.3, 0.8], "chance": [0.02, 0.5, 0.4, math.nan],
    }
)  # fmt: skip
COUNTS = pd.DataFrame([[3, 1], [0, 0]], index=["0", EVIL], columns=["0", EVIL])
CURVE = pd.DataFrame({"threshold": [0.9, 0.6, 0.2], "precision": [1.0, 0.5, 0.4], "recall": [0.2, 0.5, 1.0]})
ROWS = pd.DataFrame({"id": ["a", EVIL], "label": [1.0, 2.0], "prediction": [1.5, 9.0], "outlier": [False, True]})

EXAMPLES: Mapping[str, tuple[Callable[[pd.DataFrame], go.Figure], pd.DataFrame]] = {
    "history": (trials.history, REPORTS),
    "sweeps_history": (lambda frame: trials.sweeps_history({EVIL: frame}, by="elapsed"), REPORTS),
    "intermediate_values": (trials.intermediate_values, REPORTS),
    "parallel_coordinate": (lambda frame: trials.parallel_coordinate(frame, ["lr", EVIL]), TRIALS),
    "slice": (lambda frame: trials.slice(frame, ["lr", EVIL]), TRIALS),
    "param_importances": (trials.param_importances, IMPORTANCES),
    "pareto_front": (lambda frame: trials.pareto_front(frame, COST), TRIALS),
    "timeline": (trials.timeline, ATTEMPTS),
    "replicates": (trials.replicates, TRIALS),
    "confusion": (predictions.confusion, COUNTS),
    "precision_recall": (predictions.precision_recall, CURVE),
    "agreement": (predictions.agreement, ROWS),
}
"""Name of a figure -> the call that makes it, and a table to make it from."""


def named(figure: go.Figure, name: str) -> Any:
    """The trace of that name."""
    return next(trace for trace in figure.data if trace.name == name)


def test_every_figure_has_an_example() -> None:
    assert set(EXAMPLES) == set(PLOTS)


@pytest.mark.parametrize("name", PLOTS)
def test_texts_of_the_store_are_no_markup(name: str) -> None:
    call, table = EXAMPLES[name]
    drawn = json.loads(call(table).to_json())
    assert drawn["data"]
    assert "<script" not in json.dumps(drawn), "plotly reads tags in texts"


@pytest.mark.parametrize("name", PLOTS)
def test_an_empty_table_gives_a_figure_that_says_why(name: str) -> None:
    call, table = EXAMPLES[name]
    figure = call(table.iloc[:0])
    assert re.search(r"no |fewer", figure.layout.annotations[0].text)
    assert not figure.data


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_every_colour_can_be_told_on_light_and_dark() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for colour in {*look.COLOURS, *look.STATES.values(), *(colour for _, colour in look.SCALE)}:
        for background in look.BACKGROUNDS:
            assert contrast(colour, background) >= 3, (colour, background)
    for colour in look.STATES.values():
        assert contrast(colour, look.ON_BARS) >= 4.5, colour


def test_the_best_line_holds_full_budgets_alone() -> None:
    line = named(trials.history(REPORTS), "best at full budget")
    assert line.x.tolist() == [500, 900]
    assert line.y.tolist() == [0.4, 0.6], "neither the 0.9 of a lower rung nor the 0.99 of a repeat"
    default = named(trials.history(REPORTS), "default configuration")
    assert default.y.tolist() == [0.9, 0.4]


def test_of_many_reports_at_lower_rungs_some_are_drawn() -> None:
    count = trials.DENSE + 1
    many = pd.DataFrame(
        {"trial": np.arange(1, count + 1), "step": 100, "used": np.arange(count), "overall": 0.5, "origin": "sampler"}
    )
    shown = named(trials.history(pd.concat([REPORTS, many])), "lower rungs (1 in 2 is drawn)")
    assert shown.marker.maxdisplayed == trials.DENSE
    assert len(shown.x) == count + 2, "a reader who zooms in sees the others"
    assert named(trials.history(REPORTS), "lower rungs")


def test_curves_end_where_trials_end() -> None:
    figure = trials.intermediate_values(REPORTS)
    lines, ends = [trace for trace in figure.data if trace.name == "complete"]
    assert np.isnan(lines.x.astype(float)).sum() == 2, "a gap after each of two trials"
    assert sorted(zip(ends.x.tolist(), ends.y.tolist(), strict=True)) == [(300, 0.4), (300, 0.6)]
    assert figure.layout.xaxis.tickvals == (100, 300)


def test_a_missing_value_passes_below_all_others() -> None:
    rate, kind, score = trials.parallel_coordinate(TRIALS, ["lr", EVIL]).data[0].dimensions
    assert rate.values.tolist() == pytest.approx([-5, -3, -5.5, -4, -4]), "a long range is logarithmic"
    assert rate.ticktext[0] == kind.ticktext[0] == "-"
    assert rate.ticktext[1:] == ("1e-05", "3.16e-05", "0.0001", "0.000316", "0.001")
    assert kind.values.tolist() == [0, 2, -1, 2, 1], "texts and truth values by name"
    assert score.values.tolist() == TRIALS["overall"].tolist()


def test_the_front_holds_what_no_complete_trial_beats() -> None:
    front = named(trials.pareto_front(TRIALS, COST), "front")
    assert front.customdata.tolist() == [0, 1], "2 is dearer than 1 and no better; 3 was stopped, 4 is a repeat"
    assert named(trials.pareto_front(TRIALS, COST), "other trials").customdata.tolist() == [2]


def test_a_long_range_of_costs_has_whole_numbers_at_its_ticks() -> None:
    wide = TRIALS.assign(seconds=[50, 500, 5000, 50, 50])
    axis = trials.pareto_front(wide, COST).layout.xaxis
    assert axis.type == "log"
    assert axis.ticktext[:8] == ("10", "20", "50", "100", "200", "500", "1,000", "2,000")
    assert axis.tickvals[:8] == pytest.approx((10, 20, 50, 100, 200, 500, 1000, 2000))


def test_seeds_are_grouped_by_configuration() -> None:
    figure = trials.replicates(TRIALS)
    assert named(figure, "one run").x.tolist() == [0.5, 0.7]
    assert named(figure, "mean").x == pytest.approx((0.6,))
    assert set(named(figure, "one run").y) == {"default (0)"}


def test_a_bar_that_may_be_chance_is_pale() -> None:
    bar, mark = trials.param_importances(IMPORTANCES).data
    assert bar.marker.opacity.tolist() == [1.0, 0.4]
    assert mark.name == "sst"
    assert mark.x.tolist() == [0.2, 0.8]


def test_shares_of_a_confusion_are_of_the_label() -> None:
    shown = predictions.confusion(COUNTS).data[0]
    assert shown.z.tolist() == [[0.75, 0.25], [0, 0]]
    assert shown.text[0][0] == "3<br>75%"


def test_the_threshold_in_use_is_marked() -> None:
    mark = predictions.precision_recall(CURVE).data[1]
    assert (mark.x.tolist(), mark.y.tolist()) == ([0.5], [0.5])


def test_the_timeline_has_one_lane_a_worker() -> None:
    figure = trials.timeline(ATTEMPTS.assign(worker=["node7, process 41", "", "node7, process 41"]))
    assert list(figure.layout.yaxis.categoryarray) == ["slot 2", "node7, process 41"], "the first worker on top"
    lanes = {bar.text[0]: bar.y[0] for bar in figure.data}
    assert lanes == {"0": "node7, process 41", "1": "slot 2", "2": "node7, process 41"}


def test_a_quarantine_marks_every_worker_of_its_place() -> None:
    attempts = ATTEMPTS.assign(worker=["node7 GPU 1, process 4", "node7 GPU 1, process 5", "node7 GPU 12, process 6"])
    places = ["node7 GPU 1", "node9"]
    closed = pd.DataFrame({"place": places, "reason": [EVIL, "dead"], "begin": [60.0, 0.0], "end": [120.0, 600.0]})
    figure = trials.timeline(attempts, closed)
    bars = named(figure, "in quarantine")
    assert list(bars.y) == ["node7 GPU 1, process 4", "node7 GPU 1, process 5", "node9"], "node9 gets a lane"
    assert (list(bars.base), list(bars.x)) == ([1.0, 1.0, 0.0], [1.0, 1.0, 10.0]), "in minutes"
    assert "node9" in figure.layout.yaxis.categoryarray
    assert bars.hovertext[2] == "node9 in quarantine: dead"
    assert "<" not in bars.hovertext[0]
    assert figure.data[0] is bars, "behind the attempts"
