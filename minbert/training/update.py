"""Update of the weights from the losses of a step: gradients are combined and clipped, then AdamW takes a step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minbert.config import Config
from minbert.randomness import numpy_generator
from minbert.techniques.balances import Balance
from minbert.techniques.optimizer import parameter_groups
from minbert.training.draws import Draw
from minbert.training.model import MultitaskModel


class Update:
    """Update: the optimiser of a trial, and how gradients reach it.

    One update of the weights is `begin` with the draws of a step, `backward` once for each draw, then `apply`.
    """

    def __init__(self, config: Config, model: MultitaskModel, balance: Balance, seed: int) -> None:
        """Model and balance must be on their device."""
        self.settings, self.model, self.seed = config.optimizer, model, seed
        self.combiner = config.mixing.combine.build()
        self.separate_backward = config.mixing.combine.separate_backward
        self.shared, self.unshared = model.shared_and_unshared()
        self.unshared += list(balance.parameters())
        learned = {f"balance.{name}": value for name, value in balance.named_parameters()}
        self.trained: dict[str, nn.Parameter] = {**model.trainable(), **learned}
        """Parameters that the optimiser moves, by name; those of the balance are `balance.<name>`."""
        layers = len(model.encoder.layers)
        groups = parameter_groups(self.trained, config.optimizer, layers, balance.lr, config.adapter.adds)
        self.optimizer = torch.optim.AdamW(groups, fused=True)

    @property
    def phases(self) -> range:
        """Numbers of the updates that the same draws give: some combiners have more than one."""
        return range(len(self.combiner.phases))

    def set_rates(self, progress: float, step: float) -> None:
        """Set the learning rates from the share of the budget used, and the steps, at the middle of the step."""
        factor = self.settings.schedule.factor(min(1.0, progress), step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    def begin(self, draws: Sequence[Draw]) -> None:
        """Clear the gradients and take out the word embeddings that the draws use."""
        for value in self.trained.values():
            value.grad = None
        words = self.model.encoder.embeddings.word
        if words.weight.requires_grad:  # a frozen table takes nothing out, and cached features may need no sequences
            words.take([ids for draw in draws for batch in draw.batches for ids, _ in batch.sequences])

    def backward(self, totals: dict[str, Tensor], draw: int, phase: int) -> dict[str, float]:
        """Add the gradient of the totals of draw number `draw`; returns the combiner's statistics by name."""
        count = self.settings.accumulation
        totals = {name: value / count for name, value in totals.items()} if count > 1 else totals
        generator = numpy_generator(self.seed, "combine", draw) if self.separate_backward else None
        shared = self.model.encoder.embeddings.word.stand_in(self.shared)
        return self.combiner.backward(totals, shared, self.unshared, generator, phase)

    def apply(self) -> None:
        """Clip the whole gradient, then let the optimiser move the weights."""
        words = self.model.encoder.embeddings.word
        trained = words.stand_in(self.trained.values())
        torch.nn.utils.clip_grad_norm_(trained, self.settings.clip_norm, foreach=True)
        words.settle()
        self.optimizer.step()
        words.release()
