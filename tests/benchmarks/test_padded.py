"""The padded encoder: it computes the same function of the same parameters, and trials train it in the same way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from benchmarks.padded import PaddedBert, in_place_of_ours
from minbert.data.tokens import Data
from minbert.encoder.base import Base
from minbert.encoder.bert import Bert
from minbert.encoder.noise import SILENT, Noise
from minbert.training.report import State
from minbert.training.trial import Trial
from tests.minbert.configs import configure
from tests.minbert.encoder.test_bert import packed


@pytest.mark.parametrize("first_only", [False, True])
def test_states_and_gradients_are_those_of_ours(tiny: Base, first_only: bool) -> None:
    batch, results = packed(tiny), []
    ours = tiny.load()
    with in_place_of_ours():
        theirs = tiny.load()
    assert isinstance(theirs, PaddedBert)
    for encoder in (ours, theirs):
        states = encoder(batch, SILENT, first_only=first_only)
        states.square().mean().backward()
        results.append((states, {name: value.grad for name, value in encoder.named_parameters()}))
    (expected, gradients), (padded, padded_gradients) = results
    torch.testing.assert_close(padded, expected, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(padded_gradients[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_dropout_is_on_when_ours_is(tiny: Base) -> None:
    with in_place_of_ours():
        encoder = tiny.load()
    batch = packed(tiny)
    noise = Noise(torch.Generator(), hidden=0.3, attention=0.3, head=0.0)
    torch.manual_seed(0)
    assert not torch.equal(encoder(batch, noise), encoder(batch, noise))
    torch.testing.assert_close(encoder(batch), encoder(batch), rtol=0, atol=0)


def test_a_trial_takes_the_same_steps(data: Data, tmp_path: Path) -> None:
    config = configure("dropout/hidden=0", "dropout/attention=0", "dropout/head=0", "precision=float32")

    def two_steps(name: str) -> dict[str, torch.Tensor]:
        trial = Trial(config, data, State.fresh(0, (200,), tmp_path / name), torch.device("cpu"))
        assert isinstance(trial.model.encoder, PaddedBert if name == "padded" else Bert)
        trial.step()
        trial.step()
        return {name: value.detach() for name, value in trial.update.trained.items()}

    expected = two_steps("packed")
    with in_place_of_ours():
        padded = two_steps("padded")
    # AdamW's first steps have full size even if a gradient is nearly 0 and rounding decides its sign, so a few weights
    # may differ.
    for name, value in expected.items():
        assert (padded[name] - value).abs().mean() < 1e-6, name
