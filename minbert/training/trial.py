"""Trial in training: its steps, reports and checkpoints.

A step has three parts with clear inputs and outputs, so that several trials can share a step: a draw of rows
(`minbert.training.draws`), the losses of a draw (`minbert.training.step_losses`), an update of the weights
(`minbert.training.update`). Randomness derives from (seed, stream, draw) and data order from the number of consumed
rows, so a checkpoint needs only the position and the tensors (`minbert.training.continuation`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minbert.config import Config
from minbert.data.tokens import Data
from minbert.randomness import torch_generator
from minbert.stages.chain import Result
from minbert.techniques.losses import label_unit
from minbert.training import checkpoints, continuation
from minbert.training.continuation import Best, holding
from minbert.training.draws import Draw, Draws, Position
from minbert.training.evaluation import Prediction, judge, never, predict_dev, with_labels
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
        self,
        config: Config,
        data: Data,
        state: State,
        device: torch.device,
        stages: Result | None = None,
        on_checkpoint: Callable[[Path], None] | None = None,
    ) -> None:
        """`stages` is the result of the stages before training; None: the encoder is the base's or a checkpoint's.
        `on_checkpoint`: see `minbert.training.train.train`."""
        self.config, self.data, self.state, self.device = config, data, state, device
        encoder = stages.tensors if stages else None
        self.model = MultitaskModel(config, data.base, data.tasks, state.seed, encoder).to(device)
        self.model.dtype = arithmetic(config.precision, device)
        self.parameters = self.model.trainable()
        """The model's trained parameters by name."""
        self.balance = config.mixing.balance.build(tuple(data.tasks.values())).to(device)
        self.draws = Draws(config, data, state.seed, self.model)
        self.penalties = Penalties(config, self.model)
        labels = {name: data.file(name, "train").labels[data.parts[name, "train"]] for name in data.tasks}
        units = {name: label_unit(task, labels[name], config.regression_loss) for name, task in data.tasks.items()}
        self.step_losses = StepLosses(self.model, self.penalties, self.balance, units)
        self.update = Update(config, self.model, self.balance, state.seed)
        self.position: Position = self.draws.start()
        self.reported = 0
        """Last milestone reported; 0 before the first."""
        self.diverged = False
        self.best: Best | None = None
        self.average = config.average.build()
        self.evidence: Evidence = {}
        """The predictions that the scores of the last report come from; empty before the first."""
        self.means = LossMeans()
        self.saved: Saved | None = None
        self.on_checkpoint = on_checkpoint
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
        examples, number = (self.examples + after.examples) / 2, (self.position.draws + after.draws) / 2
        self.update.set_rates(examples / self.state.milestones[-1], number / self.config.optimizer.accumulation)
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
        if self.average is not None:
            self.average.update(self.parameters, self.progress)
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
        weights = self.average.values if self.average is not None else {}
        with holding(self.parameters, weights):
            predictions, notes = self._evaluate(milestone, should_pause)
        self.clock.evaluation += time.monotonic() - start
        self.reported = milestone
        scores = judge(self.data.tasks, with_labels(self.data, predictions))
        diverged, flags = not math.isfinite(scores.overall), (*scores.flags, *notes)
        report = self._summary(milestone, scores.tasks, scores.overall, flags, diverged=diverged)
        self.means.clear()
        if diverged:
            return report
        self.evidence = {name: prediction.evidence() for name, prediction in predictions.items()}
        return self.save(replace(report, evidence=self.evidence))

    def _evaluate(
        self, milestone: int, should_pause: Callable[[], bool]
    ) -> tuple[dict[str, Prediction], tuple[str, ...]]:
        """Predictions on the milestone's rows with the weights that are the trial's result so far, and notes on them.

        They are the present weights, or with `selection` best those of the best report. Reports are compared on the
        rows of the first milestone. Where an earlier one is the best, its weights have predicted the rows of the last
        report, and predict those that are new, so that a milestone's scores are comparable between trials. A note
        `best:<milestone>` says so. Either way a report predicts at most as many rows as it is scored on.
        """
        rows = self.state.rows_at(milestone)
        if self.config.selection == "last":
            return self._predicted({}, rows, should_pause), ()
        compared = self._predicted({}, self.state.rows_at(self.state.milestones[0]), should_pause)
        score = judge(self.data.tasks, with_labels(self.data, compared)).overall
        if not math.isfinite(score):
            return compared, ()
        if self.best is None or score > self.best.overall:
            predictions = self._predicted(compared, rows, should_pause)
            weights = {name: value.detach().clone() for name, value in self.parameters.items()}
            self.best = Best(milestone, score, weights)
            return predictions, ()
        earlier = {
            name: Prediction.of(self.data.parts[name, "search"][: len(values)], values)
            for name, values in self.evidence.items()
        }
        with holding(self.parameters, self.best.weights):
            return self._predicted(earlier, rows, should_pause), (f"best:{self.best.step}",)

    def _predicted(
        self, known: Mapping[str, Prediction], rows: Mapping[str, int], should_pause: Callable[[], bool]
    ) -> dict[str, Prediction]:
        """Predictions on the first `rows` of each task, of which those that are not `known` are predicted now."""
        after = {name: len(prediction.rows) for name, prediction in known.items()}
        new = predict_dev(self.model, self.data, sizes=rows, after=after, should_pause=should_pause)
        return {name: known[name].then(rest) if name in known else rest for name, rest in new.items()}

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
        if self.on_checkpoint is not None:
            self.on_checkpoint(path)
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
