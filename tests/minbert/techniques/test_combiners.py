"""Combiners: properties of every entry; PCGrad against its textbook form and against torchjd."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.data.tokens import Data
from minbert.fields import dump, load
from minbert.randomness import numpy_generator
from minbert.techniques.combiners import CHUNK, COMBINERS, conflicts, gram, project
from minbert.training.model import MultitaskModel
from tests.minbert.configs import configure

TASKS = ("a", "b", "c")


def textbook(gradients: Sequence[Tensor], orders: Sequence[Sequence[int]]) -> Tensor:
    """Sum of the projected gradients by algorithm 1 of Yu et al. (2020) as written, on vectors [P]."""
    projected = []
    for i, order in enumerate(orders):
        g = gradients[i].clone()
        for j in order:
            if j != i and torch.dot(g, gradients[j]) < 0:
                g = g - torch.dot(g, gradients[j]) / gradients[j].norm() ** 2 * gradients[j]
        projected.append(g)
    return torch.stack(projected).sum(0)


def opposed(count: int, size: int, seed: int) -> Tensor:
    """Gradients [K, P]; most pairs of them conflict."""
    gradients = torch.randn(count, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return gradients - 1.2 * gradients.mean(0)


class Toy(nn.Module):
    """Two shared matrices, one head per task, a shared vector that only the first task uses and an unused one."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 5)
        self.only, self.unused = nn.Parameter(torch.randn(5)), nn.Parameter(torch.ones(3))
        self.heads = nn.ModuleDict({name: nn.Linear(5, 1) for name in TASKS})
        self.x, self.y = torch.randn(8, 4), torch.randn(8, 3)

    def losses(self) -> dict[str, Tensor]:
        hidden = self.second(torch.tanh(self.first(self.x)))
        inputs = {name: hidden + self.only if name == "a" else hidden for name in TASKS}
        signs = dict(zip(TASKS, self.y.T, strict=True))
        return {name: (self.heads[name](inputs[name])[:, 0] - signs[name]).square().mean() for name in TASKS}

    @property
    def shared(self) -> list[nn.Parameter]:
        return [*self.first.parameters(), *self.second.parameters(), self.only, self.unused]

    @property
    def unshared(self) -> list[nn.Parameter]:
        return list(self.heads.parameters())

    def gradients(self) -> dict[str, Tensor | None]:
        gradients = {name: value.grad for name, value in self.named_parameters()}
        self.zero_grad(set_to_none=True)
        return gradients


def plain(toy: Toy, losses: dict[str, Tensor]) -> dict[str, Tensor | None]:
    torch.stack(list(losses.values())).sum().backward()
    return toy.gradients()


