"""The strict configuration: what it accepts, refuses and stores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from minbert.config import Config, flatten, merge, settings
from minbert.encoder.traits import MINILM, Traits
from minbert.fields import ConfigError
from minbert.migrations import CONFIG_VERSION
from minbert.tasks import TASKS, Task, choose_tasks
from minbert.techniques.adapters import LoRA
from tests.minbert.configs import configure

THREE = choose_tasks()


def test_the_stored_form_is_complete_json_and_loads_back() -> None:
    config = configure("adapter/kind=lora", "adapter/rank=4", "mixing/kind=annealed", "regularizer/sst/kind=smart")
    stored = json.loads(json.dumps(config.to_dict()))
    assert stored["config_version"] == CONFIG_VERSION and Config.from_dict(stored, THREE) == config
    assert config.flat()["adapter/rank"] == 4 and config.flat()["mixing/end"] == 0.2
    assert Config.from_dict({}, THREE) == configure()


@pytest.mark.parametrize("names", [("sts",), ("sst", "cfimdb"), tuple(TASKS)], ids="+".join)
@pytest.mark.parametrize("pairs", [(), ("adapter/kind=pal", "mixing/kind=annealed"), ("mixing/kind=sequential",)])
def test_a_configuration_holds_settings_of_its_runs_tasks_alone(names: tuple[str, ...], pairs: tuple[str, ...]) -> None:
    tasks = choose_tasks(names)
    config = configure(*pairs, tasks=tasks)
    for values in (config.encoding, config.batch_size, config.taper, config.regularizer, config.max_length):
        assert tuple(values) == names
    absent = TASKS.keys() - tasks.keys()
    assert not any(absent & set(path.split("/")) for path in config.flat())
    if config.adapter.kind == "pal":
        assert tuple(config.adapter.dropout) == tuple(config.mixing.upweight) == names
    if config.mixing.kind == "sequential":
        assert config.mixing.order == names
    assert Config.from_dict(json.loads(json.dumps(config.to_dict())), tasks) == config


def test_a_tasks_defaults_follow_its_declaration() -> None:
    topic = Task("topic", ("text",), "label", "classification", 3, 0, 2, "accuracy", {"train": "a", "dev": "b"})
    pair = replace(topic, name="pair", columns=("a", "b"), max_length=64, search_rows=500)
    config = Config.from_dict({"max_length": {"topic": 32}}, {"topic": topic, "pair": pair})
    assert {name: encoding.kind for name, encoding in config.encoding.items()} == {"topic": "single", "pair": "cross"}
    assert dict(config.batch_size) == {"topic": 16, "pair": 32}
    assert dict(config.max_length) == {"topic": 32, "pair": 64}


def test_a_configuration_needs_tasks_and_is_refused_for_others() -> None:
    with pytest.raises(ConfigError, match="`batch_size` needs the tasks of a run, at least one; found none"):
        Config.from_dict({}, {})
    with pytest.raises(ConfigError, match="loaded over the run's tasks sst; it was loaded over sst, qqp, sts"):
        configure().check(choose_tasks("sst"))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["adapter/kind=lorra"], r"Unknown adapter `lorra`. Did you mean `lora`\? Expected one of: dora, frozen, lora"),
        (["adapter/rank=8"], r"`adapter/rank` where `adapter/kind` is none: it belongs to lora, dora, pal"),
        (["mixing/kind=alpha", "mixing/combine/kind=sum"], r"it belongs to summed"),
        (["optimizer/schedule=linear"], r"as a setting optimizer/schedule/kind=constant"),
        (["batch_size=8"], r"as a setting for one task batch_size/sst="),
        (["adapter/kind=lora", "adapter/rang=8"], r"`adapter/rang`. Did you mean `adapter/rank`"),
        (["adapter/kind=frozen", "adapter/dropout=0.1"], r"value of `adapter/dropout`: `0.1`.*off, on"),
        (["adapter/kind=lora", "adapter/layers=top"], r"`adapter/layers` must be a dictionary with `kind`"),
        (["adapter/kind=lora", "adapter/layers/kind=all", "adapter/layers/count=2"], r"it belongs to top"),
        (["adapter/kind=dora", "adapter/layers/kind=top", "adapter/layers/count=0"],
         r"`adapter/layers/count` must be an integer from 1 to 48, found 0"),
        (["adapter/kind=lora", "adapter/layers/kind=top", "adapter/bias=all"],
         r"`adapter/bias` all trains the embeddings and the layers below.*use none or adapted"),
        (["adapter/kind=lora", "adapter/layers/kind=top", "adapter/rest=trained"],
         r"`adapter/rest` trained trains .*use frozen, or layers of kind all"),
        (["adaptor/kind=lora"], r"Did you mean `adapter`"),
        (["adapter/kind=lora", "adapter/rank=0"], r"`adapter/rank` must be an integer from 1 to 1024, found 0"),
        (["adapter/kind=lora", "adapter/rank=8.5"], r"`adapter/rank` must be an integer.*found 8.5"),
        (["adapter/kind=lora", "adapter/targets=query+kee"], r"`kee`. Did you mean `key`"),
        (["optimizer/encoder_lr=fast"], r"`optimizer/encoder_lr` must be a number above 0.0.*found 'fast'"),
        (["optimizer/encoder_lr=NaN"], r"`optimizer/encoder_lr` must be"),
        (["optimizer/encoder_lr=true"], r"`optimizer/encoder_lr` must be"),
        (["batch_size/stss=4"], r"Unknown task `stss` in `batch_size`. Did you mean `sts`\? This run has the"),
        (["encoding/cfimdb/pooling=mean"], r"Unknown task `cfimdb` in `encoding`. This .* or name .* in `--tasks`"),
        (["adapter/kind=pal", "adapter/dropout/cfimdb=0"], r"Unknown task `cfimdb` in `adapter/dropout`"),
        (["mixing/kind=single", "mixing/task=cfimdb"], r"Unknown task `cfimdb` in `mixing/task`"),
        (["batch_size=4"], r"`batch_size` must be a dictionary over the tasks"),
        (["encoding/qqp/kind=single"], r"single does not fit the 2 text columns of qqp; use cross, bi"),
        (["encoding/sst/kind=cross"], r"cross does not fit the 1 text column of sst; use single"),
        (["encoding/sts/head/kind=cosine"], r"does not have. Use head linear, or encoding bi"),
        (["encoding/qqp/kind=bi", "encoding/qqp/head/kind=cosine"], r"qqp predicts classes; use linear"),
        (["encoding/qqp/head/features=sum"], r"`encoding/qqp/head/features` sum combines two"),
        (["precision=float16"], r"value of `precision`: `float16`"),
        (["batch_size/sst=Infinity"], r"`batch_size/sst` must be an integer"),
        (["batch_size/sst=NaN"], r"`batch_size/sst` must be an integer"),
        (["adapter/kind=[1]"], r"Unknown adapter"),
        (["adapter/kind=lora", 'adapter/targets=[["query"]]'], r"`adapter/targets` must be a non-empty list"),
        (["config_version=99"], r"`config_version` must be an integer from 1 to"),
        (["adapter"], r"must read path=value"),
        (["adapter=lora"], r"`adapter` must be a dictionary with `kind`"),
    ],
)
def test_errors_name_parameter_rule_value_and_choices(pairs: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configure(*pairs)


@pytest.mark.parametrize(
    ("pairs", "tasks", "message"),
    [
        (["taper/sst/weight=0", "taper/qqp/weight=0"], ("sst", "qqp"), r"each of sst, qqp has weight 0"),
        (["encoding/qqp/kind=bi", "shared_head/kind=linear"], ("sst", "qqp"), r"found qqp"),
        (["adapter/kind=frozen", "encoding/sts/kind=bi", "encoding/sts/head/kind=cosine_embedding"], ("sts",),
         r"nothing would be trained"),
        (["mixing/kind=single", "mixing/task=sst", "taper/sst/weight=0"], ("sst", "qqp"), r"each of sst has weight 0"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_train_is_refused(pairs: list[str], tasks: tuple[str, ...], message: str) -> None:
    config = configure(*pairs, tasks=choose_tasks(tasks))
    with pytest.raises(ConfigError, match=message):
        config.check(choose_tasks(tasks))


VERSION_5 = json.loads((Path(__file__).parent / "versions" / "5.json").read_text())
"""Settings, and the complete configurations that version 5 stored for them."""

OLD = Config.from_dict(VERSION_5["default"]["stored"], THREE)
"""The default configuration of version 5."""

SINCE_6 = {
    "optimizer/adapter_lr": 1e-4, "optimizer/schedule/warmup_steps": 1_000_000, "regression_loss": "raw",
    "average/kind": "none",
}  # fmt: skip
"""What version 6 adds to the flat form of an older default configuration."""


@pytest.mark.parametrize("name", VERSION_5)
def test_version_5_loads_as_it_ran(name: str) -> None:
    """Complete or not: what a file leaves out had the defaults of its version."""
    stored, given = VERSION_5[name]["stored"], VERSION_5[name]["settings"]
    config = Config.from_dict(stored, THREE)
    expected = flatten(stored) | SINCE_6 | {"config_version": CONFIG_VERSION}
    expected["optimizer/adapter_lr"] = expected["optimizer/encoder_lr"]
    expected["optimizer/schedule/warmup_share"] = expected.pop("optimizer/schedule/warmup")
    if name == "smart":
        expected["regularizer/sts/radius"] = 0.0
    assert config.flat() == expected
    kinds = {"optimizer": {"schedule": {"kind": "linear"}}, "mixing": {"kind": "summed"}}
    partial = merge({"config_version": 5, **kinds}, settings(given))
    assert Config.from_dict(partial, THREE) == config
    assert Config.from_dict(config.to_dict(), THREE) == config


def test_defaults_follow_the_base() -> None:
    base = Traits(768, 12, "cls")
    config = Config.from_dict({"adapter": {"kind": "lora"}}, THREE, base)
    assert config.optimizer.encoder_lr == 5e-5 and config.optimizer.adapter_lr == 5e-4
    assert {encoding.pooling for encoding in config.encoding.values()} == {"cls"}
    assert {encoding.pooling for encoding in configure().encoding.values()} == {"mean"}
    assert Config.from_dict({}, THREE, MINILM) == configure()
    given = {"optimizer": {"encoder_lr": 1e-4}, "encoding": {"sst": {"kind": "single", "pooling": "max"}}}
    config = Config.from_dict(given, THREE, base)
    assert config.optimizer.encoder_lr == 1e-4 and config.encoding["sst"].pooling == "max"
    assert config.encoding["qqp"].pooling == "cls" and config.optimizer.schedule == configure().optimizer.schedule


def test_the_numerator_of_lora_follows_its_rank_unless_it_is_set() -> None:
    config = configure("adapter/kind=lora", "adapter/rank=32")
    assert isinstance(config.adapter, LoRA) and config.adapter.alpha is None and config.adapter.numerator == 64
    assert config.changed(["adapter/rank=4"], THREE).flat()["adapter/alpha"] is None
    config = configure("adapter/kind=dora", "adapter/rank=32", "adapter/alpha=16")
    assert isinstance(config.adapter, LoRA) and config.adapter.numerator == 16
    assert config.changed(["adapter/alpha=null"], THREE).adapter.numerator == 64  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"`adapter/alpha` must be a number above 0.0 and at most 1024.0, or null"):
        configure("adapter/kind=lora", "adapter/alpha=0")


def test_version_1_had_one_length_for_all_tasks() -> None:
    old = {"config_version": 1, "max_length": 64, "adapter": {"kind": "lora"}}
    config = Config.from_dict(old, THREE)
    assert dict(config.max_length) == dict.fromkeys(THREE, 64) and config.adapter.kind == "lora"
    assert Config.from_dict({"config_version": 1}, THREE) == OLD
    with pytest.raises(ConfigError, match=r"from 1 to 6, found 7"):
        Config.from_dict({"config_version": 7}, THREE)


@pytest.mark.parametrize("version", [1, 2])
def test_until_version_2_a_frozen_encoder_had_its_dropouts(version: int) -> None:
    old = {"config_version": version, "adapter": {"kind": "frozen"}}
    config = Config.from_dict(old, THREE)
    assert config.flat()["adapter/dropout"] == "on" and Config.from_dict(config.to_dict(), THREE) == config
    assert Config.from_dict({"adapter": {"kind": "frozen"}}, THREE).flat()["adapter/dropout"] == "off"
    assert old == {"config_version": version, "adapter": {"kind": "frozen"}}
    lora = {"adapter": {"kind": "lora", "dropout": 0.5}}
    assert Config.from_dict({"config_version": version, **lora}, THREE).adapter == LoRA(
        dropout=0.5, alpha=16.0, targets=("query", "value")
    )
    assert Config.from_dict(lora, THREE).flat()["adapter/layers/kind"] == "all"


def test_until_version_3_uncertainty_weights_had_the_rate_of_the_heads() -> None:
    balance = {"kind": "summed", "balance": {"kind": "uncertainty"}}
    old = {"config_version": 3, "mixing": balance, "optimizer": {"head_lr": 0.002}}
    assert Config.from_dict(old, THREE).flat()["mixing/balance/lr"] == 0.002
    assert Config.from_dict({"config_version": 3, "mixing": balance}, THREE).flat()["mixing/balance/lr"] == 5e-4
    assert Config.from_dict({"mixing": balance}, THREE).flat()["mixing/balance/lr"] == 0.01
    assert Config.from_dict({"config_version": 3}, THREE) == OLD


VERSION_4 = json.loads((Path(__file__).parent / "versions" / "4.json").read_text())
"""Configurations as version 4 stored them: with settings of four tasks, whatever the run trained."""


@pytest.mark.parametrize("name", ["default", "pal", "sequential"])
@pytest.mark.parametrize("tasks", ["sst", "sts,cfimdb", "sst,qqp,sts", "sst,qqp,sts,cfimdb"])
def test_version_4_loads_without_settings_of_absent_tasks(name: str, tasks: str) -> None:
    old, chosen = VERSION_4[name], choose_tasks(tasks)
    before = json.dumps(old)
    config = Config.from_dict(old, chosen)
    assert json.dumps(old) == before
    absent = {"sst", "qqp", "sts", "cfimdb"} - chosen.keys()
    expected = {path: value for path, value in flatten(old).items() if not absent & set(path.split("/"))}
    expected |= {"config_version": CONFIG_VERSION, **SINCE_6}
    expected["optimizer/schedule/warmup_share"] = expected.pop("optimizer/schedule/warmup")
    smart = [path.removesuffix("kind") for path, value in expected.items() if value == "smart"]
    expected |= {f"{path}radius": 0.0 for path in smart}
    if name == "sequential":
        expected["mixing/order"] = [task for task in ("cfimdb", "sts", "sst", "qqp") if task in chosen]
    assert config.flat() == expected
    assert Config.from_dict(config.to_dict(), chosen) == config


def test_version_4_is_as_strict_about_other_names_as_the_current_one() -> None:
    old = {"config_version": 4, "batch_size": {"cfimdb": 8, "stss": 8}}
    with pytest.raises(ConfigError, match="Unknown task `stss` in `batch_size`. Did you mean `sts`"):
        Config.from_dict(old, THREE)
    with pytest.raises(ConfigError, match="Unknown task `cfimdb` in `batch_size`"):
        Config.from_dict(old | {"config_version": 5}, THREE)
    with pytest.raises(ConfigError, match="Unknown task `cfimdb` in `mixing/task`"):
        Config.from_dict(VERSION_4["single"], THREE)
    assert Config.from_dict(VERSION_4["single"], TASKS).mixing.task == "cfimdb"


def test_settings_parse_json_and_strings() -> None:
    parsed = settings(["a/b=8", "a/c=0.5", "d=word", 'e=["x"]'])
    assert parsed == {"a": {"b": 8, "c": 0.5}, "d": "word", "e": ["x"]}
    assert flatten(parsed) == {"a/b": 8, "a/c": 0.5, "d": "word", "e": ["x"]}


def test_merging_another_kind_drops_the_old_branch() -> None:
    first = {"adapter": {"kind": "lora", "rank": 8}, "x": 1}
    assert merge(first, {"adapter": {"kind": "none"}}) == {"adapter": {"kind": "none"}, "x": 1}
    assert merge(first, {"adapter": {"rank": 4}}) == {"adapter": {"kind": "lora", "rank": 4}, "x": 1}
