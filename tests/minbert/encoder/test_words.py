"""Word embeddings whose gradient holds a step's rows train as with a dense gradient, and keep nothing of a step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from minbert.data.tokens import Data
from minbert.encoder.words import WordEmbedding
from minbert.training.report import State
from minbert.training.trial import Trial
from tests.minbert.configs import configure

SMALL = ["batch_size/sst=4", "batch_size/qqp=6", "batch_size/sts=2"]


def trained(data: Data, folder: Path, *pairs: str, steps: int = 3) -> dict[str, torch.Tensor]:
    config = configure(*SMALL, *pairs)
    trial = Trial(config, data, State.fresh(0, (200,), folder), torch.device("cpu"))
    for _ in range(steps):
        trial.step()
    return {name: value.detach().clone() for name, value in trial.update.trained.items()}


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        ["optimizer/accumulation=3", "optimizer/weight_decay=0.5"],
        ["regularizer/sst/kind=smart", "regularizer/sts/kind=smart", "proximal/kind=bregman"],
        ["encoding/qqp/kind=bi", "encoding/qqp/head/kind=linear", "mixing/kind=annealed"],
        ["adapter/kind=pal", "adapter/encoder=trained"],
        ["adapter/kind=lora", "adapter/rest=trained"],
        ["adapter/kind=lora"],
        ["mixing/balance/kind=gradnorm"],
    ],
    ids=lambda pairs: " ".join(pairs) or "plain",
)
def test_it_trains_the_same_weights_as_a_dense_gradient(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[str]
) -> None:
    pairs = [*pairs, "optimizer/clip_norm=1e6"]  # clips nothing: a norm's terms are added up in another order
    rows = trained(data, tmp_path / "rows", *pairs)
    monkeypatch.setattr(WordEmbedding, "take", lambda self, ids: None)
    dense = trained(data, tmp_path / "dense", *pairs)
    assert rows.keys() == dense.keys()
    for name, value in rows.items():
        assert torch.equal(value, dense[name]), name


@pytest.mark.parametrize(
    "pairs", [["optimizer/clip_norm=0.01"], ["mixing/combine/kind=pcgrad"], ["mixing/combine/kind=gse"]], ids=str
)
def test_norms_and_inner_products_of_the_rows_are_those_of_the_table(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: list[str]
) -> None:
    rows = trained(data, tmp_path / "rows", *pairs)
    monkeypatch.setattr(WordEmbedding, "take", lambda self, ids: None)
    dense = trained(data, tmp_path / "dense", *pairs)
    start = trained(data, tmp_path / "start", *pairs, steps=0)
    for name, value in rows.items():
        torch.testing.assert_close(value, dense[name], rtol=0, atol=1e-6, msg=name)
        assert not torch.equal(value, start[name]), name


def table(rows: int = 11, width: int = 3) -> WordEmbedding:
    torch.manual_seed(0)
    return WordEmbedding(rows, width)


def test_only_the_rows_of_a_step_have_a_gradient_and_the_next_step_does_not_see_it() -> None:
    words = table()
    for ids in ([1, 4, 4], [9, 2]):
        words.take([np.array(ids, dtype=np.int32)])
        (words(torch.tensor(ids)).sum(0) * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
        assert words.weight.grad is None
        words.settle()
        expected = torch.zeros(11, 3)
        for row in ids:
            expected[row] += torch.tensor([1.0, 2.0, 3.0])
        assert torch.equal(words.weight.grad, expected)
        words.release()
        assert words.weight.grad is None


def test_a_row_that_was_not_taken_is_an_error_and_never_another_one() -> None:
    words = table()
    words.take([np.array([1, 4], dtype=np.int32)])
    with pytest.raises(IndexError):
        words(torch.tensor([1, 5]))
    words.release()
    assert torch.equal(words(torch.tensor([5])), words.weight[[5]])


def test_a_gradient_that_is_not_finite_does_not_outlive_its_step() -> None:
    words = table()
    words.take([np.array([3], dtype=np.int32)])
    (words(torch.tensor([3])) * torch.nan).sum().backward()
    words.settle()
    assert words.weight.grad is not None and words.weight.grad[3].isnan().all()
    words.release()
    words.take([np.array([3], dtype=np.int32)])
    words(torch.tensor([3])).sum().backward()
    words.settle()
    assert torch.equal(words.weight.grad[3], torch.ones(3))


def test_without_a_loss_there_is_no_gradient_at_all() -> None:
    words = table()
    words.take([np.array([3], dtype=np.int32)])
    words.settle()
    assert words.weight.grad is None


def test_a_frozen_table_is_left_alone() -> None:
    words = table()
    words.requires_grad_(False)
    words.take([np.array([3], dtype=np.int32)])
    assert words.stand_in([words.weight])[0] is words.weight
    assert torch.equal(words(torch.tensor([7])), words.weight[[7]])


def test_nothing_of_a_step_belongs_to_the_model() -> None:
    words = table()
    words.take([np.array([3, 5], dtype=np.int32)])
    assert list(words.state_dict()) == ["weight"] == [name for name, _ in words.named_parameters()]
    assert [tuple(value.shape) for value in words.stand_in([words.weight])] == [(2, 3)]
