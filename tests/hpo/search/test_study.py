"""The study: it holds what happened, a draw leaves nothing in it, and it draws the same in every process."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from hpo.samplers.problem import Problem
from hpo.search.searchers import Tpe
from hpo.search.study import Study, derived_seed
from hpo.space.tree import leaves
from tests.hpo.simulation import CURVES, TREE, Cluster, Faults, new_sweep

PROBLEM = Problem(leaves(TREE))
ROOT = Path(__file__).resolve().parents[3]
ENDS = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED,
        "failed": TrialState.FAIL}


def test_the_study_is_what_happened() -> None:
    for seed, curve in enumerate(CURVES):
        sweep = new_sweep(trials=30, seed=seed)
        rows = Cluster(sweep, curve, Faults(fail=0.05, lose=0.1, pause=0.1, diverge=0.05), seed).run()
        entered = sweep.study.trials()
        assert len(entered) == 30, "one entry per trial: none for a draw, none for a second attempt"
        reported = {(row["trial"], row["step"]): row["overall"] for row in rows if row["table"] == "reports"}
        for number, trial in enumerate(entered):
            record = sweep.records[number]
            assert trial.state == ENDS[record.state]
            assert trial.params == record.start.params
            assert trial.constraints == ({"finite": 1.0} if record.state == "diverged" else {})
            assert len(trial.system_attrs) == len(trial.constraints)
            assert trial.intermediate_values.keys() == {step for reporter, step in reported if reporter == number}
            for step, value in trial.intermediate_values.items():
                assert value == reported[number, step] or (math.isnan(value) and record.state == "diverged")
            assert trial.value == (record.values[27_000] if record.state == "complete" else None)
        assert {"complete", "pruned", "diverged", "failed"} <= {record.state for record in sweep.records.values()}


def test_a_draw_records_nothing_and_repeats() -> None:
    study = Study(PROBLEM, 0, Tpe())
    for number in range(12):
        drawn = study.draw(number)
        assert study.draw(number) == drawn
        assert study.draw(number, attempt=1) != drawn, "another draw for the same trial"
        study.add(number, drawn.params)
        study.report(number, 1000, number / 12)
        study.finish(number, "pruned")
    assert len(study.trials()) == 12
    drawn_after_draws = study.draw(12)
    fresh = Study(PROBLEM, 0, Tpe())
    for number, trial in enumerate(study.trials()):
        fresh.add(number, trial.params)
        fresh.report(number, 1000, number / 12)
        fresh.finish(number, "pruned")
    assert fresh.draw(12) == drawn_after_draws, "earlier draws leave no trace"


def test_a_trial_is_what_optuna_makes_and_shares_its_distributions_with_all_others() -> None:
    study = Study(PROBLEM, 0, Tpe())
    drawn = study.draw(0)
    for number in range(2):
        study.add(number, drawn.params, drawn.searcher)
    first, second = study.trials()
    plain = create_trial(
        state=TrialState.RUNNING, params=drawn.params, user_attrs={"searcher": drawn.searcher},
        distributions={name: PROBLEM.distributions[name] for name in drawn.params},
    )  # fmt: skip
    plain.number, plain._trial_id, plain.datetime_start = first.number, first._trial_id, first.datetime_start
    assert type(first) is type(plain)
    assert vars(first) == vars(plain)
    for name in drawn.params:
        assert first.distributions[name] is second.distributions[name]
    study.report(0, 1000, 0.5)
    assert not second.intermediate_values
    with pytest.raises(ValueError, match="none of its choices"):
        study.add(2, drawn.params | {next(iter(drawn.params)): "none of its choices"})


def test_a_complete_trial_without_a_value_counts_as_pruned_and_does_not_stop_the_draws() -> None:
    study = Study(PROBLEM, 0, Tpe())
    for number in range(12):
        drawn = study.draw(number)
        study.add(number, drawn.params)
        study.finish(number, "complete")
    assert {trial.state for trial in study.trials()} == {TrialState.PRUNED}
    assert study.draw(12)


def test_another_seed_or_number_draws_otherwise() -> None:
    study = Study(PROBLEM, 0, Tpe())
    assert study.draw(0) != study.draw(1)
    assert study.draw(0) != Study(PROBLEM, 1, Tpe()).draw(0)


def test_derived_seeds_are_stable_and_apart() -> None:
    assert derived_seed(0, "train", 1) == 107832787, "stored sweeps depend on it"
    seeds = {derived_seed(seed, stream, number) for seed in range(9) for stream in ("train", "draw")
             for number in range(99)}
    assert len(seeds) == 9 * 2 * 99
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_draws_do_not_depend_on_the_process() -> None:
    """Optuna walks sets of names: the hash seed of the interpreter must not reach a draw."""
    code = ("from tests.hpo.simulation import *; s = new_sweep(trials=16); Cluster(s).run();"
            "print([r.start.params for r in s.records.values()])")
    outputs = {
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
                       capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000
