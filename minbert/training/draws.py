"""Draws: the rows that the next step uses, a pure function of configuration, seed and position in training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from minbert.config import Config
from minbert.data.batches import TaskBatch, training_rows
from minbert.data.tokens import Data
from minbert.techniques.mixings import Mix
from minbert.training.model import MultitaskModel


@dataclass(frozen=True)
class Position:
    """Position in training: with configuration and seed it decides which rows come next."""

    draws: int
    """Number of draws of batches so far."""
    consumed: Mapping[str, int]
    """Number of training rows used so far, by task."""

    @property
    def examples(self) -> int:
        """Number of training rows used so far."""
        return sum(self.consumed.values())


@dataclass(frozen=True)
class Draw:
    """One draw of batches; `optimizer/accumulation` draws make a step."""

    number: int
    """Number of the draw in the trial, from 0."""
    progress: float
    """Share of the budget used before the step, in [0, 1]."""
    batches: tuple[TaskBatch, ...]
    """One batch of each task drawn."""


class Draws:
    """Draws the batches of a trial."""

    def __init__(self, config: Config, data: Data, seed: int, model: MultitaskModel) -> None:
        sizes = data.sizes("train")
        self.batch_size = {name: config.batch_size[name] for name in sizes}
        self.order = config.mixing.build(Mix(sizes, seed, self.batch_size))
        self.data, self.seed, self.model = data, seed, model

    def start(self) -> Position:
        """Position before the first step."""
        return Position(0, dict.fromkeys(self.data.tasks, 0))

    def take(self, position: Position, progress: float, count: int = 1) -> tuple[list[Draw], Position]:
        """The next `count` draws from a position, at a progress in [0, 1], and the position after them."""
        draws, consumed = [], dict(position.consumed)
        for number in range(position.draws, position.draws + count):
            batches = []
            for name in self.order.tasks(number, progress):
                start = self.order.position(name, number, consumed[name])
                size = self.batch_size[name]
                rows = training_rows(self.data.parts[name, "train"], self.seed, name, start, size)
                batches.append(self.model.batch(name, self.data.file(name, "train"), rows))
                consumed[name] += size
            draws.append(Draw(number, progress, tuple(batches)))
        return draws, Position(position.draws + count, consumed)
