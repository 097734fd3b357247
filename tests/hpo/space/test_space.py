"""A pinned space: its hash and stored form, which resumes of old sweeps need, and its configurations."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpo.space.source import to_json
from hpo.space.space import Space
from hpo.space.tree import compose, expand
from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask, SpaceError
from tests.hpo.simulation import complete

TASKS = ("sst", "qqp", "sts")

TREE: dict[str, Node] = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": Float(1e-5, 1e-4, log=True)},
        lora={"rank": Int(1, 8, step=7)},
    ),
    "batch_size": PerTask(OneOf(8, 16), qqp=OneOf(32)),
    "dropout": {"hidden": OneOf(labels={"low": 0.1})},
}
HASH = "508455c9d30f2f4e3d7a31b086c8ad6905473ec7cbd16aa286c99fb86df44a65"
"""Hash of TREE since the first version: a sweep can only be resumed with the hash that it began with."""
STORED: dict[str, Any] = {
    "space": {
        "adapter": {
            "$kind": [
                ["none", {"/optimizer/encoder_lr": {"$float": {"low": 1e-05, "high": 0.0001, "log": True}}}],
                ["lora", {"rank": {"$int": {"low": 1, "high": 8, "step": 7, "log": False}}}],
            ]
        },
        "batch_size": {
            "sst": {"$one_of": [["8", 8], ["16", 16]]},
            "qqp": {"$one_of": [["32", 32]]},
            "sts": {"$one_of": [["8", 8], ["16", 16]]},
        },
        "dropout": {"hidden": {"$one_of": [["low", 0.1]]}},
    },
    "pinned": {"dropout": {"head": 0.2}},
}


def test_the_hash_and_the_stored_form_stay_what_they_were() -> None:
    space = Space(expand(TREE, TASKS), {"dropout": {"head": 0.2}})
    assert space.hash == HASH
    assert to_json(space.tree) == STORED["space"]
    again = Space.from_json(json.loads(json.dumps(STORED["space"], sort_keys=True)), STORED["pinned"])
    assert again == space
    assert again.hash == HASH
    assert Space(space.tree).hash == HASH, "pins are stored beside the tree"


def test_leaves_are_made_once_and_pins_narrow_them() -> None:
    space = Space(expand(TREE, TASKS), {"adapter": {"kind": "lora"}})
    assert space.leaves is space.leaves
    assert {leaf.path for leaf in space.whole} - {leaf.path for leaf in space.leaves} == {"optimizer/encoder_lr"}
    assert space.varied == len({"adapter/rank", "batch_size/sst", "batch_size/sts"})


def test_two_domains_for_one_value_are_refused_by_name() -> None:
    tree = {"x": Float(0, 1), "a": Kind(b={"/x": Float(0, 2)})}
    with pytest.raises(SpaceError, match="a.b//x and x both set `x`"):
        _ = Space(tree).leaves


def test_parameters_are_those_that_draw_exactly_the_configuration() -> None:
    space = Space({"adapter": Kind(none={}, lora={"rank": Int(1, 16)}), "x": Float(0, 1)}, {"x": 0.25})
    drawn, parameters = compose(space.leaves, lambda leaf: "lora" if leaf.is_kind else 4)
    config = space.apply(drawn, complete)
    assert config["x"] == 0.25
    assert space.parameters(config, complete) == parameters == {"adapter/kind": "lora", "adapter.lora/rank": 4}
    assert space.parameters(complete({"adapter": {"kind": "lora", "rank": 4}}), complete) == {}, "without the pin"
    assert space.parameters(config | {"steps": 3}, complete) == {}, "the space never draws this value"
    assert space.parameters(space.apply({}, complete), complete) == {"adapter/kind": "none"}


def test_every_branch_is_taken_once_and_under_the_pins() -> None:
    space = Space({"adapter": Kind(none={}, lora={"rank": Int(1, 16)})}, {"x": 0.25, "adapter": {"rank": 3}})
    branches = list(space.branches(complete))
    assert {config["adapter"]["kind"] for config in branches} == {"none", "lora"}
    assert {config["x"] for config in branches} == {0.25}
    assert {config["adapter"].get("rank") for config in branches} == {None, 3}


def refuse_three_quarters(x: float) -> None:
    if x == 0.75:
        raise ValueError("`x` must not be 0.75")


def test_data_and_encoder_check_the_configuration_under_the_pins() -> None:
    def fits(config: dict[str, object]) -> None:
        if config["x"] != 0.25:
            raise ValueError("`x` must be 0.25 on these data")

    tree: dict[str, Node] = {"steps": Int(1, 9)}
    with pytest.raises(SpaceError, match="^The default configuration: `x` must be 0.25 on these data$"):
        Space(tree).check(complete, fits=fits)
    with pytest.raises(SpaceError, match="^The default configuration: `x` must be 0.25 on these data$"):
        Space(tree, {"steps": 3}).check(complete, fits=fits)
    with pytest.raises(SpaceError, match="^Pinned values: `x` must not be 0.75$"):
        Space(tree, {"x": 0.75}).check(complete, fits=lambda config: refuse_three_quarters(config["x"]))
    assert {config["x"] for config in Space(tree, {"x": 0.25}).check(complete, fits=fits)} == {0.25}
    with pytest.raises(SpaceError, match="^Search space, x = 0: `x` must be 0.25 on these data$"):
        Space({"x": Float(0, 1), **tree}).check(complete, fits=lambda config: fits({"x": config["x"] and 0.25}))
