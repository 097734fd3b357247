"""Sweeps compared: against plain computations from their rows and predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hpo.driver.compare import Compared, CompareError, compare
from hpo.launch.prepare import prepare
from hpo.search.states import configuration_id
from minbert import metrics
from results.looks import FOLDER, looks
from results.store import Store, SweepFolder
from tests.hpo.cli import answer, hpo, refused
from tests.hpo.conftest import launch


def folders(store: Path) -> list[SweepFolder]:
    return [Store(store).open(name) for name in ("a", "b")]


@pytest.fixture(scope="module")
def found(two_sweeps: Path) -> Compared:
    return compare(folders(two_sweeps))


def held_score(folder: SweepFolder, trial: int) -> float:
    """A trial's overall score on the predicted rows of `held`, from the rows of the tables."""
    labels = {
        (row["task"], row["row"]): row["label"] for row in folder.read("examples").to_pylist() if row["split"] == "held"
    }
    rows = [row for row in folder.read("predictions").to_pylist() if row["trial"] == trial and row["split"] == "held"]
    scores = {}
    for name, task in folder.tasks.items():
        mine = [row for row in rows if row["task"] == name]
        truth = np.array([labels[name, row["row"]] for row in mine])
        scores[name] = metrics.score(task.metric, np.array([row["value"] for row in mine]), truth)
    tasks = folder.tasks
    return metrics.overall(
        scores, {name: task.metric for name, task in tasks.items()}, {name: task.weight for name, task in tasks.items()}
    )


def test_the_difference_is_that_of_the_scores_on_held(two_sweeps: Path, found: Compared) -> None:
    first, second = folders(two_sweeps)
    [pair] = found.pairs
    assert pair.difference is not None
    ours = np.mean([held_score(second, run) for run in pair.runs])
    theirs = np.mean([held_score(first, run) for run in pair.reference_runs])
    assert pair.difference.value == pytest.approx(ours - theirs)
    assert pair.difference.low <= pair.difference.value <= pair.difference.high
    assert pair.runs == found.sides[1].runs
    assert pair.significant == (pair.difference.low > 0 or pair.difference.high < 0)


def test_each_sweep_counts_a_look_at_its_best(two_sweeps: Path, tmp_path: Path) -> None:
    shutil.copytree(two_sweeps, tmp_path, dirs_exist_ok=True)
    for folder in folders(tmp_path):
        folder.folder.child(FOLDER).remove()
    for _ in range(2):
        compare(folders(tmp_path))
        assert [looks(folder) for folder in folders(tmp_path)] == [1, 1]


def test_the_course_is_the_best_score_for_as_many_examples(two_sweeps: Path, found: Compared) -> None:
    for folder, side in zip(folders(two_sweeps), found.sides, strict=True):
        assert side.course[-1] is not None
        for examples, shown in zip(found.examples, side.course, strict=True):
            used: dict[int, int] = {}
            best = None
            for row in folder.events():
                if row["table"] != "reports":
                    continue
                used[row["trial"]] = row["examples"]
                if sum(used.values()) > examples:
                    break
                if row["step"] == 900 and row["trial"] < 7:
                    best = max(best or 0.0, row["overall"])
            assert shown == best
        assert list(filter(None, side.course)) == sorted(filter(None, side.course))
    assert found.examples[-1] == min(side.examples for side in found.sides)


def test_settings_that_differ(two_sweeps: Path, found: Compared) -> None:
    assert found.settings.keys() == {"optimizer/encoder_lr"}, "the space varies nothing else"
    for folder, side in zip(folders(two_sweeps), found.sides, strict=True):
        start = next(row for row in folder.events() if row.get("event") == "start" and row["trial"] == side.best)
        rate = json.loads(start["config"])["optimizer"]["encoder_lr"]
        assert found.settings["optimizer/encoder_lr"][folder.name] == rate


def test_a_sweep_of_other_data_is_left_out(two_sweeps: Path, tmp_path: Path) -> None:
    shutil.copytree(two_sweeps, tmp_path, dirs_exist_ok=True)
    shutil.copytree(two_sweeps / "b", tmp_path / "c")
    meta = tmp_path / "c" / "sweep.json"
    content = json.loads(meta.read_text())
    content["name"], content["data"]["fingerprint"] = "c", "0123456789"
    meta.write_text(json.dumps(content))
    done = hpo("compare", "a", "b", "c", store=tmp_path)
    assert done.exit_code == 0, done.output
    assert "left out: c: its data are others" in done.stdout
    assert "b minus a, held out: " in done.stdout
    shown = answer("compare", "a", "b", "c", store=tmp_path)
    assert [side["sweep"] for side in shown["sides"]] == ["a", "b"]
    assert shown["pairs"][0]["significant"] in (True, False)
    assert "its data are others (fingerprint 01234567" in shown["left_out"]["c"]
    assert "No sweep can be compared with 'a'" in refused(hpo("compare", "a", "c", store=tmp_path))
    with pytest.raises(CompareError, match="at least two different sweeps"):
        compare(folders(tmp_path)[:1])


def test_best_prints_a_configuration_that_a_sweep_can_start_with(two_sweeps: Path, tmp_path: Path) -> None:
    best = answer("best", "a", store=two_sweeps)
    assert best["trial"] == best["answer"]["trial"]
    done = hpo("best", "a", "--config", store=two_sweeps)
    (tmp_path / "best.json").write_text(done.stdout)
    plan = prepare(launch(tmp_path, start=(tmp_path / "best.json",)))
    start = next(row for row in folders(two_sweeps)[0].events() if row.get("event") == "start"
                 and row["trial"] == best["trial"])  # fmt: skip
    assert configuration_id(dict(plan.record.start[0])) == start["config_id"]
    assert "best trial of a" in hpo("best", "a", store=two_sweeps).stdout
