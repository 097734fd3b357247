"""Continuation: what a trial's checkpoint holds, and how a trial continues from it.

`weights.safetensors` holds the weights that the trial's scores and predictions come from: the trained tensors at its
last report (at its best report, if the configuration selects that; their average over steps, if it asks for one), and
the whole encoder if stages before training changed it. Predictions then need only the base and this file.
`optimizer.safetensors` is for further training alone; its names have a prefix:

    moment:<parameter>/<name>   AdamW's moments
    balance:<name>              state of the loss balance
    penalty:<owner>/<name>      state of penalties
    evidence:<task>             the predictions that the scores of the last report come from
    current:<parameter>         weights to continue from, if `weights.safetensors` holds others
    average:<parameter>         average of the weights, if `weights.safetensors` holds those of the best report
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from minbert.config import Config
from minbert.data.tokens import Data
from minbert.techniques.averages import WeightMean
from minbert.techniques.balances import Balance
from minbert.training import checkpoints
from minbert.training.draws import Position
from minbert.training.evidence import Evidence
from minbert.training.measures import Clock, LossMeans
from minbert.training.model import MultitaskModel
from minbert.training.report import State
from minbert.training.step_losses import Penalties
from minbert.training.update import Update


@dataclass(frozen=True)
class Best:
    """The weights of the best report so far."""

    step: int
    """Milestone of the report."""
    overall: float
    """Overall score of the weights on the rows of the first milestone, which all reports of the trial share."""
    weights: dict[str, Tensor]
    """Trained tensors by name."""


class Training(Protocol):
    """Parts of a trial that a checkpoint captures; `minbert.training.trial.Trial` has them."""

    config: Config
    data: Data
    state: State
    device: torch.device
    model: MultitaskModel
    parameters: dict[str, nn.Parameter]
    balance: Balance
    penalties: Penalties
    update: Update
    position: Position
    reported: int
    best: Best | None
    average: WeightMean | None
    evidence: Evidence
    means: LossMeans
    clock: Clock


def changed_tensors(trial: Training) -> dict[str, Tensor]:
    """Tensors that may differ from the base: trained ones, and all of the encoder's if stages changed it."""
    staged = bool(trial.config.stages.chain())
    return {
        name: value
        for name, value in trial.model.named_parameters()
        if name in trial.parameters or (staged and name.startswith("encoder."))
    }


def capture(trial: Training) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's content: (weights, further tensors, values of `trial.json`)."""
    weights = changed_tensors(trial)
    names = {id(value): name for name, value in trial.update.trained.items()}
    extra = {
        f"moment:{names[id(value)]}/{key}": tensor
        for value, tensors in trial.update.optimizer.state.items()
        for key, tensor in tensors.items()
    }
    extra |= {f"balance:{name}": value for name, value in trial.balance.state_dict().items()}
    extra |= {f"penalty:{name}": value for name, value in trial.penalties.state_dict().items()}
    extra |= {f"evidence:{task}": torch.from_numpy(values) for task, values in trial.evidence.items()}
    average = trial.average.values if trial.average is not None else {}
    if trial.best is not None or average:
        extra |= {f"current:{name}": value for name, value in trial.parameters.items()}
        weights |= trial.best.weights if trial.best is not None else average
    if trial.best is not None:
        extra |= {f"average:{name}": value for name, value in average.items()}
    return weights, extra, _position(trial)


def _position(trial: Training) -> dict[str, Any]:
    best = trial.best
    return {
        "config": trial.config.to_dict(),
        "seed": trial.state.seed,
        "milestones": list(trial.state.milestones),
        "report_rows": [dict(rows) for rows in trial.state.report_rows],
        "base": {"name": trial.data.base.name, "sha256": trial.data.base.sha256},
        "data": trial.data.fingerprint,
        "added": trial.data.added,
        "arithmetic": str(trial.model.dtype).removeprefix("torch."),
        "steps": trial.position.draws,
        "consumed": dict(trial.position.consumed),
        "reported": trial.reported,
        "best": best and {"step": best.step, "overall": best.overall},
        "averaged": trial.average.count if trial.average is not None else 0,
        "sums": {name: float(value) for name, value in trial.means.sums.items()},
        "counts": trial.means.counts,
        "stage_seconds": trial.clock.stages,
        "seconds": trial.clock.total(),
        "evaluation_seconds": trial.clock.evaluation,
    }  # fmt: skip


