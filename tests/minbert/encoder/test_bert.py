"""The encoder against `transformers`, and its shortcuts against the plain way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minbert.data.batches import Sequences, bi_encode, by_length, cross_encode, pack, permutation, training_rows, trim
from minbert.data.tokens import Data, word_piece
from minbert.encoder import attention, bert
from minbert.encoder.base import Base, BaseEncoderError, find_base, tensor_names
from minbert.encoder.bert import Bert
from minbert.encoder.noise import Noise
from minbert.encoder.packed import Packed
from minbert.training.model import MultitaskModel, arithmetic
from tests.minbert.configs import configure

SENTENCES = [
    "It 's a lovely film with lovely performances by Buy and Accorsi .",
    "No .",
    "The gorgeously elaborate continuation of the trilogy is so huge that a column of words can not describe "
    "co-writer/director Peter Jackson 's expanded vision of J.R.R. Tolkien 's Middle-earth .",
    "naïve café — don't ! ?",
    "What can you get as a customer of Star Alliance?",
]


def sequences(base: Base, texts: list[str] = SENTENCES) -> Sequences:
    tokenizer = word_piece(base.vocabulary, base.lowercase)
    cls, sep = base.vocabulary.index("[CLS]"), base.vocabulary.index("[SEP]")
    encoded = [np.array([cls, *tokenizer.encode(t, add_special_tokens=False).ids, sep], np.int32) for t in texts]
    return [(ids, len(ids)) for ids in encoded]


def packed(base: Base, ratio: float = 1.4) -> Packed:
    return pack(sequences(base), ratio)


def by_sequence(hidden: torch.Tensor, batch: Packed) -> list[torch.Tensor]:
    """Packed hidden states [N, D] as one [T_i, D] for each sequence, in the order given."""
    bounds = [*batch.first.tolist(), len(hidden)]
    sorted_states = [hidden[a:b] for a, b in itertools.pairwise(bounds)]
    return [sorted_states[place] for place in batch.place.tolist()]


@pytest.fixture(scope="module")
def minilm() -> Base:
    try:
        return find_base()
    except BaseEncoderError as error:
        pytest.skip(str(error))


def test_hidden_states_and_word_pieces_equal_transformers(minilm: Base, real_sentences: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(minilm.path)
    reference = transformers.BertModel.from_pretrained(minilm.path).eval()
    encoded = tokenizer(real_sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = reference(**encoded).last_hidden_state
        ours = sequences(minilm, real_sentences)
        batch = pack(ours)
        actual = by_sequence(minilm.load()(batch), batch)
    for index, (ids, _) in enumerate(ours):
        real = encoded.attention_mask[index].bool()
        assert ids.tolist() == encoded.input_ids[index][real].tolist()
        assert (actual[index] - expected[index][real]).abs().max() < 1e-4


def test_pairs_equal_transformers(minilm: Base, data: Data) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(minilm.path)
    pair = tokenizer("a dog runs", "who likes tea?", return_tensors="pt")
    reference = transformers.BertModel.from_pretrained(minilm.path).eval()
    first = int((pair.token_type_ids[0] == 0).sum())
    batch = pack([(pair.input_ids[0].numpy().astype(np.int32), first)])
    with torch.no_grad():
        assert (minilm.load()(batch) - reference(**pair).last_hidden_state[0]).abs().max() < 1e-4


def compare_gradients(ours: Bert, theirs: Any, tolerance: float = 1e-4) -> None:
    """Every parameter's gradient, relative to its tensor's largest entry; that of a key's bias is only rounding."""
    parameters = dict(theirs.named_parameters())
    largest = max(float(value.grad.abs().max()) for value in parameters.values() if value.grad is not None)
    for name, their_name in tensor_names(ours.config).items():
        mine, other = ours.get_parameter(name).grad, parameters[their_name].grad
        assert mine is not None and other is not None, name
        assert (mine - other).abs().max() <= tolerance * max(float(other.abs().max()), 1e-2 * largest), name


def test_gradients_equal_transformers_on_a_packed_batch(minilm: Base, real_sentences: list[str]) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(minilm.path)
    theirs = transformers.BertModel.from_pretrained(minilm.path, add_pooling_layer=False).eval()
    encoded = tokenizer(real_sentences, padding=True, return_tensors="pt")
    target = torch.randn(len(real_sentences), 384, generator=torch.Generator().manual_seed(0))
    (theirs(**encoded).last_hidden_state[:, 0] * target).sum().backward()
    ours = minilm.load()
    (ours(pack(sequences(minilm, real_sentences)), first_only=True) * target).sum().backward()
    compare_gradients(ours, theirs)


