"""Searchers: what holds for every entry of the table, and how records name them."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from hpo.search.records import to_record
from hpo.search.searchers import SEARCHERS, Random, Searcher, Tpe, searcher_from
from hpo.search.study import Study
from hpo.space.tree import leaves
from tests.hpo.simulation import TREE, Cluster, new_sweep

ENTRIES = pytest.mark.parametrize("searcher", [entry() for entry in SEARCHERS.values()], ids=SEARCHERS)


def filled(searcher: Searcher, seed: int = 0, best: float = 0.5) -> Study:
    """A study of 30 ended trials, better the nearer their `x` is to `best`."""
    study = Study(leaves(TREE), seed, searcher)
    for number in range(30):
        _, params = Study(leaves(TREE), 0, Random()).draw(number)
        study.add(number, params)
        study.report(number, 1000, 1 - abs(params["x"] - best))
        study.finish(number, "pruned")
    return study


@ENTRIES
def test_a_draw_is_a_function_of_seed_number_and_recorded_trials(searcher: Searcher) -> None:
    study = filled(searcher)
    first = study.draw(30)
    assert study.draw(31) != first
    assert study.draw(30) == first, "what was drawn in between leaves no trace"
    assert filled(searcher).draw(30) == first
    assert filled(searcher, seed=1).draw(30) != first


@ENTRIES
def test_every_draw_lies_in_the_space(searcher: Searcher) -> None:
    sweep = new_sweep(trials=20, searcher=searcher)
    Cluster(sweep).run()
    for record in sweep.records.values():
        assert 0 <= record.start.params["x"] <= 1
        assert ("adapter.lora/rank" in record.start.params) == (record.start.config["adapter"]["kind"] == "lora")


def test_only_a_searcher_that_models_results_depends_on_them() -> None:
    assert filled(Tpe(), best=0.1).draw(30) != filled(Tpe(), best=0.9).draw(30)
    assert filled(Random(), best=0.1).draw(30) == filled(Random(), best=0.9).draw(30)


def test_the_samplers_are_optuna_s() -> None:
    assert type(Tpe().sampler(0)) is optuna.samplers.TPESampler
    assert type(Random().sampler(0)) is optuna.samplers.RandomSampler


@ENTRIES
def test_a_searcher_survives_its_record(searcher: Searcher) -> None:
    assert searcher_from(to_record(searcher)) == searcher


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "tpee"}, "Unknown searcher `tpee`. Did you mean `tpe`. Expected one of: random, tpe"),
        ({"name": "random", "startup": 3}, "The searcher `random` has no setting `startup`, which belongs to tpe"),
        ({"name": "tpe", "start": 3}, "Unknown setting of searcher `tpe`: `start`. .*Expected one of: startup"),
        ({"name": "tpe", "startup": -1}, "`startup` must be an integer of at least 0, not -1"),
        ({"name": "tpe", "startup": True}, "`startup` must be an integer of at least 0, not True"),
        (None, "A searcher must be a dictionary with `name`, not None. Names: tpe, random"),
    ],
)
def test_a_record_that_describes_no_searcher_is_refused(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        searcher_from(record)
