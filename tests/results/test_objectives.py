"""Objectives: names, gains of reports and of tables, and the set that no trial dominates, against brute force."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results import views
from results.objectives import COSTS, OVERALL, Objective, accepted, gains, objectives_from, undominated
from tests.results.samples import end, report, start, sweep

TASKS = ("colour", "length")


def dominates(one: Any, other: Any) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@pytest.mark.parametrize("seed", range(30))
def test_the_set_that_no_trial_dominates_is_that_of_brute_force(seed: int) -> None:
    """Of few distinct values, so that ties and equal trials occur."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 5, size=(rng.integers(0, 40), rng.integers(1, 4))).astype(float)
    expected = [not any(dominates(other, one) for other in table) for one in table]
    assert undominated(table).tolist() == expected


def test_trials_are_kept_where_each_is_better_in_something() -> None:
    line = np.array([[value, -value] for value in range(9)], dtype=float)
    assert undominated(line).all()
    assert undominated(np.array([[1.0], [3.0], [3.0]])).tolist() == [False, True, True], "of one objective: the best"


def test_names() -> None:
    found = objectives_from("overall, -seconds,colour", TASKS)
    assert found == (OVERALL, Objective("seconds", minimised=True), Objective("colour"))
    assert objectives_from(list(map(str, found)), TASKS) == found
    assert [str(objective) for objective in objectives_from(accepted(TASKS), TASKS)] == accepted(TASKS)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("overal", r"Unknown objective `overal`\. Did you mean `overall`\? Expected some of: overall, colour, le"),
        ("sts", r"Unknown objective `sts`\. .*Expected some of: overall, colour"),
        ("overall,", "Unknown objective ``"),
        ("overall,seconds", "`seconds` is a cost, which is minimised: write `-seconds`"),
        ("-colour", "`-colour` is a score, which is maximised: write `colour`"),
        ("overall,-seconds,-seconds", "`-seconds` is given twice in overall,-seconds,-seconds"),
        ([], "Objectives must be at least one of: overall, colour"),
    ],
)
def test_other_names_are_refused_with_those_that_are_accepted(names: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objectives_from(names, TASKS)


ROW = report(0, 100, 0.5, seconds=20.0, evaluation_seconds=4.0, trainable_parameters=7, total_parameters=70,
             stage_seconds=3.0, peak_memory_bytes=2**20)  # fmt: skip


def test_the_gain_of_a_report_is_larger_where_it_is_better() -> None:
    values = {str(each): each.gain(ROW) for each in objectives_from(accepted(TASKS), TASKS)}
    assert values == {
        "overall": 0.5, "colour": 0.5, "length": 0.25, "-seconds": -20.0, "-trainable_parameters": -7.0,
        "-peak_memory_bytes": -(2.0**20), "-trainable_share": -0.1, "-seconds_per_1000": pytest.approx(-16_000 / 101),
        "-stage_seconds": -3.0,
    }  # fmt: skip
    assert all(math.isnan(each.gain({})) for each in objectives_from(accepted(TASKS), TASKS))


def test_a_table_of_trials_has_every_objective(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        writer.append("trials", start(0))
        writer.append("reports", ROW)
        writer.append("trials", start(1))
    every = objectives_from(accepted(TASKS), TASKS)
    table = gains(views.trials_frame(folder), every)
    assert table[0].tolist() == pytest.approx([each.gain(ROW) for each in every])
    assert np.isnan(table[1]).all(), "a trial without a report"
    assert set(COSTS) <= set(views.trials_frame(folder).columns)


@pytest.mark.parametrize("seed", range(4))
def test_the_view_holds_the_complete_trials_that_no_complete_one_dominates(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    folder, expected = sweep(tmp_path), {}
    with folder.writer() as writer:
        for trial in range(40):
            score, seconds, size = (int(value) for value in rng.integers(1, 9, size=3))
            origin = "repeat" if trial % 9 == 8 else "sampler"
            state = ("complete", "complete", "pruned", "diverged")[int(rng.integers(4))]
            value = math.nan if state == "diverged" else score / 10
            known = {} if trial % 7 == 6 else {"trainable_parameters": size}
            writer.append("trials", start(trial, origin=origin, config_id=str(trial)))
            writer.append("reports", report(trial, 300, value, seconds=float(seconds), **known))
            writer.append("trials", end(trial, state))
            if state == "complete" and origin == "sampler" and known:
                expected[trial] = (score, -seconds, -size)
    best = [trial for trial, one in expected.items() if not any(dominates(two, one) for two in expected.values())]
    best.sort(key=lambda trial: (-expected[trial][0], trial))
    objectives = objectives_from("overall,-seconds,-trainable_parameters", TASKS)
    frame = views.pareto(folder, objectives)
    assert frame["trial"].tolist() == best
    assert 1 < len(best) < len(expected)
    assert frame.columns.tolist() == views.top(folder).columns.tolist()
    few = {trial: one for trial, one in expected.items() if one[1] >= -4}
    best = [trial for trial, one in few.items() if not any(dominates(two, one) for two in few.values())]
    assert sorted(views.pareto(folder, objectives, "seconds <= 4")["trial"]) == best


def test_without_complete_trials_the_view_is_empty(tmp_path: Path) -> None:
    folder = sweep(tmp_path)
    with folder.writer() as writer:
        writer.append("trials", start(0))
    assert views.pareto(folder, objectives_from("overall,-seconds", TASKS)).empty
