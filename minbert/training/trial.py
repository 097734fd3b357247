"""Trial in training: its steps, reports and checkpoints.

A step has three parts with clear inputs and outputs, so that several trials can share a step: a draw of rows
(`minbert.training.draws`), the losses of a draw (`minbert.training.step_losses`), an update of the weights
(`minbert.training.update`). Randomness derives from (seed, stream, draw) and data order from the number of consumed
rows, so a checkpoint needs only the position and the tensors (`minbert.training.continuation`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minbert.config import Config
from minbert.data.tokens import Data
from minbert.randomness import torch_generator
from minbert.stages.chain import Result
from minbert.training import checkpoints, continuation
from minbert.training.continuation import Best
from minbert.training.draws import Draw, Draws, Position
from minbert.training.evaluation import Scores, evaluate, never
from minbert.training.evidence import Evidence
from minbert.training.measures import Clock, LossMeans
from minbert.training.model import MultitaskModel, arithmetic
from minbert.training.report import Report, State, peak_memory, reset_peak_memory
from minbert.training.step_losses import Losses, Penalties, StepLosses
from minbert.training.update import Update

CHECKPOINT_SECONDS = 60.0
"""Seconds after a checkpoint until the next one is due between reports."""

FINITE_CHECK_DRAWS = 50
"""Draws between two checks on a GPU that the losses are finite: each check waits for the device."""


@dataclass(frozen=True)
class Saved:
    """The newest checkpoint that this attempt of a trial wrote."""

    path: Path
    size: int
    """Size in bytes of its weights."""
    sha256: str
    """SHA-256 of its weights."""
    examples: int
    """Number of training rows used when it was written."""

    def named_in(self, report: Report) -> Report:
        """The report with the checkpoint's path, size and SHA-256."""
        return replace(report, checkpoint=str(self.path), checkpoint_bytes=self.size, checkpoint_sha256=self.sha256)


