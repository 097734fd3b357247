"""The speed benchmark's counts and comparisons: operations, sentences, encoders, ratios. Nothing is timed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import configuration, markdown
from benchmarks.speed import base_size
from benchmarks.speed.__main__ import Measured, combined
from benchmarks.speed.case import Case, Options
from benchmarks.speed.cases import ON_A_CPU, ON_A_GPU, find
from benchmarks.speed.ours import MIX, QQP, SST, trial
from benchmarks.speed.peak import forward_operations, trained_lengths
from minbert.data.batches import pack
from minbert.data.tokens import Data
from minbert.encoder.base import Base, find_base
from minbert.encoder.bert import Bert


def operations(encoder: Bert, lengths: list[int], *, backward: bool) -> int:
    """Operations of matrix products as torch counts them."""
    ids = torch.arange(max(lengths)).numpy().astype("int32")
    with FlopCounterMode(display=False) as counter:
        states = encoder(pack([(ids[:length], length) for length in lengths]), first_only=True)
        if backward:
            states.sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize("lengths", [[7], [12, 12, 12], [5, 9, 30]])
def test_counted_operations_equal_those_of_torch(lengths: list[int]) -> None:
    base = find_base("tiny")  # lengths differ so much that attention pads no sequence
    assert forward_operations(base.config, lengths) == operations(base.load(), lengths, backward=False)
    assert 3 * forward_operations(base.config, lengths) == operations(base.load(), lengths, backward=True)


def test_trained_lengths_are_those_of_the_rows_that_a_trial_used(data: Data) -> None:
    sst = trial(configuration(*SST), data, seed=3)
    ((draw,), _) = sst.draw()
    sst.step()
    assert sst.position.consumed["sst"] == 16
    assert trained_lengths(sst, "sst", 0, 16) == [len(ids) for ids, _ in draw.batches[0].sequences]


@pytest.mark.parametrize(("settings", "sizes"), [(SST, {"sst": 16}), (QQP, {"qqp": 32})])
def test_both_sides_read_the_same_sentences(data: Data, settings: tuple[str, ...], sizes: dict[str, int]) -> None:
    """Without padding the rival's first batch equals ours: the same word pieces and labels in the same order."""
    transformers = pytest.importorskip("transformers")
    from benchmarks import rival
    from benchmarks.speed import theirs

    options = Options(str(data.folder), "", steps=1, seconds=0.0, process=1)
    corpus = theirs.rows_of(options, sizes)
    tokenizer = transformers.BertTokenizerFast(vocab={piece: i for i, piece in enumerate(data.base.vocabulary)})
    (loader,) = theirs.loaders(options, corpus, sizes, tokenizer).values()
    padded = next(rival.endless(loader))
    ((draw,), _) = trial(configuration(*settings), data, seed=1).draw()
    (batch,) = draw.batches
    masks = padded["attention_mask"].bool()
    sentences = [ids[mask].tolist() for ids, mask in zip(padded["input_ids"], masks, strict=True)]
    assert sentences == [ids.tolist() for ids, _ in batch.sequences]
    assert padded["labels"].tolist() == batch.labels.tolist()


def test_every_case_has_a_unique_name_and_valid_settings() -> None:
    names = [case.name for case in (*ON_A_CPU, *ON_A_GPU)]
    assert len(set(names)) == len(names)
    assert all(find(name).name == name for name in names)
    for settings in (SST, QQP, MIX):
        configuration(*settings)


def case(unit: str) -> Case:
    return dataclasses.replace(find("sst"), unit=unit)  # type: ignore[arg-type]


def test_rates_of_processes_add_up_and_costs_do_not() -> None:
    results = [{"value": 2.0}, {"value": 4.0}]
    assert combined(case("examples/s"), results) == 6.0
    assert combined(case("ms a step"), results) == 3.0


def test_ratios_are_taken_within_a_round() -> None:
    row = Measured(case("examples/s"), ours=[10.0, 40.0, 30.0], rival=[10.0, 10.0, 15.0]).cells()
    assert row[3] == "1.00, 4.00, 2.00"
    assert row[4] == "2.00"  # not 30 / 10, the ratio of medians
    assert Measured(case("examples/s"), ours=[10.0]).cells()[2:5] == ["-", "-", "-"]


def test_a_bar_does_not_end_a_cell() -> None:
    assert markdown(["a"], [["x|y"]]).splitlines()[-1] == "| x/y |"


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the written encoder small."""
    shape = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    monkeypatch.setattr(base_size, "SHAPE", base_size.SHAPE | shape)


def test_both_sides_load_the_same_large_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transformers = pytest.importorskip("transformers")
    small(monkeypatch)
    base: Base = find_base(str(base_size.write(tmp_path, None)))
    model, loading = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    assert torch.equal(base.load().layers[1].up.weight, model.encoder.layer[1].intermediate.dense.weight)


def test_base_size_is_the_default_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    assert {name: getattr(transformers.BertConfig(), name) for name in base_size.SHAPE} == base_size.SHAPE


def test_without_the_packaged_encoder_words_come_from_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    monkeypatch.setattr("minbert.encoder.base.PACKAGE", "no_such_package")
    base = find_base(str(base_size.write(tmp_path, None)))
    assert len(base.vocabulary) == len(set(base.vocabulary)) == base_size.SHAPE["vocab_size"]
    assert "the" in base.vocabulary
