"""Named spaces: found by name, documented, legal for the real Config at both ends of every domain, with known priors.

`pytest -s -k shares` prints the share of the prior's draws that every technique has.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from random import Random
from typing import Any

import optuna
import pytest

import search_spaces
from hpo.launch.plan import complete_for
from hpo.samplers.problem import Problem
from hpo.search.searchers import Changes
from hpo.search.study import Study, draw
from hpo.space.build import build
from hpo.space.source import from_json, load_space, to_json
from hpo.space.space import Space
from hpo.space.tree import Leaf, Nested, compose, configuration, expand, flatten, leaves, parameters, path_of
from minbert.encoder.traits import MINILM, Traits
from minbert.tasks import choose_tasks
from search_spaces import Float, OneOf, SpaceError

SPACES = search_spaces.names()


TASKS = choose_tasks()
complete = complete_for(TASKS)


@lru_cache
def resolved(name: str, base: Traits | None = None, raced: bool = False) -> Space:
    return build(name, list(TASKS), raced=raced).space.resolved(complete_for(TASKS, base))


def test_names_are_the_files_and_a_typo_gets_the_nearest() -> None:
    assert {"full", "quickstart"} <= set(SPACES)
    assert "domains" not in SPACES
    with pytest.raises(SpaceError, match=r"Unknown search space `quickstrat`. Did you mean `quickstart`"):
        search_spaces.load("quickstrat")


@pytest.mark.parametrize("name", SPACES)
def test_a_space_says_what_it_asks_where_its_ranges_come_from_and_what_it_costs(name: str) -> None:
    question, *paragraphs = search_spaces.describe(name).split("\n\n")
    assert question.startswith(f"{name}: ") and question.endswith("?")
    for topic in ("What it varies", "Where the ranges come from", "Where the priors come from", "What it costs"):
        assert sum(paragraph.startswith(topic) for paragraph in paragraphs) == 1, topic


@pytest.mark.parametrize("name", SPACES)
def test_both_ends_of_every_domain_are_legal_configurations(name: str) -> None:
    space = Space(expand(load_space(name), tuple(TASKS)))
    assert len(space.check(complete)) > len(space.leaves)


@pytest.mark.parametrize("name", SPACES)
def test_draws_round_trip_through_the_configuration_and_through_json(name: str) -> None:
    space = leaves(expand(load_space(name), tuple(TASKS)))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    names = set()
    for _ in range(300):
        nested, drawn = draw(study.ask(), space)
        config = complete(nested)
        recovered = parameters(space, json.loads(json.dumps(config)))
        assert recovered == drawn
        assert configuration(space, recovered) == nested
        assert complete(configuration(space, recovered)) == config
        names |= drawn.keys()
    assert names == {leaf.name for leaf in space if not leaf.constant}


@pytest.mark.parametrize("name", SPACES)
def test_the_stored_form_draws_the_same(name: str) -> None:
    space = resolved(name).tree
    stored = json.loads(json.dumps(to_json(space), sort_keys=True))
    assert leaves(from_json(stored)) == leaves(space)


@pytest.mark.parametrize("name", SPACES)
def test_the_default_configuration_lies_in_the_space(name: str) -> None:
    """So the sampler learns from trial 0, which always runs the default configuration."""
    space = leaves(expand(load_space(name), tuple(TASKS)))
    default = parameters(space, complete({}))
    assert default is not None
    assert complete(configuration(space, default)) == complete({})


def test_a_typo_in_a_space_or_a_pin_gets_the_nearest_name_before_any_compute() -> None:
    typo = Space(expand({"optimizer": {"encoder_rl": Float(1e-5, 1e-4)}}, tuple(TASKS)))
    with pytest.raises(SpaceError, match=r"`optimizer/encoder_rl`\. Did you mean `optimizer/encoder_lr`"):
        typo.check(complete)
    with pytest.raises(SpaceError, match=r"Pinned values: .*`batch_sise`\. Did you mean `batch_size`"):
        Space(expand(load_space("full"), tuple(TASKS)), {"batch_sise": {"sst": 8}}).check(complete)


def test_full_varies_the_main_techniques_and_leaves_few_settings_to_defaults() -> None:
    space = Space(expand(load_space("full"), tuple(TASKS)))
    varied = {leaf.path for leaf in space.leaves if not leaf.constant}
    assert {"adapter/rank", "regularizer/sst/weight", "batch_size", "taper/sst/kind", "mixing/alpha",
            "optimizer/encoder_lr", "optimizer/head_lr", "encoding/qqp/kind", "encoding/sts/head/kind"} <= varied
    defaults = space.defaults_taken(complete)
    assert "precision" in defaults
    left = {name for name in defaults if name.startswith(("adapter", "optimizer", "dropout"))}
    assert {path_of(name) for name in left} == {"adapter/alpha", "optimizer/schedule/warmup_share"}


# --- priors ----------------------------------------------------------------------------------------------------------

DRAWS = 2000

Flat = Mapping[str, Any]
Found = Callable[[Flat], bool]


@lru_cache
def prior_draws(name: str, raced: bool = False) -> list[dict[str, Any]]:
    """Values by path of DRAWS configurations, not completed."""
    source = Random(0)
    space = resolved(name, raced=raced).leaves
    return [flatten(compose(space, lambda leaf: leaf.drawn(source))[0]) for _ in range(DRAWS)]


def drawn(space: Space, seed: int) -> Nested:
    source = Random(seed)
    return compose(space.leaves, lambda leaf: leaf.drawn(source))[0]


def share(draws: list[dict[str, Any]], found: Found) -> float:
    return sum(map(found, draws)) / len(draws)


def has(path: str, *values: Any) -> Found:
    """Whether a configuration has one of the values at a path; `*` stands for any task."""
    paths = [path.replace("*", task) for task in TASKS] if "*" in path else [path]
    return lambda flat: any(flat.get(each) in values for each in paths)


def lives(*paths: str) -> Found:
    return lambda flat: any(path in flat for path in paths)


STAGES = ("mlm", "nli", "mnrl")

BAD: dict[str, Found] = {
    "a stage before training": lambda flat: any(flat.get(f"stages/{stage}/kind") == stage for stage in STAGES),
    "SMART on QQP or STS": lambda flat: any(flat.get(f"regularizer/{task}/kind") == "smart" for task in ("qqp", "sts")),
    "a dropout above 0.2": lambda flat: any("dropout" in path and isinstance(value, float) and value > 0.2
                                            for path, value in flat.items()),
    "accumulation": has("optimizer/accumulation", 2),
    "weak features of a bi-encoder": has("encoding/*/head/features", "concat", "sum", "product", "cosine"),
    "a frozen encoder": has("adapter/kind", "frozen"),
    "tasks one after the other": has("mixing/kind", "sequential"),
}  # fmt: skip
"""Choices that cost scores or time in most configurations."""
FRONT: dict[str, Found] = {
    "rank of LoRA or DoRA": lambda flat: "adapter/rank" in flat and flat["adapter/kind"] in ("lora", "dora"),
    "weight of SMART": lambda flat: any(flat.get(f"regularizer/{task}/kind") == "smart" for task in TASKS),
    "batch sizes": lives("batch_size/sst"),
    "tapered losses": lives("taper/sst/weight", "taper/sts/weight"),
    "alpha of the sampler": lambda flat: flat["mixing/kind"] == "alpha",
}
"""Parameters that the search is asked for first."""

TECHNIQUES: dict[str, Found] = {
    **{f"adapter {kind}": has("adapter/kind", kind) for kind in ("frozen", "dora", "pal")},
    **{f"LoRA on {targets}": has("adapter/targets", targets.split("+")) for targets in
       ("query+value", "query+key", "query+key+value", "query+key+value+output+up+down")},
    "LoRA in the heads": has("adapter/heads", "lora"),
    "LoRA biases": has("adapter/bias", "adapted", "all"),
    "LoRA in the top layers": has("adapter/layers/kind", "top"),
    "LoRA and the rest": has("adapter/rest", "trained"),
    **{f"stage {stage}": has(f"stages/{stage}/kind", stage) for stage in STAGES},
    "augmentation": has("augmentation/kind", "edit"),
    **{f"pooling {pooling}": has("encoding/*/pooling", pooling) for pooling in ("cls", "pooler", "max")},
    "QQP apart": has("encoding/qqp/kind", "bi"),
    **{f"features {features}": has("encoding/*/head/features", features) for features in
       ("concat", "sum", "product", "difference", "cosine")},
    "cosine added": has("encoding/*/head/cosine", "added"),
    **{f"STS cosine, {transform}": has("encoding/sts/head/transform", transform) for transform in
       ("relu", "shift", "sigmoid", "learned_sigmoid")},
    "cosine-embedding loss": has("encoding/sts/head/kind", "cosine_embedding"),
    "shared layer": has("shared_head/kind", "linear"),
    **{f"mixing {kind}": has("mixing/kind", kind) for kind in ("round_robin", "annealed")},
    "up-weighted tasks": lambda flat: any(flat.get(f"mixing/upweight/{task}", 1.0) > 1.0 for task in TASKS),
    **{f"multiplier {m}": has("mixing/multiplier", m) for m in (1, 3)},
    **{f"{kind}": has("mixing/combine/kind", kind) for kind in ("pcgrad", "gse")},
    **{f"balance {kind}": has("mixing/balance/kind", kind) for kind in ("uncertainty", "gradnorm")},
    **{f"SMART on {task}": has(f"regularizer/{task}/kind", "smart") for task in TASKS},
    "SST tapered by 1 / (e + 1)": has("taper/sst/kind", "inverse"),
    "STS tapered by 1 / (log(e + 1) + 1)": has("taper/sts/kind", "logarithmic"),
    "Bregman": has("proximal/kind", "bregman"),
    "averaged weights": has("average/kind", "exponential"),
    "dropout of hidden states": has("dropout/hidden", 0.1, 0.2, 0.3),
    "dropout of attention": has("dropout/attention", 0.1, 0.3),
    "layer-wise decay": has("optimizer/layer_decay", 0.8, 0.9, 0.95),
    "accumulation": has("optimizer/accumulation", 2),
    "clipping at 10": has("optimizer/clip_norm", 10.0),
    **{f"schedule {kind}": has("optimizer/schedule/kind", kind) for kind in ("constant", "cosine")},
    "best report": has("selection", "best"),
}  # fmt: skip
"""Techniques of `docs/techniques.md` that `full` draws and early stopping can judge, beside those of FRONT."""


@pytest.mark.parametrize("name", SPACES)
def test_shares_of_the_priors_draws(name: str) -> None:
    """Print the shares of all groups; legality of the draws stands for all spaces."""
    draws = prior_draws(name)
    for title, group in (("bad", BAD), ("front", FRONT), ("techniques", TECHNIQUES)):
        for text, found in group.items():
            if (of := share([{"mixing/kind": None, "adapter/kind": None, **flat} for flat in draws], found)) > 0:
                print(f"{name} {title}: {text} {100 * of:.1f} %")
    none = share(draws, lambda flat: not any(found(flat) for found in BAD.values()))
    print(f"{name}: {100 * none:.1f} % hold nothing bad")
    for seed in range(100):
        complete(drawn(resolved(name), seed))


def test_half_of_the_draws_of_full_hold_nothing_that_drowns_a_search() -> None:
    draws = prior_draws("full")
    assert share(draws, lambda flat: not any(found(flat) for found in BAD.values())) >= 0.5
    assert 0.02 <= share(draws, BAD["a stage before training"]) <= 0.1


@pytest.mark.parametrize("dear", [1.0, 8.0], ids=["free", "dear"])
def test_changes_of_the_default_of_full_hold_no_more_stages_than_its_priors(dear: float) -> None:
    """Of the searcher `changes`, before any trial has ended. With stages that cost 7 full trials they are rarer."""
    space, stage = resolved("full", raced=True), BAD["a stage before training"]
    default = space.parameters(complete({}), complete)
    assert default is not None
    problem = Problem(space.leaves, (default,), cost=lambda config: dear if stage(flatten(config)) else 1.0)
    study = Study(problem, 0, Changes())
    draws: dict[str, list[dict[str, Any]]] = {}
    for number in range(1, 501):
        drawn = study.draw(number)
        draws.setdefault(drawn.searcher, []).append(flatten(drawn.config))
    assert draws.keys() == {"changes/default", "changes/prior"}
    assert share(draws["changes/default"], stage) <= 0.03
    everything = [flat for part in draws.values() for flat in part]
    assert share(everything, stage) <= (0.05 if dear == 1.0 else 0.015)
    assert share(everything, lambda flat: not any(found(flat) for found in BAD.values())) >= 0.5


def test_full_keeps_every_technique_in_reach_and_the_main_parameters_in_front() -> None:
    draws = prior_draws("full", raced=True)
    shares = {text: share(draws, found) for text, found in TECHNIQUES.items()}
    assert {text: of for text, of in shares.items() if not 0.02 <= of <= 0.1} == {}
    assert {text: of for text, found in FRONT.items() if (of := share(draws, found)) < 0.1} == {}
    assert share(draws, BAD["tasks one after the other"]) == 0.0
    varied = {leaf.path for leaf in resolved("full").leaves}
    assert "adapter/alpha" not in varied, "rank, alpha and rate are one scale"


BASES = (MINILM, Traits(768, 12, "cls"), Traits(1024, 24, "cls"), Traits(128, 2, "max"))


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("base", BASES, ids=lambda base: f"{base.layers}x{base.width}")
def test_every_domain_has_a_prior_for_every_base_and_the_mode_of_full_is_its_default(name: str, base: Traits) -> None:
    space = resolved(name, base)
    assert all(has_prior(leaf) for leaf in space.leaves if not leaf.constant)
    if name == "full":
        assert complete_for(TASKS, base)(mode(space)) == complete_for(TASKS, base)({})


def has_prior(leaf: Leaf) -> bool:
    domain = leaf.domain
    return (domain.weights if isinstance(domain, OneOf) else domain.prior) is not None


def mode(space: Space) -> Nested:
    return compose(space.leaves, lambda leaf: leaf.mode)[0]


@pytest.mark.parametrize("tasks", ["sst", "sst,qqp", "qqp,sts", "sst,cfimdb", "sst,qqp,sts,cfimdb"])
def test_priors_are_resolved_over_other_tasks(tasks: str) -> None:
    chosen = choose_tasks(tasks)
    for name in SPACES:
        if name != "mixing" or "," in tasks:
            space = build(name, list(chosen)).space.resolved(complete_for(chosen))
            for seed in range(20):
                complete_for(chosen)(drawn(space, seed))


def test_frequencies_agree_with_the_weights() -> None:
    counted = Counter(flat["adapter/kind"] for flat in prior_draws("full"))
    [kind] = [leaf for leaf in resolved("full").leaves if leaf.name == "adapter/kind"]
    for choice, weight in zip(kind.domain.choices, kind.domain.weights, strict=True):  # type: ignore[union-attr, arg-type]
        assert counted[choice] == pytest.approx(DRAWS * weight, abs=4 * (DRAWS * weight) ** 0.5)
