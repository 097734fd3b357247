"""Grid search: the numbering against brute force, and every configuration once."""

from __future__ import annotations

import itertools
from typing import Any

from hpo.samplers.grid import Numbering, _skipping
from hpo.search.schedulers import Asha
from hpo.search.searchers import Grid
from hpo.search.sweep import Sweep
from hpo.space.space import Space
from hpo.space.tree import Leaf, chosen, leaves
from search_spaces.domains import Int, Kind, Node, OneOf
from tests.hpo.simulation import MILESTONES, Cluster, complete, new_sweep

SPACE: dict[str, Node] = {
    "a": OneOf(1, 2, 3),
    "fixed": OneOf("only"),
    "k": Kind(p={}, q={"b": Int(1, 5, step=2), "l": Kind(r={"/c": OneOf("x", "y")}, s={})}),
    "n": Int(0, 1),
}


def every(space: tuple[Leaf, ...]) -> list[dict[str, Any]]:
    """All configurations, by trying every answer to every question."""
    found, answers = [], [[]]  # type: ignore[var-annotated]
    while answers:
        given = answers.pop()
        asked = itertools.count()
        open_leaf: list[Leaf] = []

        def choose(leaf: Leaf, given: list[Any] = given, asked: Any = asked, open_leaf: list[Leaf] = open_leaf) -> Any:
            place = next(asked)
            if place < len(given):
                return given[place]
            open_leaf.append(leaf)
            return leaf.first()

        pairs = chosen(space, choose)
        if open_leaf:
            domain = open_leaf[0].domain
            values = domain.choices if isinstance(domain, OneOf) else range(domain.low, domain.high + 1, domain.step)  # type: ignore[union-attr,arg-type]
            answers += [[*given, value] for value in values]
        else:
            found.append({leaf.name: choice for leaf, choice in pairs})
    return found


def test_the_numbering_counts_every_configuration_once() -> None:
    space = leaves(SPACE)
    numbering, configurations = Numbering(space), every(space)
    assert numbering.size == len(configurations) == 3 * 2 * (1 + 3 * (2 + 1))
    numbered = [numbering.configuration(number) for number in range(numbering.size)]
    assert all(configuration in numbered for configuration in configurations)
    assert [numbering.number(configuration) for configuration in numbered] == list(range(numbering.size))
    constants = {leaf.name for leaf in space if leaf.constant}
    without = [{name: value for name, value in each.items() if name not in constants} for each in numbered]
    assert [numbering.number(configuration) for configuration in without] == list(range(numbering.size))


def test_a_numbering_needs_no_list() -> None:
    space = leaves({f"x{index}": Int(0, 999) for index in range(20)})
    numbering = Numbering(space)
    assert numbering.size == 1000**20
    assert numbering.number(numbering.configuration(10**50 + 7)) == 10**50 + 7


def test_skipping_finds_the_free_numbers_in_order() -> None:
    for taken in ([], [0], [0, 1, 2], [1, 3, 8], [9]):
        free = [number for number in range(10) if number not in taken]
        assert [_skipping(place, taken) for place in range(len(free))] == free


def test_a_grid_tries_each_configuration_once_and_ends_the_sweep() -> None:
    pinned = {"adapter": {"kind": "lora", "rank": 8}}
    for workers in (1, 3):
        sweep = new_sweep(trials=50, workers=workers, searcher=Grid(), pinned=pinned)
        assert sweep.trials == Numbering(sweep.study.problem.leaves).size == 10
        Cluster(sweep).run()
        assert sweep.finished
        identities = {record.start.config_id for record in sweep.records.values()}
        assert len(sweep.records) == len(identities) == 10


def test_configurations_outside_the_grid_are_trials_more() -> None:
    tree: dict[str, Node] = {"steps": OneOf(3, 5), "taper": {"sst": OneOf(0.5, 1.0)}}

    def grid(trials: int, *start: dict[str, Any]) -> Sweep:
        return Sweep(Space(tree), seed=0, trials=trials, milestones=MILESTONES, searcher=Grid(), scheduler=Asha(),
                     workers=1, complete=complete, start=start)  # fmt: skip

    inside, outside = {"steps": 5}, {"steps": 7}
    assert [grid(trials).trials for trials in (4, 5, 6)] == [4, 5, 5], "the default, 1 step, lies outside"
    assert grid(50, inside).trials == 5
    assert grid(50, inside, inside).trials == 6, "one of them runs twice"
    assert grid(50, inside, outside).trials == 6
    sweep = grid(50, inside, outside)
    Cluster(sweep).run()
    assert sweep.finished
    drawn = [record.start.params for record in sweep.records.values() if record.start.origin == "sampler"]
    assert len(drawn) == 3
    assert sweep.records[1].start.params not in drawn


def test_the_order_of_a_grid_is_shuffled_by_the_seed() -> None:
    orders = []
    for seed in (0, 0, 1):
        sweep = new_sweep(trials=8, searcher=Grid(), seed=seed)
        Cluster(sweep).run()
        orders.append([record.start.params for record in sweep.records.values()])
    assert orders[0] == orders[1] != orders[2]
