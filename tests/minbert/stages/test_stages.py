"""Stages before training: their rows, their losses against independent implementations, and whether they learn."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minbert.data.batches import bi_encode, cross_encode, pack
from minbert.data.files import SAMPLE, DataError
from minbert.data.nli import LABELS, find_nli, read_nli
from minbert.data.tokens import Data, Texts, word_piece
from minbert.encoder.base import Base
from minbert.encoder.bert import Bert
from minbert.encoder.noise import SILENT
from minbert.fields import ConfigError, dump, load
from minbert.randomness import numpy_generator
from minbert.stages.loop import StageLoop
from minbert.stages.losses import corrupt, known_duplicates, mnrl, tied_cross_entropy
from minbert.stages.objectives import (
    Inference,
    MaskedLanguage,
    Objective,
    Ranking,
    StageContext,
    pretrained_head,
)
from minbert.stages.stages import MLM, MNRL, NLI, STAGES, Stages, gather

ON = {"mlm": MLM(), "nli": NLI(), "mnrl": MNRL()}


@pytest.fixture(scope="session")
def folder(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small corpus with the sample's NLI pairs beside it."""
    copied = shutil.copytree(data.folder, tmp_path_factory.mktemp("nli") / "corpus")
    shutil.copy(SAMPLE / "nli-train.tsv", copied)
    return copied


@pytest.fixture(scope="session")
def staging_data(data: Data, folder: Path) -> Data:
    return replace(data, folder=folder)


def objective(stage: Any, data: Data, base: Base | None = None) -> Objective:
    context = StageContext(base or data.base, stage.read(data), torch.Generator().manual_seed(1))
    built: Objective = stage.build(context)
    return built


def gradients(loss: Tensor, *inputs: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, inputs))


# The family ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STAGES)
def test_every_entry_is_a_frozen_record_under_its_own_name(name: str) -> None:
    assert list(STAGES[name]) == ["none", name]
    for kind, entry in STAGES[name].items():
        assert entry.kind == kind and entry.__doc__
        assert load(Stages, {name: dump(entry())}) == Stages(**{name: entry()})
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry().__class__.__setattr__(entry(), "kind", "other")


