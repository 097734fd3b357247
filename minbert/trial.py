"""A trial's moving parts: one optimiser step, one report, one checkpoint.

Randomness derives from (seed, stream, step) and data order from a count of consumed rows, so that position and weights
are all there is to save.
"""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minbert import checkpoints
from minbert.batches import training_rows
from minbert.config import Config
from minbert.data import Data
from minbert.evaluation import evaluate
from minbert.model import MultitaskModel, TaskBatch, arithmetic
from minbert.randomness import torch_generator
from minbert.report import Report, State
from minbert.samplers import Mix

CHECKPOINT_SECONDS = 60.0
"""Between reports a checkpoint is written at most this often."""

FINITE_CHECK_STEPS = 50
"""On a GPU the loss is read this often: reading it every step would wait for the device every step."""


@dataclass
class Trial:
    """The moving parts of one trial: model, optimiser, sampler and position."""

    config: Config
    data: Data
    state: State
    device: torch.device
    consumed: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    reported: int = 0
    diverged: bool = False
    seconds: float = 0.0
    evaluation_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.model = MultitaskModel(self.config, self.data.base, self.data.tasks, self.state.seed).to(self.device)
        self.model.dtype = arithmetic(self.config.precision, self.device)
        self.sampler = self.config.mixing.build(Mix(self.data.sizes("train"), self.state.seed))
        self.parameters = self.model.trainable()
        self.optimizer = torch.optim.AdamW(self._groups(), fused=True)
        self.consumed = dict.fromkeys(self.data.tasks, 0)
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.saved: dict[str, Any] | None = None
        """Path, size and SHA-256 of the newest checkpoint, which holds `saved_examples`."""
        self.saved_examples = -1
        self.resumed_at = self.saved_at = time.monotonic()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def examples(self) -> int:
        """Training rows used so far."""
        return sum(self.consumed.values())

    @property
    def progress(self) -> float:
        """Share of the budget used, in [0, 1]."""
        return min(1.0, self.examples / self.state.milestones[-1])

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate and by whether they decay; each group knows its peak rate."""
        optimizer = self.config.optimizer
        groups = []
        for part, rate in (("encoder.", optimizer.encoder_lr), ("heads.", optimizer.head_lr)):
            for decays in (True, False):
                chosen = [
                    value
                    for name, value in self.parameters.items()
                    if name.startswith(part) and (value.ndim > 1) == decays
                ]
                decay = optimizer.weight_decay if decays else 0.0
                if chosen:
                    groups.append({"params": chosen, "lr": rate, "peak": rate, "weight_decay": decay})
        return groups

    def step(self) -> None:
        """One optimiser step."""
        names = self.sampler.tasks(self.steps, self.progress)
        losses, penalties = self.model.step_losses([self._batch(name) for name in names], self._generator)
        total = self.model.total(losses, penalties, self.progress)
        factor = self.config.optimizer.schedule.factor(self._next_progress(names))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.config.optimizer.clip_norm, foreach=True)
        self.optimizer.step()
        for name in names:
            self.consumed[name] += self.config.batch_size[name]
        self.steps += 1
        self._record({**losses, **{f"smart/{name}": value for name, value in penalties.items()}})

    def _next_progress(self, names: Sequence[str]) -> float:
        """Progress in the middle of this step: warm-up does not waste its first step, decay not its last."""
        return min(1.0, (self.examples + sum(self.config.batch_size[n] for n in names) / 2) / self.state.milestones[-1])

    def _batch(self, task: str) -> TaskBatch:
        rows = training_rows(
            self.data.parts[task, "train"], self.state.seed, task, self.consumed[task], self.config.batch_size[task]
        )
        return self.model.batch(task, self.data.file(task, "train"), rows)

    def _generator(self, stream: str) -> torch.Generator:
        return torch_generator(self.device, self.state.seed, stream, self.steps)

    def _record(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            value = loss.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1
        if self.device.type == "cpu" or self.steps % FINITE_CHECK_STEPS == 0:
            self._check_finite()

    def _check_finite(self) -> None:
        self.diverged = self.diverged or not all(bool(value.isfinite()) for value in self.sums.values())

    def report(self, milestone: int) -> Report:
        """Score the model, write a checkpoint that holds the report, and return it."""
        self._check_finite()
        if self.diverged:
            return self._summary(milestone, {}, math.nan, (), diverged=True)
        begun = time.monotonic()
        scores = evaluate(self.model, self.data)
        self.evaluation_seconds += time.monotonic() - begun
        self.reported = milestone
        diverged = not math.isfinite(scores.overall)
        report = self._summary(milestone, scores.tasks, scores.overall, scores.flags, diverged=diverged)
        self.sums, self.counts = {}, {}
        return report if diverged else self.save(report)

    def pause(self) -> Report:
        """Write a checkpoint where the trial stands, unless one is there, and say so."""
        report = self._summary(self.reported, {}, math.nan, (), paused=True)
        if self.saved is not None and self.saved_examples == self.examples:
            return replace(report, **self.saved)
        return self.save(report)

    def _summary(
        self,
        step: int,
        scores: dict[str, float],
        overall: float,
        flags: tuple[str, ...],
        *,
        diverged: bool = False,
        paused: bool = False,
    ) -> Report:
        now = time.monotonic()
        self.seconds, self.resumed_at = self.seconds + now - self.resumed_at, now
        sizes = {name: value.numel() for name, value in self.model.named_parameters()}
        return Report(
            step=step,
            examples=self.examples,
            scores=scores,
            overall=overall,
            losses={name: float(value) / self.counts[name] for name, value in self.sums.items()},
            seconds=self.seconds,
            evaluation_seconds=self.evaluation_seconds,
            flags=flags,
            trainable_parameters=sum(sizes[name] for name in self.parameters),
            total_parameters=sum(sizes.values()),
            peak_memory_bytes=_peak_memory(self.device),
            examples_per_task=dict(self.consumed),
            diverged=diverged,
            paused=paused,
        )

    def checkpoint_if_due(self) -> None:
        """Write a checkpoint between reports once enough time has passed since the last one."""
        if time.monotonic() - self.saved_at >= CHECKPOINT_SECONDS and not self.diverged:
            self.pause()

    def save(self, report: Report) -> Report:
        """Write a complete checkpoint, then delete the previous ones; the report names it."""
        step = self.examples if report.paused else report.step
        path = checkpoints.path_of(self.state.directory, self.state.attempt, step)
        names = {id(value): name for name, value in self.parameters.items()}
        moments = {
            f"{names[id(value)]}/{key}": tensor
            for value, tensors in self.optimizer.state.items()
            for key, tensor in tensors.items()
        }
        position = {
            "config": self.config.to_dict(),
            "seed": self.state.seed,
            "milestones": list(self.state.milestones),
            "base": {"name": self.data.base.name, "sha256": self.data.base.sha256},
            "data": self.data.fingerprint,
            "arithmetic": str(self.model.dtype).removeprefix("torch."),
            "steps": self.steps,
            "consumed": self.consumed,
            "reported": self.reported,
            "sums": {name: float(value) for name, value in self.sums.items()},
            "counts": self.counts,
            "seconds": self.seconds,
            "evaluation_seconds": self.evaluation_seconds,
        }
        checkpoints.write(path, self.parameters, moments, position)
        size, sha256 = checkpoints.digest(path)
        self.saved = {"checkpoint": str(path), "checkpoint_bytes": size, "checkpoint_sha256": sha256}
        report = replace(report, **self.saved)
        checkpoints.finish(path, report.to_dict())
        checkpoints.prune(self.state.directory, keep=path)
        self.saved_at, self.saved_examples = time.monotonic(), self.examples
        return report

    def restore(self, path: Path) -> Report | None:
        """Continue from a checkpoint; returns the report it was written for, if it stands at a milestone."""
        trial, report = checkpoints.read_trial(path)
        mine = {"config": self.config, "data": self.data.fingerprint, "base": self.data.base.sha256}
        theirs = {
            "config": Config.from_dict(trial["config"]),
            "data": trial["data"],
            "base": trial["base"]["sha256"],
        }
        for name, value in mine.items():
            if theirs[name] != value:
                raise checkpoints.TrialCheckpointError(f"{path} has another `{name}` than this trial: {theirs[name]}.")
        self.model.dtype = getattr(torch, trial["arithmetic"])  # wherever it goes on: what it began with
        weights = checkpoints.read_tensors(path, "weights")
        if weights.keys() != self.parameters.keys():
            raise checkpoints.TrialCheckpointError(f"{path} holds other tensors than this trial trains.")
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(weights[name])
        for key, tensor in checkpoints.read_tensors(path, "optimizer").items():
            name, _, moment = key.rpartition("/")
            place = tensor if moment == "step" and self.device.type == "cpu" else tensor.to(self.device)
            self.optimizer.state[self.parameters[name]][moment] = place
        self.steps, self.consumed, self.reported = trial["steps"], trial["consumed"], trial["reported"]
        self.sums = {name: torch.tensor(value, device=self.device) for name, value in trial["sums"].items()}
        self.counts = trial["counts"]
        self.seconds, self.evaluation_seconds = trial["seconds"], trial["evaluation_seconds"]
        self.resumed_at = self.saved_at = time.monotonic()
        return Report.from_dict(report) if report and not report["paused"] else None


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: KiB, on macOS bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
