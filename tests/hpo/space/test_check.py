"""Spaces of users: Python files, every kind of mistake before any compute, listings, JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from hpo.launch.plan import complete_for
from hpo.space.build import build
from hpo.space.source import from_json, load_space, space_hash, to_json
from hpo.space.space import Space
from hpo.space.tree import compose, configuration, expand, flatten, leaves, nest, parameters, path_of
from minbert.config import Config
from minbert.tasks import choose_tasks
from search_spaces.domains import Float, Int, Kind, OneOf, PerTask, SpaceError
from tests.hpo.simulation import SPACE, complete

TASKS = ("sst", "qqp", "sts")
LEGAL = complete_for(choose_tasks(TASKS))
RATE = Float(1e-5, 3e-4, log=True)


def mistakes(space: Any) -> list[str]:
    """The mistakes that are reported for a space, one line each."""
    with pytest.raises(SpaceError) as error:
        build(space, TASKS).check(LEGAL, TASKS)
    heading, *lines = str(error.value).splitlines()
    return [line.partition(". ")[2] or line.strip() for line in lines] or [heading]


def write(folder: Path, text: str) -> Path:
    path = folder / "my_space.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SPACES = {}", "my_space.py defines no SPACE. Expected SPACE = "),
        ("SPACE = [1]", r"must be a dict of domains, not list \[1\]"),
        ("x = 1\nSPACE = {", "my_space.py:2: SyntaxError"),
        ("import nothing_of_this_name", "my_space.py:1: ModuleNotFoundError"),
        ("from search_spaces import Float\n\nSPACE = {'lr': Float(1, 0)}", "my_space.py:3: Float: `low` must be"),
        ("raise SystemExit(3)", "my_space.py:1: SystemExit"),
    ],
)
def test_a_space_file_with_a_mistake_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        load_space(write(tmp_path, text))


def test_a_space_file_loads_and_a_missing_one_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "from search_spaces import Float\nSPACE = {'x': Float(0, 1)}")
    assert load_space(str(path)) == {"x": Float(0, 1)}
    with pytest.raises(SpaceError, match=r"No search space at .*absent.py"):
        load_space(tmp_path / "absent.py")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"x": 8}, r"x: expected Float, Int, OneOf, Kind, PerTask or a dict of them, not 8. To fix a value"),
        ({"a": {"b": [1, 2]}}, "a/b: expected Float"),
        ({"a": Kind(c={"d": "text"})}, "a.c/d: expected Float"),
        ({"a.b": Float(0, 1)}, "a key holds letters, digits"),
        ({"a": {3: Float(0, 1)}}, "a: a key holds letters"),
        ({"batch": PerTask(OneOf(1), sstt=OneOf(2))}, "unknown task `sstt`. Did you mean `sst`"),
        ({"x": Float(0, 1), "a": Kind(b={"/x": Float(0, 2)})}, "a.b//x and x both set `x`"),
        ({"s": OneOf({"p": 1}), "/s/p": Int(1, 2)}, "both set `s/p`"),
    ],
)
def test_a_malformed_tree_names_the_place(space: dict[Any, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        expand(space, TASKS)


def test_what_the_configuration_refuses_is_found_at_either_end_of_every_branch() -> None:
    bad_end = {"adapter": Kind(none={}, lora={"rank": Int(1, 2000)})}
    with pytest.raises(SpaceError, match=r"adapter.lora/rank = 2000: `adapter/rank` must be 1 to 1024, not 2000"):
        Space(expand(bad_end, TASKS)).check(complete)
    unknown = {"adapter": Kind(none={}, lora={"rnak": Int(1, 2)})}
    with pytest.raises(SpaceError, match="Unknown parameter `adapter/rnak`"):
        Space(expand(unknown, TASKS)).check(complete)
    with pytest.raises(SpaceError, match="Search space, xx = 0: Unknown parameter `xx`"):
        Space(expand({"xx": Float(0, 1)}, TASKS)).check(complete)


def test_check_draws_both_ends_of_every_domain() -> None:
    seen: list[dict[str, Any]] = []

    def remember(config: dict[str, Any]) -> dict[str, Any]:
        seen.append(config)
        return complete(config)

    space = Space(expand(SPACE, TASKS))
    configs = space.check(remember)
    assert [complete(config) for config in configs] == configs
    assert len(seen) > len(configs), "random combinations too"
    drawn = [parameters(space.leaves, config) or {} for config in configs]
    for leaf in space.leaves:
        for choice in leaf.ends():
            assert any(params.get(leaf.name) == choice for params in drawn), leaf.name


def test_per_task_expands_with_overrides() -> None:
    space = expand({"batch_size": PerTask(OneOf(8, 16), qqp=OneOf(32))}, TASKS)
    assert space == {"batch_size": {"sst": OneOf(8, 16), "qqp": OneOf(32), "sts": OneOf(8, 16)}}


def test_names_carry_their_branches_and_lead_back_to_paths() -> None:
    names = {leaf.name: leaf.path for leaf in leaves(expand(SPACE, TASKS))}
    assert names["adapter.lora/rank"] == "adapter/rank"
    assert names["adapter.lora//optimizer/encoder_lr"] == "optimizer/encoder_lr"
    assert names["encoding/sts.bi/head.linear/features"] == "encoding/sts/head/features"
    assert all(path_of(name) == path for name, path in names.items())
    assert len(names) == len(leaves(expand(SPACE, TASKS))), "names are unique"


def test_flatten_and_nest_are_inverse() -> None:
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "e": {}}
    assert nest(flatten(nested)) == nested


def test_parameters_of_a_configuration_outside_the_space_are_none() -> None:
    space = leaves(expand(SPACE, TASKS))
    inside = complete(compose(space, lambda leaf: leaf.first())[0])
    params = parameters(space, inside)
    assert params is not None
    assert complete(configuration(space, params)) == inside
    assert parameters(space, {**inside, "x": 7.0}) is None
    assert parameters(space, {**inside, "x": True}) is None
    assert parameters(space, {**inside, "adapter": {"kind": "dora"}}) is None
    assert parameters(space, {**inside, "steps": 4}) is None, "between two steps of an Int"
    del inside["x"]
    assert parameters(space, inside) is None


def test_order_of_keys_means_nothing_order_of_choices_does() -> None:
    space = expand(SPACE, TASKS)
    backwards = dict(reversed(space.items()))
    assert leaves(backwards) == leaves(space)
    assert space_hash(backwards) == space_hash(space)
    assert space_hash({"a": OneOf(1, 2)}) != space_hash({"a": OneOf(2, 1)})
    assert space_hash({"a": Float(0, 1)}) != space_hash({"a": Float(0, 2)})


def test_json_form_round_trips() -> None:
    space = expand(SPACE, TASKS)
    stored = json.loads(json.dumps(to_json(space), sort_keys=True))
    assert from_json(stored) == space
    with pytest.raises(SpaceError, match="must be a dict"):
        from_json([1])
    with pytest.raises(SpaceError, match="written out over the tasks"):
        to_json({"a": PerTask(OneOf(1))})


def test_describe_and_defaults_list_what_is_varied_and_what_is_not() -> None:
    space = Space(expand({"adapter": Kind(none={}, lora={})}, TASKS))
    assert space.describe() == [
        {"name": "adapter/kind", "path": "adapter/kind", "domain": "none | lora", "when": "", "type": "OneOf"}]
    taken = space.defaults_taken(complete)
    assert taken["adapter.lora/rank"] == 8
    assert taken["batch_size/qqp"] == 32
    assert "adapter/kind" not in taken
    pinned = Space(space.tree, {"batch_size": {"qqp": 16}})
    assert "batch_size/qqp" not in pinned.defaults_taken(complete)
    assert pinned.describe()[-1] == {
        "name": "batch_size/qqp", "path": "batch_size/qqp", "domain": "16", "when": "", "type": "fixed"}


def test_choices_that_are_legal_alone_and_not_together_are_named() -> None:
    def strict(config: dict[str, Any]) -> dict[str, Any]:
        return Config.from_dict(config, choose_tasks()).to_dict()

    head = {"kind": OneOf("linear", "cosine")}
    space = {"encoding": {"sts": {"kind": OneOf("bi", "cross"), "head": head}}, "dropout": {"hidden": Float(0, 0.3)}}
    named = r"Search space, encoding/sts/head/kind = 'cosine', encoding/sts/kind = 'cross' together: .*cosine"
    with pytest.raises(SpaceError, match=named):
        Space(expand(space, TASKS)).check(LEGAL)


def test_all_mistakes_of_a_tree_are_reported_at_once() -> None:
    space: dict[Any, Any] = {
        3: RATE, "a.b": RATE, "optimizer/encoder_lr": RATE, "b": [1], "dropout": PerTask(RATE, sstt=RATE),
        "precision": OneOf("auto"), "/precision": OneOf("bf16"), "deep": {"deeper": Kind(x={"y": "z"})},
    }  # fmt: skip
    parts = ("not 3", "'a.b'", 'Write "/optimizer/encoder_lr"', "b: expected Float", "deep/deeper.x/y: expected Float",
             "unknown task `sstt`", "both set `precision`")  # fmt: skip
    for line, part in zip(mistakes(space), parts, strict=True):
        assert part in line


WRONG: dict[str, Any] = {
    "adapter": Kind(
        none={"optimizer": {"encoder_lr": RATE}},
        lora={"rnk": OneOf(8, 16), "rank": OneOf(4, 3000), "dropout": OneOf(0.1, 0.2)},
        lorra={"rank": OneOf(1)},
    ),
    "adaptr": Kind(none={}, lora={"rank": OneOf(2)}),
    "batch_size": OneOf(16, 32),
    "encoder_lr": RATE,
    "encoding": {"qqp": Kind(bi={"poling": OneOf("cls")}), "sts": Kind(bi={"poling": OneOf("cls")})},
    "mixing": OneOf("summed"),
    "optimizer": {"head_lr": Float(1e-4, 2.0)},
    "regularizer": PerTask(Kind(none={}, smart={"wight": Float(0, 1)})),
    "taper": {"sts": {"weight": Float(0, 1)}},
}
OUTSIDE = ("adapter.lora/rank: the default 8", "adapter.lora/dropout: the default 0.0")
"""Defaults outside their domains, which are reported first."""
CURES = {
    "adapter/kind = 'lorra'": "Unknown adapter `lorra`. Did you mean `lora`?",
    "adapter.none/optimizer/encoder_lr": 'with a leading slash: "/optimizer/encoder_lr"',
    "adapter.lora/rank = 3000": "must be an integer from 1 to 1024, found 3000",
    "adapter.lora/rnk": "Did you mean `adapter/rank`?",
    "adaptr/kind": "Unknown parameter `adaptr`. Did you mean `adapter`?",
    "batch_size": "write PerTask(OneOf(16, 32))",
    "encoder_lr": "The parameter `encoder_lr` is `optimizer/encoder_lr`.",
    "encoding/qqp.bi/poling": "Did you mean `encoding/qqp/pooling`? ",
    "mixing": "In a space write Kind(summed={...}, ...).",
    "optimizer/head_lr = 2.0": "at most 1.0, found 2.0",
    "regularizer/qqp.smart/wight": "Did you mean `regularizer/qqp/weight`? ",
    "taper/sts/weight": "In a space it belongs to a branch: Kind(constant={...}).",
}


def test_all_mistakes_against_the_configuration_are_reported_at_once_each_with_its_cure() -> None:
    LEGAL({})
    began = time.process_time()
    lines = mistakes(WRONG)
    assert time.process_time() - began < 1
    assert len(lines) == len(OUTSIDE) + len(CURES)
    assert all(line.startswith(text) for text, line in zip(OUTSIDE, lines, strict=False))
    for (name, cure), line in zip(CURES.items(), lines[len(OUTSIDE) :], strict=True):
        assert line.startswith(f"Search space, {name}"), line
        assert cure in line
    assert sum("Likewise for sts." in line for line in lines) == 1
    assert sum("Likewise for sst, sts." in line for line in lines) == 1


@pytest.mark.parametrize("name", [name for name in WRONG if name not in ("adapter", "encoding")])
def test_a_mistake_alone_is_one_sentence_with_the_same_cure(name: str) -> None:
    [cure] = [cure for place, cure in CURES.items() if place.startswith(f"{name}/") or place.split()[0] == name]
    [line] = mistakes({name: WRONG[name], "dropout": {"hidden": Float(0, 0.3)}})
    assert cure.strip() in line


def test_mistakes_of_the_tree_and_against_the_configuration_are_reported_together() -> None:
    space = {"optimizer": {"encoder_lr": 3, "hed_lr": RATE}, "adaptr": Kind(none={}), "batch_size": PerTask(OneOf(8))}
    lr, adapter, head_lr = mistakes(space)
    assert lr.startswith("optimizer/encoder_lr: expected Float")
    assert "Did you mean `adapter`?" in adapter
    assert "Did you mean `optimizer/head_lr`?" in head_lr


def test_a_long_list_of_mistakes_is_cut() -> None:
    lines = mistakes({f"x{number}": [number] for number in range(30)})
    assert len(lines) == 21
    assert lines[-1] == "and 10 more"
    [line] = mistakes({f"x{number}": Float(0, 1) for number in range(300)})
    assert "Likewise for x" in line, "a repeated mistake is one line"


def test_a_mistake_hides_no_combination_and_no_other_branch() -> None:
    head = {"kind": OneOf("linear", "cosine")}
    space = {"encoding": {"sts": {"kind": OneOf("bi", "cross"), "head": head}}, "xx": Float(0, 1),
             "mixing": Kind(alpha={"alhpa": Float(0, 1)}, annealed={"start": OneOf(11.0)})}  # fmt: skip
    outside, alpha, start, xx, together = mistakes(space)
    assert 'mixing/kind: the default "summed" is not within alpha | annealed' in outside
    assert "Did you mean `mixing/alpha`?" in alpha
    assert "mixing.annealed/start = 11.0" in start
    assert "Unknown parameter `xx`" in xx
    assert "encoding/sts/head/kind = 'cosine', encoding/sts/kind = 'cross' together: " in together


def cyclic(kind: str) -> dict[str, Any]:
    space: dict[str, Any] = {"x": Float(0, 1)}
    inner = {"dictionary": space, "kind": Kind(b=space), "task": PerTask(space), "override": PerTask(RATE, sst=space)}
    space["a"] = {"deep": inner[kind]}
    return space


@pytest.mark.parametrize(
    ("kind", "place"),
    [("dictionary", "SPACE/a/deep"), ("kind", "SPACE/a/deep.b"), ("task", "SPACE/a/deep"),
     ("override", "SPACE/a/deep/sst")],
)  # fmt: skip
def test_a_space_that_contains_itself_is_refused_with_the_place(kind: str, place: str) -> None:
    with pytest.raises(SpaceError, match=f"{place} is the same object as SPACE, which contains it"):
        load_space(cyclic(kind))


def test_a_space_that_is_too_deep_or_too_large_is_refused() -> None:
    deep: Any = RATE
    wide: Any = RATE
    for _ in range(3000):
        deep = {"a": deep}
    for _ in range(25):
        wide = {"a": wide, "b": wide}
    with pytest.raises(SpaceError, match="SPACE/a/a/a.* lies in more than 32 dictionaries and branches"):
        load_space(deep)
    with pytest.raises(SpaceError, match="SPACE must hold at most 10,000 nodes"):
        load_space(wide)
    shared = {"weight": RATE}
    assert load_space({"a": shared, "b": {"c": shared}}), "one tree in two places is no cycle"
    nested: Any = 0
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(SpaceError, match="OneOf: a value is nested too deeply"):
        OneOf(nested)


def test_a_domain_reads_as_it_is_written() -> None:
    assert repr(OneOf(16, 32)) == "OneOf(16, 32)"
    assert repr(OneOf(["query", "value"], None)) == "OneOf(['query', 'value'], None)"
    assert repr(OneOf(labels={"small": [1, 2]})) == "OneOf(labels={'small': [1, 2]})"
