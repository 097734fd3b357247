"""Properties of every adapter, and what each trains; `test_lowrank` has the reference implementations."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from minbert.encoder.base import Base
from minbert.encoder.bert import Bert
from minbert.encoder.lowrank import Adapted
from minbert.encoder.noise import Noise
from minbert.encoder.packed import Packed
from minbert.fields import ConfigError, Run, load
from minbert.techniques.adapters import ADAPTERS, PAL, TARGETS, Adapter, DoRA, Frozen, LoRA, TopLayers
from tests.minbert.encoder.test_bert import by_sequence, packed

TASKS = ("sst", "sts")


def loaded(kind: str, **values: Any) -> Adapter:
    """An adapter over the two tasks; fields that `values` leaves out have their defaults."""
    return load(ADAPTERS[kind], values, run=Run(dict.fromkeys(TASKS)))


VARIANTS: dict[str, Adapter] = {
    **{kind: loaded(kind) for kind in ADAPTERS},
    "lora of everything": LoRA(3, 4.0, 0.3, TARGETS, "all", "lora", "trained"),
    "dora of everything": DoRA(3, 4.0, 0.3, TARGETS, "all", "lora", "trained"),
    "lora in the top layer": LoRA(3, targets=TARGETS, layers=TopLayers(1), heads="lora", bias="adapted"),
    "dora in the top layer": DoRA(3, layers=TopLayers(1)),
    "dora of up": DoRA(rank=40, targets=("up",), bias="adapted"),
    "pal and encoder": loaded("pal", rank=5, encoder="trained"),
}
"""Every kind with its defaults, and its fields at other values."""


class Model(nn.Module):
    """An adapted encoder with one linear head per task."""

    def __init__(self, adapter: Adapter, base: Base, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.encoder: Bert = base.load()
        self.heads = nn.ModuleDict({task: nn.Linear(base.config.hidden_size, 5) for task in TASKS})
        for head in self.heads.parameters():
            nn.init.normal_(head, generator=generator)
        self.heads["sts"] = nn.Sequential(self.heads["sts"])  # a linear layer deeper down
        adapter.build(self.encoder, self.heads, TASKS, generator)

    def forward(self, batch: Packed, task: str, generator: torch.Generator | None = None) -> Tensor:
        for module in self.modules():
            if isinstance(module, Adapted):
                module.generator, module.task = generator, task
        states = self.encoder(batch, Noise(generator, 0.0, 0.0, 0.0), first_only=True)
        outputs: Tensor = self.heads[task](states)
        return outputs

    def trained(self) -> dict[str, nn.Parameter]:
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def stir(module: nn.Module, scale: float = 0.1) -> None:
    """Move every trained tensor away from its initial value."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for value in module.parameters():
            if value.requires_grad:
                value.add_(torch.randn(value.shape, generator=generator), alpha=scale)


# Properties of every adapter -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_fresh_adapter_changes_no_output(variant: str, tiny: Base) -> None:
    model, plain, batch = Model(VARIANTS[variant], tiny), Model(ADAPTERS["frozen"](), tiny), packed(tiny)
    for task in TASKS:
        assert torch.equal(model(batch, task), plain(batch, task))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_trained_part_is_as_the_adapter_says(variant: str, tiny: Base) -> None:
    adapter, model = VARIANTS[variant], Model(VARIANTS[variant], tiny)
    said, layers = adapter.trained(tiny.traits, len(TASKS)), model.encoder.layers
    assert said.words is model.encoder.embeddings.word.weight.requires_grad
    linear = [layer.up.weight.requires_grad for layer in layers if isinstance(layer.up, nn.Linear)]
    assert said.layers is any(linear)
    trained = [any(value.requires_grad for value in layer.parameters()) for layer in layers]
    assert said.still == (trained.index(True) if any(trained) else len(layers))
    added = sum(value.numel() for name, value in model.encoder.named_parameters() if adapter.adds(name))
    # The vectors of DoRA and PAL do not count, and the tiny encoder's inner width is 2 D, not 4 D.
    assert added * 0.6 <= said.added <= added * 1.7 and (said.multiplications > 0) is (added > 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_frozen_stays_and_what_is_trained_moves(variant: str, tiny: Base) -> None:
    model, batch = Model(VARIANTS[variant], tiny), packed(tiny)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)  # it gets the frozen parameters too
    for _ in range(3):  # A moves once B has
        optimizer.zero_grad()
        sum(model(batch, task).square().sum() for task in TASKS).backward()  # type: ignore[union-attr]
        optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(model.trained())
    assert any(name.startswith("heads.") for name in moved)


