"""Searchers: what holds for every entry of the table, and how records name them."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.samplers.problem import Problem
from hpo.search.records import to_record
from hpo.search.searchers import SEARCHERS, Changes, Gp, Grid, Nsga2, Random, Searcher, searcher_from
from hpo.search.study import Drawn, Study
from hpo.space.tree import leaves
from search_spaces.domains import Float, Int, Kind, OneOf, SpaceError
from tests.hpo.simulation import FINITE, FLAT, TREE, Cluster, examples, new_sweep, tree_of

ENTRIES = pytest.mark.parametrize("searcher", examples(), ids=SEARCHERS)
MODELS = [entry for entry in examples() if not isinstance(entry, Random | Grid | Nsga2)]
"""Those that learn from trials that were stopped early."""


def drawn(study: Study, number: int) -> Drawn:
    result = study.draw(number)
    assert result is not None
    return result


def filled(searcher: Searcher, seed: int = 0, best: int = 5) -> Study:
    """A study of 24 ended trials and a running one, better the nearer their `steps` is to `best`."""
    problem = Problem(leaves(tree_of(searcher)))
    study, source = Study(problem, seed, searcher), Study(problem, 0, Random())
    for number in range(25):
        params = drawn(source, number).params
        study.add(number, params)
        if number < 24:
            study.report(number, 1000, 1 - abs(params["steps"] - best) / 8)
            study.finish(number, "pruned")
    return study


@ENTRIES
def test_a_draw_is_a_function_of_seed_number_and_recorded_trials(searcher: Searcher) -> None:
    study = filled(searcher)
    first = study.draw(30)
    same_optimum = isinstance(searcher, Gp)
    assert study.draw(31) != first or same_optimum
    assert study.draw(30) == first, "what was drawn in between leaves no trace"
    assert filled(searcher).draw(30) == first
    assert filled(searcher, seed=1).draw(30) != first or same_optimum


@ENTRIES
def test_a_sampler_that_saw_every_trial_happen_draws_what_a_new_one_draws(searcher: Searcher) -> None:
    """What a sampler keeps between draws follows from the study."""
    sweep = new_sweep(trials=22, searcher=searcher)
    Cluster(sweep).run()
    live = sweep.study
    fresh = Study(live.problem, 0, searcher)
    for number, trial in enumerate(live.trials()):
        fresh.add(number, trial.params, sweep.records[number].start.searcher)
        for step, value in trial.intermediate_values.items():
            fresh.report(number, step, value)
        state = sweep.records[number].verdict().state
        assert state not in (None, "lost", "paused")
        fresh.finish(number, state, trial.value)  # type: ignore[arg-type]
    assert [fresh.draw(number) for number in range(22, 26)] == [live.draw(number) for number in range(22, 26)]


@ENTRIES
def test_every_draw_lies_in_the_space(searcher: Searcher) -> None:
    sweep = new_sweep(trials=20, searcher=searcher)
    Cluster(sweep).run()
    known = {leaf.name: leaf for leaf in leaves(tree_of(searcher))}
    for record in sweep.records.values():
        for name, choice in record.start.params.items():
            assert known[name].choice(known[name].value(choice)) == choice
        if searcher.name not in ("gp",):
            lora = record.start.config["adapter"]["kind"] == "lora"
            assert ("adapter.lora/rank" in record.start.params) == lora


@ENTRIES
def test_the_store_says_who_drew_a_trial(searcher: Searcher) -> None:
    sweep = new_sweep(trials=20, searcher=searcher)
    Cluster(sweep).run()
    names = {number: record.start.searcher for number, record in sweep.records.items()}
    assert names.pop(0) is None, "the default is not drawn"
    if isinstance(searcher, Changes):
        assert {name.partition("/")[0] for name in names.values() if name} == {"changes"}
        assert {"changes/default", "changes/tpe"} <= set(names.values())
    else:
        assert set(names.values()) == {searcher.name}


@ENTRIES
def test_no_draw_repeats_a_configuration(searcher: Searcher) -> None:
    sweep = new_sweep(trials=30, searcher=searcher if not isinstance(searcher, Gp) else Gp(startup=28))
    Cluster(sweep).run()
    identities = [record.start.config_id for record in sweep.records.values()]
    assert len(set(identities)) == len(identities) == 30


@pytest.mark.parametrize("searcher", MODELS, ids=lambda entry: entry.name)
def test_searchers_with_a_model_depend_on_results(searcher: Searcher) -> None:
    """Of several draws: a draw of `changes` may be one of the default."""
    def draws(best: int) -> list[Any]:
        study = filled(searcher, best=best)
        return [study.draw(number) for number in (30, 31, 33)]

    assert draws(1) != draws(9)


def test_random_draws_depend_on_no_result() -> None:
    assert filled(Random(), best=1).draw(30) == filled(Random(), best=9).draw(30)


def test_random_draws_come_from_the_priors() -> None:
    space = leaves({"x": Float(0.0, 1.0, prior=0.8, sigma=0.05), "k": OneOf("a", "b", weights=(9, 1))})
    study = Study(Problem(space), 0, Random())
    params = [drawn(study, number).params for number in range(300)]
    assert abs(sum(each["x"] for each in params) / 300 - 0.8) < 0.02
    assert 0.84 < sum(each["k"] == "a" for each in params) / 300 < 0.96


SPACE = {"x": Float(0.0, 1.0), "n": Int(1, 4), "k": Kind(a={}, b={"y": Float(1.0, 2.0)}), "fixed": Float(1.0, 1.0)}


@pytest.mark.parametrize(
    ("searcher", "message"),
    [
        (Grid(), "The searcher `grid` tries every configuration, and k.b/y, x vary without end. Give a list of values"),
        (Gp(), "needs numbers \\(Float, Int\\) that every configuration has, and k/kind varies by choice"),
    ],
)
def test_a_space_that_a_searcher_cannot_search_is_refused_with_the_parameters(searcher: Searcher, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        Study(Problem(leaves(SPACE)), 0, searcher)


def test_a_pinned_parameter_is_no_reason_to_refuse() -> None:
    new_sweep(searcher=Grid(), pinned={"steps": 3})
    Gp().check(leaves({**FLAT, "k": Kind(only={"y": Float(0.0, 1.0)})}))


def test_only_a_grid_runs_out() -> None:
    ends = {entry.name: entry.most(leaves(FINITE)) for entry in examples()}
    assert ends.pop("grid") == 5 * (1 + 256 * 2)
    assert set(ends.values()) == {None}
    assert Random().most(leaves(TREE)) is None


@ENTRIES
def test_a_searcher_survives_its_record(searcher: Searcher) -> None:
    assert searcher_from(to_record(searcher)) == searcher


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "tpee"}, "Unknown searcher `tpee`. Did you mean `tpe`. Expected one of: changes, gp, grid, nsga2, r"),
        ({"name": "random", "startup": 3}, "`random` has no setting `startup`, which belongs to changes, tpe, gp"),
        ({"name": "tpe", "start": 3}, "Unknown setting of searcher `tpe`: `start`. .*Expected one of: startup"),
        ({"name": "tpe", "startup": -1}, "`startup` must be an integer of at least 0, not -1"),
        ({"name": "tpe", "startup": True}, "`startup` must be an integer of at least 0, not True"),
        ({"name": "changes", "changes": 0}, "`changes` must be a number from 1 to 100, not 0"),
        ({"name": "changes", "prior_trust": -1}, "`prior_trust` must be a number from 0 to 1e\\+06, not -1"),
        ({"name": "nsga2", "population": 1}, "`population` must be an integer of at least 2, not 1"),
        ({"name": "nsga2", "crossover": 2}, "`crossover` must be a number from 0 to 1, not 2"),
        (None, "A searcher must be a dictionary with `name`, not None. Names: changes, tpe, random, grid, gp, nsga2"),
    ],
)
def test_a_record_that_describes_no_searcher_is_refused(record: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        searcher_from(record)