def test_the_chain_has_the_stages_that_are_on_in_order() -> None:
    assert Stages().chain() == ()
    assert [stage.kind for stage in Stages(mnrl=MNRL(), mlm=MLM()).chain()] == ["mlm", "mnrl"]
    assert [stage.kind for stage in Stages(**ON).chain()] == ["mlm", "nli", "mnrl"]


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ({"nli": {"kind": "mnrl"}}, "mnrl"),
        ({"nli": {"kind": "nli", "source": "snli"}}, "Expected one of: all, mnli"),
        ({"mlm": {"kind": "mlm", "mask_rate": 0.0}}, "`mlm/mask_rate` must be a number above 0.0"),
        ({"mnrl": {"kind": "mnrl", "batch_size": 1}}, "`mnrl/batch_size` must be an integer from 2"),
    ],
)
def test_wrong_settings_are_named(nested: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(Stages, nested)


@pytest.mark.parametrize("name", ON)
def test_a_stage_learns(name: str, staging_data: Data) -> None:
    """A few dozen steps lower the loss on the stage's own rows, without dropout."""
    stage = replace(ON[name], epochs=40.0, lr=3e-3, dropout=0.0, batch_size=8, max_length=24)
    loop = StageLoop(
        stage, staging_data.base.load(), objective(stage, staging_data), 5, torch.device("cpu"), torch.float32
    )
    loop.rows = loop.rows[:16]

    def loss() -> float:
        with torch.no_grad():
            rows = loop.rows.tolist()
            return float(loop.objective.loss(loop.encoder, rows, SILENT, numpy_generator(0, "fixed")))

    before = loss()
    loop.total = 60
    while not loop.finished:
        loop.step()
    assert not loop.diverged and loss() < 0.8 * before


@pytest.mark.parametrize("name", ON)
def test_every_parameter_of_the_encoder_has_a_gradient(name: str, staging_data: Data) -> None:
    encoder, work = staging_data.base.load(), objective(ON[name], staging_data)
    work.loss(encoder, list(range(8)), SILENT, numpy_generator(0, "x")).backward()  # type: ignore[no-untyped-call]
    parameters = [*encoder.named_parameters(), *work.named_parameters()]
    silent = {key for key, value in parameters if value.grad is None or not bool(value.grad.any())}
    # A key's bias shifts all scores of a query alike, so its gradient is 0 up to rounding.
    assert not {key for key in silent if not key.endswith("key.bias")}


# NLI -----------------------------------------------------------------------------------------------------------------


def test_the_sample_is_balanced_and_clean() -> None:
    pairs = read_nli(SAMPLE / "nli-train.tsv")
    assert Counter(pairs.labels.tolist()) == {0: 80, 1: 80, 2: 80}
    assert len(set(zip(pairs.premises, pairs.hypotheses, strict=True))) == 240 and len(set(pairs.hypotheses)) == 240
    raw = (SAMPLE / "nli-train.tsv").read_bytes()
    assert raw.isascii() and raw.endswith(b"\n") and b"\r" not in raw
    for text in (*pairs.premises, *pairs.hypotheses):
        assert text[0].isupper() and text[-1] == "." and text == " ".join(text.split()), text
    # A negation must not give the label away.
    negated = Counter(
        label
        for label, text in zip(pairs.labels.tolist(), pairs.hypotheses, strict=True)
        if {"no", "not", "never", "nobody", "without", "nothing"} & set(text.lower().strip(".").split())
    )
    assert negated[0] >= 5 and negated[2] < 40


def test_real_nli_is_read_whole(real_data: Path) -> None:
    path = find_nli(real_data)
    assert path == real_data.resolve().parent / "nli" / "nli-train.tsv"
    pairs = read_nli(path)
    assert len(pairs.labels) == 82_988 and set(pairs.labels.tolist()) == {0, 1, 2}
    quoted = pairs.hypotheses[[premise.startswith("Tim, we never") for premise in pairs.premises].index(True)]
    assert quoted == '"Tim I\'m so glad we got into this"'
    assert len(read_nli(path, "mnli").labels) == 3213 + 3349 + 3478 + 3213 + 3123 + 3326


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["premise\thypothesis\tlabel", "a\tb\tneutral"], r":1: the header lacks source"),
        (["premise\thypothesis\tlabel\tsource", "a\tb\tmaybe\tx"], r":2: `label` must be one of .*found 'maybe'"),
        (["premise\thypothesis\tlabel\tsource", "a\tb\tneutral"], r"no usable rows for `stages/nli/source` all"),
        (["premise\thypothesis\tlabel\tsource", "a\t\tneutral\tx"], r"no usable rows"),
    ],
)
def test_untrustworthy_nli_files_are_errors(tmp_path: Path, lines: list[str], message: str) -> None:
    (tmp_path / "nli-train.tsv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        read_nli(find_nli(tmp_path))


def test_sources_are_chosen_and_unusable_rows_left_out(tmp_path: Path) -> None:
    (tmp_path / "nli").mkdir()
    (tmp_path / "nli" / "nli-train.tsv").write_text(
        "\ufefflabel\tpremise\thypothesis\tsource\r\n"
        'neutral\t"said ""a"""\tb\tmnli_train\r\nentailment\ttoo few\r\ncontradiction\tc\td\tsnli\r\n',
        encoding="utf-8",
    )
    path = find_nli(tmp_path / "corpus")
    assert read_nli(path).labels.tolist() == [LABELS.index("neutral"), LABELS.index("contradiction")]
    assert read_nli(path, "mnli").premises == ['said "a"']


def test_nli_loss_against_transformers(staging_data: Data) -> None:
    """BertForSequenceClassification without its pooler: logits from the last [CLS] state."""
    transformers = pytest.importorskip("transformers")
    work = objective(NLI(), staging_data)
    assert isinstance(work, Inference)
    encoder, rows = staging_data.base.load(), list(range(12))
    theirs = witness(transformers.BertForSequenceClassification, encoder, num_labels=3)
    theirs.bert.pooler = FirstToken()
    theirs.classifier.load_state_dict(work.classifier.state_dict())
    ids, segments, mask = padded(cross_encode(work.file, rows, 128, work.cls, work.sep))
    labels = torch.from_numpy(work.file.labels[rows]).long()
    expected = theirs(input_ids=ids, token_type_ids=segments, attention_mask=mask, labels=labels).loss
    found = work.loss(encoder, rows, SILENT, numpy_generator(0, "x"))
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = gradients(found, work.classifier.weight, encoder.embeddings.word.weight)
    reference = gradients(expected, theirs.classifier.weight, theirs.bert.embeddings.word_embeddings.weight)
    for gradient, witness_gradient in zip(ours, reference, strict=True):
        assert torch.allclose(gradient, witness_gradient, atol=1e-6)


# MNRL ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [10.0, 20.0, 40.0])
def test_mnrl_by_hand(scale: float) -> None:
    a, p = torch.randn(5, 8, dtype=torch.float64), torch.randn(5, 8, dtype=torch.float64)
    cosine = np.array([[float(x @ y / x.norm() / y.norm()) for y in p] for x in a])
    expected = -np.mean(np.diag(scale * cosine) - np.log(np.exp(scale * cosine).sum(1)))
    assert mnrl(a, p, scale).item() == pytest.approx(expected, rel=1e-5)


def test_known_duplicates_are_no_negatives() -> None:
    anchors, positives = [b"a", b"b", b"a", b"d"], [b"x", b"y", b"z", b"b"]
    assert np.argwhere(known_duplicates(anchors, positives)).tolist() == [[0, 2], [1, 3], [2, 0], [3, 1]]  # a; b; a; b
    same = known_duplicates([b"a", b"b", b"c"], [b"x", b"x", b"y"])
    assert np.argwhere(same).tolist() == [[0, 1], [1, 0]]
    a, p = torch.randn(3, 4), torch.randn(3, 4)
    scores = 20 * F.cosine_similarity(a[:, None], p[None], dim=-1)
    rows = [scores[0, [0, 2]], scores[1, [1, 2]], scores[2, [2, 0, 1]]]
    expected = torch.stack([-row.log_softmax(0)[0] for row in rows]).mean()
    assert mnrl(a, p, 20.0, torch.from_numpy(same)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_mnrl_pairs_are_the_positive_training_pairs(staging_data: Data) -> None:
    file = MNRL(min_score=4.0).read(staging_data)
    qqp = staging_data.file("qqp", "train").labels[staging_data.parts["qqp", "train"]]
    sts = staging_data.file("sts", "train").labels[staging_data.parts["sts", "train"]]
    assert len(file.labels) == (qqp == 1).sum() + (sts >= 4).sum() == 48 + 32
    pieces = staging_data.base.vocabulary
    last = "".join(pieces[index].removeprefix("##") for index in file.texts[1][len(file.labels) - 1])
    assert last == "adogruns95"
    assert len(MNRL(min_score=5.0).read(staging_data).labels) == 48 + 16


def test_mnrl_without_pairs_is_an_error(staging_data: Data) -> None:
    alone = replace(staging_data, tasks={"sst": staging_data.tasks["sst"]})
    with pytest.raises(DataError, match=r"`stages/mnrl/min_score` 4"):
        MNRL().read(alone)


@pytest.mark.slow
def test_mnrl_against_sentence_transformers(staging_data: Data) -> None:
    losses = pytest.importorskip("sentence_transformers.losses")

    class Model(torch.nn.Module):
        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"sentence_embedding": features["x"]}

    torch.manual_seed(0)
    for scale in (10.0, 20.0, 40.0):
        a, p = (torch.randn(16, 32, requires_grad=True) for _ in range(2))
        theirs = losses.MultipleNegativesRankingLoss(Model(), scale=scale)
        expected = theirs([{"x": a}, {"x": p}], torch.empty(0))
        found = mnrl(a, p, scale)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        for ours, reference in zip(gradients(found, a, p), gradients(expected, a, p), strict=True):
            assert torch.allclose(ours, reference, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_mnrl_embeddings_against_padded_ones(pooling: str, staging_data: Data) -> None:
    transformers = pytest.importorskip("transformers")
    work = objective(MNRL(pooling=pooling), staging_data)
    assert isinstance(work, Ranking)
    encoder, rows = staging_data.base.load(), [0, 3, 9, 60, 70]
    theirs = witness(transformers.BertModel, encoder, add_pooling_layer=False)
    ids, segments, mask = padded(bi_encode(work.file, rows, 128, work.cls, work.sep))
    states = theirs(input_ids=ids, token_type_ids=segments, attention_mask=mask).last_hidden_state
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    anchors, positives = (mean if pooling == "mean" else states[:, 0]).split(5)
    found = work.loss(encoder, rows, SILENT, numpy_generator(0, "x"))
    assert found.item() == pytest.approx(mnrl(anchors, positives, 20.0).item(), rel=1e-4)


# MLM -----------------------------------------------------------------------------------------------------------------


def test_masking_follows_its_rate_and_80_10_10() -> None:
    count, rate, vocabulary, mask = 200_000, 0.15, 1000, 4
    ids = np.full(count, 500, dtype=np.int64)
    special = np.arange(count) % 10 == 0
    shown, chosen = corrupt(ids, special, rate, vocabulary, mask, np.random.default_rng(0))
    open_places = count * 0.9

    def assert_share(count: float, total: float, share: float) -> None:
        assert abs(count - total * share) < 4 * np.sqrt(total * share * (1 - share))

    assert_share(len(chosen), open_places, rate)
    assert not special[chosen].any()
    masked, unchanged = (shown[chosen] == mask).sum(), (shown[chosen] == 500).sum()
    assert_share(masked, len(chosen), 0.8 + 0.1 / vocabulary)
    assert_share(unchanged, len(chosen), 0.1 + 0.1 / vocabulary)
    drawn = shown[chosen][(shown[chosen] != mask) & (shown[chosen] != 500)]
    assert_share(len(drawn), len(chosen), 0.1)
    assert drawn.min() < 20 and drawn.max() > vocabulary - 20  # over the whole vocabulary
    assert (np.delete(shown, chosen) == 500).all()


def test_at_least_one_piece_is_chosen() -> None:
    ids, special = np.array([2, 50, 60, 3]), np.array([True, False, False, True])
    for seed in range(20):
        _, chosen = corrupt(ids, special, 1e-9, 100, 4, np.random.default_rng(seed))
        assert chosen.tolist() in ([1], [2])


def test_mlm_reads_every_training_text_and_no_other(staging_data: Data) -> None:
    file = MLM().read(staging_data)
    sizes = staging_data.sizes("train")
    assert len(file.labels) == sizes["sst"] + 2 * sizes["qqp"] + 2 * sizes["sts"]
    assert file.texts[0][5].tolist() == staging_data.file("sst", "train").texts[0][5].tolist()


def test_mlm_loss_against_transformers(staging_data: Data) -> None:
    """BertForMaskedLM with tied weights on the same masked batch: loss and gradients."""
    transformers = pytest.importorskip("transformers")
    work = objective(MLM(), staging_data)
    assert isinstance(work, MaskedLanguage)
    with torch.no_grad():
        work.bias.normal_()
    encoder, rows = staging_data.base.load(), list(range(0, 400, 37))
    sequences = bi_encode(work.file, rows, 128, work.cls, work.sep)
    packed = pack(sequences)
    ids = packed.ids.numpy()
    special = (ids == work.cls) | (ids == work.sep)
    shown, chosen = corrupt(ids, special, 0.3, work.pieces, work.mask, np.random.default_rng(3))
    batch = replace(packed, ids=torch.from_numpy(shown))
    found = work.masked_loss(encoder, batch, chosen, ids[chosen], SILENT)

    theirs = witness(transformers.BertForMaskedLM, encoder)
    head = theirs.cls.predictions
    head.transform.dense.load_state_dict(work.transform.state_dict())
    head.transform.LayerNorm.load_state_dict(work.norm.state_dict())
    head.decoder.bias.data.copy_(work.bias.data)
    assert head.decoder.weight is theirs.bert.embeddings.word_embeddings.weight
    order = packed.place.argsort().tolist()  # the sequences as they are packed
    padded_ids, segments, mask = padded([sequences[index] for index in order])
    flat = mask.bool()
    padded_labels = torch.full(padded_ids.shape, -100)
    labels = torch.full((len(ids),), -100)
    labels[chosen] = torch.from_numpy(ids[chosen])
    padded_labels[flat] = labels
    padded_ids[flat] = torch.from_numpy(shown)
    expected = theirs(input_ids=padded_ids, token_type_ids=segments, attention_mask=mask, labels=padded_labels).loss
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    ours = gradients(found, encoder.embeddings.word.weight, work.transform.weight)
    reference = gradients(expected, theirs.bert.embeddings.word_embeddings.weight, head.transform.dense.weight)
    for gradient, witness_gradient in zip(ours, reference, strict=True):
        assert torch.allclose(gradient, witness_gradient, atol=1e-6)


def test_the_output_layer_is_tied_to_the_word_embeddings() -> None:
    states, embeddings, bias = torch.randn(6, 8), torch.randn(20, 8, requires_grad=True), torch.randn(20)
    targets = torch.randint(0, 20, (6,))
    layer = torch.nn.Linear(8, 20)
    layer.weight.data, layer.bias.data = embeddings.data.clone(), bias
    expected, found = F.cross_entropy(layer(states), targets), tied_cross_entropy(states, embeddings, bias, targets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(gradients(found, embeddings)[0], gradients(expected, layer.weight)[0], atol=1e-6)


def test_a_bases_own_output_layer_is_used(staging_data: Data, tiny: Base, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    assert pretrained_head(tiny) is None
    width, pieces = tiny.config.hidden_size, tiny.config.vocab_size
    stored = {
        "cls.predictions.transform.dense.weight": torch.randn(width, width),
        "cls.predictions.transform.dense.bias": torch.randn(width),
        "cls.predictions.transform.LayerNorm.gamma": torch.randn(width),
        "cls.predictions.transform.LayerNorm.beta": torch.randn(width),
        "cls.predictions.bias": torch.randn(pieces),
    }
    save_file(stored, tmp_path / "model.safetensors")
    work = objective(MLM(), staging_data, replace(tiny, path=tmp_path))
    for tensor, name in zip(
        stored.values(), ("transform.weight", "transform.bias", "norm.weight", "norm.bias", "bias"), strict=True
    ):
        assert torch.equal(work.state_dict()[name], tensor)


# Pieces --------------------------------------------------------------------------------------------------------------


def test_gather_takes_rows_in_order(tiny: Base) -> None:
    tokenizer = word_piece(tiny.vocabulary, tiny.lowercase)
    words = ["a b", "", "the film", "x"]
    ids = [np.array(item.ids, np.int32) for item in tokenizer.encode_batch(words, add_special_tokens=False)]
    texts = Texts(np.concatenate(ids), np.cumsum([0, *map(len, ids)]))
    found = gather([(texts, np.array([3, 0])), (texts, np.array([], int)), (texts, np.array([1, 2, 2]))])
    assert [found[row].tolist() for row in range(5)] == [ids[row].tolist() for row in (3, 0, 1, 2, 2)]


# Witnesses -----------------------------------------------------------------------------------------------------------


class FirstToken(torch.nn.Module):
    def forward(self, states: Tensor) -> Tensor:
        return states[:, 0]


def padded(sequences: list[tuple[Any, int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, segments and attention mask [B, T] of sequences."""
    longest = max(len(ids) for ids, _ in sequences)
    ids, segments, mask = (torch.zeros(len(sequences), longest, dtype=torch.long) for _ in range(3))
    for row, (pieces, first) in enumerate(sequences):
        ids[row, : len(pieces)] = torch.from_numpy(pieces.astype(np.int64))
        segments[row, first : len(pieces)] = 1
        mask[row, : len(pieces)] = 1
    return ids, segments, mask


def witness(kind: Any, encoder: Bert, num_labels: int = 2, **options: Any) -> Any:
    """A transformers model in evaluation mode with an encoder's weights."""
    from transformers import BertConfig

    from minbert.encoder.base import tensor_names

    shape = dataclasses.asdict(encoder.config)
    model = kind(BertConfig(**shape, num_labels=num_labels, hidden_act="gelu", attn_implementation="eager"), **options)
    inner = getattr(model, "bert", model)
    names = tensor_names(encoder.config)
    ours = encoder.state_dict()
    missing, unexpected = inner.load_state_dict({theirs: ours[name] for name, theirs in names.items()}, strict=False)
    assert not unexpected and all("pooler" in name or "position_ids" in name for name in missing), missing
    return model.eval()
