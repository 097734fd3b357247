"""Contract tests: every behaviour of Optuna that the search relies on, so that an upgrade shows what broke.

What is private in Optuna and used here (`hpo.samplers.parzen`) is held by the tests against Optuna's own sampler.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from hpo.samplers.parzen import OTHERS, ParzenSampler
from hpo.samplers.problem import Problem
from hpo.search.searchers import Tpe
from hpo.space.tree import leaves
from search_spaces.domains import Float, Int, OneOf

X = {"x": FloatDistribution(0.0, 1.0)}


def stock(seed: int) -> optuna.samplers.BaseSampler:
    """Optuna's TPE, with the settings that ours has."""
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=Tpe.startup, multivariate=True, constant_liar=True)


def ours(seed: int, problem: Problem | None = None) -> ParzenSampler:
    sampler = ParzenSampler(problem or Problem(leaves({"x": Float(0.0, 1.0)})), Tpe.startup)
    sampler.reseed(seed)
    return sampler


def study_of(
    trials: Iterable[optuna.trial.FrozenTrial],
    seed: int = 0,
    sampler: Callable[[int], optuna.samplers.BaseSampler] = ours,
) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler(seed))
    study.add_trials(trials)
    return study


def pruned(x: float, values: Mapping[int, float]) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=TrialState.PRUNED, params={"x": x}, distributions=X, intermediate_values=dict(values))


def mean_draw(trials: list[optuna.trial.FrozenTrial]) -> float:
    return sum(study_of(trials, seed).ask().suggest_float("x", 0.0, 1.0) for seed in range(20)) / 20


def spread(centre: float) -> list[float]:
    return [centre + (index - 5) / 100 for index in range(10)]


def test_a_pruned_trial_is_ranked_by_its_step_before_its_value() -> None:
    """So the step must be the milestone: with true numbers of examples a larger batch would beat a better score."""
    far = [pruned(x, {1000: 0.9, 3000: 0.1}) for x in spread(0.9)]
    near = [pruned(x, {1000: 0.9}) for x in spread(0.1)]
    assert mean_draw(far + near) > 0.6
    assert mean_draw(near + far) > 0.6, "in either order"


def test_at_one_step_the_value_ranks_and_nan_is_worst() -> None:
    good = [pruned(x, {1000: 0.6}) for x in spread(0.9)]
    poor = [pruned(x, {1000: 0.5}) for x in spread(0.1)]
    diverged = [pruned(x, {1000: math.nan}) for x in spread(0.1)]
    assert mean_draw(poor + good) > 0.6
    assert mean_draw(diverged + good) > 0.6


def test_nan_alone_stands_above_an_earlier_step_and_a_constraint_below() -> None:
    """Why a diverged trial also violates a constraint."""
    stopped_early = [pruned(x, {1000: 0.5}) for x in spread(0.1)]
    late = {1000: 0.6, 3000: math.nan}
    assert mean_draw([pruned(x, late) for x in spread(0.9)] + stopped_early) > 0.6
    violating = [
        create_trial(state=TrialState.PRUNED, params={"x": x}, distributions=X, intermediate_values=late,
                     constraints={"finite": 1.0})
        for x in spread(0.9)
    ]
    assert mean_draw(violating + stopped_early) < 0.4


def test_complete_trials_rank_before_pruned_ones() -> None:
    complete = [create_trial(state=TrialState.COMPLETE, value=0.1, params={"x": x}, distributions=X)
                for x in spread(0.9)]
    assert mean_draw([pruned(x, {1000: 0.9}) for x in spread(0.1)] + complete) > 0.6


def test_one_name_with_two_sets_of_choices_is_refused() -> None:
    """So the name of a parameter holds its branch."""
    study = optuna.create_study()
    study.ask().suggest_categorical("rank", [4, 8])
    with pytest.raises(ValueError, match="does not support dynamic value space"):
        study.ask().suggest_categorical("rank", [4, 8, 16])
    with pytest.raises(ValueError, match="Cannot set different distribution kind"):
        study.ask().suggest_int("rank", 4, 8)


def test_running_trials_count_as_bad() -> None:
    """Constant liar: without it, several workers would draw the same neighbourhood."""
    peaks = [pruned(0.2, {1000: 0.9}), pruned(0.8, {1000: 0.9})]
    done = peaks + [pruned(index / 18, {1000: 0.1}) for index in range(18)]
    running = [create_trial(state=TrialState.RUNNING, params={"x": x}, distributions=X) for x in spread(0.8)]
    assert mean_draw(done + running) < mean_draw(done) - 0.1


