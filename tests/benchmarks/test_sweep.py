"""The sweep benchmark: both search spaces are the same, the best trial of each minute is found, the plot is drawn."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import optuna
import pytest

from benchmarks.sweeps import plot
from benchmarks.sweeps.ours import FILES, link_new
from benchmarks.sweeps.space import FIRST, SPACE, as_settings, suggest
from benchmarks.sweeps.timeline import Report, Timeline, incumbents, minutes_to, points
from hpo.space.tree import expand, leaves, parameters
from minbert.config import Config, merge
from minbert.tasks import DEFAULT_TASKS, choose_tasks

DEFAULT = Config.from_dict({}, choose_tasks()).to_dict()
REPORTS = (
    Report(1.0, "a", 100, 0.5, "a1"),
    Report(2.0, "b", 100, 0.4, "b1"),
    Report(2.5, "c", 50, math.nan, "c1"),
    Report(3.0, "a", 300, 0.7, "a3"),
    Report(9.0, "b", 300, 0.9, "b3"),
)


def test_every_draw_of_optuna_belongs_to_our_space() -> None:
    """`hpo run` could make each draw, with the same number of drawn parameters."""
    space = leaves(expand(SPACE, DEFAULT_TASKS))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    kinds = set()
    for _ in range(40):
        trial = study.ask()
        suggest(trial)
        settings = as_settings(trial.params)
        Config.from_dict(merge(DEFAULT, settings), choose_tasks())
        drawn = parameters(space, settings)
        assert drawn is not None and len(drawn) == len(trial.params)
        kinds.add(trial.params["adapter"])
    assert kinds == {"none", "lora"}


def test_domains_are_equal() -> None:
    space = leaves(expand(SPACE, DEFAULT_TASKS))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    theirs: dict[str, str] = {}
    for _ in range(10):
        trial = study.ask()
        suggest(trial)
        theirs |= {name: _bounds(domain) for name, domain in trial.distributions.items()}
    assert sorted(theirs.values()) == sorted(_ours(leaf.domain) for leaf in space)


def _bounds(domain: optuna.distributions.BaseDistribution) -> str:
    if isinstance(domain, optuna.distributions.CategoricalDistribution):
        return str(sorted(domain.choices))
    assert isinstance(domain, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution)
    return f"{float(domain.low)} {float(domain.high)} {domain.log}"


def _ours(domain: object) -> str:
    if hasattr(domain, "choices"):
        return str(sorted(domain.choices))
    return f"{float(domain.low)} {float(domain.high)} {domain.log}"  # type: ignore[attr-defined]


def test_both_begin_with_our_default_configuration() -> None:
    assert Config.from_dict(merge(DEFAULT, as_settings(FIRST)), choose_tasks()).to_dict() == DEFAULT


def test_the_stock_trial_reports_at_the_rungs_of_asha_and_at_its_budget() -> None:
    pytest.importorskip("transformers")
    from ray.tune.schedulers import ASHAScheduler

    from benchmarks.sweeps.stock import rungs

    milestones = rungs(20_000)
    scheduler = ASHAScheduler(metric="overall", mode="max", max_t=20_000, grace_period=milestones[0])
    (bracket,) = scheduler._brackets
    assert sorted(rung for rung, _ in bracket._rungs) == [2222, 8888]
    assert milestones == (2222, 8888, 20_000)
    assert rungs(10) == (1, 4, 10)


def test_only_the_search_score_chooses() -> None:
    assert [report.weights for report in incumbents(REPORTS)] == ["a1", "a3", "b3"]


def test_points_hold_the_incumbent_and_count_each_trial_once() -> None:
    timeline = Timeline(REPORTS, (3.5, 12.0)).until(10.0)
    lines = points(timeline, {"a1": 0.6, "a3": 0.55, "b3": 0.8})
    assert [line["best_held"] for line in lines] == [0.6, 0.6, 0.6, 0.55, 0.8]
    assert [line["examples"] for line in lines] == [100, 200, 250, 450, 650]
    assert [line["finished"] for line in lines] == [0, 0, 0, 0, 1]
    assert minutes_to(lines, 0.7) == 9.0
    assert minutes_to(lines, 0.9) is None
    json.dumps(lines, allow_nan=False)


def test_events_after_the_deadline_do_not_count() -> None:
    assert [report.weights for report in Timeline(REPORTS, ()).until(5.0).reports] == ["a1", "b1", "c1", "a3"]


def test_a_timeline_survives_json() -> None:
    timeline = Timeline(REPORTS[:2], (3.5,))
    assert Timeline.from_dict(json.loads(json.dumps(timeline.to_dict()))) == timeline


def test_linked_weights_stay_readable_after_the_trial_has_deleted_them(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "0" / "0-20"
    checkpoint.mkdir(parents=True)
    (checkpoint / FILES[0]).write_text("half")
    link_new(tmp_path / "checkpoints", tmp_path / "kept")
    assert not (tmp_path / "kept").exists(), "a checkpoint without done.json is incomplete"
    for name in FILES:
        (checkpoint / name).write_text(name)
    link_new(tmp_path / "checkpoints", tmp_path / "kept")
    for name in FILES:
        (checkpoint / name).unlink()
        assert (tmp_path / "kept" / "0" / "0-20" / name).read_text() == name


def test_the_plot_has_a_line_and_a_summary_of_each_side() -> None:
    lines = points(Timeline(REPORTS, (3.5,)), {"a1": 0.6, "a3": 0.55, "b3": 0.8})
    root = ElementTree.fromstring(plot.draw({"stock": [], "ours": lines}, 10.0, "a < b"))
    words = [node.text or "" for node in root.iter() if node.tag.endswith("text")]
    assert "a < b" in words
    assert "stock: no report" in words
    assert "ours: 0.8000, 650 examples trained, 1 trials finished" in words
    assert sum("stroke-width" in node.attrib for node in root.iter()) == 1
