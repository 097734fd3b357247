"""Trials: reports, checkpoints, interruption, divergence. Interrupted and unbroken trials must be equal bit by bit."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from minbert.data.tokens import Data
from minbert.encoder.base import Base
from minbert.techniques.balances import Balance
from minbert.techniques.regularizers import Smart, smart
from minbert.training import checkpoints
from minbert.training.evaluation import Prediction, Scores, judge, predict_dev, predict_rows
from minbert.training.model import MultitaskModel
from minbert.training.predict import load_model
from minbert.training.step_losses import Penalties, StepLosses
from minbert.training.train import Report, State, train
from minbert.training.trial import Trial
from tests.minbert.configs import configure

CONFIGS = {
    "default": [],
    "dropout": ["dropout/hidden=0.1", "dropout/attention=0.1", "encoding/sst/pooling=cls", "encoding/qqp/pooling=cls"],
    "frozen": ["adapter/kind=frozen"],
    "top lora": ["adapter/kind=lora", "adapter/layers/kind=top", "adapter/heads=lora", "adapter/dropout=0.2"],
    "frozen, dropout": ["adapter/kind=frozen", "adapter/dropout=on", "dropout/hidden=0.2"],
    "lora": ["adapter/kind=lora", "adapter/dropout=0.2", "adapter/targets=query+value+up"],
    "smart": ["regularizer/sst/kind=smart", "regularizer/sts/kind=smart", "dropout/hidden=0.1"],
    "rdrop": [
        "dropout/hidden=0.1", "regularizer/sst/kind=rdrop", "regularizer/sts/kind=rdrop", "proximal/kind=bregman",
    ],
    "fgm": ["regularizer/sst/kind=fgm", "regularizer/qqp/kind=fgm", "mixing/combine/kind=pcgrad"],
    "fgm, frozen": ["adapter/kind=frozen", "regularizer/sst/kind=fgm", "regularizer/qqp/kind=rdrop"],
    "bi": ["encoding/qqp/kind=bi", "encoding/sts/kind=bi", "encoding/sts/head/kind=cosine"],
    "annealed": ["mixing/kind=annealed", "taper/sst/kind=inverse", "taper/sts/kind=logarithmic"],
    "round_robin": ["mixing/kind=round_robin", "optimizer/schedule/kind=cosine"],
    "pcgrad, uncertainty": [
        "dropout/attention=0.1", "mixing/combine/kind=pcgrad", "mixing/balance/kind=uncertainty", "mixing/multiplier=1",
    ],
    "gse, gradnorm": ["mixing/combine/kind=gse", "mixing/balance/kind=gradnorm", "optimizer/accumulation=2"],
    "bregman, best": ["proximal/kind=bregman", "selection=best", "optimizer/encoder_lr=0.01"],
    "average": ["average/kind=exponential", "average/decay=0.7"],
    "average, best": ["average/kind=exponential", "average/start=0.3", "selection=best", "optimizer/encoder_lr=0.01"],
    "dora": ["adapter/kind=dora", "adapter/heads=lora", "adapter/bias=all", "proximal/kind=bregman"],
    "pal": ["adapter/kind=pal", "adapter/encoder=trained", "mixing/kind=sequential", "encoding/sst/pooling=cls"],
    "shared head": [
        "encoding/qqp/kind=bi", "encoding/sts/kind=bi", "shared_head/kind=linear", "encoding/qqp/pooling=pooler",
        "optimizer/layer_decay=0.5",
    ],
}  # fmt: skip


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoints.read_tensors(path, "weights")


def assert_same_weights(first: Path, second: Path) -> None:
    expected, actual = weights(first), weights(second)
    assert expected.keys() == actual.keys()
    for name in expected:
        assert torch.equal(expected[name], actual[name]), name


def pause_after(polls: int) -> Callable[[], bool]:
    count = iter(range(10**9))
    return lambda: next(count) >= polls


@pytest.mark.parametrize("name", CONFIGS)
def test_interrupted_equals_unbroken(name: str, data: Data, tmp_path: Path) -> None:
    config = configure(*CONFIGS[name])
    whole = list(train(config, data, State.fresh(3, (200, 500), tmp_path / "a")))
    first = list(train(config, data, State.fresh(3, (200, 500), tmp_path / "b"), pause_after(3)))
    assert first[-1].paused and first[-1].checkpoint
    newest = checkpoints.newest(tmp_path / "b")
    assert newest is not None
    continued = list(train(config, data, State.resume(newest, (200, 500), tmp_path / "b", 1)))
    assert [report.step for report in continued][-2:] == [200, 500] or [report.step for report in continued] == [500]
    assert_same_weights(Path(whole[-1].checkpoint), Path(continued[-1].checkpoint))
    assert continued[-1].scores == whole[-1].scores
    assert continued[-1].losses == pytest.approx(whole[-1].losses, rel=1e-6)
    assert continued[-1].examples_per_task == whole[-1].examples_per_task


def test_a_pause_in_the_midst_of_an_evaluation_loses_nothing(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = list(train(configure(), data, State.fresh(3, (200, 500), tmp_path / "a")))
    evaluations = []

    def evaluating(*arguments: Any, **options: Any) -> Any:
        evaluations.append(1)
        return predict_dev(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("minbert.training.trial.predict_dev", evaluating)
        state = State.fresh(3, (200, 500), tmp_path / "b")
        first = list(train(configure(), data, state, lambda: len(evaluations) == 2))
    assert [(report.step, report.paused) for report in first] == [(200, False), (200, True)]
    assert first[-1].examples == whole[-1].examples, "only the last report is missing"
    continued = list(train(configure(), data, State.resume(Path(first[-1].checkpoint), (200, 500), tmp_path / "b", 1)))
    assert [report.step for report in continued] == [500]
    assert continued[0].scores == whole[-1].scores
    assert_same_weights(Path(whole[-1].checkpoint), Path(continued[0].checkpoint))


# The rows of a report, and the best report ---------------------------------------------------------------------------

STEPS = (128, 192, 256, 320)
ROWS = ({"sst": 4, "qqp": 5, "sts": 6}, {"sst": 6, "qqp": 5, "sts": 6}, {"sst": 6, "qqp": 9, "sts": 8}, {})


def scores_of(path: Path, data: Data, rows: Mapping[str, int]) -> Scores:
    """Scores of a checkpoint's weights on the first rows of each task's `search` part, as a user would compute them."""
    model, values = load_model(path, data, torch.device("cpu")), {}
    for task in data.tasks:
        chosen = data.parts[task, "search"][: rows.get(task)]
        values[task] = (
            predict_rows(model, data, task, "search", chosen).values, data.file(task, "dev").labels[chosen]
        )  # fmt: skip
    return judge(data.tasks, values)


def test_a_report_is_scored_on_its_milestones_rows(data: Data, tmp_path: Path) -> None:
    for report, rows in zip(
        train(configure(), data, State.fresh(0, STEPS, tmp_path, report_rows=ROWS)), ROWS, strict=True
    ):
        expected = scores_of(Path(report.checkpoint), data, rows)
        assert report.scores == pytest.approx(expected.tasks)
        assert report.overall == pytest.approx(expected.overall)


BEST = ("optimizer/encoder_lr=0.01", "optimizer/schedule/kind=constant")
"""Settings of a training whose scores rise and fall."""


def test_the_best_report_is_chosen_on_the_rows_that_all_share(data: Data, tmp_path: Path) -> None:
    """Against every report's weights, scored one by one: chosen on the first rows, reported on the present ones."""
    kept = [
        Path(shutil.copytree(report.checkpoint, tmp_path / "kept" / str(report.step)))
        for report in train(configure(*BEST), data, State.fresh(4, STEPS, tmp_path / "last", report_rows=ROWS))
    ]
    shared = [scores_of(path, data, ROWS[0]).overall for path in kept]
    chosen = [shared.index(max(shared[: count + 1])) for count in range(len(STEPS))]
    assert chosen != list(range(len(STEPS))), "some report is worse than an earlier one"
    assert len(set(chosen)) > 1, "some report is better than the first"
    best = train(configure(*BEST, "selection=best"), data, State.fresh(4, STEPS, tmp_path / "b", report_rows=ROWS))
    for place, report in enumerate(best):
        expected = scores_of(kept[chosen[place]], data, ROWS[place])
        assert report.overall == pytest.approx(expected.overall, rel=1e-6), "predicted in other batches"
        assert report.scores == pytest.approx(expected.tasks, rel=1e-6)
        earlier = () if chosen[place] == place else (f"best:{STEPS[chosen[place]]}",)
        assert report.flags == (*expected.flags, *earlier)
        assert {task: len(values) for task, values in report.evidence.items()} == {
            task: ROWS[place].get(task, len(data.parts[task, "search"])) for task in data.tasks
        }
        assert_same_weights(Path(report.checkpoint), kept[chosen[place]])


