"""Properties that hold for every entry of a family's table, and a witness for each technique."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minbert.encoder.noise import dropout
from minbert.fields import Run, dump, load
from minbert.tasks import TASKS
from minbert.techniques.adapters import ADAPTERS
from minbert.techniques.averages import AVERAGES
from minbert.techniques.encodings import ENCODINGS
from minbert.techniques.heads import HEADS, SHARED_HEADS
from minbert.techniques.mixings import MIXINGS
from minbert.techniques.penalty import DIVERGENCES, squared_difference, symmetric_kl
from minbert.techniques.proximals import PROXIMALS
from minbert.techniques.regularizers import REGULARIZERS, smart
from minbert.techniques.schedules import SCHEDULES, TAPERS, Inverse, Logarithmic, epoch


@pytest.mark.parametrize(
    "family", [ADAPTERS, AVERAGES, ENCODINGS, HEADS, SHARED_HEADS, REGULARIZERS, PROXIMALS, MIXINGS, SCHEDULES, TAPERS]
)
def test_every_entry_is_a_frozen_record_under_its_own_name(family: dict[str, type]) -> None:
    for kind, entry in family.items():
        assert entry.kind == kind and entry.__doc__
        default = load(entry, {}, run=Run(TASKS))
        values = dump(default)
        assert load(entry, {name: value for name, value in values.items() if name != "kind"}, run=Run(TASKS)) == default
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry.__setattr__(default, "kind", "other")


# Schedules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedule_factors_stay_in_the_unit_interval_and_are_continuous(kind: str) -> None:
    for share in (0.0, 0.1, 0.5):
        for steps in (0, 50, 1_000_000):
            schedule = SCHEDULES[kind](warmup_steps=steps, warmup_share=share)
            factors = np.array([schedule.factor(progress, 1000 * progress) for progress in np.linspace(0, 1, 2001)])
            assert factors.min() >= 0 and factors.max() == pytest.approx(1.0, abs=1e-3)
            assert np.abs(np.diff(factors)).max() < 0.011
            assert kind == "constant" or factors[-1] == pytest.approx(0.0)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_warm_up_ends_with_its_steps_or_its_share_of_the_budget(kind: str) -> None:
    schedule = SCHEDULES[kind](warmup_steps=40, warmup_share=0.2)
    few = [schedule.factor(step / 100, step) for step in range(21)]  # 100 steps in all: the share ends at step 20
    assert few[:21] == pytest.approx([step / 20 for step in range(21)])
    many = [schedule.factor(step / 1000, step) for step in range(201)]  # 1,000 steps in all: the share ends at 200
    assert many == pytest.approx([min(1.0, step / 40) for step in range(201)])


@pytest.mark.parametrize(("kind", "decay"), [
    ("linear", lambda progress: 1 - progress), ("cosine", lambda progress: (1 + math.cos(math.pi * progress)) / 2)
])  # fmt: skip
def test_the_decay_begins_at_the_share_of_the_warm_up(kind: str, decay: Callable[[float], float]) -> None:
    schedule = SCHEDULES[kind](warmup_steps=10, warmup_share=0.2)
    for progress in np.linspace(0.2, 1, 9):
        assert schedule.factor(progress, 1e6) == pytest.approx(decay((progress - 0.2) / 0.8))


def test_tapers_follow_equation_1_of_multi_extended() -> None:
    for e in range(10):
        progress = (e + 0.5) / 10
        assert epoch(progress, 10) == e
        assert Inverse().value(progress) == pytest.approx(0.5 / (e + 1))
        assert Logarithmic().value(progress) == pytest.approx(1 / (math.log(e + 1) + 1))
    assert epoch(1.0, 10) == 9


# Regularizers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_divergences_are_symmetric_and_zero_at_equality(kind: str) -> None:
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    assert DIVERGENCES[kind](a, b).item() == pytest.approx(DIVERGENCES[kind](b, a).item())
    assert DIVERGENCES[kind](a, a).item() == 0 and DIVERGENCES[kind](a, b).item() > 0


def test_symmetric_kl_against_torch() -> None:
    a, b = torch.randn(4, 5), torch.randn(4, 5)
    p, q = a.log_softmax(-1), b.log_softmax(-1)
    expected = F.kl_div(p, q, log_target=True, reduction="batchmean") + F.kl_div(
        q, p, log_target=True, reduction="batchmean"
    )
    assert symmetric_kl(a, b).item() == pytest.approx(expected.item(), rel=1e-5)


def test_smart_against_a_second_implementation() -> None:
    """One ascent step on a quadratic: the gradient by hand instead of by autograd."""
    matrix, seed = torch.randn(3, 6, dtype=torch.float64), 5

    def forward(delta: torch.Tensor) -> torch.Tensor:
        return ((torch.ones(4, 6, dtype=torch.float64) + delta) @ matrix.T).sum(-1, keepdim=True)

    outputs = forward(torch.zeros(4, 6, dtype=torch.float64))
    sigma, eta, epsilon = 1e-2, 1e-1, 1e-3
    actual = smart(
        forward,
        outputs,
        torch.Size((4, 6)),
        lambda a, b: (a - b).square().mean(),
        torch.Generator().manual_seed(seed),
        steps=1,
        epsilon=epsilon,
        noise_std=sigma,
        step_size=eta,
    )
    noise = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)).double() * sigma
    direction = matrix.sum(0)
    gradient = 2 / 4 * (noise @ direction)[:, None] * direction
    moved = noise + eta * gradient
    delta = moved / (moved.abs().max(-1, keepdim=True).values + epsilon)
    assert actual.item() == pytest.approx((delta @ direction).square().mean().item(), rel=1e-6)


def test_smart_in_units_of_a_size_is_smart_on_inputs_of_that_size() -> None:
    """The perturbation's largest entry is the size, whatever the direction."""
    seen: list[torch.Tensor] = []

    def forward(delta: torch.Tensor) -> torch.Tensor:
        seen.append(delta.detach())
        return delta.sum(-1, keepdim=True)

    smart(
        forward, torch.zeros(4, 1), torch.Size((4, 6)), squared_difference, torch.Generator().manual_seed(0),
        steps=2, epsilon=1e-6, noise_std=1e-3, step_size=1e-2, size=torch.tensor(0.05),
    )  # fmt: skip
    first, *later = seen
    assert first.abs().max() < 0.05 * 1e-2
    assert [delta.abs().amax(-1).tolist() for delta in later] == [pytest.approx([0.05] * 4, rel=1e-2)] * 2


def test_squared_error_is_the_mean() -> None:
    assert squared_difference(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])).item() == pytest.approx(2.5)


# Dropout -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.15, 0.3])
def test_dropout_keeps_the_mean_in_bf16(rate: float) -> None:
    """The factor itself rounded to bf16 would move it by up to 0.3 %, everywhere the same way."""
    x = (1 + torch.rand(2000, 500, generator=torch.Generator().manual_seed(1))).bfloat16()
    actual = dropout(x, rate, torch.Generator().manual_seed(3))
    assert actual.dtype == torch.bfloat16
    kept = actual != 0
    assert actual[kept].double().mean() / x[kept].double().mean() == pytest.approx(1 / (1 - rate), rel=2e-4)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_rate_scale_and_repeatability(rate: float) -> None:
    x = torch.ones(301, 333)
    actual = dropout(x, rate, torch.Generator().manual_seed(3))
    assert actual.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
    assert abs((actual == 0).float().mean().item() - rate) < 4 * math.sqrt(rate * (1 - rate) / x.numel())
    assert torch.equal(actual, dropout(x, rate, torch.Generator().manual_seed(3)))
    assert dropout(x, rate, None) is x and dropout(x, 0.0, torch.Generator()) is x
