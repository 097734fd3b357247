"""Training of one trial as a generator of reports: the caller asks for the next report.

A trial that was interrupted anywhere and continues from its checkpoint ends with the weights of an unbroken trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from minbert.augmentation.rows import augmented
from minbert.config import Config
from minbert.data.tokens import Data
from minbert.stages.chain import ignore_progress, staged
from minbert.training.evaluation import Interrupted, never
from minbert.training.model import arithmetic
from minbert.training.report import Report, State, before_the_first_step
from minbert.training.trial import Trial

__all__ = ["Report", "State", "default_device", "never", "train"]


def default_device() -> torch.device:
    """The first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    config: Config,
    data: Data,
    state: State,
    should_pause: Callable[[], bool] = never,
    *,
    device: torch.device | None = None,
    on_step: Callable[[int], None] | None = None,
    on_stage: Callable[[str, int, int], None] | None = None,
    on_checkpoint: Callable[[Path], None] | None = None,
) -> Iterator[Report]:
    """Train one configuration; yields a report at every milestone, each with a complete checkpoint.

    If `should_pause()` returns True, also during an evaluation, the trial writes a checkpoint, yields a report with
    `paused` and stops; a pause in the stages before training yields a report without a checkpoint. If a loss or score
    is not finite, the trial yields a report with `diverged` and ends. Every other report brings its evidence. A trial
    that continues from a milestone's checkpoint first yields the report of that milestone again.
    `on_step(examples)` is called after every optimiser step, `on_stage(kind, done, total)` after every step of a stage
    before training; its total is 0 while another process computes the stage. `on_checkpoint(path)` is called with every
    complete checkpoint, before a report names it and before older ones are deleted. Raises TrialCheckpointError.
    """
    device = device or default_device()
    config.check(data.tasks)
    rows = augmented(data, config.augmentation, state.seed)
    stages = None
    if state.checkpoint is None:  # otherwise the checkpoint holds the encoder after the stages
        stages = staged(config.stages, data, device=device, should_pause=should_pause,
                        dtype=arithmetic(config.precision, device), on_stage=on_stage or ignore_progress)  # fmt: skip
        if stages is None:
            yield before_the_first_step(paused=True)
            return
        if stages.diverged:
            yield before_the_first_step(milestone=state.milestones[0], stage_seconds=stages.seconds)
            return
    trial = Trial(config, rows, state, device, stages, on_checkpoint)
    if state.checkpoint is not None:
        report = trial.restore(state.checkpoint)
        if report is not None:
            yield report
    for milestone in (milestone for milestone in state.milestones if milestone > trial.reported):
        while trial.examples < milestone and not trial.diverged:
            if should_pause():
                yield trial.pause()
                return
            trial.step()
            if on_step:
                on_step(trial.examples)
            if trial.examples < milestone:  # at a milestone the report writes the checkpoint
                trial.checkpoint_if_due()
        try:
            report = trial.report(milestone, should_pause)
        except Interrupted:
            yield trial.pause()
            return
        yield report
        if report.diverged:
            return
