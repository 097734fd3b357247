"""One update of the weights against a plain implementation: rates by depth, accumulation, two-phase steps, the momentum
teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from minbert.augmentation.rows import augmented
from minbert.data.tokens import Data
from minbert.encoder.traits import MINILM, Traits
from minbert.techniques.averages import follow
from minbert.techniques.balances import BALANCES
from minbert.techniques.combiners import COMBINERS, Sum
from minbert.techniques.optimizer import Optimizer, default_adapter_lr, default_encoder_lr, depth, parameter_groups
from minbert.techniques.penalty import Penalty, symmetric_kl
from minbert.training.checkpoints import TrialCheckpointError
from minbert.training.model import MultitaskModel
from minbert.training.report import State, peak_memory
from minbert.training.train import train
from minbert.training.trial import Trial
from tests.minbert.configs import configure

PLAIN = [
    *("dropout/hidden=0", "dropout/attention=0", "dropout/head=0"),
    "optimizer/schedule/kind=constant",
    "precision=float32",  # on a machine with native bf16 other sums of the same rows differ by more than rounding
]


def make_trial(data: Data, folder: Path, *pairs: str) -> Trial:
    config = configure(*PLAIN, *pairs)
    return Trial(config, data, State.fresh(0, (10_000,), folder), torch.device("cpu"))


def proximal(trial: Trial) -> Penalty:
    (penalty,) = trial.penalties.every_task.values()
    return penalty


def teacher(trial: Trial) -> MultitaskModel:
    model = proximal(trial).teacher
    assert isinstance(model, MultitaskModel)
    return model


def weights(trial: Trial) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trial.parameters.items()}


def assert_close(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 1e-6) -> None:
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=tolerance, msg=name)


def test_layer_decay_follows_its_equation() -> None:
    names = ["encoder.embeddings.word.weight", *(f"encoder.layers.{i}.query.weight" for i in range(12)), "heads.a.bias"]
    parameters = {name: nn.Parameter(torch.zeros(2, 2) if "weight" in name else torch.zeros(2)) for name in names}
    settings = Optimizer(encoder_lr=1e-3, head_lr=1e-2, layer_decay=0.9, weight_decay=0.1)
    groups = parameter_groups(parameters, settings, 12)
    rates = {id(value): group for group in groups for value in group["params"]}
    for layer, name in enumerate(names[:-1]):
        assert rates[id(parameters[name])]["peak"] == pytest.approx(1e-3 * 0.9 ** (12 - layer)), name
        assert rates[id(parameters[name])]["weight_decay"] == 0.1
    assert rates[id(parameters["heads.a.bias"])]["peak"] == 1e-2
    assert rates[id(parameters["heads.a.bias"])]["weight_decay"] == 0.0
    assert len(parameter_groups(parameters, Optimizer(), 12)) == 2  # without it all encoder matrices are one group


@pytest.mark.parametrize(
    ("pairs", "added"),
    [
        (("adapter/kind=lora", "adapter/rest=trained", "adapter/bias=all"), (".query.down", ".query.up")),
        (("adapter/kind=dora", "adapter/targets=up+down"), (".up.down", ".up.up", ".down.magnitude")),
        (("adapter/kind=pal", "adapter/encoder=trained"), (".parallel.branches.sst.down.weight",)),
    ],
    ids=["lora", "dora", "pal"],
)
def test_what_an_adapter_adds_has_a_rate_of_its_own(
    pairs: tuple[str, ...], added: tuple[str, ...], data: Data, tmp_path: Path
) -> None:
    rates = "optimizer/encoder_lr=0.002", "optimizer/adapter_lr=0.03", "optimizer/layer_decay=0.5"
    trial = make_trial(data, tmp_path, *pairs, *rates)
    peak = {id(value): group["peak"] for group in trial.update.optimizer.param_groups for value in group["params"]}
    fresh = {name for name in trial.parameters if name.startswith("encoder.") and (
        ".parallel." in name or name.endswith((".down", ".up", ".magnitude")))}  # fmt: skip
    assert fresh and all(any(name.endswith(end) for name in fresh) for end in added)
    layers = len(trial.model.encoder.layers)
    for name, value in trial.parameters.items():
        if name.startswith("encoder."):
            rate = 0.03 if name in fresh else 0.002
            assert peak[id(value)] == pytest.approx(rate * 0.5 ** (layers - depth(name))), name
        else:
            assert peak[id(value)] == trial.config.optimizer.head_lr, name


def test_default_rates_follow_the_width_and_the_depth_of_the_base() -> None:
    rates = [default_encoder_lr(base) for base in (MINILM, Traits(768, 12, "cls"), Traits(1024, 24, "cls"))]
    assert rates == [2e-4, 5e-5, 2.3e-5]
    assert 2e-5 <= rates[1] <= 5e-5  # Devlin et al. 2019, A.3
    assert [default_adapter_lr(base) for base in (MINILM, Traits(768, 12, "cls"))] == [2e-3, 5e-4]
    assert default_encoder_lr(Traits(32, 2, "cls")) == 5e-4 and default_encoder_lr(Traits(8192, 96, "cls")) == 1e-5


def test_a_loss_balance_has_a_rate_of_its_own(data: Data, tmp_path: Path) -> None:
    trial = make_trial(data, tmp_path, "mixing/balance/kind=uncertainty", "mixing/balance/lr=0.03")
    rates = {id(value): group["peak"] for group in trial.update.optimizer.param_groups for value in group["params"]}
    learned = {rates[id(value)] for name, value in trial.update.trained.items() if name.startswith("balance.")}
    assert learned == {0.03}
    heads = {rates[id(value)] for name, value in trial.update.trained.items() if name.startswith("heads.")}
    assert heads == {trial.config.optimizer.head_lr}


def test_two_draws_of_half_the_rows_make_the_update_of_one(data: Data, tmp_path: Path) -> None:
    # SGD in place of AdamW, whose first step is a sign: rounding would decide it where a gradient is almost 0.
    whole = make_trial(data, tmp_path / "a", "batch_size/sst=8", "batch_size/qqp=16", "batch_size/sts=4")
    halves = make_trial(
        data, tmp_path / "b", "batch_size/sst=4", "batch_size/qqp=8", "batch_size/sts=2", "optimizer/accumulation=2"
    )
    start = weights(whole)
    for trial in (whole, halves):
        group = {"params": list(trial.update.trained.values()), "lr": 0.1, "peak": 0.1}
        trial.update.optimizer = torch.optim.SGD([group])  # type: ignore[assignment]
        trial.step()
    assert whole.position.consumed == halves.position.consumed and halves.position.draws == 2
    # Sums in another order: up to 2e-6 on some CPUs, where the update moves weights by more than 0.01.
    assert_close(weights(whole), weights(halves), tolerance=1e-5)
    assert any((value - start[name]).abs().max() > 1e-2 for name, value in weights(whole).items())


def test_gse_is_a_pcgrad_step_and_a_plain_one_on_the_same_rows(data: Data, tmp_path: Path) -> None:
    gse = make_trial(data, tmp_path / "a", "mixing/combine/kind=gse")
    gse.step()
    plain = make_trial(data, tmp_path / "b", "mixing/combine/kind=pcgrad")
    plain.step()
    first = weights(plain)
    plain.position = plain.draws.start()
    plain.update.combiner = Sum().build()
    plain.step()
    assert_close(weights(gse), weights(plain))
    assert any(not torch.equal(first[name], value) for name, value in weights(gse).items())
    assert gse.means.counts["conflicts"] == gse.means.counts["sst"] == 1 and gse.means.means()["pairs"] == 3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_teacher_is_the_running_mean_of_the_weights(data: Data, tmp_path: Path, momentum: float) -> None:
    trial = make_trial(data, tmp_path, "proximal/kind=bregman", f"proximal/momentum={momentum}")
    expected = weights(trial)
    for _ in range(3):
        trial.step()
        expected = {name: (1 - momentum) * value + momentum * expected[name] for name, value in weights(trial).items()}
    assert_close(proximal(trial).state_dict(), expected)


def test_the_teacher_shares_what_is_frozen_and_is_never_trained(data: Data, tmp_path: Path) -> None:
    trial = make_trial(data, tmp_path, "proximal/kind=bregman", "adapter/kind=lora")
    own = dict(trial.model.named_parameters())
    for name, value in teacher(trial).named_parameters():
        assert (value is own[name]) == (name not in trial.parameters) and not value.requires_grad


def test_the_proximal_penalty_is_mu_times_the_divergence_from_the_teacher(data: Data, tmp_path: Path) -> None:
    trial = make_trial(data, tmp_path, "proximal/kind=bregman", "proximal/weight=3", "dropout/hidden=0.2")
    (draw,), _ = trial.draw()
    batches = draw.batches

    def generator(stream: str) -> torch.Generator:
        return torch.Generator().manual_seed(5)

    penalties = trial.step_losses(draw, generator).penalties
    assert {task: values.keys() for task, values in penalties.items()} == {task: {"bregman"} for task in data.tasks}
    # The same masks: nothing but the weights could differ.
    assert all(float(values["bregman"].detach()) == 0.0 for values in penalties.values())
    with torch.no_grad():
        for value in trial.parameters.values():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
    penalties = trial.step_losses(draw, generator).penalties
    inputs = trial.model.input(batches)
    for index, name in enumerate(("sst", "qqp")):
        mine = trial.model.outputs(inputs, batches, trial.model.noise(generator("")))[index]
        theirs = teacher(trial).outputs(inputs, batches, trial.model.noise(generator("")))[index]
        p, q = mine.softmax(-1), theirs.softmax(-1)
        expected = float(((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)).mean().detach())
        assert float(penalties[name]["bregman"].detach()) == pytest.approx(3 * expected, rel=1e-4) and expected > 0
        assert float(symmetric_kl(mine, theirs).detach()) == pytest.approx(expected, rel=1e-4)


def test_follow_is_the_closed_form() -> None:
    mean, model = {"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, -2.0])}
    follow(mean, model, 0.75)
    assert torch.equal(mean["a"], torch.tensor([1.5, 1.0]))


def test_the_peak_of_memory_is_the_trials_own(data: Data, tmp_path: Path) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("a process's peak can be reset on Linux alone")
    device, size = torch.device("cpu"), 300 * 2**20
    before = peak_memory(device)
    large = torch.ones(size // 4)
    assert peak_memory(device) > before + size // 2
    del large
    assert make_trial(data, tmp_path) and peak_memory(device) < before + size // 2


@pytest.mark.parametrize("combine", COMBINERS)
@pytest.mark.parametrize("balance", BALANCES)
def test_everything_that_is_trained_gets_a_gradient(combine: str, balance: str, data: Data, tmp_path: Path) -> None:
    trial = make_trial(data, tmp_path, f"mixing/combine/kind={combine}", f"mixing/balance/kind={balance}")
    seen = set()
    hooked = trial.update.optimizer.register_step_pre_hook(
        lambda *_: seen.update(name for name, value in trial.update.trained.items() if value.grad is not None)
    )
    trial.step()
    hooked.remove()
    assert seen == trial.update.trained.keys()
    assert any(name.startswith("balance.") for name in seen) == (balance == "uncertainty")


def test_another_file_of_augmented_rows_is_refused_on_resuming(data: Data, tmp_path: Path) -> None:
    pairs = ["augmentation/kind=edit", "augmentation/amount=0.5"]
    config = configure(*pairs)
    report = next(train(config, data, State.fresh(0, (64, 128), tmp_path)))
    again = State.resume(Path(report.checkpoint), (64, 128), tmp_path, 1)
    rows = augmented(data, config.augmentation, 0)
    assert len(rows.parts["sst", "train"]) > len(data.parts["sst", "train"]) and not data.added
    continued = Trial(config, replace(rows, added="another"), again, torch.device("cpu"))
    with pytest.raises(TrialCheckpointError, match="another `augmented rows`"):
        continued.restore(Path(report.checkpoint))


def test_scores_are_float32_whatever_the_encoder_computes_in(data: Data, tmp_path: Path) -> None:
    trial = make_trial(data, tmp_path, "precision=bf16")
    assert trial.model.dtype == torch.bfloat16
    batch = trial.draw()[0][0].batches[-1]
    (output,) = trial.model([batch])
    assert output.dtype == torch.float32 and not torch.equal(output, output.bfloat16().float())