def assert_same(actual: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    for name, value in expected.items():
        gradient = actual[name]
        assert (gradient is None) == (value is None), name
        if gradient is not None and value is not None:
            assert torch.allclose(gradient, value, rtol=1e-5, atol=1e-7), name


# Every entry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COMBINERS)
def test_entries_are_records_and_their_phases_are_entries(kind: str) -> None:
    entry = COMBINERS[kind]
    assert entry.kind == kind and entry.__doc__ and load(entry, {}) == entry() and dump(entry()) == {"kind": kind}
    phases = entry().build().phases
    assert set(phases) <= set(COMBINERS) and entry.separate_backward == ("pcgrad" in phases)
    assert phases == {"sum": ("sum",), "pcgrad": ("pcgrad",), "gse": ("pcgrad", "sum")}[kind]


@pytest.mark.parametrize("kind", COMBINERS)
@pytest.mark.parametrize("case", ["one task", "nothing shared"])
def test_one_task_or_nothing_shared_is_the_plain_sum_in_one_pass(
    kind: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, combiner = Toy(), COMBINERS[kind]().build()
    names = TASKS[:1] if case == "one task" else TASKS

    def losses() -> dict[str, Tensor]:
        return {name: toy.losses()[name] for name in names}

    shared, unshared = (toy.shared, toy.unshared) if case == "one task" else ([], [*toy.shared, *toy.unshared])
    expected = plain(toy, losses())
    monkeypatch.setattr(torch.autograd, "grad", None)  # no pass but `backward`
    for phase in range(len(combiner.phases)):
        statistics = combiner.backward(losses(), shared, unshared, np.random.default_rng(0), phase)
        assert not any(statistics.values())
        gradients = toy.gradients()
        assert all(gradients[name] is value or torch.equal(gradients[name], value) for name, value in expected.items())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", COMBINERS)
def test_without_conflicts_every_combiner_is_the_plain_sum(kind: str) -> None:
    toy, combiner = Toy(), COMBINERS[kind]().build()
    loss = toy.losses()["a"]
    losses = {"a": loss, "b": 2 * loss, "c": 0.5 * loss}  # parallel gradients
    statistics = combiner.backward(losses, toy.shared, toy.unshared, np.random.default_rng(0))
    assert statistics.get("conflicts", 0.0) == 0
    actual, loss = toy.gradients(), toy.losses()["a"]
    assert_same(actual, plain(toy, {"a": 3.5 * loss}))


@pytest.mark.parametrize("kind", COMBINERS)
def test_gradients_add_up_and_what_no_loss_touches_keeps_none(kind: str) -> None:
    toy, combiner = Toy(), COMBINERS[kind]().build()

    def run(times: int) -> dict[str, Tensor | None]:
        for _ in range(times):
            combiner.backward(toy.losses(), toy.shared, toy.unshared, np.random.default_rng(3))
        return toy.gradients()

    single, double = run(1), run(2)
    assert single["unused"] is None and single["only"] is not None
    assert_same(double, {name: None if value is None else 2 * value for name, value in single.items()})


@pytest.mark.parametrize("kind", COMBINERS)
def test_unshared_parameters_get_the_gradient_of_the_plain_sum(kind: str) -> None:
    toy, combiner = Toy(), COMBINERS[kind]().build()
    expected = plain(toy, toy.losses())
    combiner.backward(toy.losses(), toy.shared, toy.unshared, np.random.default_rng(0))
    actual = toy.gradients()
    assert_same({n: g for n, g in actual.items() if "heads" in n}, {n: g for n, g in expected.items() if "heads" in n})


@pytest.mark.parametrize("kind", COMBINERS)
def test_gradients_can_be_clipped_and_stepped_in_place(kind: str) -> None:
    """Autograd gives the expanded gradient of a sum, and one tensor for two summands: neither may be shared."""
    x, y, z = (nn.Parameter(torch.ones(3)) for _ in range(3))
    losses = {"a": (x + y).sum() + z.sum(), "b": (x - 2 * y).sum() + z.square().sum()}
    COMBINERS[kind]().build().backward(losses, [z], [x, y], np.random.default_rng(0))
    nn.utils.clip_grad_norm_([x, y, z], 1e-3, foreach=True)
    total = torch.cat([x.grad, y.grad, z.grad]).norm()  # type: ignore[list-item]
    assert total.item() == pytest.approx(1e-3, rel=1e-2) and torch.allclose(x.grad / y.grad, torch.tensor(-2.0))  # type: ignore[operator]


# Gram matrix and projections -----------------------------------------------------------------------------------------


def test_gram_is_summed_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conflict that float32 sums lose: 1 - 1 - 2^-30, in pieces that straddle two chunks."""
    monkeypatch.setitem(CHUNK, "cpu", 2)
    gradients = [torch.tensor([1.0, 1.0, 2.0**-15]), torch.tensor([1.0, -1.0, -(2.0**-15)])]
    products = gram(gradients)
    assert products.dtype == np.float64 and products[0].tolist() == [2 + 2.0**-30, -(2.0**-30)]
    assert conflicts(products) == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_projections_on_coefficients_equal_the_textbook(count: int, seed: int) -> None:
    gradients = opposed(count, 7, seed)
    products = gram(list(gradients))
    assert conflicts(products) > 0
    for orders in itertools.islice(itertools.product(itertools.permutations(range(count)), repeat=count), 300):
        actual = torch.from_numpy(project(products, orders).sum(0)) @ gradients
        assert torch.allclose(actual, textbook(list(gradients), orders), rtol=1e-10, atol=1e-12)


def test_two_projected_gradients_conflict_with_neither_original() -> None:
    gradients = opposed(2, 7, 0)
    rows = torch.from_numpy(project(gram(list(gradients)), [(0, 1), (1, 0)])) @ gradients
    assert torch.dot(rows[0], gradients[1]).abs() < 1e-12 and torch.dot(rows[1], gradients[0]).abs() < 1e-12


def test_a_zero_gradient_and_a_broken_one_change_nothing_else() -> None:
    gradients = torch.stack([*opposed(2, 7, 0), torch.zeros(7, dtype=torch.float64)])
    orders = [(2, 1, 0)] * 3
    actual = project(gram(list(gradients)), orders)
    assert np.isfinite(actual).all() and actual[2].tolist() == [0, 0, 1] and not actual[:2, 2].any()
    gradients[0, 0] = torch.nan  # a diverged trial: its update is not finite either
    assert not torch.isfinite(torch.from_numpy(project(gram(list(gradients)), orders).sum(0)) @ gradients).all()


# PCGrad as a whole ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_pcgrad_on_a_network_equals_the_textbook(seed: int) -> None:
    toy = Toy(seed)
    vectors = []
    for name in TASKS:
        gradients = torch.autograd.grad(toy.losses()[name], toy.shared, allow_unused=True)
        pieces = zip(gradients, toy.shared, strict=True)
        vectors.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pieces]))
    generator = numpy_generator(seed, "pcgrad", 3)
    orders = [generator.permutation(3).tolist() for _ in TASKS]
    expected = textbook(vectors, orders)
    combiner, generator = COMBINERS["pcgrad"]().build(), numpy_generator(seed, "pcgrad", 3)
    statistics = combiner.backward(toy.losses(), toy.shared, toy.unshared, generator)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in toy.shared]
    assert torch.allclose(torch.cat([g.flatten() for g in grads]), expected, rtol=1e-4, atol=1e-6)
    pairs = itertools.combinations(vectors, 2)
    assert statistics == {"conflicts": sum(bool(torch.dot(a, b) < 0) for a, b in pairs), "pairs": 3}


def test_the_order_of_projections_comes_from_the_generator_alone() -> None:
    def run(seed: int) -> Tensor:
        torch.manual_seed(99)  # the data; no global generator may matter
        x = nn.Parameter(torch.zeros(7))
        losses = {str(k): x @ g for k, g in enumerate(opposed(4, 7, 1).float())}
        torch.manual_seed(seed * 7)
        COMBINERS["pcgrad"]().build().backward(losses, [x], [], numpy_generator(seed, "pcgrad", 0))
        assert x.grad is not None
        return x.grad

    assert torch.equal(run(1), run(1))
    assert not all(torch.equal(run(1), run(seed)) for seed in range(2, 8))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [2, 3, 4])
def test_pcgrad_against_torchjd(count: int, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregation = pytest.importorskip("torchjd.aggregation")
    jacobian = opposed(count, 11, seed)
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(count) for _ in range(count)]
    remaining = iter(orders)
    monkeypatch.setattr(torch, "randperm", lambda n: torch.from_numpy(next(remaining)))
    expected = aggregation.PCGrad()(jacobian)
    x = nn.Parameter(torch.zeros(11, dtype=torch.float64))
    losses = {str(k): x @ row for k, row in enumerate(jacobian)}
    statistics = COMBINERS["pcgrad"]().build().backward(losses, [x], [], np.random.default_rng(seed))
    assert x.grad is not None and torch.allclose(x.grad, expected, rtol=1e-10, atol=1e-12)
    assert statistics["conflicts"] > 0 and statistics["pairs"] == count * (count - 1) / 2


CLS = [f"encoding/{task}/pooling=cls" for task in ("sst", "qqp", "sts")]
"""Means over tokens would add in another order in the two computations."""


def test_pcgrad_against_torchjd_on_the_encoder(data: Data) -> None:
    """Two tasks of real batches, so no order matters: the encoder's gradient is torchjd's, the heads have the sum's."""
    autojac = pytest.importorskip("torchjd.autojac")
    aggregation = pytest.importorskip("torchjd.aggregation")
    model = MultitaskModel(configure(*CLS), data.base, data.tasks, 0)
    batches = [model.batch(task, data.file(task, "train"), range(8)) for task in ("sst", "qqp")]

    def losses(sign: float) -> dict[str, Tensor]:
        outputs = zip(batches, model(batches), strict=True)
        values = {batch.task: F.cross_entropy(output, batch.labels.long()) for batch, output in outputs}
        return {"sst": values["sst"], "qqp": values["qqp"] + sign * values["sst"]}

    conflicting = 0.0
    shared, unshared = [*model.encoder.parameters()], [*model.heads.parameters()]
    for sign in (0.0, -1.5):  # with the second one they conflict for certain
        statistics = COMBINERS["pcgrad"]().build().backward(losses(sign), shared, unshared, np.random.default_rng(0))
        conflicting += statistics["conflicts"]
        mine = {name: value.grad for name, value in model.named_parameters()}
        model.zero_grad(set_to_none=True)
        torch.stack(list(losses(sign).values())).sum().backward()
        heads = {name: value.grad for name, value in model.heads.named_parameters()}
        model.zero_grad(set_to_none=True)
        used = [value for name, value in model.encoder.named_parameters() if mine[f"encoder.{name}"] is not None]
        autojac.backward(list(losses(sign).values()), inputs=used, parallel_chunk_size=1)
        autojac.jac_to_grad(used, aggregation.PCGrad())
        theirs = {f"encoder.{name}": value.grad for name, value in model.encoder.named_parameters()}
        model.zero_grad(set_to_none=True)
        assert_same(mine, {**theirs, **{f"heads.{name}": value for name, value in heads.items()}})
    assert conflicting >= 1
