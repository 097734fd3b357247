"""LoRA and DoRA against their equations and peft, PAL against a second implementation."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minbert.encoder.base import Base, BaseEncoderError, find_base, tensor_names
from minbert.encoder.bert import Bert
from minbert.encoder.lowrank import (
    Adapted,
    DoRALinear,
    LoRALinear,
    TaskBranches,
    dora_weight,
    lora_weight,
    merge,
    row_norms,
)
from minbert.encoder.noise import dropout
from minbert.techniques.adapters import TARGETS, DoRA, LoRA, TopLayers
from tests.minbert.encoder.test_bert import by_sequence, packed, sequences
from tests.minbert.techniques.test_adapters import TASKS, VARIANTS, Model, loaded, stir

# LoRA and DoRA -------------------------------------------------------------------------------------------------------


def linear(kind: type[LoRALinear], rate: float = 0.0, rank: int = 4, bias: bool = True) -> LoRALinear:
    """An adapted layer of 12 inputs and 20 outputs, away from its start."""
    torch.manual_seed(1)
    layer = kind(nn.Linear(12, 20, bias=bias), rank, 8.0, rate, torch.Generator().manual_seed(1))
    stir(layer)
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_lora_and_dora_equal_their_equations(bias: bool) -> None:
    x = torch.randn(5, 12)
    lora, dora = linear(LoRALinear, bias=bias), linear(DoRALinear, bias=bias)
    assert isinstance(dora, DoRALinear)
    shift = lora.base.bias if bias else 0.0
    assert torch.allclose(lora(x), x @ (lora.base.weight + 8.0 / 4 * lora.up @ lora.down).T + shift, atol=1e-5)
    direction = dora.base.weight + 8.0 / 4 * dora.up @ dora.down
    lengths = torch.stack([row.square().sum().sqrt() for row in direction])
    rows = torch.stack([m * row / length for m, row, length in zip(dora.magnitude, direction, lengths, strict=True)])
    assert torch.allclose(dora(x), x @ rows.T + shift, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 4, 30])
def test_norms_of_rows_without_the_sum(rank: int) -> None:
    weight, down, up = torch.randn(20, 12), torch.randn(rank, 12), torch.randn(20, rank)
    expected = lora_weight(weight, down, up, 0.7).norm(dim=1)
    assert torch.allclose(row_norms(weight, down, up, 0.7), expected, rtol=1e-5)
    merged = dora_weight(weight, down, up, 0.7, torch.arange(20.0))
    assert torch.allclose(merged.norm(dim=1), torch.arange(20.0), rtol=1e-4)


def test_dora_survives_a_layer_of_zeros() -> None:
    base = nn.Linear(12, 20)
    nn.init.zeros_(base.weight)
    layer = DoRALinear(base, 4, 8.0, 0.5, torch.Generator())
    x = torch.randn(5, 12)
    assert torch.equal(layer(x), base(x))
    layer.generator = torch.Generator()
    layer(x).sum().backward()
    assert all(value.grad.isfinite().all() for value in layer.parameters() if value.requires_grad)


@pytest.mark.parametrize("variant", [name for name, adapter in VARIANTS.items() if isinstance(adapter, LoRA)])
def test_merged_equals_unmerged_in_a_plain_encoder(variant: str, tiny: Base) -> None:
    model, batch = Model(VARIANTS[variant], tiny), packed(tiny)
    stir(model)
    expected = [model(batch, task) for task in TASKS]
    merge(model)
    assert set(model.encoder.state_dict()) == set(tiny.load().state_dict())
    assert not any(isinstance(module, Adapted) for module in model.modules())
    for task, outputs in zip(TASKS, expected, strict=True):
        assert torch.allclose(model(batch, task), outputs, atol=1e-4, rtol=1e-4)


class Mask(nn.Module):
    """Our dropout in place of peft's."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.generator = rate, torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.rate, self.generator)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LoRALinear, DoRALinear])
def test_dropout_equals_peft_with_the_same_masks(kind: type[LoRALinear]) -> None:
    peft = pytest.importorskip("peft")
    ours, x = linear(kind, rate=0.4), torch.randn(50, 12)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.4, use_dora=kind is DoRALinear, target_modules=["0"], init_lora_weights=False
    )
    theirs = peft.get_peft_model(nn.Sequential(copy.deepcopy(ours.base)), config).train()
    layer = theirs.base_model.model[0]
    layer.lora_dropout["default"] = Mask(0.4)
    pairs = [(ours.down, layer.lora_A["default"].weight), (ours.up, layer.lora_B["default"].weight)]
    if isinstance(ours, DoRALinear):
        pairs.append((ours.magnitude, layer.lora_magnitude_vector["default"].weight))
    with torch.no_grad():
        for own, their in pairs:
            their.copy_(own)
    ours.generator = torch.Generator().manual_seed(3)
    actual, expected = ours(x), theirs(x)
    assert torch.allclose(actual, expected, atol=1e-5) and not torch.allclose(actual, linear(kind)(x), atol=1e-2)
    for output in (actual, expected):
        output.square().mean().backward()
    for own, their in pairs:
        assert torch.allclose(own.grad, their.grad, atol=1e-5), own.shape  # type: ignore[arg-type]


