"""Named spaces: found by name, documented, and legal for the real Config at both ends of every domain."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pytest

import search_spaces
from hpo.search.study import draw
from hpo.space.source import from_json, load_space, to_json
from hpo.space.space import Space
from hpo.space.tree import configuration, expand, leaves, parameters, path_of
from minbert.config import Config
from minbert.tasks import TASKS
from search_spaces import Float, SpaceError

SPACES = search_spaces.names()


def complete(nested: dict[str, Any]) -> dict[str, Any]:
    return Config.from_dict(nested, TASKS).to_dict()


def test_names_are_the_files_and_a_typo_gets_the_nearest() -> None:
    assert {"full", "quickstart"} <= set(SPACES)
    assert "domains" not in SPACES
    with pytest.raises(SpaceError, match=r"Unknown search space `quickstrat`. Did you mean `quickstart`"):
        search_spaces.load("quickstrat")


@pytest.mark.parametrize("name", SPACES)
def test_a_space_says_what_it_asks_where_its_ranges_come_from_and_what_it_costs(name: str) -> None:
    question, *paragraphs = search_spaces.describe(name).split("\n\n")
    assert question.startswith(f"{name}: ") and question.endswith("?")
    for topic in ("What it varies", "Where the ranges come from", "What it costs"):
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
    space = expand(load_space(name), tuple(TASKS))
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
    assert {path_of(name) for name in left} == {"optimizer/schedule/warmup_share"}
