"""Heads, features and losses: properties over every legal combination, refusals, a reference for each form."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from minbert.encoder.noise import SILENT, Noise
from minbert.encoder.poolings import TOKEN_POOLING
from minbert.fields import ConfigError
from minbert.tasks import TASKS, Task
from minbert.techniques.encodings import ENCODINGS, Bi, Cross, Encoding, Single, check_frozen, check_shared, sharing
from minbert.techniques.features import FEATURES, TRANSFORMS, add_score, cosine
from minbert.techniques.heads import (
    HEADS,
    SHARED_HEADS,
    CosineEmbeddingHead,
    CosineHead,
    Head,
    HeadContext,
    HeadModule,
    LinearHead,
    LinearSharedHead,
    NoSharedHead,
    SharedModule,
)
from minbert.techniques.losses import cosine_embedding, cross_entropy, squared_error

WIDTH, ROWS = 8, 6
STS, QQP, SST = TASKS["sts"], TASKS["qqp"], TASKS["sst"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def variants(kind: str) -> Iterator[Head]:
    """A head with every combination of its choices."""
    fields = {
        f.name: f.metadata["choices"] for f in HEADS[kind].__dataclass_fields__.values() if "choices" in f.metadata
    }
    for values in itertools.product(*fields.values()):
        yield HEADS[kind](**dict(zip(fields, values, strict=True)))


def legal(kind: str) -> Iterator[tuple[Task, Encoding]]:
    """Every task with every encoding, pooling and variant of a head that is not refused."""
    for task, encoding, head, pooling in itertools.product(TASKS.values(), ENCODINGS, variants(kind), TOKEN_POOLING):
        chosen = ENCODINGS[encoding](pooling=pooling, head=head)
        try:
            chosen.check(task)
        except ConfigError:
            continue
        yield task, chosen


def build(task: Task, encoding: Encoding, pooler: tuple[Tensor, Tensor] | None = None) -> HeadModule:
    context = HeadContext(task, WIDTH, encoding.paired, generator(3), encoding.pooling, pooler)
    return encoding.head.build(context)


def states(paired: bool, seed: int = 1) -> tuple[Tensor, ...]:
    """u, and v near it: their cosines are positive, where no transform is flat."""
    u = torch.randn(ROWS, WIDTH, generator=generator(seed))
    return (u, u + torch.randn(ROWS, WIDTH, generator=generator(seed + 1))) if paired else (u,)


def labels(task: Task) -> Tensor:
    return torch.linspace(task.low, task.high, ROWS).round()


# Properties ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_gives_finite_outputs_and_gradients_everywhere(kind: str) -> None:
    seen = set()
    for task, encoding in legal(kind):
        head, inputs = build(task, encoding), tuple(x.requires_grad_() for x in states(encoding.paired))
        outputs = head(inputs, Noise(generator(5), 0.1, 0.1, 0.2))
        assert outputs.shape == (ROWS, task.classes) and outputs.dtype == torch.float32
        loss = encoding.head.loss(task, outputs, labels(task))
        assert loss.shape == () and torch.isfinite(loss)
        loss.backward()
        for name, value in (*head.named_parameters(), *((f"state {i}", x) for i, x in enumerate(inputs))):
            assert value.grad is not None and torch.isfinite(value.grad).all(), (task.name, encoding, name)
            assert value.grad.any(), (task.name, encoding, name)
        seen.add((task.name, encoding.kind, encoding.pooling))
    assert {pooling for _, _, pooling in seen} == set(TOKEN_POOLING)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_depends_on_its_generators_alone(kind: str) -> None:
    for task, encoding in legal(kind):
        first, second = build(task, encoding), build(task, encoding)
        inputs = states(encoding.paired)
        noises = [Noise(generator(7), 0.1, 0.1, 0.5) for _ in range(2)]
        assert torch.equal(first(inputs, noises[0]), second(inputs, noises[1]))
        assert torch.equal(first(inputs, SILENT), first(inputs, Noise(None, 0.5, 0.5, 0.5)))
        assert not torch.equal(first(inputs, SILENT), first(inputs, Noise(generator(7), 0.0, 0.0, 0.5)))


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_takes_bf16_states_with_and_without_autocast(kind: str) -> None:
    for task, encoding in legal(kind):
        head, inputs = build(task, encoding), states(encoding.paired)
        rounded = tuple(x.bfloat16().requires_grad_() for x in inputs)
        exact, outputs = head(tuple(x.detach().float() for x in rounded), SILENT), head(rounded, SILENT)
        assert torch.equal(outputs, exact)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = head(rounded, SILENT)
        assert mixed.dtype == torch.float32 and (mixed - exact).abs().max() < 0.1, (task.name, encoding)
        encoding.head.loss(task, mixed, labels(task)).backward()
        assert all(x.grad is not None and torch.isfinite(x.grad).all() for x in rounded)


@pytest.mark.parametrize("kind", HEADS)
def test_rows_do_not_see_each_other_and_the_loss_is_their_mean(kind: str) -> None:
    for task, encoding in legal(kind):
        head, inputs, target = build(task, encoding), states(encoding.paired), labels(task)
        whole = head(inputs, SILENT)
        alone = [head(tuple(x[row : row + 1] for x in inputs), SILENT) for row in range(ROWS)]
        assert torch.allclose(torch.cat(alone), whole, atol=1e-6)
        apart = [encoding.head.loss(task, alone[row], target[row : row + 1]).item() for row in range(ROWS)]
        assert encoding.head.loss(task, whole, target).item() == pytest.approx(np.mean(apart), abs=1e-5)


@pytest.mark.parametrize("kind", HEADS)
def test_training_lowers_the_loss(kind: str) -> None:
    for task, encoding in legal(kind):
        if encoding.pooling in ("mean", "max"):
            continue  # to a head they are what cls is
        head, inputs = build(task, encoding), tuple(x.requires_grad_() for x in states(encoding.paired))
        optimizer = torch.optim.Adam([*head.parameters(), *inputs], lr=0.05)
        losses = []
        for _ in range(15):
            loss = encoding.head.loss(task, head(inputs, SILENT), labels(task))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0], (task.name, encoding)


@pytest.mark.parametrize("kind", HEADS)
def test_zero_states_have_finite_outputs_and_gradients(kind: str) -> None:
    """A cosine has no direction at 0; it is 0 there."""
    for task, encoding in legal(kind):
        inputs = tuple(torch.zeros(ROWS, WIDTH, requires_grad=True) for _ in range(1 + encoding.paired))
        outputs = build(task, encoding)(inputs, SILENT)
        encoding.head.loss(task, outputs, labels(task)).backward()
        assert torch.isfinite(outputs).all() and all(torch.isfinite(x.grad).all() for x in inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", HEADS)
def test_trains_says_whether_there_are_weights_besides_the_pooler(kind: str) -> None:
    for task, encoding in legal(kind):
        names = [name for name, _ in build(task, encoding).named_parameters()]
        assert encoding.head.trains == any(not name.startswith("pooler.") for name in names)
        assert (encoding.pooling == "pooler") == any(name.startswith("pooler.") for name in names)


# Features and transforms ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("features", FEATURES)
def test_pair_features_by_hand(features: str) -> None:
    u, v = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 5.0]])
    expected = {
        "concat": [1, -2, 3, 5],
        "sum": [4, 3],
        "product": [1, -2, 3, 5, 3, -10],
        "difference": [1, -2, 3, 5, 2, 7],
        "cosine": [1, -2, 3, 5, -7 / math.sqrt(5 * 34)],
    }[features]
    chosen = FEATURES[features]
    assert chosen.combine(u, v)[0].tolist() == pytest.approx(expected) and len(expected) == chosen.width(2)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("task", [STS, replace(STS, low=-2, high=1)])
def test_a_fresh_cosine_head_is_the_scaled_cosine(transform: str, task: Task) -> None:
    unit = {
        "relu": lambda c: max(c, 0.0),
        "shift": lambda c: (c + 1) / 2,
        "sigmoid": lambda c: 1 / (1 + math.exp(-20 * c)),
    }[transform]
    u, v = torch.randn(9, WIDTH), torch.randn(9, WIDTH)
    cosines = ((u * v).sum(-1) / u.norm(dim=-1) / v.norm(dim=-1)).tolist()
    expected = [task.low + (task.high - task.low) * unit(c) for c in cosines]
    for layer in ("linear", "none"):  # the layer starts as the identity
        head = build(task, Bi(head=CosineHead(transform, layer)))
        assert head((u, v), SILENT)[:, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_the_layer_of_a_cosine_head_moves_both_sentences() -> None:
    head = build(STS, Bi(head=CosineHead("shift")))
    weight, bias = torch.randn(WIDTH, WIDTH), torch.randn(WIDTH)
    head.load_state_dict({"linear.weight": weight, "linear.bias": bias})
    u, v = states(True)
    expected = 2.5 * (F.cosine_similarity(u @ weight.T + bias, v @ weight.T + bias) + 1)
    assert torch.allclose(head((u, v), SILENT)[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize(("task", "column"), [(QQP, 1), (STS, 0)])
def test_the_added_cosine_moves_the_score_or_the_logit_of_class_1(features: str, task: Task, column: int) -> None:
    u, v = states(True)
    plain, added = (build(task, Bi(head=LinearHead(features, how))) for how in ("none", "added"))
    difference = added((u, v), SILENT) - plain((u, v), SILENT)
    expected = torch.zeros(ROWS, task.classes)
    expected[:, column] = F.cosine_similarity(u, v)
    assert torch.allclose(difference, expected, atol=1e-6)


def test_two_logits_with_an_added_score_are_one_logit_with_it() -> None:
    logits, score = torch.randn(5, 2), torch.randn(5, 1)
    probability = add_score(logits, score).softmax(-1)[:, 1]
    assert torch.allclose(probability, torch.sigmoid(logits[:, 1] - logits[:, 0] + score[:, 0]), atol=1e-6)


def test_a_learned_sigmoid_learns_where_the_fixed_one_is_flat() -> None:
    """At a cosine of 0.95 the gradient of 5 sigmoid(20 cos) is exactly 0 in float32."""
    u = torch.nn.functional.normalize(torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)
    v = 0.95 * u + (1 - 0.95**2) ** 0.5 * torch.nn.functional.normalize(
        torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    slopes = {}
    for transform in ("sigmoid", "learned_sigmoid"):
        module = build(STS, Bi(head=CosineHead(transform, "none")))
        states = u.clone().requires_grad_()
        outputs = module((states, v), SILENT)
        outputs.sum().backward()
        slopes[transform] = states.grad.abs().max().item()
        if transform == "learned_sigmoid":
            cosines = torch.nn.functional.cosine_similarity(u, v)
            torch.testing.assert_close(outputs[:, 0], 5 * torch.sigmoid(5 * (cosines - 0.5)))
            assert all(value.grad is not None and value.grad != 0 for value in module.parameters())
            assert len(list(module.parameters())) == 2
    assert slopes["sigmoid"] == 0 and slopes["learned_sigmoid"] > 1e-2


def test_a_linear_head_is_its_equation_and_starts_in_the_middle_of_a_regression() -> None:
    head = build(STS, Bi(head=LinearHead("cosine")))
    weights = head.state_dict()
    assert weights["linear.weight"].shape == (1, 2 * WIDTH + 1)
    u, v = states(True)
    x = torch.cat([u, v, F.cosine_similarity(u, v)[:, None]], dim=-1)
    assert torch.allclose(head((u, v), SILENT), x @ weights["linear.weight"].T + 2.5, atol=1e-6)
    assert build(STS, Cross())((torch.zeros(1, WIDTH),), SILENT).item() == 2.5


# Losses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.0, 0.3, 1.0])
def test_cosine_embedding_equals_torch_with_its_gradients(margin: float) -> None:
    u, v = torch.randn(40, WIDTH), torch.randn(40, WIDTH)
    target = torch.rand(40) * 5
    target[:2] = 2.5  # a label at the threshold is similar
    head = CosineEmbeddingHead(2.5, margin)
    our_states, their_states = ([x.clone().requires_grad_() for x in (u, v)] for _ in range(2))
    ours = head.loss(STS, build(STS, Bi(head=head))(tuple(our_states), SILENT), target)
    sign = torch.where(target >= 2.5, 1.0, -1.0)
    theirs = torch.nn.CosineEmbeddingLoss(margin=margin)(*their_states, sign)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    for a, b in zip(torch.autograd.grad(ours, our_states), torch.autograd.grad(theirs, their_states), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.5, 2.5, 4.0])
def test_the_threshold_is_in_label_units(threshold: float) -> None:
    head = CosineEmbeddingHead(threshold, 0.0)
    outputs = torch.tensor([[5.0], [0.0]])  # cosines 1 and -1: no loss where similar and dissimilar in turn
    assert head.loss(STS, outputs, torch.tensor([threshold, threshold - 0.1])).item() == 0
    assert head.loss(STS, outputs, torch.tensor([threshold - 0.1, threshold])).item() == pytest.approx((1 + 2) / 2)


def test_losses_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [math.log(4), 0.0]])
    expected = -(math.log(3 / 4) + math.log(1 / 5)) / 2
    assert cross_entropy(logits, torch.tensor([1.0, 1.0])).item() == pytest.approx(expected)
    assert squared_error(torch.tensor([[1.0], [4.0]]), torch.tensor([0.0, 2.0])).item() == 2.5
    cosines, similar = torch.tensor([0.5, 0.5, 0.1]), torch.tensor([True, False, False])
    assert cosine_embedding(cosines, similar, 0.2).item() == pytest.approx((0.5 + 0.3 + 0.0) / 3)


@pytest.mark.slow  # imports sentence-transformers
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_cosine_losses_equal_sentence_transformers(transform: str) -> None:
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    target = torch.rand(ROWS) * 5
    our_states, their_states = ([x.clone().requires_grad_() for x in states(True)] for _ in range(2))
    head = CosineHead(transform, "none")
    ours = head.loss(STS, build(STS, Bi(head=head))(tuple(our_states), SILENT), target)
    witness = losses.CosineSimilarityLoss(torch.nn.Identity(), cos_score_transformation=TRANSFORMS[transform])
    theirs = 25 * witness.compute_loss_from_embeddings(their_states, target / 5)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    for a, b in zip(torch.autograd.grad(ours, our_states), torch.autograd.grad(theirs, their_states), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


# The shared head -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SHARED_HEADS)
def test_shared_heads_give_one_score_or_nothing(kind: str) -> None:
    entry = SHARED_HEADS[kind]()
    first, second = (entry.build(WIDTH, generator()) for _ in range(2))
    assert entry.kind == kind and entry.active == (first is not None)
    if first is not None and second is not None:
        scores = first(states(True), Noise(generator(2), 0.0, 0.0, 0.3))
        assert scores.shape == (ROWS, 1) and scores.dtype == torch.float32
        assert torch.equal(scores, second(states(True), Noise(generator(2), 0.0, 0.0, 0.3)))


@pytest.mark.parametrize("pooling", TOKEN_POOLING)
@pytest.mark.parametrize(("task", "column"), [(QQP, 1), (STS, 0)])
def test_the_shared_layer_adds_its_score_to_the_heads_output(pooling: str, task: Task, column: int) -> None:
    shared = SharedModule(WIDTH, generator(9))
    weights = (torch.randn(WIDTH, WIDTH), torch.randn(WIDTH))
    head, (u, v) = build(task, Bi(pooling=pooling), weights), states(True)
    pooled = [torch.tanh(F.linear(x, *weights)) if pooling == "pooler" else x for x in (u, v)]
    expected = torch.zeros(ROWS, task.classes)
    expected[:, column] = torch.cat(pooled, -1) @ shared.linear.weight[0] + shared.linear.bias
    assert torch.allclose(head((u, v), SILENT, shared) - head((u, v), SILENT), expected, atol=1e-6)
    gradients = torch.autograd.grad(
        encoding_loss(task, head((u, v), SILENT, shared)), [*shared.parameters(), *head.parameters()]
    )
    assert all(torch.isfinite(g).all() and g.any() for g in gradients)


def encoding_loss(task: Task, outputs: Tensor) -> Tensor:
    return LinearHead().loss(task, outputs, labels(task))


# Refusals ------------------------------------------------------------------------------------------------------------

NLI = replace(QQP, name="nli", classes=3, high=2)


@pytest.mark.parametrize(
    ("encoding", "task", "message"),
    [
        (Cross(head=CosineHead()), STS, r"`encoding/sts/head/kind` cosine compares two .*/kind` cross does not have"),
        (Single(head=CosineEmbeddingHead()), SST, r"`encoding/sst/head/kind` cosine_embedding compares two"),
        (Bi(head=CosineHead()), QQP, r"cosine gives a score, and qqp predicts classes; use linear"),
        (Bi(head=CosineEmbeddingHead()), QQP, r"cosine_embedding gives a score, and qqp predicts classes"),
        (Cross(head=LinearHead("cosine")), QQP, r"`encoding/qqp/head/features` cosine combines two sentence states"),
        (
            Cross(head=LinearHead(cosine="added")),
            QQP,
            r"`encoding/qqp/head/cosine` added compares two .* use encoding bi",
        ),
        (Single(head=LinearHead(cosine="added")), SST, r"`encoding/sst/head/cosine` added compares two"),
        (Bi(head=LinearHead(cosine="added")), NLI, r"`encoding/nli/head/cosine` added .* nli has 3 classes; use none"),
        (Bi(head=CosineEmbeddingHead(0.0)), STS, r"above 0 and at most 5, found 0.0"),
        (Bi(head=CosineEmbeddingHead(5.5)), STS, r"`encoding/sts/head/threshold` must divide the labels.* found 5.5"),
    ],
)
def test_heads_refuse_what_makes_no_sense(encoding: Encoding, task: Task, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoding.check(task)


def test_only_pairs_with_a_score_or_two_classes_share_a_layer() -> None:
    assert sharing(TASKS) == ("qqp", "sts")
    assert sharing({"nli": NLI, "sts": STS, "sst": SST}) == ("sts",)


@pytest.mark.parametrize(
    ("encodings", "tasks", "message"),
    [
        (
            {"qqp": Bi(), "sts": Cross()},
            (QQP, STS),
            r"`encoding/sts/kind` cross does not have. Use encoding bi for qqp, sts",
        ),
        (
            {"qqp": Bi(), "sts": Bi(head=CosineHead())},
            (QQP, STS),
            r"`encoding/sts/head/kind` cosine gives a scaled cosine",
        ),
        ({"sst": Single(), "qqp": Bi()}, (SST, QQP), r"needs at least two pair tasks .*; found qqp. Use none"),
        ({"sst": Single()}, (SST,), r"needs at least two pair tasks .*; found none"),
    ],
)
def test_a_shared_head_refuses_tasks_that_it_does_not_fit(
    encodings: dict[str, Encoding], tasks: tuple[Task, ...], message: str
) -> None:
    table = {task.name: task for task in tasks}
    with pytest.raises(ConfigError, match=message):
        check_shared(LinearSharedHead(), encodings, table)
    check_shared(NoSharedHead(), encodings, table)


def test_a_shared_head_fits_bi_encoded_linear_heads_of_any_pooling() -> None:
    encodings = {"sst": Single(), "qqp": Bi(head=LinearHead("product", "added")), "sts": Bi(pooling="mean")}
    check_shared(LinearSharedHead(), encodings, {task.name: task for task in (SST, QQP, STS)})


@pytest.mark.parametrize("head", [CosineHead(layer="none"), CosineEmbeddingHead()])
def test_a_frozen_encoder_needs_something_to_train(head: Head) -> None:
    tasks = {"sts": STS}
    with pytest.raises(ConfigError, match="nothing would be trained"):
        check_frozen({"sts": Bi(head=head)}, tasks)
    check_frozen({"sts": Bi(head=head, pooling="pooler")}, tasks)
    check_frozen({"sts": Bi(head=CosineHead())}, tasks)


def test_cosine_keeps_rows_apart_and_is_one_for_equal_states() -> None:
    u = torch.randn(3, WIDTH)
    assert torch.allclose(cosine(u, 2 * u), torch.ones(3, 1), atol=1e-6) and cosine(u.bfloat16(), u).shape == (3, 1)