PEFT_TARGETS = {
    "query": "query",
    "key": "key",
    "value": "value",
    "output": r"attention\.output\.dense",
    "up": r"intermediate\.dense",
    "down": r"layer\.\d+\.output\.dense",
}
"""The end of each target's name in a transformers model."""

PEFT_LEAVES = {
    "down": "lora_A.default.weight",
    "up": "lora_B.default.weight",
    "magnitude": "lora_magnitude_vector.default.weight",
    "base.bias": "base_layer.bias",
}


def peft_name(name: str, base: Base) -> str:
    """The name in a peft model of one of our encoder's trained parameters."""
    names = tensor_names(base.config)
    if name in names:
        return f"base_model.model.{names[name]}"
    match = re.fullmatch(r"(layers\.\d+\.\w+)\.(.+)", name)
    assert match
    return f"base_model.model.{names[f'{match[1]}.bias'].removesuffix('bias')}{PEFT_LEAVES[match[2]]}"


def peft_model(adapter: LoRA, base: Base) -> Any:
    """The same encoder as a transformers model under peft."""
    import peft
    import transformers

    model = transformers.BertModel(transformers.BertConfig(**vars(base.config)), add_pooling_layer=False).eval()
    weights, names = base.load().state_dict(), tensor_names(base.config)
    model.load_state_dict({names[name]: value for name, value in weights.items()}, strict=True)
    reach: dict[str, Any] = {"target_modules": f".*({'|'.join(PEFT_TARGETS[name] for name in adapter.targets)})"}
    if isinstance(adapter.layers, TopLayers):  # peft takes names of layers here, no pattern
        layers = range(base.config.num_hidden_layers)[-adapter.layers.count :]
        names = list(adapter.targets)
        reach = {"target_modules": names, "layers_to_transform": list(layers), "layers_pattern": "layer"}
    config = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.numerator,
        use_dora=adapter.kind == "dora",
        bias={"none": "none", "adapted": "lora_only", "all": "all"}[adapter.bias],
        **reach,
    )
    return peft.get_peft_model(model, config)


def assert_equal_to_peft(adapter: LoRA, base: Base) -> None:
    """Trained names, their count, outputs at every token, and every trained tensor's gradient, to 1e-5."""
    encoder: Bert = base.load()
    adapter.build(encoder, nn.ModuleDict(), TASKS, torch.Generator().manual_seed(0))
    stir(encoder, 0.02)
    reference = peft_model(adapter, base)
    ours = {peft_name(name, base): value for name, value in encoder.named_parameters() if value.requires_grad}
    theirs = {name: value for name, value in reference.named_parameters() if value.requires_grad}
    assert ours.keys() == theirs.keys()
    assert sum(value.numel() for value in ours.values()) == reference.get_nb_trainable_parameters()[0]
    with torch.no_grad():
        for name, value in theirs.items():
            value.copy_(ours[name])
    every, batch = sequences(base), packed(base)
    longest = max(len(ids) for ids, _ in every)
    ids = torch.stack([F.pad(torch.from_numpy(ids).long(), (0, longest - len(ids))) for ids, _ in every])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in every])
    expected = reference(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    actual = torch.cat(by_sequence(encoder(batch), batch))
    assert (actual - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item())
    direction = torch.randn(actual.shape, generator=torch.Generator().manual_seed(2)) / len(actual)
    for states in (actual, expected):
        (states * direction).sum().backward()
    for name, value in ours.items():
        assert value.grad is not None and theirs[name].grad is not None, name
        assert (value.grad - theirs[name].grad).abs().max() < 1e-5 * max(1.0, value.grad.abs().max().item()), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("targets", "bias"),
    [(("query", "value"), "none"), (TARGETS, "adapted"), (("key", "output"), "all"), (("down",), "none")],
)
@pytest.mark.parametrize("kind", [LoRA, DoRA])
def test_encoders_equal_peft(kind: type[LoRA], targets: tuple[str, ...], bias: str, tiny: Base) -> None:
    pytest.importorskip("peft")
    assert_equal_to_peft(kind(rank=3, alpha=5.0, targets=targets, bias=bias), tiny)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LoRA, DoRA])
