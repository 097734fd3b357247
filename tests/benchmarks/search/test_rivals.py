"""Rivals: Ray's own rule decides, samplers are told what they are told in Ray Tune and in `hpo run`."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from benchmarks.search import rivals
from benchmarks.search.observations import LOWEST
from benchmarks.search.rivals import ENGINES, Ours, PriorBand, Setting, Stock, described
from benchmarks.search.simulation import BUDGET
from hpo.launch.prepare import prepare
from hpo.search.searchers import SEARCHERS
from hpo.space.space import Space
from hpo.space.tree import expand
from search_spaces.domains import Kind
from tests.hpo.conftest import launch


def test_every_searcher_is_an_engine() -> None:
    assert SEARCHERS.keys() < ENGINES.keys()


def test_sweeps_race_at_the_milestones_of_hpo_run(setting: Setting, tmp_path: Path) -> None:
    milestones = prepare(launch(tmp_path, budget=BUDGET, grace=None)).record.milestones
    assert milestones == setting.milestones == (2222, 6666, 20_000)
    assert round(LOWEST * BUDGET) == milestones[0]


def test_all_engines_have_one_lowest_rung_and_the_budget(setting: Setting) -> None:
    assert Ours(setting, "random").sweep.milestones == setting.milestones
    assert Stock(setting).rungs == [2222, 8888]


def test_the_stock_rule_is_rays(setting: Setting) -> None:
    from ray.tune.schedulers.async_hyperband import _Bracket

    class Trial:
        def __init__(self, number: int) -> None:
            self.trial_id = str(number)

    stock, bracket, rng = Stock(setting), _Bracket(2222, BUDGET, 4, 0), random.Random(0)
    assert sorted(step for step, _ in bracket._rungs) == stock.rungs
    stopped = 0
    for number in range(200):
        for step in stock.rungs:
            value = round(rng.gauss(0, 1), 1)  # rounded, so that values are equal at times
            stops = stock.stops(step, value)
            assert stops == (bracket.on_result(Trial(number), step, value) == "STOP")
            stopped += stops
            if stops:
                break
    assert 100 < stopped < 200


def test_stock_tells_only_last_values_and_all_as_complete(setting: Setting) -> None:
    stock = Stock(setting)
    first, second = stock.ask(), stock.ask()
    assert first.params == setting.default()
    assert stock.report(first, 2222, 0.6) and not stock.report(second, 2222, 0.5)
    told = stock._study.get_trials()
    assert [trial.state for trial in told] == [TrialState.RUNNING, TrialState.COMPLETE]
    assert told[1].value == 0.5


def test_an_independent_sampler_is_told_the_truth(setting: Setting) -> None:
    engine = ENGINES["uniform"](setting)
    asked = [engine.ask() for _ in range(3)]
    assert asked[0].params == setting.default()
    assert engine.report(asked[0], 2222, 0.1)  # exempt
    assert engine.report(asked[1], 2222, 0.5) and not engine.report(asked[2], 2222, 0.4)
    for step in setting.milestones[1:]:
        engine.report(asked[0], step, 0.1)
    told = engine._study.get_trials()
    assert [trial.state for trial in told] == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED]
    assert told[2].intermediate_values == {2222: 0.4}


def test_our_sweep_runs_no_more_trials_than_workers(setting: Setting) -> None:
    ours = Ours(setting, "random")
    assert [ours.ask() is None for _ in range(6)] == [False] * 4 + [True] * 2


def test_conditions_of_described_leaves_name_drawn_kinds_alone() -> None:
    tree = {"a": Kind(only={"b": Kind(x={"c": Kind(p={}, q={})}, y={})})}
    leaves = described(Space(expand(tree, ()), {}).leaves)
    assert [(leaf["name"], leaf["conditions"]) for leaf in leaves] == [
        ("a.only/b/kind", []),
        ("a.only/b.x/c/kind", [("a/b/kind", "x")]),
    ]


FAKE = """
import json, sys
setting = json.loads(input()); print("{}", flush=True)
params = {leaf["name"]: setting["defaults"][leaf["name"]] for leaf in setting["leaves"]}
asked = iter(["1_rung_2", "2_rung_0", "2_rung_1"])
fidelity = {"0": 2222, "1": 6666, "2": 20000}
for line in sys.stdin:
    message = json.loads(line)
    if "ask" in message:
        name = next(asked)
        print(json.dumps({"id": name, "fidelity": fidelity[name[-1]], "params": params}), flush=True)
    else:
        print("{}", flush=True)
"""


def test_a_trial_of_priorband_continues_where_it_was(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake.py").write_text(FAKE)

    def fake(python: Path) -> subprocess.Popen[str]:
        return subprocess.Popen([sys.executable, str(tmp_path / "fake.py")], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)  # fmt: skip

    monkeypatch.setattr(rivals, "neps_process", fake)
    settings: dict[str, Any] = {**vars(setting), "neps": Path("python")}
    engine = PriorBand(Setting(**settings))
    first, second = engine.ask(), engine.ask()
    assert first is not None and second is not None
    assert (first.number, first.steps, first.trained) == (1, (20_000,), 0)
    assert first.params == setting.default()
    assert not engine.report(second, 2222, 0.5)
    promoted = engine.ask()
    assert promoted is not None
    assert (promoted.number, promoted.steps, promoted.trained) == (2, (6666,), 2222)


def test_priorband_needs_an_environment(setting: Setting) -> None:
    with pytest.raises(ValueError, match="--neps"):
        PriorBand(setting)