class Trial:
    """One trial in training."""

    def __init__(
        self, config: Config, data: Data, state: State, device: torch.device, stages: Result | None = None
    ) -> None:
        """`stages` is the result of the stages before training; None: the encoder is the base's or a checkpoint's."""
        self.config, self.data, self.state, self.device = config, data, state, device
        encoder = stages.tensors if stages else None
        self.model = MultitaskModel(config, data.base, data.tasks, state.seed, encoder).to(device)
        self.model.dtype = arithmetic(config.precision, device)
        self.parameters = self.model.trainable()
        """The model's trained parameters by name."""
        self.balance = config.mixing.balance.build(tuple(data.tasks.values())).to(device)
        self.draws = Draws(config, data, state.seed, self.model)
        self.penalties = Penalties(config, self.model)
        self.step_losses = StepLosses(self.model, self.penalties, self.balance)
        self.update = Update(config, self.model, self.balance, state.seed)
        self.position: Position = self.draws.start()
        self.reported = 0
        """Last milestone reported; 0 before the first."""
        self.diverged = False
        self.best: Best | None = None
        self.evidence: Evidence = {}
        """The predictions that the scores of the last report come from; empty before the first."""
        self.means = LossMeans()
        self.saved: Saved | None = None
        self.saved_at = time.monotonic()
        self.clock = Clock(stages.seconds if stages else 0.0)
        reset_peak_memory(device)

    @property
    def examples(self) -> int:
        """Number of training rows used so far."""
        return self.position.examples

    @property
    def progress(self) -> float:
        """Share of the budget used, in [0, 1]."""
        return min(1.0, self.examples / self.state.milestones[-1])

    def step(self) -> None:
        """Update the weights from `accumulation` draws of batches, once for each phase of the combiner."""
        draws, after = self.draw()
        # Rates of the middle of the step: neither the first step of warm-up nor the last step of decay has rate 0.
        self.update.set_rates((self.examples + after.examples) / 2 / self.state.milestones[-1])
        for phase in self.update.phases:
            self.update.begin(draws)
            for draw in draws:
                losses = self.losses(draw, learn=phase == 0)
                statistics = self.update.backward(losses.totals, draw.number, phase)
                if phase == 0:
                    self.means.add(losses.reported())
                    self.means.add({label: torch.as_tensor(value) for label, value in statistics.items()})
            self.update.apply()
            self.penalties.after_update()
        self.position = after
        if self.device.type == "cpu" or self.position.draws % FINITE_CHECK_DRAWS < len(draws):
            self._check_finite()

    def draw(self) -> tuple[list[Draw], Position]:
        """Draws of the next step, and the position after it."""
        return self.draws.take(self.position, self.progress, self.config.optimizer.accumulation)

    def losses(self, draw: Draw, *, learn: bool = True) -> Losses:
        """Losses of a draw with the present weights; `learn`: whether the balance is updated from them."""

        def generator(stream: str) -> torch.Generator:
            return torch_generator(self.device, self.state.seed, stream, draw.number)

        return self.step_losses(draw, generator, learn=learn)

    def _check_finite(self) -> None:
        self.diverged = self.diverged or not self.means.finite()

    def report(self, milestone: int, should_pause: Callable[[], bool] = never) -> Report:
        """Score the model, write a checkpoint that holds the report, and return the report.

        Raises Interrupted, with nothing changed, if `should_pause()` returns True during evaluation: a trial that
        continues from the checkpoint that `pause` then writes begins with this report. A diverged trial writes no
        checkpoint.
        """
        self._check_finite()
        if self.diverged:
            return self._summary(milestone, {}, math.nan, (), diverged=True)
        start = time.monotonic()
        scores = evaluate(self.model, self.data, should_pause=should_pause)
        self.clock.evaluation += time.monotonic() - start
        self.reported = milestone
        diverged, flags = not math.isfinite(scores.overall), scores.flags
        if self.config.selection == "best" and not diverged:
            scores, flags = self._choose(milestone, scores)
        report = self._summary(milestone, scores.tasks, scores.overall, flags, diverged=diverged)
        self.means.clear()
        if diverged:
            return report
        self.evidence = scores.evidence
        return self.save(replace(report, evidence=self.evidence))

    def _choose(self, milestone: int, scores: Scores) -> tuple[Scores, tuple[str, ...]]:
        """Scores and flags of the best report so far, with a flag `best:<milestone>` if that is an earlier report."""
        if self.best is None or scores.overall > self.best.scores.overall:
            weights = {name: value.detach().clone() for name, value in self.parameters.items()}
            self.best = Best(milestone, scores, weights)
        earlier = () if self.best.step == milestone else (f"best:{self.best.step}",)
        return self.best.scores, (*self.best.scores.flags, *earlier)

    def pause(self) -> Report:
        """Write a checkpoint of the present position, unless there is one already; returns a report that names it."""
        report = self._summary(self.reported, {}, math.nan, (), paused=True)
        if self.saved is not None and self.saved.examples == self.examples:
            return self.saved.named_in(report)
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
        sizes = {name: value.numel() for name, value in self.model.named_parameters()}
        return Report(
            step=step,
            examples=self.examples,
            scores=scores,
            overall=overall,
            losses=self.means.means(),
            stage_seconds=self.clock.stages,
            seconds=self.clock.total(),
            evaluation_seconds=self.clock.evaluation,
            flags=flags,
            trainable_parameters=sum(sizes[name] for name in self.parameters),
            total_parameters=sum(sizes.values()),
            peak_memory_bytes=peak_memory(self.device),
            examples_per_task=dict(self.position.consumed),
            diverged=diverged,
            paused=paused,
        )

    def checkpoint_if_due(self) -> None:
        """Write a checkpoint between reports once enough time has passed since the last one."""
        if time.monotonic() - self.saved_at >= CHECKPOINT_SECONDS and not self.diverged:
            self.pause()

    def save(self, report: Report) -> Report:
        """Write a complete checkpoint, then delete the previous ones; returns the report with the checkpoint's name."""
        step = self.examples if report.paused else report.step
        path = checkpoints.path_of(self.state.directory, self.state.attempt, step)
        checkpoints.write(path, *continuation.capture(self))
        saved = Saved(path, *checkpoints.digest(path), self.examples)
        report = saved.named_in(report)
        checkpoints.finish(path, report.to_dict())
        checkpoints.prune(self.state.directory, keep=path)
        self.saved, self.saved_at = saved, time.monotonic()
        return report

    def restore(self, path: Path) -> Report | None:
        """Continue from a checkpoint; returns its report if it was written at a milestone, else None.

        Raises TrialCheckpointError.
        """
        report = continuation.restore(self, path)
        self.saved_at = time.monotonic()
        if not report or report["paused"]:
            return None
        return replace(Report.from_dict(report), evidence=self.evidence)