def test_top_layers_equal_peft(kind: type[LoRA], tiny: Base) -> None:
    pytest.importorskip("peft")
    assert_equal_to_peft(kind(rank=3, targets=("query", "value"), bias="adapted", layers=TopLayers(1)), tiny)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [LoRA, DoRA])
def test_minilm_equals_peft(kind: type[LoRA]) -> None:
    pytest.importorskip("peft")
    try:
        minilm = find_base()
    except BaseEncoderError as error:
        pytest.skip(str(error))
    assert_equal_to_peft(kind(rank=16, alpha=32.0, targets=TARGETS, bias="adapted"), minilm)


# PAL -----------------------------------------------------------------------------------------------------------------


def layer_by_hand(layer: nn.Module, h: Tensor, task: str) -> Tensor:
    """LN(h' + FFN(h') + TS(h)) with h' = LN(h + SA(h)), one sequence [T, D], head after head."""
    values = dict(layer.named_parameters())

    def apply(name: str, x: Tensor) -> Tensor:
        return x @ values[f"{name}.weight"].T + values[f"{name}.bias"]

    def normalise(name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
        return scaled * values[f"{name}.weight"] + values[f"{name}.bias"]

    width = h.shape[-1] // layer.heads  # type: ignore[operator]
    mixed = []
    for q, k, v in zip(*(apply(name, h).split(width, -1) for name in ("query", "key", "value")), strict=True):
        mixed.append(torch.softmax(q @ k.T / width**0.5, -1) @ v)
    after = normalise("attention_norm", h + apply("output", torch.cat(mixed, -1)))
    up = apply("up", after)
    inner = apply("down", up * 0.5 * (1 + torch.erf(up / 2**0.5)))
    branch = apply(f"parallel.branches.{task}.up", apply(f"parallel.branches.{task}.down", h))
    return normalise("norm", after + inner + branch)


@pytest.mark.parametrize("encoder", ["frozen", "trained"])
@pytest.mark.parametrize("task", TASKS)
def test_pal_against_a_second_implementation(task: str, encoder: str, tiny: Base) -> None:
    model, batch = Model(loaded("pal", rank=3, encoder=encoder), tiny), packed(tiny)
    stir(model, 0.05)
    actual = model(batch, task)
    rows = []
    for ids, _ in sequences(tiny):
        tables = model.encoder.embeddings
        words = tables.word.weight[ids] + tables.position.weight[: len(ids)] + tables.segment.weight[0]
        states = F.layer_norm(words, words.shape[-1:], tables.norm.weight, tables.norm.bias, 1e-12)
        for layer in model.encoder.layers:
            states = layer_by_hand(layer, states, task)
        rows.append(model.heads[task](states[0]))
    expected = torch.stack(rows)
    assert torch.allclose(actual, expected, atol=1e-5)
    trained = list(model.trained().values())
    gradients = [torch.autograd.grad(x.square().mean(), trained, allow_unused=True) for x in (actual, expected)]
    for (name, _), own, other in zip(model.trained().items(), *gradients, strict=True):
        assert (own is None) == (other is None), name
        assert own is None or torch.allclose(own, other, atol=1e-5 * max(1.0, other.abs().max().item())), name


def test_a_task_trains_its_own_branch_alone(tiny: Base) -> None:
    model = Model(loaded("pal"), tiny)
    stir(model)
    model(packed(tiny), "sts").sum().backward()
    touched = {name for name, value in model.trained().items() if value.grad is not None}
    assert touched == {name for name in model.trained() if "sst" not in name}


def test_pal_drops_the_branch_at_its_tasks_rate() -> None:
    branches = TaskBranches(40, 3, {"sst": 0.5, "sts": 0.0}, torch.Generator().manual_seed(0))
    stir(branches)
    h = torch.randn(500, 40)
    branches.task = "sst"
    whole = branches(h)
    branches.generator = torch.Generator().manual_seed(1)
    kept = branches(h) / whole
    assert torch.isclose(kept, torch.tensor(2.0)).logical_or(kept == 0).all()
    assert abs((kept == 0).float().mean().item() - 0.5) < 0.02
    branches.task = "sts"
    assert torch.equal(branches(h), branches.branches["sts"](h))


@pytest.mark.parametrize(("task", "message"), [(None, "needs `task` set"), ("qqp", "no branch for task `qqp`")])
def test_pal_needs_the_task_of_the_pass(task: str | None, message: str) -> None:
    branches = TaskBranches(4, 2, {"sst": 0.1}, torch.Generator())
    branches.task = task
    with pytest.raises(AssertionError, match=message):
        branches(torch.zeros(1, 4))
