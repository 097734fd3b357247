"""Balances: properties of every entry; Kendall's optimum in closed form, GradNorm by double backward."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from minbert.fields import ConfigError, dump, load
from minbert.tasks import TASKS
from minbert.techniques.balances import BALANCES, FLOOR, START, Balance, gradnorm_step, gradnorm_targets, uncertain

NAMES = ("sst", "qqp", "sts")
DECLARED = [TASKS[name] for name in NAMES]


class Toy(nn.Module):
    """A shared layer and one head per task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shared = nn.Linear(4, 6)
        self.heads = nn.ModuleDict({name: nn.Linear(6, 1) for name in NAMES})
        self.x, self.y = torch.randn(16, 4), torch.randn(16, 3)

    def losses(self, *names: str) -> dict[str, Tensor]:
        hidden, scales = torch.tanh(self.shared(self.x)), {"sst": 1.0, "qqp": 20.0, "sts": 0.1}
        labels = dict(zip(NAMES, self.y.T, strict=True))
        return {
            name: scales[name] * (self.heads[name](hidden)[:, 0] - labels[name]).square().mean()
            for name in names or NAMES
        }

    def shared_of(self) -> dict[str, list[nn.Parameter]]:
        return {name: [*self.shared.parameters()] for name in NAMES}


def step(balance: Balance, toy: Toy, optimizer: torch.optim.Optimizer, *names: str) -> dict[str, float]:
    """One step of training as a trial makes it; returns the losses."""
    losses = toy.losses(*names)
    weighed = balance.weigh(losses)
    balance.update(losses, toy.shared_of())
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(weighed.values())).sum().backward()
    optimizer.step()
    return {name: loss.item() for name, loss in losses.items()}


def factors(balance: Balance) -> dict[str, float]:
    return {name: value.item() for name, value in balance.factors().items()}


def started(kind: str) -> tuple[Balance, Toy, torch.optim.Optimizer]:
    toy, balance = Toy(), BALANCES[kind]().build(DECLARED)
    return balance, toy, torch.optim.AdamW([*toy.parameters(), *balance.parameters()], lr=0.01)


# Every entry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BALANCES)
def test_entries_are_records(kind: str) -> None:
    entry = BALANCES[kind]
    assert entry.kind == kind and entry.__doc__
    values = dump(entry())
    assert values.pop("kind") == kind and load(entry, values) == entry()


@pytest.mark.parametrize("kind", BALANCES)
def test_weights_start_as_they_should_and_stay_positive(kind: str) -> None:
    balance, toy, optimizer = started(kind)
    half = 0.5 if kind == "uncertainty" else 1.0  # L / (2 sigma^2) for a regression
    losses = toy.losses()
    assert balance.weigh(losses)["sst"].item() == pytest.approx(losses["sst"].item())
    assert balance.weigh(losses)["sts"].item() == pytest.approx(half * losses["sts"].item())
    for _ in range(30):
        step(balance, toy, optimizer)
        assert all(factor > 0 and math.isfinite(factor) for factor in factors(balance).values())
    assert set(factors(balance)) == (set() if kind == "none" else set(NAMES))


@pytest.mark.parametrize("kind", BALANCES)
def test_a_balance_trains_no_parameter_but_its_own(kind: str) -> None:
    balance, toy, _ = started(kind)
    losses = toy.losses()
    balance.update(losses, toy.shared_of())
    assert all(value.grad is None for value in (*toy.parameters(), *balance.parameters()))
    torch.stack(list(balance.weigh(losses).values())).sum().backward()  # the graph was kept
    assert all(value.grad is not None for value in (*toy.parameters(), *balance.parameters()))


@pytest.mark.parametrize("kind", BALANCES)
def test_factors_are_what_the_losses_gradient_is_multiplied_by(kind: str) -> None:
    balance, toy, optimizer = started(kind)
    for _ in range(20):
        step(balance, toy, optimizer)
    for name, loss in toy.losses().items():
        plain = torch.autograd.grad(loss, toy.shared.weight, retain_graph=True)[0]
        weighed = torch.autograd.grad(balance.weigh({name: loss})[name], toy.shared.weight, retain_graph=True)[0]
        assert torch.allclose(weighed, factors(balance).get(name, 1.0) * plain, rtol=1e-5)


