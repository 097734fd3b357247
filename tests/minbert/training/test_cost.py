"""Cost of configurations: exact for the default, ordered as the work is, and known for every technique."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from minbert.config import Config
from minbert.data.files import read_corpus
from minbert.data.tokens import Data
from minbert.encoder.traits import MINILM, Traits
from minbert.fields import ConfigError
from minbert.stages.stages import MLM, MNRL, NLI, STAGES, Stage
from minbert.tasks import choose_tasks
from minbert.training.cost import Workload, cost, stage_examples
from tests.minbert.configs import configure

REAL = Workload(
    choose_tasks(), {"sst": 8544, "qqp": 76113, "sts": 6040}, {"sst": 25.0, "qqp": 30.5, "sts": 28.4}, MINILM
)
"""The class data."""
BERT = Traits(768, 12, "cls")

ALL = ("sst", "qqp", "sts")


def of(*pairs: str, workload: Workload = REAL) -> float:
    return cost(configure(*pairs, tasks=workload.tasks), workload)


def smart(*tasks: str) -> tuple[str, ...]:
    return tuple(f"regularizer/{task}/kind=smart" for task in tasks)


@pytest.mark.parametrize("base", [MINILM, BERT, Traits(32, 2, "max")])
@pytest.mark.parametrize("names", ["sst", "sst,qqp,sts", "cfimdb,sts"])
def test_the_default_costs_exactly_one(names: str, base: Traits) -> None:
    tasks = choose_tasks(names)
    workload = Workload(tasks, dict.fromkeys(tasks, 1_000), dict.fromkeys(tasks, 20.0), base)
    assert cost(Config.from_dict({}, tasks, base), workload) == 1.0


def test_the_sample_corpus_gives_a_workload_close_to_its_tokens(data: Data) -> None:
    corpus = read_corpus(None, choose_tasks())
    workload = Workload.of(corpus)
    assert workload.rows == {"sst": 600, "qqp": 600, "sts": 600}
    # Word pieces with special tokens: 17.3, 21.9, 21.7.
    assert [round(value) for value in workload.tokens.values()] == [18, 23, 23]
    assert of(workload=workload) == 1.0


def techniques(cls: type, path: str = "", given: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type]]:
    """Every technique of every family that a configuration names, at any depth and for every task.

    Each comes as settings, those of the branches above it included, with its class.
    """
    for field in dataclasses.fields(cls):
        meta: Mapping[str, Any] = field.metadata
        places = [f"{path}{field.name}"]
        if meta["rule"] == "per_task":
            meta, places = meta["inner"], [f"{path}{field.name}/{task}" for task in ALL]
        for place in places:
            if meta["rule"] == "group":
                yield from techniques(meta["cls"], f"{place}/", given)
            for kind, entry in meta["family"].items() if meta["rule"] == "branch" else ():
                settings = (*given, f"{place}/kind={kind}")
                yield settings, entry
                yield from techniques(entry, f"{place}/", settings)


def test_every_technique_of_every_family_has_a_cost() -> None:
    named, costed = set(), set()
    for settings, entry in techniques(Config):
        named.add(entry)
        try:
            config = configure(*settings)
        except ConfigError:  # it does not fit this task, or needs another technique beside it
            continue
        assert 0.0 < cost(config, REAL) < 10.0, settings
        costed.add(entry)
    assert named == costed
    assert len(costed) > 40


CHEAPER_FIRST = {
    "frozen layers are cached": (
        ["adapter/kind=frozen"],
        ["adapter/kind=lora", "adapter/layers/kind=top", "adapter/layers/count=1"],
        ["adapter/kind=lora", "adapter/layers/kind=top", "adapter/layers/count=2"],
        ["adapter/kind=lora", "adapter/layers/kind=top", "adapter/layers/count=2", "adapter/layers/dropout=on"],
        ["adapter/kind=lora"],
        [],
    ),
    "low rank": (
        ["adapter/kind=frozen"],
        ["adapter/kind=frozen", "adapter/dropout=on"],
        ["adapter/kind=lora", "adapter/targets=query+value", "adapter/rank=1"],
        ["adapter/kind=lora", "adapter/targets=query+value", "adapter/rank=256"],
        ["adapter/kind=lora", "adapter/rank=256"],
    ),
    "the rest of the encoder is trained": (
        ["adapter/kind=lora"],
        ["adapter/kind=lora", "adapter/rest=trained"],
        ["adapter/kind=pal", "adapter/encoder=trained"],
    ),
    "SMART": ([], smart("sst"), smart("qqp"), smart(*ALL), [*smart(*ALL), "regularizer/sst/steps=2"]),
    "penalties": ([], ["regularizer/qqp/kind=rdrop"], ["regularizer/qqp/kind=fgm"]),
    "proximal point": ([], ["average/kind=exponential"], ["proximal/kind=bregman"]),
    "combiners": ([], ["mixing/combine/kind=pcgrad"], ["mixing/combine/kind=gse"]),
    "balances": ([], ["mixing/balance/kind=gradnorm"]),
    "batches": (
        [f"batch_size/{task}=64" for task in ALL],
        [f"batch_size/{task}=16" for task in ALL],
        [f"batch_size/{task}=4" for task in ALL],
    ),
    "accumulation": (["optimizer/accumulation=4"], ["optimizer/accumulation=2"], []),
    "an update for each task": ([], ["mixing/kind=round_robin"]),
    "short tasks": (
        ["mixing/kind=single", "mixing/task=sst", "batch_size/sst=32"],
        ["mixing/kind=single", "mixing/task=sts", "batch_size/sts=32"],
        ["mixing/kind=single", "mixing/task=qqp", "batch_size/qqp=32"],
    ),
    "dropout": ([], ["dropout/hidden=0.1"], ["dropout/attention=0.1"]),
    "short sequences": ([f"max_length/{task}=16" for task in ALL], []),
    "the first token alone": ([f"encoding/{task}/pooling=cls" for task in ALL], []),
}
"""Settings in the order of their cost, cheapest first."""


@pytest.mark.parametrize("workload", [REAL, dataclasses.replace(REAL, base=BERT)], ids=["MiniLM", "BERT-base"])
@pytest.mark.parametrize("name", CHEAPER_FIRST)
def test_more_work_costs_more(name: str, workload: Workload) -> None:
    costs = [of(*settings, workload=workload) for settings in CHEAPER_FIRST[name]]
    assert all(first < second for first, second in itertools.pairwise(costs)), costs


def test_costs_follow_the_count_of_passes_where_batches_are_large() -> None:
    """With large batches only multiplications count: 3 for a plain step, 8 with SMART or FGM, 6 with R-Drop, 4 with
    Bregman, 6 for the two updates of GSE, 2 for LoRA, 1 for a frozen encoder with dropout."""
    large = [f"batch_size/{task}=4096" for task in ALL]
    plain = of(*large)
    assert of(*large, *smart(*ALL)) / plain == pytest.approx(8 / 3, rel=0.01)
    assert of(*large, *(f"regularizer/{task}/kind=rdrop" for task in ALL)) / plain == pytest.approx(2, rel=0.01)
    assert of(*large, *(f"regularizer/{task}/kind=fgm" for task in ALL)) / plain == pytest.approx(8 / 3, rel=0.01)
    assert of(*large, "proximal/kind=bregman") / plain == pytest.approx(4 / 3, rel=0.01)
    assert of(*large, "mixing/combine/kind=gse") / plain == pytest.approx(2, rel=0.02)
    assert of(*large, "adapter/kind=frozen", "adapter/dropout=on") / plain == pytest.approx(1 / 3, rel=0.01)
    assert 2 / 3 < of(*large, "adapter/kind=lora", "adapter/targets=query+value", "adapter/rank=1") / plain < 0.75


def test_cross_and_bi_encoding_cost_nearly_the_same() -> None:
    assert of("encoding/qqp/kind=bi", "encoding/sts/kind=bi") == pytest.approx(1.0, rel=0.02)


def test_smart_on_a_frozen_encoder_needs_its_passes_from_the_words() -> None:
    assert of("adapter/kind=frozen", *smart("sst")) > 20 * of("adapter/kind=frozen")


def test_what_changes_no_work_costs_nothing() -> None:
    same = ["optimizer/encoder_lr=1e-5", "optimizer/schedule/kind=cosine", "taper/sst/kind=inverse", "selection=best",
            "mixing/multiplier=3", "mixing/balance/kind=uncertainty", "augmentation/kind=edit",
            "optimizer/layer_decay=0.9", "regression_loss=raw"]  # fmt: skip
    for setting in same:
        assert of(setting) == 1.0, setting


def test_an_augmented_task_is_drawn_more_often_where_sizes_decide() -> None:
    mixing = ("mixing/kind=alpha", "mixing/alpha=1")
    assert of(*mixing, "augmentation/kind=edit", "augmentation/amount=4") != of(*mixing)


# Stages --------------------------------------------------------------------------------------------------------------


def test_a_stage_costs_its_rows_times_its_epochs() -> None:
    rows, tokens = 10_000, 28.0
    for kind, family in STAGES.items():
        stage: Stage = family[kind]()
        once = stage_examples(stage, rows, tokens, REAL)
        assert stage_examples(stage, 2 * rows, tokens, REAL) == pytest.approx(2 * once)
        doubled = dataclasses.replace(stage, epochs=2 * stage.epochs)  # type: ignore[type-var]
        assert stage_examples(doubled, rows, tokens, REAL) == pytest.approx(2 * once)
        assert 0.7 * rows * stage.epochs < once < 2.5 * rows * stage.epochs


def test_a_stage_costs_more_with_an_output_layer_small_batches_and_long_texts() -> None:
    plain = NLI(epochs=1.0)
    assert stage_examples(MLM(), 1_000, 28.0, REAL) > stage_examples(plain, 1_000, 28.0, REAL)
    assert stage_examples(NLI(epochs=1.0, batch_size=8), 1_000, 28.0, REAL) > stage_examples(plain, 1_000, 28.0, REAL)
    long, cut = stage_examples(plain, 1_000, 128.0, REAL), stage_examples(plain, 1_000, 500.0, REAL)
    assert long > 4 * stage_examples(plain, 1_000, 28.0, REAL) and cut == long
    short = MNRL(max_length=16)
    assert stage_examples(short, 1_000, 60.0, REAL) == stage_examples(short, 1_000, 32.0, REAL), "two texts of 16"
