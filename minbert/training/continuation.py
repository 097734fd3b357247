"""What a checkpoint holds of a trial, and how a trial goes on from it.

`weights.safetensors` answers for the trial: the trained tensors at its last report (or its best one, where the
configuration says so), and the whole encoder where stages before training changed it, so that predictions need nothing
but the base and this file. `optimizer.safetensors` is for further training alone, by prefix:

    moment:<parameter>/<name>   AdamW's moments          balance:<name>   state of what weighs the losses
    teacher:<parameter>         the momentum teacher     current:<parameter>   weights to train on from, where the
                                                         best ones are others
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minbert.config import Config
from minbert.data.tokens import Data
from minbert.techniques.balances import Balance
from minbert.training import checkpoints
from minbert.training.evaluation import Scores
from minbert.training.model import MultitaskModel
from minbert.training.report import State


@dataclass(frozen=True)
class Best:
    """The best report so far and the weights it was scored on."""

    step: int
    scores: Scores
    weights: dict[str, Tensor]


class Training(Protocol):
    """What is captured of a trial."""

    config: Config
    data: Data
    state: State
    device: torch.device
    model: MultitaskModel
    teacher: MultitaskModel | None
    balance: Balance
    optimizer: torch.optim.AdamW
    parameters: dict[str, nn.Parameter]
    trained: dict[str, nn.Parameter]
    best: Best | None
    consumed: dict[str, int]
    steps: int
    reported: int
    sums: dict[str, Tensor]
    counts: dict[str, int]
    stage_seconds: float
    seconds: float
    evaluation_seconds: float


def kept(trial: Training) -> dict[str, Tensor]:
    """Tensors that differ from the base: the trained ones, and the encoder's where stages changed it."""
    staged = bool(trial.config.stages.chain())
    return {
        name: value
        for name, value in trial.model.named_parameters()
        if name in trial.parameters or (staged and name.startswith("encoder."))
    }


def capture(trial: Training) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """(weights, further tensors, position) of a trial."""
    weights = kept(trial)
    names = {id(value): name for name, value in trial.trained.items()}
    extra = {
        f"moment:{names[id(value)]}/{key}": tensor
        for value, tensors in trial.optimizer.state.items()
        for key, tensor in tensors.items()
    }
    extra |= {f"balance:{name}": value for name, value in trial.balance.state_dict().items()}
    if trial.teacher is not None:
        teacher = trial.teacher.named_parameters()
        extra |= {f"teacher:{name}": value for name, value in teacher if name in trial.parameters}
    if trial.best is not None:
        extra |= {f"current:{name}": value for name, value in trial.parameters.items()}
        weights |= trial.best.weights
    return weights, extra, _position(trial)


def _position(trial: Training) -> dict[str, Any]:
    best = trial.best
    return {
        "config": trial.config.to_dict(),
        "seed": trial.state.seed,
        "milestones": list(trial.state.milestones),
        "base": {"name": trial.data.base.name, "sha256": trial.data.base.sha256},
        "data": trial.data.fingerprint,
        "added": trial.data.added,
        "arithmetic": str(trial.model.dtype).removeprefix("torch."),
        "steps": trial.steps,
        "consumed": trial.consumed,
        "reported": trial.reported,
        "best": best and {"step": best.step, "tasks": best.scores.tasks, "overall": best.scores.overall,
                          "flags": list(best.scores.flags)},
        "sums": {name: float(value) for name, value in trial.sums.items()},
        "counts": trial.counts,
        "stage_seconds": trial.stage_seconds,
        "seconds": trial.seconds,
        "evaluation_seconds": trial.evaluation_seconds,
    }  # fmt: skip


def restore(trial: Training, path: Path) -> dict[str, Any] | None:
    """Put a checkpoint's state into a fresh trial; returns its report. Raises TrialCheckpointError."""
    position, report = checkpoints.read_trial(path)
    _refuse_another(trial, path, position)
    trial.model.dtype = getattr(torch, position["arithmetic"])  # wherever it goes on: what it began with
    weights, extra = checkpoints.read_tensors(path, "weights"), checkpoints.read_tensors(path, "optimizer")
    parts: dict[str, dict[str, Tensor]] = {"moment": {}, "balance": {}, "teacher": {}, "current": {}}
    for key, tensor in extra.items():
        part, _, name = key.partition(":")
        parts[part][name] = tensor
    if not trial.parameters.keys() <= weights.keys() <= dict(trial.model.named_parameters()).keys():
        raise checkpoints.TrialCheckpointError(f"{path} holds other tensors than this trial trains.")
    _copy(dict(trial.model.named_parameters()), weights)
    if position["best"]:
        best = position["best"]
        scores = Scores(best["tasks"], best["overall"], tuple(best["flags"]))
        trained = {name: weights[name].to(trial.device) for name in trial.parameters}
        trial.best = Best(best["step"], scores, trained)
        _copy(trial.parameters, parts["current"])
    if trial.teacher is not None:
        _copy(dict(trial.teacher.named_parameters()), weights | parts["teacher"])
    trial.balance.load_state_dict(parts["balance"])
    for key, tensor in parts["moment"].items():
        name, _, moment = key.rpartition("/")
        place = tensor if moment == "step" and trial.device.type == "cpu" else tensor.to(trial.device)
        trial.optimizer.state[trial.trained[name]][moment] = place
    trial.steps, trial.consumed, trial.reported = position["steps"], position["consumed"], position["reported"]
    trial.sums = {name: torch.tensor(value, device=trial.device) for name, value in position["sums"].items()}
    trial.counts = position["counts"]
    trial.stage_seconds = position["stage_seconds"]
    trial.seconds, trial.evaluation_seconds = position["seconds"], position["evaluation_seconds"]
    return report


@torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
def _copy(into: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        into[name].copy_(tensor)


def _refuse_another(trial: Training, path: Path, position: dict[str, Any]) -> None:
    mine = {
        "config": trial.config,
        "data": trial.data.fingerprint,
        "augmented rows": trial.data.added,
        "base": trial.data.base.sha256,
    }
    theirs = {
        "config": Config.from_dict(position["config"], trial.data.tasks),
        "data": position["data"],
        "augmented rows": position["added"],
        "base": position["base"]["sha256"],
    }
    for name, value in mine.items():
        if theirs[name] != value:
            raise checkpoints.TrialCheckpointError(
                f"{path} has another `{name}` than this trial: {_difference(theirs[name], value)}."
            )


def _difference(theirs: Any, mine: Any) -> str:
    """What is there and what is wanted; of two configurations only the values that differ."""
    if not isinstance(mine, Config):
        return f"{theirs} there, {mine} here"
    there, here = theirs.flat(), mine.flat()
    paths = [path for path in {**there, **here} if there.get(path) != here.get(path)]
    return ", ".join(f"{path} {there.get(path, 'absent')} there and {here.get(path, 'absent')} here" for path in paths)