@pytest.mark.parametrize("kind", BALANCES)
def test_absent_tasks_are_left_alone(kind: str) -> None:
    balance, toy, optimizer = started(kind)
    for _ in range(3):
        step(balance, toy, optimizer)
    before = factors(balance)
    for _ in range(5):
        step(balance, toy, optimizer, "sst", "sts")
    after = factors(balance)
    assert after.get("qqp") == before.get("qqp")
    assert kind == "none" or after["sst"] != before["sst"]
    assert list(balance.weigh(toy.losses("sts", "sst"))) == ["sts", "sst"]


@pytest.mark.parametrize("kind", BALANCES)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_resumed_equals_unbroken(kind: str, cut: int) -> None:
    whole = started(kind)
    losses = [step(*whole) for _ in range(12)]
    balance, toy, optimizer = started(kind)
    for _ in range(cut):
        step(balance, toy, optimizer)
    fresh = started(kind)
    for target, source in zip(fresh, (balance, toy, optimizer), strict=True):
        target.load_state_dict(source.state_dict())
    assert [step(*fresh) for _ in range(12 - cut)] == losses[cut:]
    assert factors(fresh[0]) == factors(whole[0])


# Uncertainty ---------------------------------------------------------------------------------------------------------


def test_uncertain_losses_are_the_papers_with_sigma_written_out() -> None:
    for s, loss in ((0.0, 2.0), (1.3, 0.4), (-2.0, 5.0)):
        sigma = math.exp(s / 2)
        actual = [uncertain(torch.tensor(loss), torch.tensor(s), regression=kind).item() for kind in (True, False)]
        expected = [loss / (2 * sigma**2) + math.log(sigma), loss / sigma**2 + math.log(sigma)]
        assert actual == pytest.approx(expected, rel=1e-5)


def test_learned_variances_reach_the_closed_form_optimum() -> None:
    """For constant losses s = log L for the regression and log 2L for the classes."""
    balance = BALANCES["uncertainty"]().build(DECLARED)
    losses = {"sst": torch.tensor(1.6), "qqp": torch.tensor(0.3), "sts": torch.tensor(0.7)}
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        torch.stack(list(balance.weigh(losses).values())).sum().backward()
        optimizer.step()
    expected = {"sst": math.log(2 * 1.6), "qqp": math.log(2 * 0.3), "sts": math.log(0.7)}
    actual = {name.split(".")[-1]: value.item() for name, value in balance.named_parameters()}
    assert actual == pytest.approx(expected, abs=1e-4)


# GradNorm ------------------------------------------------------------------------------------------------------------


def reference(toy: Toy, weights: Tensor, initial: Tensor, alpha: float, rate: float) -> Tensor:
    """Algorithm 1 of Chen et al. (2018): L_grad on a graph of the gradients themselves, differentiated by autograd."""
    weights = weights.clone().requires_grad_()
    losses = torch.stack(list(toy.losses().values()))
    norms = []
    for k in range(len(losses)):
        gradients = torch.autograd.grad(weights[k] * losses[k], list(toy.shared.parameters()), create_graph=True)
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm(2))
    stacked = torch.stack(norms)
    ratios = (losses / initial).detach()
    target = (stacked.mean() * (ratios / ratios.mean()) ** alpha).detach()
    (gradient,) = torch.autograd.grad((stacked - target).abs().sum(), weights)
    moved = weights.detach() - rate * gradient
    return moved * len(moved) / moved.sum()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5, 3.0])
def test_gradnorm_against_double_backward_of_its_loss(alpha: float) -> None:
    toy, rate = Toy(), 0.003
    balance = load(BALANCES["gradnorm"], {"alpha": alpha, "lr": rate}).build(DECLARED)
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.005)
    weights = torch.ones(3)
    seen: list[Tensor] = []
    for _ in range(START + 5):
        seen.append(torch.stack(list(toy.losses().values())).detach())
        weights = reference(toy, weights, torch.stack(seen[:START]).mean(dim=0), alpha, rate)
        step(balance, toy, optimizer)
        assert list(factors(balance).values()) == pytest.approx(weights.tolist(), rel=1e-4)
        assert sum(factors(balance).values()) == pytest.approx(3.0, abs=1e-6)
    assert weights[1] < 0.9  # the loss with the large gradient counts for less


