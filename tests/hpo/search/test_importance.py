"""Importance of parameters, against responses of which one knows what matters."""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from hpo.search.importance import (
    METHODS,
    NEEDED,
    Importance,
    ImportanceError,
    Trial,
    importance,
    labels,
)
from hpo.search.schedulers import NoStopping
from hpo.search.searchers import Random
from hpo.space.tree import compose, expand, leaves
from search_spaces.domains import Float, Int, Kind, Node, OneOf
from tests.hpo.simulation import TREE, Cluster, new_sweep

SPACE: dict[str, Node] = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": Float(1e-6, 1e-4, log=True)},
        lora={"rank": Int(1, 64, log=True), "/optimizer/encoder_lr": Float(1e-4, 1e-2, log=True)},
    ),
    "head": OneOf("a", "b", "c"),
    "x": Float(0.0, 1.0),
    "y": Float(0.0, 1.0),
    "z": Float(0.0, 1.0),
}
LEAVES = leaves(expand(SPACE, ()))
STEPS = (100, 300, 900)
TARGETS = ("overall", "sst")


def near(value: float, best: float = 0.7) -> float:
    return -((value - best) ** 2)


def trials(
    count: int, overall: Callable[[Mapping[str, Any]], float], sst: Callable[[Mapping[str, Any]], float] | None = None
) -> list[Trial]:
    """Trials of uniform draws, each with its full budget."""
    source = random.Random(0)
    made = []
    for _ in range(count):
        _, params = compose(LEAVES, lambda leaf: leaf.random(source))
        scores = {"overall": overall(params), "sst": (sst or overall)(params)}
        made.append(Trial("complete", params, dict.fromkeys(STEPS, scores)))
    return made


def shares(result: Importance, target: str = "overall") -> dict[str, float]:
    return {entry.name: entry.importance[target] for entry in result.parameters}


def of(made: list[Trial], **options: Any) -> Importance:
    return importance(LEAVES, STEPS, made, TARGETS, **options)


@pytest.mark.parametrize("method", METHODS)
def test_a_parameter_that_decides_everything_has_nearly_all_importance(method: str) -> None:
    if method == "fanova":
        pytest.importorskip("sklearn")
    result = of(trials(100, lambda params: near(params["x"]), lambda params: near(params["y"])), method=method)
    assert result.parameters[0].name == "x"
    assert shares(result)["x"] > 0.8
    assert shares(result, "sst")["y"] > 0.8
    for target in TARGETS:
        assert math.fsum(shares(result, target).values()) == pytest.approx(1)


def test_a_choice_that_decides_everything_comes_first() -> None:
    result = of(trials(100, lambda params: float(params["head"] == "b") + 1e-6 * params["x"]))
    assert result.parameters[0].name == "head"
    assert result.parameters[0].chance["overall"] == pytest.approx(1 / 40)


def test_conditional_parameters_have_importance_and_name_their_branch() -> None:
    def response(params: Mapping[str, Any]) -> float:
        rate = params.get("adapter.lora//optimizer/encoder_lr")
        return -5.0 if rate is None else -abs(math.log10(rate) + 3)

    result = of(trials(200, response))
    names = {entry.name: entry for entry in result.parameters}
    assert set(names) == {"adapter/kind", "adapter/rank", "head", "x", "y", "z", "optimizer/encoder_lr (adapter=lora)",
                          "optimizer/encoder_lr (adapter=none)"}  # fmt: skip
    lora = names["optimizer/encoder_lr (adapter=lora)"]
    assert {entry.name for entry in result.parameters[:2]} == {lora.name, "adapter/kind"}
    assert lora.trials == names["adapter/rank"].trials
    assert lora.trials + names["optimizer/encoder_lr (adapter=none)"].trials == result.trials == 200


def test_chance_is_uniform_where_nothing_matters() -> None:
    """Under random scores `chance` is at most p in about a share p of all cases."""
    source = random.Random(1)
    found = [
        entry.chance["overall"]
        for _ in range(8)
        for entry in of(trials(24, lambda params: source.random())).parameters
    ]
    assert sum(chance <= 0.05 for chance in found) / len(found) < 0.15
    assert 0.3 < sum(chance <= 0.5 for chance in found) / len(found) < 0.7


def test_equal_arguments_give_equal_results_in_any_order_of_trials() -> None:
    made = trials(60, lambda params: near(params["x"]) + 0.1 * params["y"])
    assert of(made) == of(made)
    assert shares(of(made[::-1])) == pytest.approx(shares(of(made)))


@pytest.mark.parametrize("method", METHODS)
def test_equal_scores_give_no_importance(method: str) -> None:
    if method == "fanova":
        pytest.importorskip("sklearn")
    result = of(trials(30, lambda params: 0.5), method=method)
    assert set(shares(result).values()) == {0.0}
    assert all(chance == 1 for entry in result.parameters for chance in entry.chance.values())


def test_fanova_leaves_out_what_not_every_trial_has_and_names_it() -> None:
    pytest.importorskip("sklearn")
    result = of(trials(40, lambda params: near(params["x"])), method="fanova")
    assert set(shares(result)) == {"adapter/kind", "head", "x", "y", "z"}
    assert result.absent == ("adapter/rank", "optimizer/encoder_lr (adapter=lora)",
                             "optimizer/encoder_lr (adapter=none)")  # fmt: skip
    assert all(not entry.chance for entry in result.parameters)


def test_fanova_without_scikit_learn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportanceError, match=r"fanova needs scikit-learn.*or use ped-anova"):
        of(trials(NEEDED, lambda params: params["x"]), method="fanova")