def masks(rate: float) -> Callable[..., torch.Tensor]:
    """Dropout whose n-th call draws the n-th mask, whatever the shape of its input: [N, D] and [1, N, D] are alike."""
    calls = itertools.count()

    def drop(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        keep = torch.rand(x.numel(), generator=torch.Generator().manual_seed(next(calls))) >= rate
        return x * keep.view(x.shape) / (1 - rate)

    return drop


def test_states_and_gradients_equal_transformers_under_the_same_dropout_masks(
    minilm: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertModel.from_pretrained(
        minilm.path, add_pooling_layer=False, attn_implementation="eager"
    ).train()
    ours, batch = minilm.load(), pack(sequences(minilm, SENTENCES[:1]))  # one sequence: nothing is padded or reordered
    target = torch.randn(len(batch.ids), 384, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch.nn.functional, "dropout", masks(0.3))
    expected = theirs(input_ids=batch.ids[None]).last_hidden_state[0]
    drop = masks(0.3)
    for module in (attention, bert):
        monkeypatch.setattr(module, "dropout", drop)
    actual = ours(batch, Noise(torch.Generator(), 0.3, 0.3, 0.0))
    assert (actual - expected).abs().max() < 1e-4
    assert (actual - ours(batch)).abs().max() > 0.1  # the masks did something
    (actual * target).sum().backward()
    (expected * target).sum().backward()
    compare_gradients(ours, theirs)


def test_packing_equals_one_sequence_at_a_time(tiny: Base) -> None:
    encoder, every = tiny.load(), sequences(tiny)
    batch = packed(tiny)
    actual = by_sequence(encoder(batch), batch)
    for index, sequence in enumerate(every):
        assert torch.allclose(actual[index], encoder(pack([sequence])), atol=1e-6)


@pytest.mark.parametrize("ratio", [1.0, 1.4, 1000.0])
def test_the_split_into_runs_changes_nothing(ratio: float, tiny: Base) -> None:
    encoder = tiny.load()
    assert torch.allclose(encoder(packed(tiny, ratio)), encoder(packed(tiny, 2.0)), atol=1e-6)
    covered = [token for run in packed(tiny, ratio).runs for token in range(run.tokens.start, run.tokens.stop)]
    assert covered == list(range(len(packed(tiny).ids)))


def test_the_last_layer_for_cls_alone_equals_the_whole(tiny: Base) -> None:
    encoder, batch = tiny.load(), packed(tiny)
    whole, alone = encoder(batch), encoder(batch, first_only=True)
    expected = torch.stack([states[0] for states in by_sequence(whole, batch)])
    assert torch.allclose(alone, expected, atol=1e-6)
    gradients = [
        torch.autograd.grad(output.square().sum(), list(encoder.layers[0].parameters())) for output in (alone, expected)
    ]
    for first, second in zip(*gradients, strict=True):
        assert torch.allclose(first, second, atol=1e-5)


def test_a_mixed_step_gives_each_example_its_own_loss(data: Data) -> None:
    """All tasks in one packed pass against every example alone."""
    model = MultitaskModel(configure(), data.base, data.tasks, 0)
    batches = [model.batch(task, data.file(task, "train"), range(6)) for task in data.tasks]
    for batch, outputs in zip(batches, model(batches), strict=True):
        for row in range(6):
            alone = model([model.batch(batch.task, batch.file, [row])])[0]
            together = model.loss(batch.task, outputs[row : row + 1], batch.labels[row : row + 1])
            assert together.item() == pytest.approx(
                model.loss(batch.task, alone, batch.labels[row : row + 1]).item(), abs=1e-5
            )


def test_encodings_lay_tokens_out_as_bert_expects(data: Data) -> None:
    file = data.file("qqp", "train")
    (cross,) = cross_encode(file, [3], 64, 101, 102)
    first, second = file.texts[0][3].tolist(), file.texts[1][3].tolist()
    assert cross[0].tolist() == [101, *first, 102, *second, 102] and cross[1] == len(first) + 2
    assert [s[0].tolist() for s in bi_encode(file, [3], 64, 101, 102)] == [[101, *first, 102], [101, *second, 102]]
    assert len(cross_encode(file, [3], 12, 101, 102)[0][0]) == 12


@pytest.mark.parametrize(
    ("a", "b", "room", "kept"), [(3, 4, 9, (3, 4)), (9, 2, 6, (4, 2)), (2, 9, 6, (2, 4)), (9, 9, 7, (4, 3))]
)
def test_trimming_cuts_the_longer_text(a: int, b: int, room: int, kept: tuple[int, int]) -> None:
    first, second = trim(np.arange(a, dtype=np.int32), np.arange(b, dtype=np.int32), room)
    assert (len(first), len(second)) == kept


def test_training_order_covers_every_row_once_an_epoch() -> None:
    rows = np.arange(10, 20, dtype=np.int32)
    endless = [row for start in range(0, 40, 4) for row in training_rows(rows, 5, "sst", start, 4)]
    for begin in range(0, 40, 10):
        assert sorted(endless[begin : begin + 10]) == list(range(10, 20))
    assert endless[:10] != endless[10:20]
    assert training_rows(rows, 5, "sst", 8, 25) == endless[8:33]
    assert permutation(10, 5, "sst", 0).tolist() != permutation(10, 6, "sst", 0).tolist()


def test_evaluation_batches_cover_every_row_within_the_limit(tiny: Base) -> None:
    many = sequences(tiny, SENTENCES * 7)
    groups = list(by_length(np.array([[len(ids) for ids, _ in many]]), 300))
    assert sorted(row for group in groups for row in group.tolist()) == list(range(len(many)))
    assert all(len(group) * max(len(many[row][0]) for row in group) <= 300 or len(group) == 1 for group in groups)


def test_bf16_stays_near_float32(data: Data) -> None:
    outputs = {}
    for precision in ("float32", "bf16"):
        model = MultitaskModel(configure(f"precision={precision}"), data.base, data.tasks, 0)
        model.dtype = arithmetic(precision, model.device)
        outputs[precision] = model([model.batch("qqp", data.file("qqp", "train"), range(8))])[0]
        assert all(value.dtype == torch.float32 for value in model.parameters())
    assert outputs["bf16"].dtype == torch.float32
    assert (outputs["bf16"] - outputs["float32"]).abs().max() < 0.02
    assert not torch.equal(outputs["bf16"], outputs["float32"])


@pytest.fixture
def real_sentences(pytestconfig: pytest.Config) -> list[str]:
    """Real SST sentences of mixed length where the data is at hand, else the ones above."""
    file = Path(pytestconfig.rootpath).parent / "shared/data/cs224n/ids-sst-dev.csv"
    if not file.is_file():
        return SENTENCES
    return [line.split("\t")[2] for line in file.read_text(encoding="utf-8").splitlines()[1:33]]