def test_an_exact_hit_of_the_first_batch_does_not_hand_all_weight_to_its_task() -> None:
    balance = BALANCES["gradnorm"]().build(DECLARED)
    shared = [nn.Parameter(torch.ones(4))]
    for place in range(300):
        values = {"sst": 1.6, "qqp": 0.7, "sts": 0.0 if place == 0 else 2.0}
        losses = {name: shared[0].mean() * value for name, value in values.items()}
        balance.update(losses, dict.fromkeys(NAMES, shared))
    assert min(factors(balance).values()) > 0.2, factors(balance)


def test_gradnorm_with_alpha_0_brings_the_gradient_norms_together() -> None:
    """The model stands still and only the weights move: in the end w_k is proportional to 1 / |grad_W L_k|."""
    norms, losses, weights = torch.tensor([4.0, 1.0, 2.0]), torch.tensor([0.1, 5.0, 1.0]), torch.ones(3)
    for _ in range(1500):
        targets = gradnorm_targets(weights * norms, losses, torch.ones(3), alpha=0.0)
        weights = gradnorm_step(weights, norms, targets, 1e-3, 3.0)
    assert weights.tolist() == pytest.approx([3 / 7, 12 / 7, 6 / 7], rel=0.02)


def test_gradnorm_asks_more_of_the_tasks_that_lag() -> None:
    """Equal norms, one loss down to a half and one unchanged: targets by hand."""
    actual = gradnorm_targets(torch.tensor([3.0, 3.0]), torch.tensor([2.0, 1.0]), torch.tensor([4.0, 1.0]), alpha=2.0)
    assert actual.tolist() == pytest.approx([3 * (0.5 / 0.75) ** 2, 3 * (1 / 0.75) ** 2])


def test_initial_losses_are_the_means_of_a_tasks_first_steps() -> None:
    balance, toy, optimizer = started("gradnorm")
    first = step(balance, toy, optimizer, "sst", "qqp")
    later = [step(balance, toy, optimizer) for _ in range(START + 3)]
    expected = [
        (first["sst"] + sum(losses["sst"] for losses in later[: START - 1])) / START,
        (first["qqp"] + sum(losses["qqp"] for losses in later[: START - 1])) / START,
        sum(losses["sts"] for losses in later[:START]) / START,
    ]
    assert balance.get_buffer("initial").tolist() == pytest.approx(expected, rel=1e-5)


def test_weights_stay_positive_and_sum_to_k_under_a_huge_rate() -> None:
    weights, norms, targets = (
        torch.tensor([1.0, 1.5, 0.5]),
        torch.tensor([50.0, 1.0, 3.0]),
        torch.tensor([1.0, 2.0, 1.0]),
    )
    actual = gradnorm_step(weights, norms, targets, 1.0, 3.0)
    total = FLOOR + 2.5 + FLOOR  # by hand: 1 - 50 and 0.5 - 3 fall to the floor, 1.5 rises by 1
    assert actual.tolist() == pytest.approx([3 * FLOOR / total, 3 * 2.5 / total, 3 * FLOOR / total])


def test_without_shared_parameters_or_with_a_loss_of_zero_gradnorm_stays_finite() -> None:
    balance, toy, _ = started("gradnorm")
    balance.update(toy.losses(), dict.fromkeys(NAMES, ()))
    assert list(factors(balance).values()) == [1.0, 1.0, 1.0]
    balance = BALANCES["gradnorm"]().build(DECLARED)
    for scale in (0.0, 0.0, 1.0):
        balance.update({name: scale * loss for name, loss in toy.losses().items()}, toy.shared_of())
    assert all(math.isfinite(factor) and factor > 0 for factor in factors(balance).values())


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"alpha": -0.1}, {"alpha": 3.1}, {"lr": 0.0}):
        with pytest.raises(ConfigError, match=f"`{next(iter(wrong))}` must be"):
            load(BALANCES["gradnorm"], wrong)