def restore(trial: Training, path: Path) -> dict[str, Any] | None:
    """Restore a checkpoint's state in a new trial; returns the checkpoint's report. Raises TrialCheckpointError."""
    position, report = checkpoints.read_trial(path)
    _check_same_trial(trial, path, position)
    trial.model.dtype = getattr(torch, position["arithmetic"])  # the arithmetic that the trial began with
    weights, parts = checkpoints.read_tensors(path, "weights"), _parts(checkpoints.read_tensors(path, "optimizer"))
    if not trial.parameters.keys() <= weights.keys() <= dict(trial.model.named_parameters()).keys():
        raise checkpoints.TrialCheckpointError(f"{path} does not hold the tensors that this trial trains.")
    _copy(dict(trial.model.named_parameters()), weights)
    trial.evidence = {task: values.numpy() for task, values in parts["evidence"].items()}
    trained = {name: weights[name].to(trial.device) for name in trial.parameters}
    if position["best"]:
        trial.best = Best(**position["best"], weights=trained)
    if trial.average is not None and position["averaged"]:
        average = {name: value.to(trial.device) for name, value in parts["average"].items()}
        trial.average.restore(average if trial.best is not None else trained, position["averaged"])
    _copy(trial.parameters, parts["current"])
    try:
        trial.penalties.load_state_dict(parts["penalty"])
    except ValueError as error:
        raise checkpoints.TrialCheckpointError(f"{path} lacks state of this trial: {error}") from error
    trial.balance.load_state_dict(parts["balance"])
    for key, tensor in parts["moment"].items():
        name, _, moment = key.rpartition("/")
        trial.update.optimizer.state[trial.update.trained[name]][moment] = tensor.to(trial.device)
    trial.position, trial.reported = Position(position["steps"], position["consumed"]), position["reported"]
    trial.means = LossMeans.of(position["sums"], position["counts"], trial.device)
    trial.clock.resume(position["stage_seconds"], position["seconds"], position["evaluation_seconds"])
    return report


def _parts(extra: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors of `optimizer.safetensors` by prefix and name."""
    parts: dict[str, dict[str, Tensor]] = {
        prefix: {} for prefix in ("moment", "balance", "penalty", "evidence", "current", "average")
    }
    for key, tensor in extra.items():
        prefix, _, name = key.partition(":")
        parts[prefix][name] = tensor
    return parts


@torch.no_grad()  # type: ignore[no-untyped-call, unused-ignore]
def _copy(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)


@contextlib.contextmanager
def holding(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Within the context the parameters hold other tensors, after it their own again."""
    own = {name: parameters[name].detach().clone() for name in tensors}
    _copy(parameters, tensors)
    try:
        yield
    finally:
        _copy(parameters, own)


def _check_same_trial(trial: Training, path: Path, position: dict[str, Any]) -> None:
    """Check that a checkpoint belongs to the trial. Raises TrialCheckpointError."""
    mine: dict[str, object] = {
        "config": trial.config,
        "data": trial.data.fingerprint,
        "augmented rows": trial.data.added,
        "base": trial.data.base.sha256,
    }
    theirs: dict[str, object] = {
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


def _difference(theirs: object, mine: object) -> str:
    """The checkpoint's value and this trial's; for two configurations only the settings that differ."""
    if not (isinstance(theirs, Config) and isinstance(mine, Config)):
        return f"{theirs} there, {mine} here"
    there, here = theirs.flat(), mine.flat()
    paths = [path for path in {**there, **here} if there.get(path) != here.get(path)]
    return ", ".join(f"{path} {there.get(path, 'absent')} there and {here.get(path, 'absent')} here" for path in paths)