def stopped(trial: Trial, step: int) -> Trial:
    return replace(trial, state="pruned", scores={at: trial.scores[at] for at in STEPS if at <= step})


def test_trials_are_compared_at_the_highest_rung_below_which_none_was_stopped() -> None:
    made = trials(60, lambda params: near(params["x"]))
    assert of(made).rung == 900
    assert of([*made[:-1], stopped(made[-1], 300)]).rung == 300
    raced = [*made[:30], *(stopped(trial, 100) for trial in made[30:])]
    assert (of(raced).rung, of(raced).trials, of(raced).selected) == (100, 60, False)
    chosen = of(raced, rung=900)
    assert (chosen.rung, chosen.trials, chosen.selected) == (900, 30, True)
    assert chosen.left_out == {"not at this rung": 30}


def test_a_sweep_that_still_runs_is_compared_where_enough_trials_have_come() -> None:
    made = trials(60, lambda params: near(params["x"]))
    begun = [replace(trial, state="running", scores={100: trial.scores[100]}) for trial in made[NEEDED:]]
    assert of(made[:NEEDED] + begun).rung == 900
    assert of(made[: NEEDED - 1] + begun).rung == 100


def test_what_is_left_out_is_counted() -> None:
    made = trials(30, lambda params: near(params["x"]))
    others = [
        replace(made[0], state="diverged"),
        replace(made[0], state="failed"),
        replace(made[0], replicate=1),
        replace(made[0], params={}),
        replace(made[0], params={"elsewhere": 1}),
        replace(made[0], state="running", scores={}),
        replace(made[0], scores={900: {"overall": 0.5, "sst": math.nan}}),
    ]
    result = of(made + others)
    assert result.left_out == {"diverged": 1, "failed": 1, "repetition": 1, "outside the space": 2,
                               "not at this rung": 2}  # fmt: skip
    assert result.parameters == of(made).parameters


def test_too_few_trials_are_refused_with_what_is_needed_and_there() -> None:
    made = trials(NEEDED, lambda params: near(params["x"]))
    assert of(made).trials == NEEDED
    with pytest.raises(ImportanceError) as refusal:
        of([*made[1:], replace(made[0], state="failed")])
    assert str(refusal.value) == (
        "Importance needs 20 trials with a score at one rung; at the rung of 100 examples 19 have one. "
        "Trials started: 20; left out: 1 failed."
    )
    with pytest.raises(ImportanceError, match="0 have one. Trials started: 0"):
        of([])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ImportanceError, match="Unknown method `anova`. Expected one of: ped-anova, fanova."):
        of([], method="anova")
    with pytest.raises(ImportanceError, match=r"`rung` must be one of .*\(100, 300, 900 examples\), not 200"):
        of([], rung=200)


def test_a_name_is_the_path_unless_branches_give_it_different_domains() -> None:
    rate = Float(1e-4, 1e-2, log=True)
    named = labels(leaves(expand({
        "adapter": Kind(
            lora={"rank": Int(1, 8), "/optimizer/rate": rate, "/bias": OneOf("none")},
            dora={"rank": Int(1, 8), "/optimizer/rate": rate, "/bias": OneOf("none", "all")},
            pal={"rank": Int(16, 64), "layers": Kind(all={"/drop": Float(0, 0.5)}, top={"/drop": Float(0, 0.1)})},
        ),
    }, ())))  # fmt: skip
    assert named == {
        "adapter/kind": "adapter/kind",
        "adapter.lora/rank": "adapter/rank (adapter=dora or lora)",
        "adapter.dora/rank": "adapter/rank (adapter=dora or lora)",
        "adapter.pal/rank": "adapter/rank (adapter=pal)",
        "adapter.lora//optimizer/rate": "optimizer/rate",
        "adapter.dora//optimizer/rate": "optimizer/rate",
        "adapter.dora//bias": "bias",
        "adapter.pal/layers/kind": "adapter/layers/kind",
        "adapter.pal/layers.all//drop": "drop (adapter/layers=all)",
        "adapter.pal/layers.top//drop": "drop (adapter/layers=top)",
    }


def test_branches_that_no_single_choice_tells_apart_keep_optunas_name() -> None:
    small, large = Float(0, 1), Float(0, 2)
    space = expand({"a": Kind(u={"b": Kind(u={"/x": small}, v={"/x": large})},
                              v={"b": Kind(u={"/x": large}, v={"/x": small})})}, ())  # fmt: skip
    named = labels(leaves(space))
    assert all(label == name for name, label in named.items() if name.endswith("//x"))
    assert len({named[name] for name in named if name.endswith("//x")}) == 4


def test_the_importance_of_a_replayed_sweep_is_that_of_the_live_one() -> None:
    def measured(sweep: Any) -> Importance:
        made = []
        for record in sweep.records.values():
            scores = {step: {"overall": value} for step, value in record.values.items()}
            made.append(Trial(record.state, record.start.params, scores))
        return importance(leaves(TREE), sweep.milestones, made, ("overall",))

    parts = {"searcher": Random(), "scheduler": NoStopping(), "trials": 60}
    live = new_sweep(**parts)
    rows = Cluster(live).run()
    again = new_sweep(**parts)
    again.replay(rows)
    assert measured(again) == measured(live)
    assert measured(live).parameters[0].name == "x", "the response of the simulation"
    assert "optimizer/encoder_lr (adapter=lora)" in shares(measured(live))
