"""A trial's moving parts: one optimiser step, one report, one checkpoint.

Randomness derives from (seed, stream, step) and data order from a count of consumed rows, so that position and tensors
are all there is to save (`minbert.training.continuation`).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minbert.config import Config
from minbert.data.batches import TaskBatch, training_rows
from minbert.data.tokens import Data
from minbert.randomness import numpy_generator, torch_generator
from minbert.stages.chain import Result
from minbert.techniques.mixings import Mix
from minbert.techniques.optimizer import parameter_groups
from minbert.techniques.regularizers import Bregman, follow
from minbert.training import checkpoints, continuation
from minbert.training.continuation import Best
from minbert.training.evaluation import Scores, evaluate, never
from minbert.training.model import MultitaskModel, arithmetic
from minbert.training.report import Report, State, peak_memory, reset_peak_memory

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
    stages: Result | None = None
    """What the stages before training left; None: the base, or what a checkpoint holds."""
    consumed: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    """Draws of batches so far."""
    reported: int = 0
    diverged: bool = False
    stage_seconds: float = 0.0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0

    def __post_init__(self) -> None:
        encoder = self.stages.tensors if self.stages else None
        self.stage_seconds = self.stages.seconds if self.stages else 0.0
        model = MultitaskModel(self.config, self.data.base, self.data.tasks, self.state.seed, encoder)
        self.model = model.to(self.device)
        self.model.dtype = arithmetic(self.config.precision, self.device)
        sizes = self.data.sizes("train")
        batch_size = {name: self.config.batch_size[name] for name in sizes}
        self.sampler = self.config.mixing.build(Mix(sizes, self.state.seed, batch_size))
        self.combiner = self.config.mixing.combine.build()
        self.balance = self.config.mixing.balance.build(tuple(self.data.tasks.values())).to(self.device)
        self.parameters = self.model.trainable()
        self.shared, self.rest = self.model.shared_and_rest()
        self.balanced = {name: self.model.balanced_parameters(name) for name in self.data.tasks}
        self.rest += list(self.balance.parameters())
        learned = {f"balance.{name}": value for name, value in self.balance.named_parameters()}
        self.trained: dict[str, nn.Parameter] = {**self.parameters, **learned}
        layers = len(self.model.encoder.layers)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.trained, self.config.optimizer, layers, self.balance.lr), fused=True
        )
        self.teacher = self._teacher() if isinstance(self.config.proximal, Bregman) else None
        self.consumed = dict.fromkeys(self.data.tasks, 0)
        self.best: Best | None = None
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.saved: dict[str, Any] | None = None
        """Path, size and SHA-256 of the newest checkpoint, which holds `saved_examples`."""
        self.saved_examples = -1
        self.resumed_at = self.saved_at = time.monotonic()
        reset_peak_memory(self.device)

    @property
    def examples(self) -> int:
        """Training rows used so far."""
        return sum(self.consumed.values())

    @property
    def progress(self) -> float:
        """Share of the budget used, in [0, 1]."""
        return min(1.0, self.examples / self.state.milestones[-1])

    def _teacher(self) -> MultitaskModel:
        """A copy that owns the trained parameters and shares the frozen ones."""
        frozen = {id(value): value for value in self.model.parameters() if not value.requires_grad}
        return copy.deepcopy(self.model, frozen).requires_grad_(False)

    def step(self) -> None:
        """One update of the weights from `accumulation` draws of batches (two updates where the combiner says so)."""
        count = self.config.optimizer.accumulation
        progress, consumed = self.progress, dict(self.consumed)
        draws = [self._draw(self.steps + offset, progress, consumed) for offset in range(count)]
        # The middle of this step: warm-up does not waste its first step, decay not its last.
        middle = (self.examples + sum(consumed.values())) / 2 / self.state.milestones[-1]
        factor = self.config.optimizer.schedule.factor(min(1.0, middle))
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        for phase in range(len(self.combiner.phases)):
            self._update(draws, phase, progress)
        self.consumed = consumed
        self.steps += count
        if self.device.type == "cpu" or self.steps % FINITE_CHECK_STEPS < count:
            self._check_finite()

    def _update(self, draws: Sequence[Sequence[TaskBatch]], phase: int, progress: float) -> None:
        """Move the weights along the gradient of the draws, combined as the phase says."""
        words = self.model.encoder.embeddings.word
        for value in self.trained.values():
            value.grad = None
        if words.weight.requires_grad:  # else nobody may need the sequences
            words.take([ids for batches in draws for batch in batches for ids, _ in batch.sequences])
        for offset, batches in enumerate(draws):
            self._backward(batches, self.steps + offset, phase, progress)
        trained = words.stand_in(self.trained.values())
        torch.nn.utils.clip_grad_norm_(trained, self.config.optimizer.clip_norm, foreach=True)
        words.settle()
        self.optimizer.step()
        words.release()
        if self.teacher is not None:
            assert isinstance(self.config.proximal, Bregman)
            teacher = {name: value for name, value in self.teacher.named_parameters() if name in self.parameters}
            follow(teacher, self.parameters, self.config.proximal.momentum)

    def _draw(self, step: int, progress: float, consumed: dict[str, int]) -> list[TaskBatch]:
        """The batches of one draw; counts their rows in `consumed`."""
        batches = []
        for name in self.sampler.tasks(step, progress):
            start, count = self.sampler.position(name, step, consumed[name]), self.config.batch_size[name]
            rows = training_rows(self.data.parts[name, "train"], self.state.seed, name, start, count)
            batches.append(self.model.batch(name, self.data.file(name, "train"), rows))
            consumed[name] += count
        return batches

    def _backward(self, batches: Sequence[TaskBatch], step: int, phase: int, progress: float) -> None:
        """Add the gradient of one draw to the parameters."""
        def generator(stream: str) -> torch.Generator:
            return torch_generator(self.device, self.state.seed, stream, step)

        losses, penalties = self.model.step_losses(batches, generator, self.teacher)
        if phase == 0:
            self.balance.update(losses, self.balanced)
        totals = self.model.totals(self.balance.weigh(losses), penalties, progress)
        share = self.config.optimizer.accumulation
        order = numpy_generator(self.state.seed, "combine", step) if self.config.mixing.combine.several else None
        totals = {name: value / share for name, value in totals.items()} if share > 1 else totals
        shared = self.model.encoder.embeddings.word.stand_in(self.shared)
        statistics = self.combiner.backward(totals, shared, self.rest, order, phase)
        if phase == 0:
            factors = {f"weight/{name}": value for name, value in self.balance.factors().items()}
            noted = {name: torch.as_tensor(value) for name, value in {**statistics, **factors}.items()}
            self._record({**losses, **penalties, **noted})

    def _record(self, losses: Mapping[str, Tensor]) -> None:
        for name, loss in losses.items():
            value = loss.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
            self.counts[name] = self.counts.get(name, 0) + 1

    def _check_finite(self) -> None:
        self.diverged = self.diverged or not all(math.isfinite(value) for value in self.sums.values())

    def report(self, milestone: int, should_pause: Callable[[], bool] = never) -> Report:
        """Score the model, write a checkpoint that holds the report, and return it.

        Raises Interrupted, with nothing changed, where a pause is asked for while it scores: a trial continued from
        the checkpoint that `pause` then writes begins with this report.
        """
        self._check_finite()
        if self.diverged:
            return self._summary(milestone, {}, math.nan, (), diverged=True)
        begun = time.monotonic()
        scores = evaluate(self.model, self.data, should_pause=should_pause)
        self.evaluation_seconds += time.monotonic() - begun
        self.reported = milestone
        diverged, flags = not math.isfinite(scores.overall), scores.flags
        if self.config.selection == "best" and not diverged:
            scores, flags = self._choose(milestone, scores)
        report = self._summary(milestone, scores.tasks, scores.overall, flags, diverged=diverged)
        self.sums, self.counts = {}, {}
        return report if diverged else self.save(report)

    def _choose(self, milestone: int, scores: Scores) -> tuple[Scores, tuple[str, ...]]:
        """The best report so far answers for the trial; flagged where it is an earlier one."""
        if self.best is None or scores.overall > self.best.scores.overall:
            weights = {name: value.detach().clone() for name, value in self.parameters.items()}
            self.best = Best(milestone, scores, weights)
        earlier = () if self.best.step == milestone else (f"best:{self.best.step}",)
        return self.best.scores, (*self.best.scores.flags, *earlier)

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
            stage_seconds=self.stage_seconds,
            seconds=self.seconds,
            evaluation_seconds=self.evaluation_seconds,
            flags=flags,
            trainable_parameters=sum(sizes[name] for name in self.parameters),
            total_parameters=sum(sizes.values()),
            peak_memory_bytes=peak_memory(self.device),
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
        checkpoints.write(path, *continuation.capture(self))
        size, sha256 = checkpoints.digest(path)
        self.saved = {"checkpoint": str(path), "checkpoint_bytes": size, "checkpoint_sha256": sha256}
        report = replace(report, **self.saved)
        checkpoints.finish(path, report.to_dict())
        checkpoints.prune(self.state.directory, keep=path)
        self.saved_at, self.saved_examples = time.monotonic(), self.examples
        return report

    def restore(self, path: Path) -> Report | None:
        """Continue from a checkpoint; returns the report it was written for, if it stands at a milestone."""
        report = continuation.restore(self, path)
        self.resumed_at = self.saved_at = time.monotonic()
        return Report.from_dict(report) if report and not report["paused"] else None
