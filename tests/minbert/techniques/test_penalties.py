"""The interface of penalties, and R-Drop and FGM against second implementations in plain torch."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minbert.data.batches import TaskBatch
from minbert.data.tokens import Data
from minbert.encoder.words import WordEmbedding
from minbert.fields import number
from minbert.techniques.balances import Balance
from minbert.techniques.penalty import Added, Pass, Penalty, PenaltyContext
from minbert.techniques.proximals import PROXIMALS
from minbert.techniques.regularizers import FGM, REGULARIZERS, steepest
from minbert.techniques.work import Passes
from minbert.training import checkpoints
from minbert.training.draws import Draw
from minbert.training.model import MultitaskModel
from minbert.training.report import State
from minbert.training.step_losses import Losses, Penalties, StepLosses
from minbert.training.train import train
from tests.minbert.configs import configure

SILENT = ("dropout/hidden=0", "dropout/attention=0", "dropout/head=0")
NOISY = ("dropout/hidden=0.2", "dropout/attention=0.2", "dropout/head=0.3")
ADAPTERS = {
    "full": (),
    "frozen": ("adapter/kind=frozen",),
    "lora": ("adapter/kind=lora", "adapter/dropout=0.2"),
    "top lora": ("adapter/kind=lora", "adapter/layers/kind=top"),
    "pal": ("adapter/kind=pal",),
}


def generator(stream: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(stream.encode()))


def prepared(data: Data, *pairs: str) -> tuple[MultitaskModel, StepLosses]:
    config = configure("precision=float32", *pairs)
    model = MultitaskModel(config, data.base, data.tasks, 0)
    with torch.no_grad():  # fresh heads are almost constant, and fresh additions are 0
        for name, value in model.named_parameters():
            if name.startswith("heads.") or ".up." in name:
                value.mul_(5).add_(0.1 * torch.randn(value.shape, generator=generator(name)))
    return model, StepLosses(model, Penalties(config, model), Balance())


def batch_of(model: MultitaskModel, data: Data, task: str, rows: range | list[int] = range(6)) -> TaskBatch:
    return model.batch(task, data.file(task, "train"), list(rows))


def losses_of(step: StepLosses, *batches: TaskBatch) -> Losses:
    return step(Draw(0, 0.0, tuple(batches)), generator)


def gradients(model: MultitaskModel, loss: Tensor) -> dict[str, Tensor]:
    names, values = zip(*model.trainable().items(), strict=True)
    gradients = torch.autograd.grad(loss, values, retain_graph=True, allow_unused=True)
    return {name: gradient for name, gradient in zip(names, gradients, strict=True) if gradient is not None}


def assert_equal_gradients(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys() and any(value.any() for value in first.values())
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-6, msg=name)


# R-Drop --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("task", ["sst", "sts"])
def test_r_drop_equals_its_equation_in_plain_torch(task: str, adapter: str, data: Data) -> None:
    """Two passes with masks of their own, KL by torch, the mean of both losses; values and gradients."""
    pairs = (f"regularizer/{task}/kind=rdrop", f"regularizer/{task}/weight=0.7")
    model, step = prepared(data, *ADAPTERS[adapter], *NOISY, *pairs)
    batch = batch_of(model, data, task)
    losses = losses_of(step, batch)
    first, second = (
        model([batch], model.noise(generator(f"{stream}/{task}")))[0] for stream in ("dropout", "rdrop")
    )
    assert not torch.equal(first, second)
    if task == "sst":
        log_p, log_q = first.log_softmax(-1), second.log_softmax(-1)
        forward_kl = F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)  # KL(p || q)
        backward_kl = F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)
        penalty = 0.7 * (forward_kl + backward_kl) / 2
        loss = (F.cross_entropy(first, batch.labels.long()) + F.cross_entropy(second, batch.labels.long())) / 2
    else:
        penalty = 0.7 * F.mse_loss(first, second)
        loss = (F.mse_loss(first[:, 0], batch.labels) + F.mse_loss(second[:, 0], batch.labels)) / 2
    assert losses.penalties == {task: {"rdrop": losses.penalties[task]["rdrop"]}}
    assert losses.penalties[task]["rdrop"].item() == pytest.approx(penalty.item(), rel=1e-4) and penalty > 0
    assert losses.tasks[task].item() == pytest.approx(loss.item(), rel=1e-5)
    assert_equal_gradients(gradients(model, losses.totals[task]), gradients(model, loss + penalty))


@pytest.mark.parametrize("task", ["sst", "qqp", "sts"])
def test_r_drop_is_the_plain_loss_without_dropout(task: str, data: Data) -> None:
    model, step = prepared(data, *SILENT, f"regularizer/{task}/kind=rdrop")
    batch = batch_of(model, data, task)
    losses = losses_of(step, batch)
    assert losses.penalties[task]["rdrop"].item() == 0
    assert losses.tasks[task].item() == model.loss(task, model([batch])[0], batch.labels).item()


# FGM -----------------------------------------------------------------------------------------------------------------


def moved_by_hand(model: MultitaskModel, batch: TaskBatch, norm: float, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Loss on moved embeddings: the embeddings themselves are the leaf, and a loop moves each sequence."""
    packed = model.input([batch]).packed
    assert packed is not None
    words = model.encoder.embeddings.word.weight.detach()[packed.ids].requires_grad_()

    def loss(leaf: Tensor) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(WordEmbedding, "forward", lambda self, ids: leaf)
            output = model([batch], model.noise(generator(f"dropout/{batch.task}")))[0]
        return model.loss(batch.task, output, batch.labels)

    loss(words).backward()  # type: ignore[no-untyped-call]
    assert words.grad is not None
    moved = words.detach().clone()
    ends = [*packed.first.tolist(), len(packed.ids)]
    for start, end in itertools.pairwise(ends):
        gradient = words.grad[start:end]
        moved[start:end] += norm * gradient / gradient.square().sum().sqrt()
    return loss(moved)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(("task", "encoding"), [("sst", "single"), ("qqp", "cross"), ("sts", "bi")])