@pytest.mark.parametrize("variant", VARIANTS)
def test_trained_tensors_alone_restore_a_model(variant: str, tiny: Base) -> None:
    first, batch = Model(VARIANTS[variant], tiny), packed(tiny)
    stir(first)
    second = Model(VARIANTS[variant], tiny)
    mismatch = second.load_state_dict(first.trained(), strict=False)
    assert not mismatch.unexpected_keys
    for task in TASKS:
        assert torch.equal(first(batch, task), second(batch, task))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_seed_alone_decides_the_start(variant: str, tiny: Base) -> None:
    first, second = (Model(VARIANTS[variant], tiny, 4).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("variant", VARIANTS)
def test_dropout_comes_from_the_generator_alone(variant: str, tiny: Base) -> None:
    model, batch = Model(VARIANTS[variant], tiny), packed(tiny)
    stir(model)
    first, again, other = (model(batch, "sst", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    drops = isinstance(VARIANTS[variant], LoRA | PAL) and VARIANTS[variant].dropout
    assert torch.equal(first, again) and torch.equal(first, other) != bool(drops)
    assert torch.equal(first, model(batch, "sst")) != bool(drops)


@pytest.mark.parametrize("variant", VARIANTS)
def test_copies_and_pickles_even_after_a_training_pass(variant: str, tiny: Base) -> None:
    model, batch = Model(VARIANTS[variant], tiny), packed(tiny)
    model(batch, "sst", torch.Generator().manual_seed(1))
    for duplicate in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert torch.equal(duplicate(batch, "sts"), model(batch, "sts"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_stays_near_float32(variant: str, tiny: Base) -> None:
    model, batch = Model(VARIANTS[variant], tiny), packed(tiny)
    stir(model, 0.02)
    exact = model(batch, "sst")
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(batch, "sst", torch.Generator())
        if not getattr(VARIANTS[variant], "dropout", 0.0):
            assert (rough - exact).abs().max() < 0.02 * exact.abs().max()
    assert rough.dtype == torch.bfloat16
    rough.float().square().sum().backward()
    gradients = [value.grad for name, value in model.trained().items() if "sts" not in name and "pooler" not in name]
    assert all(gradient is not None and gradient.dtype == torch.float32 for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_last_layer_for_cls_alone_equals_the_whole(variant: str, tiny: Base) -> None:
    model, batch = Model(VARIANTS[variant], tiny), packed(tiny)
    stir(model)
    model(batch, "sst")  # sets the task
    expected = torch.stack([states[0] for states in by_sequence(model.encoder(batch), batch)])
    assert torch.allclose(model.encoder(batch, first_only=True), expected, atol=1e-5)


# What is trained -----------------------------------------------------------------------------------------------------


def test_names_in_checkpoints_are_stable(tiny: Base) -> None:
    def first_layer(adapter: Adapter) -> set[str]:
        names = Model(adapter, tiny).trained()
        return {name.removeprefix("encoder.layers.0.") for name in names if name.startswith(("encoder.layers.0.", "h"))}

    heads = {"heads.sst.weight", "heads.sst.bias", "heads.sts.0.weight", "heads.sts.0.bias"}
    assert first_layer(LoRA(targets=("query",))) == {"query.down", "query.up"} | heads
    assert first_layer(LoRA(targets=("up",), bias="adapted")) == {"up.down", "up.up", "up.base.bias"} | heads
    assert first_layer(DoRA(targets=("query",))) == {"query.down", "query.up", "query.magnitude"} | heads
    assert first_layer(loaded("pal", encoder="frozen")) == heads | {
        f"parallel.branches.{task}.{side}.{leaf}"
        for task, side, leaf in itertools.product(TASKS, ("down", "up"), ("weight", "bias"))
    }


@pytest.mark.parametrize("targets", [("query", "key"), ("query", "value"), ("query", "key", "value"), TARGETS])
@pytest.mark.parametrize("kind", [LoRA, DoRA])
def test_low_rank_layers_add_their_widths(kind: type[LoRA], targets: tuple[str, ...], tiny: Base) -> None:
    shapes = [getattr(layer, name).weight.shape for layer in tiny.load().layers for name in targets]
    trained = Model(kind(rank=3, targets=targets), tiny).encoder.parameters()
    expected = sum(3 * (rows + columns) + (rows if kind is DoRA else 0) for rows, columns in shapes)
    assert sum(value.numel() for value in trained if value.requires_grad) == expected


@pytest.mark.parametrize("bias", ["none", "adapted", "all"])
@pytest.mark.parametrize("kind", [LoRA, DoRA])
def test_heads_with_an_addition_train_no_weight_of_their_own(kind: type[LoRA], bias: str, tiny: Base) -> None:
    trained = {name for name in Model(kind(bias=bias, heads="lora"), tiny).trained() if name.startswith("heads.")}
    leaves = {"down", "up"} | ({"magnitude"} if kind is DoRA else set()) | ({"base.bias"} if bias != "none" else set())
    assert trained == {f"heads.{head}.{leaf}" for head in ("sst", "sts.0") for leaf in leaves}


def test_the_rest_is_embeddings_and_normalisations(tiny: Base) -> None:
    additional = set(Model(LoRA(rest="trained"), tiny).trained()) - set(Model(LoRA(), tiny).trained())
    expected = {name for name, _ in tiny.load().named_parameters() if "embeddings." in name or "norm." in name}
    assert additional == {f"encoder.{name}" for name in expected}


@pytest.mark.parametrize("kind", [LoRA, DoRA])
def test_the_top_layers_alone_are_those_of_all_layers(kind: type[LoRA], tiny: Base) -> None:
    def of(adapter: LoRA) -> set[str]:
        return {name for name in Model(adapter, tiny).trained() if name.startswith("encoder.")}

    everywhere, top = of(kind(bias="adapted")), of(kind(bias="adapted", layers=TopLayers(1)))
    assert top == {name for name in everywhere if name.startswith("encoder.layers.1.")} and top


def test_an_encoder_is_still_below_what_is_trained_unless_it_has_dropout() -> None:
    expected = {"none": 0, "frozen": 12, "lora": 0, "dora": 0, "pal": 0}
    assert {kind: loaded(kind).frozen_layers(12) for kind in ADAPTERS} == expected
    assert Frozen(dropout="on").frozen_layers(12) == LoRA(layers=TopLayers(3, "on")).frozen_layers(12) == 0
    assert LoRA(layers=TopLayers(3)).frozen_layers(12) == 9


@pytest.mark.parametrize("count", [2, 3])
def test_as_many_top_layers_as_there_are_layers_are_refused(count: int, tiny: Base) -> None:
    message = f"`adapter/layers/count` must be below 2, the layers of .*, found {count}; .*`adapter/layers/kind` is all"
    with pytest.raises(ConfigError, match=message):
        LoRA(layers=TopLayers(count)).check(2, "tiny")
    with pytest.raises(ConfigError, match=message):
        Model(DoRA(layers=TopLayers(count)), tiny)
    LoRA(layers=TopLayers(count)).check(4, "another")


def test_pal_adds_a_branch_for_each_task_of_the_run(tiny: Base) -> None:
    width, count = tiny.config.hidden_size, tiny.config.num_hidden_layers * len(TASKS)
    trained = Model(loaded("pal", rank=7, encoder="frozen"), tiny).encoder.parameters()
    assert sum(value.numel() for value in trained if value.requires_grad) == count * (7 * (2 * width + 1) + width)
    whole = Model(loaded("pal", rank=7, encoder="trained"), tiny)
    assert len(whole.trained()) == len(list(whole.parameters()))


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("lora", {"bias": "lora_only"}, "`lora_only`.*Expected one of: adapted, all, none"),
        ("dora", {"rank": 1025}, "`adapter/rank` must be an integer from 1 to 1024, found 1025"),
        ("dora", {"heads": "none"}, "Expected one of: full, lora"),
        ("pal", {"dropout": {"sst": 0.95}}, "`adapter/dropout/sst` must be a number from 0.0 to 0.9, found 0.95"),
        ("pal", {"alpha": 2}, "Unknown parameter `adapter/alpha`"),
        ("pal", {"encoder": "full"}, "Expected one of: frozen, trained"),
    ],
)
def test_illegal_values_are_named(kind: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(ADAPTERS[kind], values, "adapter", Run(dict.fromkeys(TASKS)))
