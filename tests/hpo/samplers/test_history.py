"""The history: kept up over a sweep it equals one that is read afresh, its ranking is Optuna's, its work is bounded."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers._tpe.sampler import _split_trials
from optuna.trial import FrozenTrial, TrialState

from hpo.samplers import history as module
from hpo.samplers.history import History
from hpo.samplers.problem import Problem
from hpo.samplers.sampling import quiet
from hpo.search.searchers import SEARCHERS, Random
from hpo.space.tree import leaves
from tests.hpo.simulation import CURVES, TREE, Cluster, Faults, examples, new_sweep

PROBLEM = Problem(leaves(TREE))
FAULTS = Faults(fail=0.1, lose=0.1, pause=0.1, diverge=0.1)


def state(history: History) -> list[Any]:
    tables = [{name: column.tolist() for name, column in history.rest(index, (), 10**6).items()}
              for index in range(len(PROBLEM.groups))]
    return [history.ranked, history.open, list(history.trials), history.ended, tables]


def test_a_group_s_parameters_exist_together() -> None:
    names = [set(group) for group in PROBLEM.groups]
    assert set().union(*names) == set(PROBLEM.varied)
    assert sum(map(len, names)) == len(PROBLEM.varied), "each in one group"
    sweep = new_sweep(trials=40, searcher=Random())
    Cluster(sweep).run()
    for record in sweep.records.values():
        drawn = record.start.params.keys()
        assert all(group <= drawn or not group & drawn for group in names)


@pytest.mark.parametrize("seed", range(3))
def test_an_incremental_history_equals_a_fresh_one_and_ranks_as_optuna_splits(seed: int) -> None:
    kept = History(PROBLEM.groups)
    sweep = new_sweep(trials=40, seed=seed, searcher=Random())
    cluster = Cluster(sweep, CURVES[seed], FAULTS, seed)
    for length in range(1, 400, 7):
        cluster.run(most_rows=length)
        study = sweep.study._study
        kept.sync(study)
        fresh = History(PROBLEM.groups)
        fresh.sync(study)
        assert state(kept) == state(fresh)
        if sweep.finished:
            break
    assert sweep.finished
    trials = [trial for trial in study.get_trials() if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    for count in range(len(trials) + 1):
        below, above = _split_trials(study, trials, count)
        assert sorted(kept.best(count)) == [trial.number for trial in below]
        assert len(below) + len(above) == kept.ended


def test_tables_hold_the_internal_values_of_the_trials_that_have_the_group() -> None:
    sweep = new_sweep(trials=30, searcher=Random())
    Cluster(sweep).run()
    history = History(PROBLEM.groups)
    history.sync(sweep.study._study)
    good = frozenset(history.best(6))
    for index, group in enumerate(PROBLEM.groups):
        having = [number for number, trial in history.trials.items() if group.keys() <= trial.params.keys()]

        def expected(numbers: list[int], group: Mapping[str, Any] = group) -> dict[str, list[float]]:
            trials: list[FrozenTrial] = [history.trials[number] for number in numbers]
            return {name: [dist.to_internal_repr(trial.params[name]) for trial in trials]
                    for name, dist in group.items()}

        others = [number for number in having if number not in good]
        for table, numbers in (
            (history.table(index, good), [number for number in having if number in good]),
            (history.rest(index, good, 5), others[-5:]),
        ):
            assert {name: column.tolist() for name, column in table.items()} == expected(numbers)
            assert all(column.dtype == np.float64 for column in table.values())


def test_parents_are_sound_trials_of_the_space_best_first() -> None:
    sweep = new_sweep(trials=30, searcher=Random())
    Cluster(sweep, faults=Faults(diverge=0.3)).run()
    history = History(PROBLEM.groups)
    history.sync(sweep.study._study)
    ranked = [number for number, record in sweep.records.items() if record.state in ("complete", "pruned")]
    ranked.sort(key=lambda number: (-sweep.records[number].last[0], -sweep.records[number].last[1]))  # type: ignore[index]
    parents = [sweep.records[number].start.params for number in ranked if sweep.records[number].start.params]
    assert history.parents(4) == parents[:4]
    assert history.parents(100) == parents


@pytest.mark.parametrize("searcher", examples(), ids=SEARCHERS)
def test_a_draw_ranks_only_what_ended_since_the_last_one(searcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is rebuilt: in a whole sweep each trial is ranked once, however many draws there are."""
    ranked: list[int] = []
    rank = module.rank
    monkeypatch.setattr(module, "rank", lambda trial: ranked.append(trial.number) or rank(trial))
    sweep = new_sweep(trials=20, searcher=searcher)
    Cluster(sweep).run()
    assert len(ranked) == len(set(ranked)) <= 20


def test_a_draw_of_tpe_splits_once_and_makes_two_densities_for_each_live_group(monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.samplers.parzen import ParzenSampler

    sampler = ParzenSampler(PROBLEM, startup=0)
    with quiet():
        study = optuna.create_study(sampler=sampler, direction="maximize")
    splits, densities = [], []
    best, estimator = History.best, sampler._parzen_estimator_cls
    monkeypatch.setattr(History, "best", lambda self, count: splits.append(count) or best(self, count))
    sampler._parzen_estimator_cls = lambda *args: densities.append(1) or estimator(*args)  # type: ignore[assignment,func-returns-value,return-value]
    rng = random.Random(0)
    for _ in range(10):
        splits.clear()
        densities.clear()
        trial = study.ask(PROBLEM.distributions if rng.random() < 0 else {})
        from hpo.search.study import draw

        _, params = draw(trial, PROBLEM.leaves)
        live = {PROBLEM.group_of[name] for name in params}
        assert len(splits) == 1
        assert len(densities) == 2 * len(live)
        study.tell(trial, rng.random())