def test_failed_trials_and_trials_without_parameters_change_no_draw() -> None:
    done = [pruned(index / 20, {1000: index / 20}) for index in range(20)]
    plain = study_of(done).ask().suggest_float("x", 0.0, 1.0)
    failed = [create_trial(state=TrialState.FAIL, params={"x": 0.5}, distributions=X)]
    assert study_of(done + failed).ask().suggest_float("x", 0.0, 1.0) == plain
    bare = [create_trial(state=TrialState.RUNNING)]
    assert study_of(done + bare).ask().suggest_float("x", 0.0, 1.0) == plain


def test_asking_leaves_hidden_attributes_and_adding_does_not() -> None:
    """So the trial of a draw is not the trial in the study: a replayed trial could not have these attributes."""
    done = [pruned(index / 20, {1000: index / 20}) for index in range(20)]
    study = study_of(done, sampler=stock)
    study.ask().suggest_float("x", 0.0, 1.0)
    assert study.get_trials()[-1].system_attrs
    study.add_trial(create_trial(state=TrialState.RUNNING, params={"x": 0.5}, distributions=X))
    assert study.get_trials()[-1].system_attrs == {}


def test_uniform_draws_until_enough_trials_have_ended() -> None:
    done = [pruned(0.9 + index / 100, {1000: 0.5}) for index in range(Tpe.startup)]

    def second_draws(trials: list[optuna.trial.FrozenTrial]) -> list[float]:
        return [study_of(trials, seed).ask().suggest_float("x", 0.0, 1.0) for seed in range(10)]

    empty = second_draws([])
    assert second_draws(done[:-1]) == empty
    assert second_draws(done) != empty


def test_a_pruned_or_failed_trial_never_becomes_the_best() -> None:
    study = study_of([pruned(0.5, {1000: 0.9})])
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.1, params={"x": 0.5}, distributions=X))
    assert study.best_trial.value == 0.1


FLAT = leaves({"a": Float(0.0, 1.0), "b": Float(1e-5, 1e-2, log=True), "c": Int(1, 9, step=2), "d": OneOf(4, 8, 16),
               "e": Int(1, 64, log=True)})


def flat_trials(count: int, seed: int = 0) -> list[optuna.trial.FrozenTrial]:
    """Trials of every kind: complete, pruned at two steps, violating, running, failed."""
    rng, distributions = random.Random(seed), Problem(FLAT).distributions
    trials = []
    for index in range(count):
        params = {leaf.name: leaf.random(rng) for leaf in FLAT}
        step, kind = rng.choice((1000, 3000)), index % 7
        fields: dict[str, object] = {"state": TrialState.PRUNED, "intermediate_values": {step: rng.random()}}
        if kind == 0:
            fields = {"state": TrialState.COMPLETE, "value": rng.random()}
        elif kind == 1:
            fields |= {"intermediate_values": {step: math.nan}, "constraints": {"finite": 1.0}}
        elif kind == 2:
            fields = {"state": (TrialState.RUNNING, TrialState.FAIL)[index % 2]}
        trials.append(create_trial(params=params, distributions=distributions, **fields))  # type: ignore[arg-type]
    return trials


@pytest.mark.parametrize("count", [0, 5, 12, 40])
def test_in_a_flat_space_ours_draws_exactly_what_optuna_s_draws(count: int) -> None:
    """The witness of `hpo.samplers.parzen`: densities, split, liar, order, candidates, comparison, seeds."""
    assert count <= OTHERS
    problem, trials = Problem(FLAT), flat_trials(count)
    for seed in range(5):
        drawn = [study_of(trials, seed, sampler).ask(problem.distributions).params
                 for sampler in (stock, lambda seed: ours(seed, problem))]
        assert drawn[0] == drawn[1]


def test_optuna_s_weights_fade_before_the_latest_25_trials() -> None:
    """Why it is enough to look at the latest OTHERS trials."""
    from optuna.samplers._tpe.sampler import default_weights

    weights = default_weights(200)
    assert (weights[-25:] == 1).all()
    assert (weights[1:] >= weights[:-1]).all()
    assert OTHERS >= 2 * 25
