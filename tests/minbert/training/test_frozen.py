"""Cached features of a frozen encoder give the results of passes without them, for every content of the cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minbert.augmentation.rows import augmented
from minbert.config import Config
from minbert.data.batches import Sequences, in_order_of_packing, pack
from minbert.data.tokens import Data, TaskFile, Texts
from minbert.encoder.base import Base
from minbert.stages.chain import staged
from minbert.tasks import choose_tasks
from minbert.techniques.encodings import Bi, Cross, Single
from minbert.techniques.regularizers import REGULARIZERS
from minbert.training import checkpoints, feature_cache, frozen
from minbert.training.evaluation import evaluate, predict_rows
from minbert.training.frozen import FrozenPart, Reading
from minbert.training.model import MultitaskModel
from minbert.training.predict import load_model
from minbert.training.report import Report, State
from minbert.training.train import train
from tests.minbert import configs
from tests.minbert.encoder.test_bert import sequences

PLAIN = ["precision=float32", "optimizer/schedule/kind=constant", "optimizer/clip_norm=10"]
BI = ["encoding/qqp/kind=bi", "encoding/sts/kind=bi"]
TOP = ["adapter/kind=lora", "adapter/layers/kind=top", "adapter/dropout=0.2", "adapter/targets=query+value+up"]
CONFIGS = {
    "frozen": ["adapter/kind=frozen"],
    "frozen, poolings": ["adapter/kind=frozen", *BI, "encoding/sst/pooling=mean", "encoding/qqp/pooling=max",
                         "encoding/sts/pooling=pooler", "shared_head/kind=linear"],
    "frozen, pcgrad, bregman": ["adapter/kind=frozen", *BI, "shared_head/kind=linear", "mixing/combine/kind=pcgrad",
                                "proximal/kind=bregman"],
    "frozen, smart on one task": ["adapter/kind=frozen", "regularizer/sst/kind=smart"],
    "frozen, r-drop": ["adapter/kind=frozen", *(f"regularizer/{task}/kind=rdrop" for task in ("sst", "qqp", "sts"))],
    "frozen, fgm on one task": ["adapter/kind=frozen", "regularizer/sts/kind=fgm"],
    "top": TOP,
    "top, r-drop, fgm": [*TOP, "regularizer/sst/kind=rdrop", "regularizer/qqp/kind=fgm"],
    "top, poolings, bregman": [*TOP, *BI, "encoding/sst/pooling=mean", "proximal/kind=bregman"],
    "top, dora, gse": ["adapter/kind=dora", *TOP[1:], "mixing/combine/kind=gse", "encoding/sts/kind=bi"],
    "top, smart on one task": [*TOP, "regularizer/qqp/kind=smart"],
}  # fmt: skip


def configure(*pairs: str) -> Config:
    return configs.configure(*PLAIN, *pairs)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


def run(config: Config, data: Data, folder: Path, seed: int = 3) -> tuple[Report, dict[str, torch.Tensor]]:
    """Last report of a trial of about ten steps, and its weights."""
    report = list(train(config, data, State.fresh(seed, (300, 600), folder)))[-1]
    return report, checkpoints.read_tensors(Path(report.checkpoint), "weights")


Outcome = tuple[Report, dict[str, torch.Tensor]]
"""Last report of a trial, and its weights."""


def assert_same(first: Outcome, second: Outcome, tolerance: float = 0.0) -> None:
    assert first[1].keys() == second[1].keys()
    for name, value in first[1].items():
        torch.testing.assert_close(value, second[1][name], rtol=0, atol=tolerance, msg=name)
    assert first[0].losses == pytest.approx(second[0].losses, rel=0, abs=tolerance)
    # The correlation of nearly equal predictions, of heads that have hardly learnt, magnifies rounding.
    assert first[0].scores == pytest.approx(second[0].scores, rel=0, abs=100 * tolerance)


class Counter:
    """Counts the sequences whose features are computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sequences: Sequences = []
        compute = FrozenPart.compute

        def counted(part: FrozenPart, sequences: Sequences, pooling: str) -> list[Any]:
            self.sequences += sequences
            return compute(part, sequences, pooling)

        monkeypatch.setattr(FrozenPart, "compute", counted)

    def take(self) -> int:
        """Number of sequences computed since the last call."""
        count = len(self.sequences)
        self.sequences.clear()
        return count


