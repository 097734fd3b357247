"""The searcher of our own: what a change is, where a trial comes from, what cost and priors do to it."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import optuna
import pytest

from hpo.samplers.changes import chances, changed, near, picked
from hpo.samplers.history import History
from hpo.samplers.parzen import ParzenSampler, WeighedParzenSampler
from hpo.samplers.problem import Problem, modes
from hpo.samplers.sampling import quiet
from hpo.search.searchers import Changes
from hpo.search.study import Study, draw
from hpo.space.space import Space
from hpo.space.tree import Leaf, leaves
from search_spaces.domains import Float, Int, Kind, Node, OneOf
from tests.hpo.simulation import TREE, Cluster, complete, new_sweep

SPACE: dict[str, Node] = {
    **{f"x{index}": Float(0.0, 1.0, prior=0.5) for index in range(20)},
    "k": Kind(p={}, q={"y": Float(1.0, 2.0, prior=1.5)}, weights={"p": 3, "q": 1}),
    "n": Int(1, 64, log=True, prior=8),
}
PROBLEM = Problem(leaves(SPACE))
START = modes(PROBLEM.leaves)


def leaf(domain: Any) -> Leaf:
    return Leaf("a", "a", domain)


def test_the_modes_are_the_start_where_the_default_lies_outside_the_space() -> None:
    assert {**{f"x{index}": 0.5 for index in range(20)}, "k/kind": "p", "n": 8} == START
    assert PROBLEM.starts == (START,)
    assert Problem(PROBLEM.leaves, parents=({"n": 1},)).starts == ({"n": 1},)
    assert Problem(PROBLEM.leaves, warm=({"n": 2},)).starts == (START, {"n": 2})
    assert Problem(PROBLEM.leaves, parents=({"n": 1},), warm=({"n": 2},)).starts == ({"n": 1}, {"n": 2})


def test_the_best_of_other_sweeps_are_changed_as_often_each_as_the_default() -> None:
    warm = tuple({**START, **{f"x{index}": value for index in range(20)}} for value in (0.1, 0.2, 0.9))
    study = Study(Problem(PROBLEM.leaves, warm=warm), 0, Changes(prior_trust=1e6))
    drawn = [study.draw(number) for number in range(1, 401)]
    parts = Counter(each.searcher for each in drawn)
    assert set(parts) == {"changes/default", "changes/warm"}
    assert parts["changes/warm"] / 400 == pytest.approx(3 / 4, abs=0.07)

    def nearest(params: Mapping[str, Any]) -> Mapping[str, Any]:
        return max((START, *warm), key=lambda parent: sum(params[name] == value for name, value in parent.items()))

    for each in drawn:
        parent = nearest(each.params)
        assert (parent is START) == (each.searcher == "changes/default")
        assert sum(each.params[name] != value for name, value in parent.items()) <= 12


def test_tpe_keeps_parameters_of_other_sweeps_best_as_often_as_the_default_is_a_parent() -> None:
    own, other = ({**START, **{f"x{index}": value for index in range(20)}} for value in (0.3, 0.7))

    def share(warm: tuple[Mapping[str, Any], ...], count: int) -> float:
        study = Study(Problem(PROBLEM.leaves, warm=warm), 0, Changes(tpe_every=1, tpe_changes=2.0, explore=20))
        for number in range(10):
            study.add(number, own)
            study.report(number, 1000, 0.5)
            study.finish(number, "pruned")
        drawn = [study.draw(number) for number in range(10, 10 + count)]
        assert {each.searcher for each in drawn} == {"changes/tpe"}
        return sum(sum(each.params[f"x{index}"] == 0.7 for index in range(20)) > 10 for each in drawn) / count

    assert share((), 10) == 0.0
    assert share((other,), 80) == pytest.approx(0.5, abs=0.15), "10 of 20 explored"


@pytest.mark.parametrize("changes", [1.0, 3.0])
def test_a_change_keeps_all_but_a_few_parameters(changes: float) -> None:
    source, counts = random.Random(0), []
    for _ in range(400):
        child = changed(PROBLEM, START, changes, source)
        counts.append(sum(child[name] != value for name, value in START.items()))
        assert ("k.q/y" in child) == (child["k/kind"] == "q")
    assert min(counts) == 1
    mean = changes + (1 - changes / 22) ** 22  # a draw without any change gets one
    assert sum(counts) / 400 == pytest.approx(mean, abs=0.25)


def test_numbers_change_equally_often_and_choices_by_the_prior_of_their_other_values() -> None:
    space = leaves({
        **{f"x{index}": Float(0.0, 1.0, prior=0.5) for index in range(4)},
        "rare": OneOf(0, 1, weights=(98, 2)),
        "even": OneOf(0, 1, 2, weights=(2, 1, 1)),
        "often": OneOf(0, 1, weights=(52, 48)),
    })  # fmt: skip
    parent: dict[str, Any] = {**{f"x{index}": 0.5 for index in range(4)}, "rare": 0, "even": 0, "often": 0}
    found = chances(Problem(space), parent, 1.0)
    assert found == pytest.approx({**{f"x{index}": 1 / 7 for index in range(4)},
                                   "rare": 3 / 7 * 0.02, "even": 3 / 7 * 0.5, "often": 3 / 7 * 0.48})  # fmt: skip
    assert chances(Problem(space), {**parent, "rare": 1}, 1.0)["rare"] == pytest.approx(3 / 7 * 0.98 / 1.96)
    assert max(chances(Problem(space), parent, 6.0).values()) == 1.0
    source, counts = random.Random(0), Counter[str]()
    for _ in range(2000):
        counts.update(picked(Problem(space), parent, 1.0, source))
    assert counts["rare"] < counts["even"] / 10
    none = math.prod(1 - chance for chance in found.values())  # a draw without any change gets one
    assert [counts[name] / 2000 for name in found] == pytest.approx(
        [chance * (1 + none) for chance in found.values()], abs=0.03
    )


def test_without_a_parent_all_parameters_come_from_the_priors() -> None:
    source = random.Random(0)
    drawn = [changed(PROBLEM, {}, 1.0, source) for _ in range(300)]
    assert all(sum(each[name] != value for name, value in START.items()) > 10 for each in drawn)
    assert 0.17 < sum(each["k/kind"] == "q" for each in drawn) / 300 < 0.33


def test_a_number_moves_near_its_parent_and_a_choice_by_the_priors_of_the_others() -> None:
    source = random.Random(0)
    moved = [near(leaf(Float(0.0, 1.0, prior=0.1)), 0.8, source) for _ in range(300)]
    assert 0.65 < sum(moved) / 300 < 0.8, "around the parent's value, truncated, not around the prior's centre"
    assert 0.8 not in moved
    weighed = leaf(OneOf("a", "b", "c", weights=(90, 9, 1)))
    counts = Counter(near(weighed, "a", source) for _ in range(300))
    assert counts["b"] > 5 * counts["c"]
    rank = leaf(Int(1, 64, log=True, prior=8))
    assert {near(rank, 8, source) for _ in range(50)} <= set(range(1, 65)) - {8}


def parts_of(trials: int, **settings: Any) -> list[str]:
    sweep = new_sweep(trials=trials, workers=4, searcher=Changes(**settings))
    Cluster(sweep).run()
    return [record.start.searcher or "" for record in sweep.records.values()]


def test_from_the_start_up_on_a_third_of_the_draws_are_tpe_s() -> None:
    parts = parts_of(90)
    assert "changes/tpe" not in parts[: Changes.startup]
    assert parts[30:].count("changes/tpe") >= 20
    assert {"changes/default", "changes/best", "changes/prior", "changes/tpe"} == set(parts[1:])


def test_shares_are_settings() -> None:
    assert "changes/tpe" not in parts_of(40, tpe_every=0)
    assert "changes/prior" not in parts_of(40, prior_trust=1e6)


def test_the_default_is_changed_first_and_the_best_later() -> None:
    parts = parts_of(120, explore=40, prior_trust=1e6)
    early, late = parts[1:30], parts[-60:]
    assert early.count("changes/default") > early.count("changes/best")
    assert late.count("changes/best") > late.count("changes/default") > 0, "but the default never goes away"


def test_a_sweep_changes_its_default_or_the_modes() -> None:
    for pinned, expected in (({}, complete({})), ({"x": 0.25}, complete({"x": 0.25}))):
        sweep = new_sweep(trials=2, searcher=Changes(prior_trust=1e6, changes=1.0), pinned=pinned)
        assert sweep.study.problem.starts == (Space(TREE, pinned).parameters(expected, complete),)


@pytest.mark.parametrize("dear", [3.0, 10.0])
def test_a_dear_draw_gets_no_more_time_than_others(dear: float) -> None:
    """Kept with probability 1 / cost: a fifth try is kept in any case."""
    space = leaves({"k": OneOf("cheap", "dear"), "x": Float(0.0, 1.0)})

    def cost(config: dict[str, Any]) -> float:
        return dear if config["k"] == "dear" else 1.0

    def share(problem: Problem) -> float:
        study = Study(problem, 0, Changes(prior_trust=0.0))
        drawn = [study.draw(number) for number in range(400)]
        return sum(each.config["k"] == "dear" for each in drawn) / 400

    free = share(Problem(space))
    kept = 0.5 / dear  # of one try
    again = 0.5 * (1 - 1 / dear)
    expected = sum(kept * again**tries for tries in range(4)) + 0.5 * again**4
    assert free == pytest.approx(0.5, abs=0.08)
    assert share(Problem(space, cost=cost)) == pytest.approx(expected, abs=0.06)


def test_a_dear_parent_s_changes_are_not_refused() -> None:
    space = leaves({"k": OneOf("cheap", "dear"), **{f"x{index}": Float(0.0, 1.0) for index in range(20)}})
    parent = {"k": "dear", **{f"x{index}": 0.5 for index in range(20)}}
    problem = Problem(space, (parent,), cost=lambda config: 50.0 if config["k"] == "dear" else 1.0)
    study = Study(problem, 0, Changes(prior_trust=1e6, changes=1.0))
    drawn = [study.draw(number) for number in range(200)]
    assert sum(each.config["k"] == "dear" for each in drawn) > 150


def test_without_weight_the_weighed_tpe_is_tpe_and_the_weight_fades() -> None:
    """log(l / g) + (beta / n) log prior."""
    sweep = new_sweep(trials=40)
    Cluster(sweep).run()
    tree = leaves({**TREE, "x": Float(0.0, 1.0, prior=0.9, sigma=0.05)})
    problem = Problem(tree)

    def mean(beta: float | None) -> float:
        history = History(problem.groups)
        sampler = ParzenSampler(problem, 0) if beta is None else WeighedParzenSampler(problem, history, beta)
        with quiet():
            study = optuna.create_study(sampler=sampler, direction="maximize")
        study.add_trials(sweep.study.trials())
        drawn = []
        for seed in range(20):
            sampler.reseed(seed)
            sampler.before_trial(study, study.trials[-1])
            drawn.append(sampler.sample_independent(study, study.trials[-1], "x", problem.distributions["x"]))
        return sum(drawn) / len(drawn)

    assert mean(0.0) == mean(None)
    assert mean(None) < mean(10.0) < mean(1000.0)


def test_draw_asks_for_live_parameters_alone() -> None:
    study = Study(PROBLEM, 0, Changes())
    drawn = study.draw(1)
    assert drawn.params == draw(optuna.trial.FixedTrial(drawn.params), PROBLEM.leaves)[1]


@pytest.mark.parametrize("tpe_changes", [2.0, None])
def test_tpe_draws_a_few_parameters_of_a_good_trial_or_all(tpe_changes: float | None) -> None:
    study = Study(PROBLEM, 0, Changes(tpe_changes=tpe_changes, tpe_every=1, startup=4, parents=1))
    best = {**{f"x{index}": 0.1 + index / 50 for index in range(20)}, "k/kind": "p", "n": 8}
    for number in range(12):
        params = best if number == 5 else changed(PROBLEM, {}, 1.0, random.Random(number))
        study.add(number, params)
        study.report(number, 1000, float(number == 5))
        study.finish(number, "pruned")
    kept = []
    for number in range(12, 40):
        drawn = study.draw(number)
        assert drawn.searcher == "changes/tpe"
        kept.append(sum(drawn.params[name] == value for name, value in best.items()))
    assert (sum(kept) / len(kept) > 18) == (tpe_changes is not None)


@pytest.mark.parametrize(("default", "expected"), [(0.9, 1 / 22), (0.1, 21 / 22), (None, 1 / 2)])
def test_the_priors_share_follows_how_often_they_beat_the_default(default: float | None, expected: float) -> None:
    """Twenty draws from the priors score 0.5 at their first report."""
    study = Study(PROBLEM, 0, Changes(tpe_every=0, prior_trust=1.0))
    study.add(0, START)
    if default is not None:
        study.report(0, 1000, default)
    for number in range(1, 21):
        study.add(number, changed(PROBLEM, {}, 1.0, random.Random(number)), "changes/prior")
        study.report(number, 1000, 0.5)
        study.report(number, 3000, 0.95 if number % 2 else 0.05)  # the first report counts
        study.finish(number, "pruned")
    parts = Counter(study.draw(number).searcher for number in range(21, 421))
    assert parts["changes/prior"] / 400 == pytest.approx(expected, abs=0.07)