def test_the_best_report_costs_no_more_predictions_than_the_last(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report predicts as many rows as it is scored on, or fewer, so that `evaluation_shares` counts them all."""
    predicted: list[int] = []

    def counted(*arguments: Any, **options: Any) -> dict[str, Prediction]:
        predictions = predict_dev(*arguments, **options)
        predicted.append(sum(len(each.rows) for each in predictions.values()))
        return predictions

    monkeypatch.setattr("minbert.training.trial.predict_dev", counted)
    worse = 0
    for report in train(configure(*BEST, "selection=best"), data, State.fresh(4, STEPS, tmp_path, report_rows=ROWS)):
        assert sum(predicted) <= sum(len(values) for values in report.evidence.values())
        worse += any(flag.startswith("best:") for flag in report.flags)
        predicted.clear()
    assert worse, "some report is worse than an earlier one"


def test_a_pause_in_any_evaluation_leaves_the_choice_of_the_best_report_as_it_is(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a pause in the second evaluation of a report, while the model holds the weights of an earlier one."""
    config, evaluations = configure(*BEST, "selection=best"), []

    def evaluating(*arguments: Any, **options: Any) -> dict[str, Prediction]:
        evaluations.append(1)
        return predict_dev(*arguments, **options)

    monkeypatch.setattr("minbert.training.trial.predict_dev", evaluating)
    whole = list(train(config, data, State.fresh(4, STEPS, tmp_path / "whole", report_rows=ROWS)))
    total = len(evaluations)
    assert total > len(STEPS), "some report is worse than an earlier one"
    for number in range(1, total + 1):
        evaluations.clear()
        folder = tmp_path / str(number)
        state = State.fresh(4, STEPS, folder, report_rows=ROWS)
        *_, paused = train(config, data, state, lambda: len(evaluations) == number)  # noqa: B023  used at once
        assert paused.paused
        *_, last = train(config, data, State.resume(Path(paused.checkpoint), STEPS, folder, 1))
        assert (last.scores, last.overall, last.flags) == (whole[-1].scores, whole[-1].overall, whole[-1].flags)
        for name in ("weights", "optimizer"):
            expected, actual = (checkpoints.read_tensors(Path(each.checkpoint), name) for each in (whole[-1], last))
            assert actual.keys() == expected.keys()
            assert all(torch.equal(actual[key], expected[key]) for key in expected), (number, name)


def test_a_broken_prediction_is_no_best_report(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial diverges, also where an earlier report was better, and where only rows beyond the shared are broken."""

    def broken(*arguments: Any, sizes: Mapping[str, int], **options: Any) -> dict[str, Prediction]:
        predictions = predict_dev(*arguments, sizes=sizes, **options)
        if sizes == ROWS[1]:
            predictions["sst"].values[-1] = math.nan
        return predictions

    monkeypatch.setattr("minbert.training.trial.predict_dev", broken)
    state = State.fresh(4, STEPS, tmp_path, report_rows=ROWS)
    first, second = train(configure(*BEST, "selection=best"), data, state)
    assert math.isfinite(first.overall)
    assert (second.step, second.diverged, second.checkpoint) == (STEPS[1], True, "")
    assert math.isnan(second.overall)


# A trial's reports ---------------------------------------------------------------------------------------------------


def test_resumed_at_a_milestone_reports_it_again(data: Data, tmp_path: Path) -> None:
    config = configure()
    trial = train(config, data, State.fresh(0, (100, 200), tmp_path))
    first = next(trial)
    trial.close()
    again = list(train(config, data, State.resume(Path(first.checkpoint), (100, 200), tmp_path, 1)))
    assert again[0] == first and [report.step for report in again] == [100, 200]


def test_reports_come_at_the_first_step_past_each_milestone(data: Data, tmp_path: Path) -> None:
    reports = list(train(configure(), data, State.fresh(0, (50, 65, 300), tmp_path)))
    assert [report.step for report in reports] == [50, 65, 300]
    assert [report.examples for report in reports] == [64, 128, 320]  # 16 + 32 + 16 rows a step
    assert all(len(checkpoints.complete(tmp_path)) == 1 for _ in reports)
    assert reports[-1].trainable_parameters == reports[-1].total_parameters


def test_round_trip_of_a_report(data: Data, tmp_path: Path) -> None:
    report = next(train(configure(), data, State.fresh(0, (60,), tmp_path)))
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


@pytest.mark.parametrize("name", ["frozen", "lora"])
def test_frozen_weights_stay_untouched(name: str, data: Data, tiny: Base, tmp_path: Path) -> None:
    report = list(train(configure(*CONFIGS[name]), data, State.fresh(0, (300,), tmp_path)))[-1]
    model = load_model(Path(report.checkpoint), data, torch.device("cpu"))
    base = tiny.load().state_dict()
    frozen = {key: value for key, value in model.encoder.state_dict().items() if ".base." in key or key in base}
    for key, value in frozen.items():
        original = base[key.replace(".base.", ".")]
        assert torch.equal(value, original), key
    assert report.trainable_parameters < report.total_parameters / 2


def test_divergence_is_reported_at_the_next_milestone(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = MultitaskModel.loss
    monkeypatch.setattr(MultitaskModel, "loss", lambda *arguments: loss(*arguments) * math.nan)
    reports = list(train(configure(), data, State.fresh(0, (200, 400), tmp_path)))
    assert len(reports) == 1 and reports[0].diverged and reports[0].step == 200 and math.isnan(reports[0].overall)
    assert reports[0].examples == 64  # one step, not the whole rung
    assert not checkpoints.complete(tmp_path)


def test_training_learns_the_rule(data: Data, tmp_path: Path) -> None:
    config = configure("optimizer/encoder_lr=0.002", "optimizer/head_lr=0.005", "dropout/hidden=0.0")
    report = list(train(config, data, State.fresh(0, (6000,), tmp_path)))[-1]
    assert report.scores["qqp"] > 0.9, report.scores


@pytest.mark.parametrize("damage", ["weights.safetensors", "optimizer.safetensors", "trial.json"])
def test_damaged_checkpoints_are_errors(damage: str, data: Data, tmp_path: Path) -> None:
    report = next(train(configure(), data, State.fresh(0, (60,), tmp_path)))
    file = Path(report.checkpoint) / damage
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(checkpoints.TrialCheckpointError, match=r"damaged|cannot be read"):
        list(train(configure(), data, State.resume(Path(report.checkpoint), (60,), tmp_path, 1)))


def test_another_configuration_cannot_resume(data: Data, tmp_path: Path) -> None:
    report = next(train(configure(), data, State.fresh(0, (60,), tmp_path)))
    with pytest.raises(checkpoints.TrialCheckpointError, match="another `config`"):
        list(train(configure(*CONFIGS["bi"]), data, State.resume(Path(report.checkpoint), (60,), tmp_path, 1)))


@pytest.mark.parametrize("written", [2, 3])
def test_a_checkpoint_of_an_older_format_predicts_and_does_not_continue(
    written: int, data: Data, tmp_path: Path
) -> None:
    path = Path(next(train(configure(), data, State.fresh(0, (60,), tmp_path))).checkpoint)
    content = json.loads((path / "trial.json").read_text())
    del content["report_rows"]
    (path / "trial.json").write_text(json.dumps(content | {"format": written}))
    with pytest.raises(checkpoints.TrialCheckpointError, match=f"format {written}: .* continues only from format 4"):
        State.resume(path, (60,), tmp_path, 1)
    assert load_model(path, data).trainable().keys() == weights(path).keys()


def test_a_checkpoint_of_another_format_is_refused(data: Data, tmp_path: Path) -> None:
    path = Path(next(train(configure(), data, State.fresh(0, (60,), tmp_path))).checkpoint)
    content = json.loads((path / "trial.json").read_text())
    (path / "trial.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(checkpoints.TrialCheckpointError, match="has format 99; this version reads the formats 2, 3, 4"):
        State.resume(path, (60,), tmp_path, 1)


@pytest.mark.parametrize("content", ["{}", "[]"])
def test_a_checkpoint_without_a_format_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "trial.json").write_text(content)
    (tmp_path / "done.json").write_text('{"report": null}')
    with pytest.raises(checkpoints.TrialCheckpointError, match="cannot be read"):
        checkpoints.read_trial(tmp_path)


def test_predictions_equal_the_models_own(data: Data, tmp_path: Path) -> None:
    report = list(train(configure(), data, State.fresh(0, (200,), tmp_path)))[-1]
    model = load_model(Path(report.checkpoint), data, torch.device("cpu"))
    rows = data.parts["sst", "search"]
    prediction = predict_rows(model, data, "sst", "search", rows)
    labels = data.file("sst", "dev").labels[rows]
    assert (prediction.values == labels).mean() == pytest.approx(report.scores["sst"])
    assert prediction.probabilities is not None and abs(prediction.probabilities.sum(1) - 1).max() < 1e-5


def test_a_killed_process_resumes_to_the_same_weights(corpus_folder: Path, tmp_path: Path) -> None:
    """kill -9 in the middle of the command line's training, then --resume."""
    environment = os.environ | {"MINBERT_CACHE": str(tmp_path / "cache")}

    def command(out: Path, *more: str) -> list[str]:
        options = ["--data", str(corpus_folder), "--base", "tiny", "--budget", "4000", "--reports", "40"]
        return [sys.executable, "-m", "minbert", "train", *options, "--threads", "1", "--out", str(out), *more]

    def run(*arguments: str, out: Path) -> None:
        subprocess.run(command(out, *arguments), env=environment, check=True, capture_output=True)

    run(out=tmp_path / "whole")
    process = subprocess.Popen(command(tmp_path / "cut"), env=environment, stderr=subprocess.DEVNULL)
    while not checkpoints.newest(tmp_path / "cut") and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    run("--resume", out=tmp_path / "cut")
    whole, cut = checkpoints.newest(tmp_path / "whole"), checkpoints.newest(tmp_path / "cut")
    assert whole and cut
    assert_same_weights(whole, cut)


# A trial's folder ----------------------------------------------------------------------------------------------------


def test_only_checkpoints_of_this_or_earlier_attempts_are_pruned(data: Data, tmp_path: Path) -> None:
    for name in ("my-project", "notes-1", "2-640"):  # a user's folders, and what a later attempt is writing
        (tmp_path / name).mkdir()
    list(train(configure(), data, State.fresh(0, (60, 120), tmp_path, attempt=1)))
    assert {path.name for path in tmp_path.iterdir()} == {"my-project", "notes-1", "2-640", "1-120"}


def test_a_pause_right_after_a_report_leaves_its_checkpoint_alone(data: Data, tmp_path: Path) -> None:
    requests: list[bool] = []
    trial = train(configure(), data, State.fresh(0, (60, 200), tmp_path), lambda: bool(requests))
    first = next(trial)
    written = (Path(first.checkpoint) / "done.json").stat().st_mtime_ns
    requests.append(True)
    paused = next(trial)
    assert paused.paused
    assert paused.checkpoint == first.checkpoint
    assert (Path(first.checkpoint) / "done.json").stat().st_mtime_ns == written


def test_a_checkpoint_is_not_written_twice_at_a_milestone(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minbert.training.trial.CHECKPOINT_SECONDS", 0.0)  # due at every step
    reports = list(train(configure(), data, State.fresh(0, (128, 256), tmp_path)))
    assert [Path(report.checkpoint).name for report in reports] == ["0-128", "0-256"]
    assert [path.name for path in checkpoints.complete(tmp_path)] == ["0-256"]


def test_milestones_passed_in_one_step_have_checkpoints_of_their_own(data: Data, tmp_path: Path) -> None:
    trial = train(configure(), data, State.fresh(0, (50, 60), tmp_path))
    names = []
    for report in trial:
        assert checkpoints.is_complete(Path(report.checkpoint))
        names.append(Path(report.checkpoint).name)
    assert names == ["0-50", "0-60"]


def test_an_interrupted_write_leaves_the_previous_checkpoint(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = train(configure(), data, State.fresh(0, (60, 120), tmp_path))
    first = next(trial)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        next(trial)
    assert checkpoints.newest(tmp_path) == Path(first.checkpoint)


def test_a_trial_continues_in_the_arithmetic_it_began_with(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minbert.training.model.native_bf16", lambda device: True)
    first = next(train(configure(), data, State.fresh(0, (60, 120), tmp_path)))
    monkeypatch.setattr("minbert.training.model.native_bf16", lambda device: False)
    trial = Trial(configure(), data, State.resume(Path(first.checkpoint), (60, 120), tmp_path, 1), torch.device("cpu"))
    assert trial.model.dtype == torch.float32
    trial.restore(Path(first.checkpoint))
    assert trial.model.dtype == torch.bfloat16
    assert load_model(Path(first.checkpoint), data).dtype == torch.bfloat16


# The optimiser's step ------------------------------------------------------------------------------------------------


def test_groups_rates_and_decay(data: Data, tmp_path: Path) -> None:
    config = configure("optimizer/schedule/kind=constant", "optimizer/schedule/warmup_steps=50",
                       "optimizer/schedule/warmup_share=0.5", "optimizer/head_lr=0.01")  # fmt: skip
    trial = Trial(config, data, State.fresh(0, (6400,), tmp_path), torch.device("cpu"))
    trial.step()
    for group in trial.update.optimizer.param_groups:
        members = {id(value) for value in group["params"]}
        names = [name for name, value in trial.parameters.items() if id(value) in members]
        assert {name.split(".")[0] for name in names} in ({"encoder"}, {"heads"})
        peak = 2e-4 if names[0].startswith("encoder") else 0.01
        assert group["lr"] == pytest.approx(peak * 0.5 / 50)  # the middle of the first step, within warm-up
        assert all((trial.parameters[name].ndim > 1) == (group["weight_decay"] > 0) for name in names)
    grouped = [value for group in trial.update.optimizer.param_groups for value in group["params"]]
    assert len(grouped) == len(trial.parameters)


def test_the_whole_gradient_is_clipped(data: Data, tmp_path: Path) -> None:
    trial = Trial(
        configure("optimizer/clip_norm=0.001"), data, State.fresh(0, (6400,), tmp_path), torch.device("cpu")
    )
    norms = []

    def measure(*_: object) -> None:
        gradients = [value.grad for value in trial.parameters.values() if value.grad is not None]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())

    trial.update.optimizer.register_step_pre_hook(measure)
    trial.step()
    assert norms == pytest.approx([0.001], rel=1e-3)


def test_a_taper_weighs_loss_and_penalty_of_its_task(data: Data) -> None:
    config = configure("taper/sst/kind=inverse", "taper/sst/weight=0.5", "taper/sst/epochs=4", "taper/sts/weight=3")
    model = MultitaskModel(config, data.base, data.tasks, 0)
    losses = {task: torch.tensor(value) for task, value in (("sst", 1.0), ("qqp", 10.0), ("sts", 100.0))}
    penalties = {"sst": {"smart": torch.tensor(7.0), "bregman": torch.tensor(2.0)}}
    step = StepLosses(model, Penalties(config, model), Balance())
    totals = step.totals(losses, penalties, progress=0.5)  # epoch 2 of 4: 0.5 / 3
    expected = {"sst": 0.5 / 3 * (1.0 + 7.0 + 2.0), "qqp": 10.0, "sts": 3 * 100.0}
    assert {task: value.item() for task, value in totals.items()} == pytest.approx(expected)


@pytest.mark.parametrize("radius", [0.3, 2.0])
def test_smart_moves_words_by_its_radius_times_their_root_mean_square(
    data: Data, monkeypatch: pytest.MonkeyPatch, radius: float
) -> None:
    seen: list[torch.Tensor] = []

    def watched(forward: Callable[..., torch.Tensor], *arguments: Any, **options: Any) -> torch.Tensor:
        def remembered(delta: torch.Tensor) -> torch.Tensor:
            seen.append(delta.detach())
            return forward(delta)

        return smart(remembered, *arguments, **options)

    monkeypatch.setattr("minbert.techniques.regularizers.smart", watched)
    settings = ("kind=smart", f"radius={radius}", "epsilon=1e-12")
    config = configure(*(f"regularizer/sst/{setting}" for setting in settings))
    assert config.regularizer["sst"] == Smart(radius=radius, epsilon=1e-12)
    model, file = MultitaskModel(config, data.base, data.tasks, 0), data.file("sst", "train")
    with torch.no_grad():
        model.encoder.embeddings.word.weight.mul_(3.0)  # the move follows the words
    step = StepLosses(model, Penalties(config, model), Balance())
    step.forward([model.batch("sst", file, range(8))], lambda stream: torch.Generator().manual_seed(1))
    cls, sep = (data.base.vocabulary.index(name) for name in ("[CLS]", "[SEP]"))
    ids = [piece for row in range(8) for piece in (cls, *file.texts[0][row].tolist(), sep)]
    words = model.encoder.embeddings.word.weight.detach()[ids]
    *_, last = seen
    assert last.shape == words.shape
    largest = last.abs().amax(-1)
    assert largest.tolist() == pytest.approx([radius * words.square().mean().sqrt().item()] * len(ids), rel=1e-3)


def test_smart_on_the_model_sees_the_noise_alone(data: Data) -> None:
    """All passes share their dropout masks: the penalty is 0 without noise, positive and with gradients with it."""
    smoothness = {}
    for epsilon in (1e-6, 1.0):  # a large epsilon keeps delta near 0
        settings = ("kind=smart", f"epsilon={epsilon}", "noise_std=1e-9", "step_size=1e-9", "radius=0")
        config = configure(*(f"regularizer/sst/{setting}" for setting in settings), "dropout/hidden=0.5")
        model = MultitaskModel(config, data.base, data.tasks, 0)
        batch = model.batch("sst", data.file("sst", "train"), range(8))
        step = StepLosses(model, Penalties(config, model), Balance())
        losses, penalties = step.forward([batch], lambda stream: torch.Generator().manual_seed(len(stream)))
        assert losses.keys() == {"sst"} and penalties["sst"].keys() == {"smart"}
        penalties["sst"]["smart"].backward()  # type: ignore[no-untyped-call]
        smoothness[epsilon] = penalties["sst"]["smart"].item()
    assert smoothness[1.0] < 1e-9
    assert smoothness[1e-6] > 1e-7  # two orders above the other: means over tokens soften the noise
