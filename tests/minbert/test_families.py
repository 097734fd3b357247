"""Properties that hold for every entry of a family's table, and a witness for each technique."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from minbert.adapters import ADAPTERS, LoRA, LoRALinear
from minbert.base import Base
from minbert.bert import SILENT, Bert, dropout
from minbert.encodings import ENCODINGS
from minbert.heads import FEATURES, HEADS, CosineHead, HeadContext, LinearHead
from minbert.regularizers import DIVERGENCES, REGULARIZERS, smart, squared_error, symmetric_kl
from minbert.samplers import SAMPLERS, Mix, annealed_alpha, probabilities
from minbert.schedules import SCHEDULES, TAPERS, Inverse, Logarithmic, epoch
from minbert.schema import dump, load
from minbert.tasks import TASKS

SIZES = {"sst": 8544, "qqp": 76113, "sts": 6040}


@pytest.mark.parametrize("family", [ADAPTERS, ENCODINGS, HEADS, REGULARIZERS, SAMPLERS, SCHEDULES, TAPERS])
def test_every_entry_is_a_frozen_record_under_its_own_name(family: dict[str, type]) -> None:
    for kind, entry in family.items():
        assert entry.kind == kind and entry.__doc__
        values = dump(entry())
        assert load(entry, {name: value for name, value in values.items() if name != "kind"}) == entry()
        with pytest.raises(dataclasses.FrozenInstanceError):
            entry().__class__.__setattr__(entry(), "kind", "other")


# Samplers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SAMPLERS)
def test_samplers_name_known_tasks_and_depend_on_seed_and_step_alone(kind: str) -> None:
    first, second = (SAMPLERS[kind]().build(Mix(SIZES, 7)) for _ in range(2))
    drawn = [first.tasks(step, step / 200) for step in range(200)]
    assert all(set(names) <= set(SIZES) and names for names in drawn)
    assert drawn == [second.tasks(step, step / 200) for step in range(200)]
    assert [second.tasks(150, 0.75)] == [drawn[150]]


@pytest.mark.parametrize(
    ("alpha", "expected"), [(0.0, [1 / 3] * 3), (1.0, [n / sum(SIZES.values()) for n in SIZES.values()])]
)
def test_probabilities_closed_forms(alpha: float, expected: list[float]) -> None:
    assert probabilities(SIZES, alpha) == pytest.approx(expected)
    root = np.sqrt(list(SIZES.values()))
    assert probabilities(SIZES, 0.5) == pytest.approx(root / root.sum())


def test_annealing_follows_the_papers_formula() -> None:
    epochs = 25
    for number in range(1, epochs + 1):
        progress = (number - 0.5) / epochs
        assert annealed_alpha(progress, 1.0, 0.2, epochs) == pytest.approx(1 - 0.8 * (number - 1) / (epochs - 1))
    assert annealed_alpha(0.3, 1.0, 0.2, 1) == 1.0


def test_drawn_shares_agree_with_the_probabilities() -> None:
    sampler = SAMPLERS["alpha"](alpha=0.5).build(Mix(SIZES, 0))
    counts = dict.fromkeys(SIZES, 0)
    for step in range(4000):
        counts[sampler.tasks(step, 0.0)[0]] += 1
    expected = probabilities(SIZES, 0.5)
    for (task, count), p in zip(counts.items(), expected, strict=True):
        assert abs(count / 4000 - p) < 4 * math.sqrt(p * (1 - p) / 4000), task


# Schedules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedule_factors_stay_in_the_unit_interval_and_are_continuous(kind: str) -> None:
    for warmup in (0.0, 0.1, 0.5):
        schedule = SCHEDULES[kind](warmup=warmup)
        factors = np.array([schedule.factor(progress) for progress in np.linspace(0, 1, 2001)])
        assert factors.min() >= 0 and factors.max() == pytest.approx(1.0, abs=1e-3)
        assert np.abs(np.diff(factors)).max() < 0.011
        assert kind == "constant" or factors[-1] == pytest.approx(0.0)


def test_tapers_follow_equation_1_of_multi_extended() -> None:
    for e in range(10):
        progress = (e + 0.5) / 10
        assert epoch(progress, 10) == e
        assert Inverse().value(progress) == pytest.approx(0.5 / (e + 1))
        assert Logarithmic().value(progress) == pytest.approx(1 / (math.log(e + 1) + 1))
    assert epoch(1.0, 10) == 9


# Adapters ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_fresh_adapter_changes_no_output(kind: str, tiny: Base) -> None:
    from tests.minbert.test_bert import packed

    plain, adapted = tiny.load(), tiny.load()
    ADAPTERS[kind]().build(adapted, torch.Generator().manual_seed(0))
    batch = packed(tiny)
    assert torch.equal(plain(batch), adapted(batch))


def lora_layer(rank: int = 4, alpha: float = 8.0) -> LoRALinear:
    base = torch.nn.Linear(12, 20)
    layer = LoRALinear(base, rank, alpha, 0.0, torch.Generator().manual_seed(1))
    torch.nn.init.normal_(layer.up)
    return layer


def test_lora_equals_its_equation_and_its_merged_layer() -> None:
    layer, x = lora_layer(), torch.randn(5, 12)
    expected = x @ layer.base.weight.T + layer.base.bias + 8.0 / 4 * (x @ layer.down.T @ layer.up.T)
    assert torch.allclose(layer(x), expected, atol=1e-6)
    assert torch.allclose(layer(x), F.linear(x, layer.merged(), layer.base.bias), atol=1e-5)


@pytest.mark.parametrize("targets", [("query", "value"), ("query", "key", "value", "output", "up", "down")])
def test_lora_adds_r_times_widths_parameters_and_freezes_the_rest(targets: tuple[str, ...], tiny: Base) -> None:
    encoder: Bert = tiny.load()
    shapes = [getattr(layer, name).weight.shape for layer in encoder.layers for name in targets]
    LoRA(rank=3, targets=targets).build(encoder, torch.Generator().manual_seed(0))
    trained = {name: value for name, value in encoder.named_parameters() if value.requires_grad}
    assert sum(value.numel() for value in trained.values()) == sum(3 * (rows + columns) for rows, columns in shapes)
    assert all(".base." not in name for name in trained)


# Heads ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", FEATURES)
def test_pair_features_by_hand(features: str) -> None:
    u, v = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 5.0]])
    expected = {
        "concat": [1, -2, 3, 5],
        "sum": [4, 3],
        "product": [1, -2, 3, 5, 3, -10],
        "difference": [1, -2, 3, 5, 2, 7],
    }[features]
    multiple, combine = FEATURES[features]
    assert combine(u, v).tolist() == [expected] and len(expected) == multiple * 2


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", HEADS)
def test_heads_give_one_output_a_class(kind: str, task: str) -> None:
    if kind == "cosine" and TASKS[task].kind == "classification":
        return  # refused by the configuration
    head = HEADS[kind]().build(HeadContext(TASKS[task], 8, True, torch.Generator()))
    outputs = head((torch.randn(6, 8), torch.randn(6, 8)), SILENT)
    assert outputs.shape == (6, TASKS[task].classes)


@pytest.mark.parametrize(
    ("transform", "scale"), [("relu", lambda c: 5 * max(c, 0.0)), ("shift", lambda c: 2.5 * (c + 1))]
)
def test_a_fresh_cosine_head_is_the_scaled_cosine(transform: str, scale) -> None:  # type: ignore[no-untyped-def]
    head = CosineHead(transform).build(HeadContext(TASKS["sts"], 8, True, torch.Generator()))
    u, v = torch.randn(9, 8), torch.randn(9, 8)
    found = head((u, v), SILENT)[:, 0].tolist()
    cosines = ((u * v).sum(-1) / u.norm(dim=-1) / v.norm(dim=-1)).tolist()
    assert found == pytest.approx([scale(cosine) for cosine in cosines], abs=1e-5)


def test_a_linear_head_starts_in_the_middle_of_a_regression() -> None:
    head = LinearHead().build(HeadContext(TASKS["sts"], 8, False, torch.Generator()))
    assert head((torch.zeros(1, 8),), SILENT).item() == 2.5


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
    found = smart(
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
    assert found.item() == pytest.approx((delta @ direction).square().mean().item(), rel=1e-6)


def test_squared_error_is_the_mean() -> None:
    assert squared_error(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])).item() == pytest.approx(2.5)


# Dropout -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_rate_scale_and_repeatability(rate: float) -> None:
    x = torch.ones(301, 333)
    found = dropout(x, rate, torch.Generator().manual_seed(3))
    assert found.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)])
    assert abs((found == 0).float().mean().item() - rate) < 4 * math.sqrt(rate * (1 - rate) / x.numel())
    assert torch.equal(found, dropout(x, rate, torch.Generator().manual_seed(3)))
    assert dropout(x, rate, None) is x and dropout(x, 0.0, torch.Generator()) is x