def test_fgm_equals_its_equation_with_dense_embeddings(
    task: str, encoding: str, adapter: str, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = (f"encoding/{task}/kind={encoding}", f"regularizer/{task}/kind=fgm", f"regularizer/{task}/norm=0.3")
    model, step = prepared(data, *ADAPTERS[adapter], *NOISY, *pairs)
    batch = batch_of(model, data, task)
    losses = losses_of(step, batch)
    expected = moved_by_hand(model, batch, 0.3, monkeypatch)
    assert losses.penalties[task]["fgm"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses.totals[task].item() == pytest.approx((losses.tasks[task] + expected).item(), rel=1e-5)


@pytest.mark.parametrize(("task", "encoding"), [("sst", "single"), ("qqp", "cross"), ("sts", "bi")])
def test_fgm_moves_each_sequence_as_if_it_were_alone(task: str, encoding: str, data: Data) -> None:
    """A row has the same loss in a batch with rows of other lengths as in a batch of its own."""
    pairs = (f"encoding/{task}/kind={encoding}", f"regularizer/{task}/kind=fgm")
    model, step = prepared(data, *SILENT, *pairs)
    rows = [0, 9, 10, 50]
    alone = [losses_of(step, batch_of(model, data, task, [row])).penalties[task]["fgm"].item() for row in rows]
    together = losses_of(step, batch_of(model, data, task, rows)).penalties[task]["fgm"].item()
    assert together == pytest.approx(np.mean(alone), rel=1e-4)
    assert len({round(value, 4) for value in alone}) > 1


def test_fgm_raises_the_loss_by_the_norm_of_its_gradient(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """To first order L(w + r) - L(w) = epsilon * sum of ||g|| over the sequences."""
    model, _ = prepared(data, *NOISY)
    batch = batch_of(model, data, "sst")
    packed = model.input([batch]).packed
    assert packed is not None
    offset = torch.zeros(len(packed.ids), data.base.config.hidden_size, requires_grad=True)
    output = model.outputs(model.input([batch]), [batch], model.noise(generator("dropout/sst")), offset)[0]
    loss = model.loss("sst", output, batch.labels)
    (gradient,) = torch.autograd.grad(loss, offset)
    slope = sum(part.norm().item() for part in gradient.split(packed.bounds.diff().tolist()))
    for norm in (1e-3, 1e-2):
        by_hand = moved_by_hand(model, batch, norm, monkeypatch)
        ours = losses_of(prepared(data, *NOISY, "regularizer/sst/kind=fgm", f"regularizer/sst/norm={norm}")[1], batch)
        for value in (by_hand, ours.penalties["sst"]["fgm"]):
            assert value.item() - loss.item() == pytest.approx(norm * slope, rel=0.1) and slope > 0


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_each_sequence_moves_by_epsilon_or_not_at_all(scale: float) -> None:
    gradient = torch.randn(7, 5, generator=generator("gradient")) * scale
    gradient[4:] = 0
    moved = steepest(gradient, torch.tensor([0, 2, 4, 7]), 0.25)
    norms = [part.norm().item() for part in moved.split([2, 2, 3])]
    assert norms == pytest.approx([0.25, 0.25, 0.0])
    assert F.cosine_similarity(moved[:2].flatten(), gradient[:2].flatten() / scale, dim=0) == pytest.approx(1.0)


def test_fgm_follows_its_closed_form_on_a_linear_model(data: Data) -> None:
    """For loss = mean of (w . x) over sequences of two tokens, r = epsilon w / (sqrt(2) |w|) at each token."""
    weight = torch.tensor([3.0, 4.0])
    x = torch.arange(8.0).view(4, 2)  # two sequences of two tokens
    model, _ = prepared(data)
    packed = model.input([batch_of(model, data, "sst", [0, 1])]).packed
    assert packed is not None

    class TwoByTwo(Pass):
        words = torch.Size((4, 2))
        bounds = torch.tensor([0, 2, 4])

    def forward(offset: Tensor | None = None, masks: str = "") -> Tensor:
        inputs = x if offset is None else x + offset
        return (inputs @ weight).view(2, 2).sum(1, keepdim=True)  # [2, 1]

    task, labels = data.tasks["sts"], torch.zeros(2)
    pass_ = TwoByTwo(
        task, forward(), labels, lambda outputs: outputs.mean(), forward, generator, packed, 2, torch.nn.Embedding(1, 2)
    )
    penalty = FGM(norm=0.5).penalty(pass_).penalty.item()
    assert penalty == pytest.approx(forward().mean().item() + 0.5 * 2 * 5 / 2**0.5, rel=1e-6)


# The interface -------------------------------------------------------------------------------------------------------


def test_a_report_names_every_penalty_by_its_kind_and_task(data: Data, tmp_path: Path) -> None:
    assert not (REGULARIZERS.keys() & PROXIMALS.keys()) - {"none"}
    pairs = ["regularizer/sst/kind=rdrop", "regularizer/qqp/kind=fgm", "regularizer/sts/kind=smart",
             "proximal/kind=bregman"]  # fmt: skip
    config = configure(*pairs)
    report = next(train(config, data, State.fresh(0, (64,), tmp_path)))
    labels = {"rdrop/sst", "fgm/qqp", "smart/sts", *(f"bregman/{task}" for task in data.tasks)}
    assert report.losses.keys() == {*data.tasks, *labels}
    assert report.losses["fgm/qqp"] > 0


class _Counting(Penalty):
    """Penalty that grows with the number of updates."""

    def __init__(self, weight: float) -> None:
        self.weight, self.updates = weight, torch.zeros(())

    def penalty(self, pass_: Pass) -> Added:
        return Added(self.weight * self.updates * pass_.outputs.square().mean())

    def after_update(self) -> None:
        self.updates = self.updates + 1

    def state_dict(self) -> dict[str, Tensor]:
        return {"updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.updates = state["updates"]


@dataclass(frozen=True)
class Counted:
    """A penalty with state that no other file knows."""

    kind: ClassVar[str] = "counted"
    moves_words: ClassVar[bool] = False
    passes: ClassVar[Passes] = Passes()
    weight: float = number(0.01, 0.0, 1.0)

    def build(self, context: PenaltyContext) -> Penalty:
        return _Counting(self.weight)


def test_a_new_penalty_with_state_needs_its_entry_alone(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is configured, trained, reported, and its state survives an interruption."""
    monkeypatch.setitem(REGULARIZERS, "counted", Counted)
    pairs = ["regularizer/sst/kind=counted", "mixing/combine/kind=gse"]
    config = configure(*pairs)
    whole = list(train(config, data, State.fresh(3, (200, 400), tmp_path / "a")))
    polls = iter(range(10))
    first = list(train(config, data, State.fresh(3, (200, 400), tmp_path / "b"), lambda: next(polls) == 3))
    assert first[-1].paused
    stored = checkpoints.read_tensors(Path(first[-1].checkpoint), "optimizer")
    assert stored["penalty:regularizer/sst/updates"] == 6  # two updates a step
    continued = list(train(config, data, State.resume(Path(first[-1].checkpoint), (200, 400), tmp_path / "b", 1)))
    assert continued[-1].losses["counted/sst"] == pytest.approx(whole[-1].losses["counted/sst"], rel=1e-6)
    weights = [checkpoints.read_tensors(Path(reports[-1].checkpoint), "weights") for reports in (whole, continued)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("setting", [
    *(f"regularizer/sst/kind={kind}" for kind in REGULARIZERS), "regularizer/sst/steps=3",
    *(f"proximal/kind={kind}" for kind in PROXIMALS),
])  # fmt: skip
def test_a_penalty_takes_the_passes_that_it_says(setting: str, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    smart = ("regularizer/sst/kind=smart",) if "steps" in setting else ()
    model, step = prepared(data, *smart, setting)
    config = step.config
    said = config.regularizer["sst"].passes if setting.startswith("regularizer") else config.proximal.passes
    forwards, to_words = [], []
    outputs, grad = MultitaskModel.outputs, torch.autograd.grad
    monkeypatch.setattr(MultitaskModel, "outputs", lambda *args: (forwards.append(1), outputs(*args))[1])
    monkeypatch.setattr(torch.autograd, "grad", lambda *args: (to_words.append(1), grad(*args))[1])
    losses_of(step, batch_of(model, data, "sst"))
    assert (len(forwards), len(to_words)) == (1 + said.forward, said.to_words)
    assert said.whole <= said.forward


def test_state_of_other_penalties_is_refused(data: Data) -> None:
    _, step = prepared(data, "proximal/kind=bregman")
    with pytest.raises(ValueError, match="Penalties expect state"):
        step.penalties.load_state_dict({})