@pytest.mark.parametrize("name", CONFIGS)
def test_cached_features_equal_those_computed_in_every_pass(
    name: str, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, counter = configure(*CONFIGS[name]), Counter(monkeypatch)
    first = run(config, data, tmp_path / "cached")
    assert counter.take() > 0
    monkeypatch.setenv("MINBERT_FEATURES", "off")
    plain = run(config, data, tmp_path / "plain")
    assert counter.take() == 0
    assert_same(first, plain, 1e-5)


@pytest.mark.parametrize("name", ["frozen, poolings", "top, poolings, bregman"])
def test_empty_half_filled_full_and_unwritable_caches_give_the_same_bits(
    name: str, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    config, counter = configure(*CONFIGS[name]), Counter(monkeypatch)
    empty = run(config, data, tmp_path / "empty")
    computed = counter.take()
    full = run(config, data, tmp_path / "full")
    assert counter.take() == 0
    for path in cache.glob("*/crc"):
        marks = np.fromfile(path, dtype=np.uint32)
        marks[::2] = 0
        marks.tofile(path)
    half = run(config, data, tmp_path / "half")
    assert 0.3 * computed < counter.take() < 0.7 * computed
    shutil.rmtree(cache)
    cache.write_text("a file where the folder should be")
    unwritable = run(config, data, tmp_path / "unwritable")
    assert counter.take() > computed
    for result in (full, half, unwritable):
        assert_same(empty, result)


def test_trials_of_other_settings_share_what_they_have_in_common(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(monkeypatch)
    run(configure("adapter/kind=frozen", "encoding/sst/pooling=cls"), data, tmp_path / "a")
    assert counter.take() > 0
    settings = ["optimizer/head_lr=0.01", "dropout/head=0.4", "dropout/hidden=0.3", "batch_size/sst=8"]
    run(configure("adapter/kind=frozen", "encoding/sst/pooling=pooler", *settings), data, tmp_path / "b")
    assert counter.take() == 0
    run(configure("adapter/kind=frozen", "encoding/sst/pooling=max"), data, tmp_path / "c")
    assert 0 < counter.take() <= 96 + 24  # the rows of SST alone


def test_a_torn_row_is_computed_again_and_changes_nothing(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    config, counter = configure("adapter/kind=frozen"), Counter(monkeypatch)
    whole = run(config, data, tmp_path / "a")
    counter.take()
    for path in cache.glob("*/values"):
        values = np.fromfile(path, dtype=np.float32)
        row = int(np.flatnonzero(values.reshape(-1, 32).any(1))[0])
        values[32 * row + 7] += 1
        values.tofile(path)
    again = run(config, data, tmp_path / "b")
    assert counter.take() == len(list(cache.glob("*/values")))
    assert_same(whole, again)


@pytest.mark.parametrize("kind", [kind for kind, entry in REGULARIZERS.items() if entry.moves_words])
def test_a_task_whose_words_are_perturbed_is_not_cached(kind: str, data: Data, tmp_path: Path, cache: Path) -> None:
    regularizers = (f"regularizer/{task}/kind={kind}" for task in data.tasks)
    run(configure(*CONFIGS["frozen"], *regularizers), data, tmp_path / "a")
    assert not cache.exists()
    run(configure(*CONFIGS["frozen"], "adapter/dropout=on"), data, tmp_path / "b")
    run(configure(*TOP, "adapter/layers/dropout=on"), data, tmp_path / "c")
    assert not cache.exists()


def test_predictions_and_reports_use_cached_features(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Counter(monkeypatch)
    report, _ = run(configure(*TOP, *BI), data, tmp_path)
    model = load_model(Path(report.checkpoint), data, torch.device("cpu"))
    counter.take()
    assert evaluate(model, data).tasks == report.scores
    assert counter.take() == 0
    rows = np.arange(24, dtype=np.int32)
    first = predict_rows(model, data, "qqp", "dev", rows)
    assert 0 < counter.take() < 48  # held rows were not requested before
    subset = predict_rows(model, data, "qqp", "dev", rows[5:9])
    assert np.allclose(first.probabilities[5:9], subset.probabilities, atol=1e-6)  # type: ignore[index]
    assert counter.take() == 0


# Dropout -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "silent"),
    [
        (["adapter/kind=frozen"], True),
        (["adapter/kind=frozen", "adapter/dropout=on"], False),
        (["adapter/kind=none"], False),
        (TOP, False),
    ],
)
def test_dropout_in_the_encoder(pairs: list[str], silent: bool, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINBERT_FEATURES", "off")
    config = configure(*pairs, "dropout/head=0", "dropout/hidden=0.3", "dropout/attention=0.3")
    model = MultitaskModel(config, data.base, data.tasks, 0)
    batch = model.batch("sst", data.file("sst", "train"), range(8))
    with torch.no_grad():
        plain, noisy = model([batch])[0], model([batch], model.noise(torch.Generator().manual_seed(1)))[0]
    assert torch.equal(plain, noisy) == silent


def test_layers_below_the_top_have_no_dropout_and_those_above_draw_the_same_masks(data: Data) -> None:
    encoder, batch = data.base.load(), pack(sequences(data.base))
    noise = MultitaskModel(configure("dropout/hidden=0.3"), data.base, data.tasks, 0).noise
    for count in (1, 2):
        whole = encoder(batch, noise(torch.Generator().manual_seed(1)), frozen_layers=count)
        start = encoder.lowest(batch, count)
        again = encoder(batch, noise(torch.Generator().manual_seed(1)), frozen_layers=count, start=start)
        assert torch.equal(whole, again) and torch.equal(whole, encoder(batch)) == (count == 2)
        by_hand = start
        generator = torch.Generator().manual_seed(1)
        for layer in encoder.layers[count:]:
            by_hand = layer(by_hand, batch, noise(generator), False)
        assert torch.equal(whole, by_hand)


# What decides a row ---------------------------------------------------------------------------------------------------


def with_another_text(file: TaskFile) -> TaskFile:
    """The file with a different first text."""
    (texts,) = file.texts
    ids = texts.ids.copy()
    ids[2] += 1
    return replace(file, texts=(Texts(ids, texts.offsets),))


def test_the_key_changes_with_each_ingredient(data: Data, tiny: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, file = tiny.load(), data.file("sst", "train")
    reading = Reading(Single(pooling="cls"), 64, 2, 3)
    part = FrozenPart(encoder, 2, "weights", torch.float32)
    base = part.recipe(file, reading)

    def changed(part: FrozenPart, file: TaskFile = file, reading: Reading = reading) -> set[str]:
        recipe = part.recipe(file, reading)
        return {name for name in base if recipe[name] != base[name]}

    assert changed(FrozenPart(encoder, 2, "weights", torch.float32)) == set()
    assert changed(FrozenPart(encoder, 2, "weights", torch.bfloat16)) == {"arithmetic"}
    assert changed(FrozenPart(encoder, 2, "others", torch.float32)) == {"weights"}
    assert changed(FrozenPart(encoder, 1, "weights", torch.float32)) == {"output"}
    assert changed(part, with_another_text(file)) == {"texts"}
    assert changed(part, data.file("sst", "dev")) == {"texts"}
    assert changed(part, reading=replace(reading, limit=32)) == {"max_length"}
    assert changed(part, reading=replace(reading, sep=5)) == {"special"}
    assert changed(part, reading=replace(reading, encoding=Single(pooling="mean"))) == {"output"}
    assert changed(part, reading=replace(reading, encoding=Single(pooling="pooler"))) == set()  # it is in the head
    assert changed(part, reading=replace(reading, encoding=Bi(pooling="cls"))) == {"encoding"}
    monkeypatch.setattr(frozen, "VERSION", -1)
    assert changed(part) == {"version"}


def test_weights_that_stages_changed_are_known_by_their_sha256(tiny: Base) -> None:
    whole, lowest = (FrozenPart(tiny.load(), depth, None, torch.float32).weights for depth in (2, 1))
    changed = tiny.load()
    with torch.no_grad():
        changed.layers[1].norm.bias[3] += 1e-3
    assert whole == FrozenPart(tiny.load(), 2, None, torch.float32).weights != lowest
    assert FrozenPart(changed, 2, None, torch.float32).weights != whole
    assert FrozenPart(changed, 1, None, torch.float32).weights == lowest  # layers above do not matter


def test_a_trial_after_a_stage_has_cached_features_of_its_own(data: Data, tmp_path: Path, cache: Path) -> None:
    pairs = ["adapter/kind=frozen", "stages/mlm/kind=mlm", "stages/mlm/epochs=0.2"]
    run(configure("adapter/kind=frozen"), data, tmp_path / "plain")
    before = set(cache.iterdir())
    config = configure(*pairs)
    report, _ = run(config, data, tmp_path / "staged")
    assert len(set(cache.iterdir())) == 2 * len(before)
    assert evaluate(load_model(Path(report.checkpoint), data), data).tasks == report.scores
    assert len(set(cache.iterdir())) == 2 * len(before)  # the checkpoint's weights are the stage's
    result = staged(config.stages, data)
    assert result is not None and result.tensors is not None
    model = MultitaskModel(config, data.base, data.tasks, 0, result.tensors)
    batch = model.batch("sst", data.file("sst", "train"), range(4))
    model.caches_features = False
    expected = model([batch])[0]
    model.caches_features = True
    assert (model([batch])[0] - expected).abs().max() < 1e-5


def test_features_of_added_rows_stay_with_the_trial(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    counter = Counter(monkeypatch)
    pairs = ["adapter/kind=frozen", "encoding/sst/pooling=mean", "batch_size/sst=64"]
    run(configure(*pairs), data, tmp_path / "plain")  # sees every row of SST
    counter.take()
    keys = set(cache.iterdir())
    config = configure(*pairs, "augmentation/kind=edit", "augmentation/amount=1")
    rows = augmented(data, config.augmentation, 3)
    file = rows.file("sst", "train")
    assert file.added > 0 and file.digest == data.file("sst", "train").digest
    first = run(config, data, tmp_path / "a")
    own = {tuple(ids.tolist()) for ids, _ in config.encoding["sst"].sequences(file, range(96), 128, 2, 3)}
    assert counter.sequences and not own & {tuple(ids.tolist()) for ids, _ in counter.sequences}
    assert set(cache.iterdir()) == keys
    monkeypatch.setenv("MINBERT_FEATURES", "off")
    assert_same(first, run(config, data, tmp_path / "b"), 1e-5)


def test_features_have_the_same_bits_with_more_threads(data: Data, tiny: Base) -> None:
    part = FrozenPart(tiny.load(), 1, "weights", torch.float32)
    file, reading = data.file("qqp", "train"), Reading(Cross(), 64, 2, 3)
    model = MultitaskModel(configure(*TOP), data.base, data.tasks, 0)
    batch, threads = model.batch("qqp", file, range(5)), []
    compute = part.compute

    def noted(*arguments: Any) -> list[Any]:
        threads.append(torch.get_num_threads())
        return compute(*arguments)

    part.compute = noted  # type: ignore[method-assign]
    torch.set_num_threads(2)
    try:
        part.states(batch, reading)
        assert threads == [1] * 5 and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("depth", [1, 2])
def test_blocks_are_the_same_whatever_is_missing(
    depth: int, data: Data, tiny: Base, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """As on a GPU: neighbours together, of both sentences, against every sequence alone."""
    monkeypatch.setattr(frozen, "BLOCK", 7)
    counter = Counter(monkeypatch)
    file, reading = data.file("sts", "train"), Reading(Bi(pooling="mean"), 64, 2, 3)
    model = MultitaskModel(configure(*TOP, *BI), data.base, data.tasks, 0)
    batch = model.batch("sts", file, [90, 3, 5])
    alone = FrozenPart(tiny.load(), depth, "alone", torch.float32).states(batch, reading)
    part = FrozenPart(tiny.load(), depth, "blocks", torch.float32)
    part.device = torch.device("meta")  # no CPU
    monkeypatch.setattr("minbert.encoder.bert.Packed.to", lambda packed, device: packed)
    monkeypatch.setattr("minbert.training.frozen.torch.autocast", lambda *_, **__: torch.no_grad())
    counter.take()
    states = part.states(batch, reading)
    assert states.shape == alone.shape and np.abs(states - alone).max() < 1e-5
    assert counter.take() == 7 * 4  # rows 3 and 5 are neighbours, and so are their second sentences
    again = [part.states(model.batch("sts", file, [4]), reading) for _ in range(2)]
    assert np.array_equal(*again)
    assert counter.take() == 0


# The layout -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [8, 12, 128])
@pytest.mark.parametrize(
    ("task", "encoding"), [("sst", Single()), ("qqp", Cross()), ("sts", Bi()), ("cfimdb", Single())]
)
def test_lengths_are_those_of_the_sequences(
    task: str, encoding: Any, limit: int, corpus_folder: Path, tiny: Base
) -> None:
    from minbert.data.tokens import open_data

    file = open_data(corpus_folder, tiny, tasks=choose_tasks([task])).file(task, "train")
    lengths = encoding.lengths(file, limit)
    expected = [len(ids) for ids, _ in encoding.sequences(file, range(len(file.labels)), limit, 2, 3)]
    assert lengths.ravel().tolist() == expected and lengths.shape[1] == len(file.labels)


def test_states_as_given_are_found_in_the_order_of_packing(tiny: Base) -> None:
    every = sequences(tiny)
    packed = pack(every)
    unsorted = torch.from_numpy(np.concatenate([ids for ids, _ in every]))
    assert torch.equal(unsorted[in_order_of_packing(packed)], packed.ids)
    assert [len(ids) for ids, _ in every] != sorted(len(ids) for ids, _ in every)


def test_a_full_disk_never_ends_a_trial(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = configure(*CONFIGS["top"])
    whole = run(config, data, tmp_path / "a")
    shutil.rmtree(tmp_path / "cache" / "features")
    feature_cache._warn.cache_clear()
    monkeypatch.setattr(feature_cache, "RESERVE", 1 << 62)
    assert_same(whole, run(config, data, tmp_path / "b"))
    assert any("cannot be cached" in record.message for record in caplog.records)
