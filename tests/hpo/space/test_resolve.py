"""Resolution of priors against the default configuration of a sweep's base and tasks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpo.launch.plan import complete_for
from hpo.space.resolve import centred, resolved
from hpo.space.source import from_json, space_hash, to_json
from hpo.space.space import Space
from hpo.space.tasks import restrict
from hpo.space.tree import Leaf, carried, expand, leaves
from minbert.encoder.traits import Traits
from minbert.tasks import choose_tasks
from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask, SpaceError

TASKS = ("sst", "qqp", "sts")
complete = complete_for(choose_tasks())
RATE = Float(1e-5, 5e-4, log=True)


def space(tree: dict[str, Node], tasks: tuple[str, ...] = TASKS) -> Space:
    return Space(expand(tree, tasks)).resolved(complete_for(choose_tasks(",".join(tasks))))


def leaf(resolved_space: Space, name: str) -> Leaf:
    [found] = [each for each in resolved_space.leaves if each.name == name]
    return found


def test_centres_are_the_defaults_under_the_kinds_of_the_branch() -> None:
    tree = space({
        "adapter": Kind(lora={"rank": Int(1, 64, log=True)}, pal={"rank": Int(1, 64, log=True, sigma=0.4)}, none={}),
        "dropout": {"hidden": Float(0.0, 0.3, sigma=0.1), "head": Float(0.0, 0.5, prior=0.2)},
    })
    assert leaf(tree, "adapter.lora/rank").domain == Int(1, 64, log=True, prior=8, sigma=0.2)
    assert leaf(tree, "adapter.pal/rank").domain == Int(1, 64, log=True, prior=2, sigma=0.4)
    assert leaf(tree, "dropout/hidden").domain == Float(0.0, 0.3, prior=0.0, sigma=0.1)
    assert leaf(tree, "dropout/head").domain == Float(0.0, 0.5, prior=0.2, sigma=0.2)
    assert leaf(tree, "adapter/kind").domain == OneOf("lora", "pal", "none", weights=(0.25, 0.25, 0.5))
    assert leaf(tree, "adapter/kind").mode == "none"


def test_centres_follow_the_base() -> None:
    tree = expand({"optimizer": {"encoder_lr": RATE}, "encoding": {"sst": {"pooling": OneOf("cls", "mean")}}}, TASKS)
    large = Space(tree).resolved(complete_for(choose_tasks(), Traits(768, 12, "cls")))
    small = Space(tree).resolved(complete)
    assert [leaf(each, "optimizer/encoder_lr").mode for each in (large, small)] == [5e-5, 2e-4]
    assert large.hash != small.hash != Space(tree).hash


def test_weights_are_the_written_ones_and_sum_to_one() -> None:
    tree = space({
        "adapter": Kind(lora={}, none={}, weights={"none": 1, "lora": 3}),
        "encoding": {"sst": {"pooling": OneOf("cls", "mean", "max", weights=0.9)}},
        "selection": OneOf("last", "best", weights=(1, 4)),
        "average": Kind(exponential={}, none={}, weights=0.8),
        "precision": OneOf("auto", "bf16", "float32"),
    })
    assert leaf(tree, "adapter/kind").domain == OneOf("lora", "none", weights=(0.75, 0.25))
    assert leaf(tree, "selection").domain == OneOf("last", "best", weights=(0.2, 0.8))
    assert leaf(tree, "encoding/sst/pooling").domain.weights == pytest.approx((0.05, 0.9, 0.05))  # type: ignore[union-attr]
    assert leaf(tree, "average/kind").domain.weights == pytest.approx((0.2, 0.8))  # type: ignore[union-attr]
    assert leaf(tree, "precision").domain.weights == (0.5, 0.25, 0.25)  # type: ignore[union-attr]


def test_a_default_outside_its_domain_is_an_error_unless_the_prior_is_written() -> None:
    wrong: dict[str, Node] = {
        "adapter": Kind(none={}, lora={"rank": Int(16, 64), "alpha": Float(4.0, 8.0)}),
        "optimizer": {"weight_decay": Float(0.02, 0.1)},
        "batch_size": PerTask(OneOf(8), sts=OneOf(4, 8)),
    }
    with pytest.raises(SpaceError, match="4 mistakes") as error:
        space(wrong)
    lines = str(error.value).splitlines()[1:]
    assert lines[0].endswith(
        "adapter.lora/rank: the default 8 (where adapter/kind = lora) is not within 16 .. 64, and good values are "
        "expected near it. Widen the domain, or write the centre of a prior with prior=..."
    )
    assert "adapter.lora/alpha: the default null" in lines[1]
    assert "optimizer/weight_decay: the default 0.01 is not within 0.02 .. 0.1" in lines[2]
    assert "batch_size/sts: the default 16 is not within 4 | 8" in lines[3]
    assert lines[3].endswith("or write the share of each choice with weights=...")
    space({
        "adapter": Kind(none={}, lora={"rank": Int(16, 64, prior=16), "alpha": Float(4.0, 8.0, prior=8.0)}),
        "optimizer": {"weight_decay": Float(0.02, 0.1, prior=0.02)},
        "batch_size": PerTask(OneOf(8), sts=OneOf(4, 8, weights=(1, 1))),
    })


def test_a_default_share_needs_the_default() -> None:
    with pytest.raises(SpaceError, match="batch_size/sts: the default 16"):
        space({"batch_size": {"sts": OneOf(4, 8, weights=0.9)}})


def test_unknown_defaults_leave_domains_uniform_for_the_check_to_report() -> None:
    tree, mistakes = resolved({"dropouts": Float(0, 1), "batch_size": OneOf(8, 16, weights=0.9)}, complete)
    assert mistakes == []
    assert tree == {"dropouts": Float(0, 1), "batch_size": OneOf(8, 16)}
    refused, mistakes = resolved({"adapter": Kind(none={}, lorra={"rank": Int(1, 4)})}, complete)
    assert mistakes == []
    assert leaves(refused)[-1].domain == Int(1, 4)


def test_restricted_choices_keep_the_remaining_weights() -> None:
    sizes = OneOf({"sst": 8, "sts": 8}, {"sst": 8, "sts": 16}, {"sst": 16, "sts": 16}, weights=(1, 2, 5))
    orders = OneOf(["sst", "qqp", "sts"], ["qqp", "sts", "sst"], ["qqp", "sst", "sts"], weights=(1, 2, 3))
    tree: dict[str, Node] = {
        "batch_size": sizes,
        "mixing": Kind(
            summed={}, sequential={"order": orders}, single={"task": OneOf("sts")},
            weights={"summed": 5, "sequential": 3, "single": 4},
        ),
    }  # fmt: skip
    cut, _ = restrict(tree, {"sts"})
    assert cut["batch_size"] == OneOf({"sst": 8}, {"sst": 16}, weights=(3, 5))
    assert cut["mixing"].weights == {"summed": 5, "sequential": 3}  # type: ignore[union-attr]
    assert leaves(cut)[2].domain == OneOf(["sst", "qqp"], ["qqp", "sst"], weights=(1, 5))
    sst = Space(expand(cut, ("sst", "qqp"))).resolved(complete_for(choose_tasks("sst,qqp")))
    assert leaf(sst, "mixing/kind").domain == OneOf("summed", "sequential", weights=(0.625, 0.375))


def test_pins_narrow_resolved_leaves() -> None:
    tree = expand({
        "adapter": Kind(none={}, lora={"rank": Int(1, 64)}),
        "batch_size": OneOf({"sst": 8, "qqp": 32, "sts": 16}, {"sst": 16, "qqp": 32, "sts": 16}, weights=(1, 3)),
        "dropout": {"hidden": Float(0.0, 0.3)},
    }, TASKS)  # fmt: skip
    pinned = Space(tree, {"adapter": {"kind": "lora"}, "batch_size": {"sst": 4}, "dropout": {"hidden": 0.5}})
    narrow = pinned.resolved(complete)
    assert all(each.constant for each in narrow.leaves if each.path != "adapter/rank")
    assert leaf(narrow, "adapter.lora/rank").domain == Int(1, 64, prior=8, sigma=0.2)


def test_the_stored_form_holds_every_prior_and_its_hash_covers_them() -> None:
    tree: dict[str, Node] = {
        "adapter": Kind(none={"/optimizer/encoder_lr": RATE}, lora={"rank": Int(1, 64)}),
        "encoding": {"sst": {"pooling": OneOf("cls", "mean", weights=0.9)}},
        "dropout": {"hidden": OneOf(labels={"low": 0.0, "high": 0.3}, weights=(3, 1))},
    }
    whole = space(tree)
    stored = json.loads(json.dumps(to_json(whole.tree)))
    again = Space.from_json(stored, {})
    assert again == whole
    assert again.hash == whole.hash
    assert all(prior(each) is not None for each in again.leaves)
    assert whole.resolved(complete).leaves == whole.leaves
    other = {**tree, "dropout": {"hidden": OneOf(labels={"low": 0.0, "high": 0.3}, weights=(2, 1))}}
    assert space(other).hash != whole.hash
    with pytest.raises(SpaceError, match=r"cls \| mean \(default 90 %\): priors are resolved before"):
        to_json(tree)


def prior(each: Leaf) -> Any:
    return each.domain.weights if isinstance(each.domain, OneOf) else each.domain.prior


def test_the_space_of_an_older_sweep_has_no_priors() -> None:
    old = {"lr": {"$float": {"low": 1e-5, "high": 1e-3, "log": True}}, "kind": {"$one_of": [["a", "a"], ["b", "b"]]},
           "adapter": {"$kind": [["none", {}], ["lora", {}]]}}  # fmt: skip
    tree = from_json(old)
    assert to_json(tree) == old
    assert space_hash(tree) == "692d50f14c990773a5df5725d48927637570b1012637ca259653fddcc34335ac"
    assert {each.log_prior(each.first()) for each in leaves(tree)} == {0.0}


def test_centred_priors_move_where_there_is_a_choice_and_nowhere_else() -> None:
    tree: dict[str, Node] = {
        "a": Float(1e-5, 1e-3, log=True, prior=1e-4, sigma=0.3),
        "b": Int(1, 9, step=2, prior=3),
        "c": OneOf("x", "y", "z", weights=(0.6, 0.3, 0.1)),
        "d": OneOf(1, weights=None),
        "k": Kind(p={}, q={"n": Int(1, 8, prior=2), "/e": OneOf("u", "v", weights=(9, 1))}, weights={"p": 9, "q": 1}),
    }  # fmt: skip
    assert centred(tree, {}) == tree
    by_name = {leaf.name: leaf.domain for leaf in leaves(centred(tree, {"a": 2e-4, "c": "z", "k/kind": "q", "d": 1}))}
    assert by_name["a"] == Float(1e-5, 1e-3, log=True, prior=2e-4, sigma=0.3)
    assert by_name["c"].weights == pytest.approx((1 / 3, 1 / 6, 1 / 2))  # type: ignore[union-attr]
    assert by_name["k/kind"].weights == pytest.approx((0.5, 0.5))  # type: ignore[union-attr]
    assert (by_name["b"], by_name["d"], by_name["k.q/n"]) == (tree["b"], tree["d"], Int(1, 8, prior=2))
    kept = {leaf.name: leaf.domain for leaf in leaves(centred(tree, {"c": "x", "k.q/n": 8}))}
    assert kept["c"] == tree["c"], "it has more than a half"
    assert kept["k.q/n"] == Int(1, 8, prior=8, sigma=0.2)


def test_a_configuration_of_another_space_is_carried_as_far_as_the_space_has_it() -> None:
    space = leaves({
        "a": Float(0.0, 1.0, prior=0.25),
        "only": OneOf(3),
        "k": Kind(p={"m": Int(1, 9, prior=5)}, q={"n": Int(1, 8, prior=2)}, weights={"p": 1, "q": 2}),
    })  # fmt: skip
    full = {"a": 0.5, "only": 7, "k": {"kind": "p", "m": 3}, "else": 1}
    assert carried(space, full) == ({"a": 0.5, "k/kind": "p", "k.p/m": 3}, {"a": 0.5, "k/kind": "p", "k.p/m": 3})
    assert carried(space, {"a": 2.0, "k": {"kind": "r", "n": 4}}) == (
        {"a": 0.25, "k/kind": "q", "k.q/n": 4},
        {"k.q/n": 4},
    )
