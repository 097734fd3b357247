"""Tables that figures are made from."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pandas as pd
import pytest

from results import frames, views
from results.store import SweepFolder
from tests.results.samples import end, report, start, sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Trial 0 complete; 1 lost, then complete, and its kept weights displaced; 2 stopped at the first rung; 3 lost with
    its driver, then running; 4 a repeat of 0 that runs."""
    stored = sweep(tmp_path_factory.mktemp("store"))
    rows = [
        start(0, origin="default"), start(1, origin="sampler"),
        report(0, 100, 0.5, place="node7 GPU 3", pid=41), report(1, 100, 0.6),
        end(1, "lost", reason="the node is gone"), start(1, attempt=1), report(1, 100, 0.6, attempt=1),
        report(0, 300, 0.7, place="node7 GPU 3", pid=41), end(0, "complete"),
        start(2, origin="sampler"), report(2, 100, 0.2), end(2, "pruned"),
        report(1, 300, math.nan, attempt=1, diverged=True), end(1, "diverged", attempt=1), start(3, origin="sampler"),
        report(3, 100, 0.4), end(1, "diverged", attempt=1, checkpoint="x"), start(3, attempt=1),
        start(4, origin="repeat"), report(4, 100, 0.55),
    ]  # fmt: skip
    with stored.writer() as writer:
        for time, row in enumerate(rows, 1000):
            writer.append("trials" if "event" in row else "reports", {**row, "time": float(time)})
    return stored


def test_reports_count_examples_and_time_of_the_whole_sweep(folder: SweepFolder) -> None:
    frame = frames.reports_frame(folder)
    assert frame["trial"].tolist() == [0, 1, 0, 2, 1, 3, 4], "a step that an attempt reports again counts once"
    assert frame["used"].tolist() == [101, 202, 402, 503, 703, 804, 905], "101 examples a first step, 301 in all"
    assert frame["elapsed"].tolist() == [2, 3, 7, 10, 12, 15, 19]
    assert frame["state"].tolist() == ["complete", "diverged", "complete", "pruned", "diverged", "running", "running"]
    assert frame["origin"].tolist() == ["default", "sampler", "default", "sampler", "sampler", "sampler", "repeat"]
    assert math.isnan(frame["overall"][4])
    assert frame["length"].tolist()[:2] == [0.25, 0.3]


def test_attempts_begin_and_end(folder: SweepFolder) -> None:
    frame = frames.attempts_frame(folder)
    assert frame["worker"].tolist() == ["node7 GPU 3, process 41", *[""] * 6], "files of earlier versions name none"
    columns = frame[["trial", "attempt", "slot", "begin", "end", "state"]]
    assert list(columns.itertuples(index=False, name=None)) == [
        (0, 0, 1, 0, 8, "complete"),
        (1, 0, 2, 1, 4, "lost"),
        (1, 1, 2, 5, 13, "diverged"),
        (2, 0, 1, 9, 11, "pruned"),
        (3, 0, 1, 14, 15, "lost"),
        (3, 1, 1, 17, 19, "running"),
        (4, 0, 2, 18, 19, "running"),
    ]


def test_slots_are_the_fewest_without_overlap(tmp_path: Path) -> None:
    source = random.Random(0)
    spans = []
    rows = []
    for trial in range(60):
        begin = source.uniform(0, 100)
        spans.append((begin, begin + source.uniform(0.1, 20)))
        rows += [(spans[-1][0], start(trial)), (spans[-1][1], end(trial, "complete"))]
    stored = sweep(tmp_path)
    with stored.writer() as writer:
        for time, row in sorted(rows, key=lambda each: each[0]):
            writer.append("trials", {**row, "time": time})
    frame = frames.attempts_frame(stored)
    for _, rows_of_slot in frame.groupby("slot"):
        ordered = rows_of_slot.sort_values("begin")
        assert (ordered["begin"].to_numpy()[1:] >= ordered["end"].to_numpy()[:-1]).all()
    crowd = max(sum(begin <= moment < last for begin, last in spans) for moment, _ in spans)
    assert frame["slot"].max() == crowd


def test_trials_are_compared_where_none_was_selected(folder: SweepFolder) -> None:
    trials, reports = views.trials_frame(folder), frames.reports_frame(folder)
    assert frames.shared_step(reports) == 100, "trial 2 was stopped there"
    shown = frames.at_rung(trials, reports, 100)
    assert shown["trial"].tolist() == [0, 1, 2, 3], "repeats are left out"
    assert shown["overall"].tolist() == [0.5, 0.6, 0.2, 0.4]
    assert shown["length"].tolist() == [0.25, 0.3, 0.1, 0.2]
    assert frames.shared_step(reports[reports["state"] != "pruned"]) == 300
    few = pd.concat([reports[reports["state"] == "running"], reports[reports["trial"] == 0]])
    assert frames.shared_step(few) == 300, "half of the trials have reached it"


def test_a_sweep_without_rows(tmp_path: Path) -> None:
    stored = sweep(tmp_path)
    reports = frames.reports_frame(stored)
    assert len(reports) == len(frames.attempts_frame(stored)) == frames.shared_step(reports) == 0
    assert frames.at_rung(views.trials_frame(stored), reports, 0).empty
