"""The training loop of one stage, which can stop after any step and continue later.

Every random draw is a function of (stage key, stream, step), and so are the rows of a batch. Weights, optimiser moments
and the step are therefore all that must be saved, and a result does not depend on the trial that computed it.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch import Tensor

from minbert.data.batches import training_rows
from minbert.encoder.bert import Bert
from minbert.encoder.noise import Noise
from minbert.randomness import numpy_generator, torch_generator
from minbert.stages.cache import Partial
from minbert.stages.objectives import Objective
from minbert.stages.stages import Stage
from minbert.techniques.schedules import MOST_STEPS, Linear

WEIGHT_DECAY = 0.01
"""Decoupled decay of matrices, as in BERT's fine-tuning (Devlin et al. 2019)."""

CLIP_NORM = 1.0
"""Largest 2-norm of the whole gradient."""

SCHEDULE = Linear(warmup_steps=MOST_STEPS, warmup_share=0.1)
"""Learning-rate factor over the stage."""

FINITE_CHECK_STEPS = 50
"""Steps between two reads of the loss on a GPU, where each read waits for the device."""


def steps_of(stage: Stage, rows: int) -> int:
    """Optimiser steps of a stage over `rows` rows; at least 1."""
    return max(1, round(stage.epochs * rows / stage.batch_size))


class StageLoop:
    """A stage in training: encoder, objective, optimiser and step count."""

    def __init__(
        self, stage: Stage, encoder: Bert, objective: Objective, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.stage, self.seed, self.device, self.dtype = stage, seed, device, dtype
        self.encoder, self.objective = encoder.to(device), objective.to(device)
        self.encoder.requires_grad_(True)
        self.step_count = 0
        self.total = steps_of(stage, objective.size)
        """Optimiser steps of the whole stage."""
        self.seconds = 0.0
        """Seconds of compute before `resumed_at`."""
        self.resumed_at = time.monotonic()
        self.seconds_before, self.examples_before = 0.0, 0
        """Seconds of compute and examples of the stages before this one."""
        self.diverged = False
        self.parameters = {f"encoder.{name}": value for name, value in encoder.named_parameters()}
        self.parameters |= {f"objective.{name}": value for name, value in objective.named_parameters()}
        matrices = [value for value in self.parameters.values() if value.ndim > 1]
        vectors = [value for value in self.parameters.values() if value.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=stage.lr, fused=True)
        self.rows = np.arange(objective.size, dtype=np.int32)

    @property
    def finished(self) -> bool:
        return self.diverged or self.step_count >= self.total

    @property
    def examples(self) -> int:
        """Rows that went through the loss so far."""
        return self.step_count * self.stage.batch_size

    def elapsed(self) -> float:
        """Seconds of compute so far."""
        return self.seconds + time.monotonic() - self.resumed_at

    def step(self) -> None:
        """Take one optimiser step."""
        size, rate = self.stage.batch_size, self.stage.dropout
        rows = training_rows(self.rows, self.seed, "stage", self.step_count * size, size)
        noise = Noise(torch_generator(self.device, self.seed, "dropout", self.step_count), rate, rate, rate)
        draws = numpy_generator(self.seed, "draws", self.step_count)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.objective.loss(self.encoder, rows, noise, draws)
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.lr * SCHEDULE.factor((self.step_count + 0.5) / self.total, 0.0)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), CLIP_NORM, foreach=True)
        self.optimizer.step()
        self.step_count += 1
        if self.device.type == "cpu" or self.step_count % FINITE_CHECK_STEPS == 0 or self.step_count == self.total:
            self.diverged = not math.isfinite(float(loss.detach()))
        if self.step_count == self.total:
            self.diverged = self.diverged or not all(bool(value.isfinite().all()) for value in self.parameters.values())

    def weights(self) -> dict[str, Tensor]:
        """The encoder's tensors [float32, CPU] by name, for the next stage or the trial."""
        return {name: value.detach().cpu() for name, value in self.encoder.state_dict().items()}

    def partial(self) -> Partial:
        """Everything that `restore` needs to continue."""
        names = {id(value): name for name, value in self.parameters.items()}
        tensors: dict[str, Tensor] = {f"weight/{name}": value for name, value in self.parameters.items()}
        for value, moments in self.optimizer.state.items():
            tensors |= {f"{moment}/{names[id(value)]}": tensor for moment, tensor in moments.items()}
        before = {"seconds_before": self.seconds_before, "examples_before": self.examples_before}
        return Partial(tensors, {"step": self.step_count, "seconds": self.elapsed(), **before})

    def restore(self, partial: Partial) -> None:
        """Continue from `partial`, which was saved under the same key."""
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(partial.tensors[f"weight/{name}"])
        for key, tensor in partial.tensors.items():
            moment, _, name = key.partition("/")
            if moment != "weight":
                on_cpu = moment == "step" and self.device.type == "cpu"
                self.optimizer.state[self.parameters[name]][moment] = tensor if on_cpu else tensor.to(self.device)
        self.step_count, self.seconds = partial.position["step"], partial.position["seconds"]
        self.seconds_before = partial.position["seconds_before"]
        self.examples_before = partial.position["examples_before"]
        self.resumed_at = time.monotonic()
