"""Losses of a draw: as few forward passes as possible, each task's loss, its penalties, and its total.

    total_k = taper_k(progress) * (balance_k(loss_k) + sum of the task's penalties)

A taper weighs the loss and the penalties of its task, a balance only the loss. A task with a regulariser has a forward
pass of its own. So has every task if the adapter needs a pass per task, or if each task has a backward pass of its own:
that would otherwise run through the rows of all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from minbert.config import Config
from minbert.data.batches import TaskBatch
from minbert.techniques.balances import Balance
from minbert.techniques.penalty import STEP_MASKS, Pass, Penalty, PenaltyContext
from minbert.training.draws import Draw
from minbert.training.model import MultitaskModel, PassInput

GeneratorOf = Callable[[str], torch.Generator]
"""Function from a random stream's name to a generator at its start, for one draw."""


class Penalties:
    """Penalties of a trial, with their state."""

    def __init__(self, config: Config, model: MultitaskModel) -> None:
        """The model must be on its device."""
        context = PenaltyContext(model, model.trainable())
        self.every_task: dict[str, Penalty] = {}
        """Penalty on every task (the proximal), by its kind."""
        self.of_task: dict[str, dict[str, Penalty]] = {name: {} for name in model.tasks}
        """Penalties on one task (its regulariser), by task and kind."""
        proximal = config.proximal.build(context)
        if proximal is not None:
            self.every_task[config.proximal.kind] = proximal
        for name, penalties in self.of_task.items():
            penalty = config.regularizer[name].build(context)
            if penalty is not None:
                penalties[config.regularizer[name].kind] = penalty

    def named(self) -> Iterator[tuple[str, Penalty]]:
        """Every penalty with a unique name."""
        yield from (("proximal", penalty) for penalty in self.every_task.values())
        for task, penalties in self.of_task.items():
            yield from ((f"regularizer/{task}", penalty) for penalty in penalties.values())

    def after_update(self) -> None:
        """Update all penalties; called after every update of the weights."""
        for _, penalty in self.named():
            penalty.after_update()

    def state_dict(self) -> dict[str, Tensor]:
        """State of all penalties: `proximal/<name>`, `regularizer/<task>/<name>`."""
        return {
            f"{owner}/{name}": value for owner, penalty in self.named() for name, value in penalty.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state_dict`. Raises ValueError if its names differ from this trial's."""
        expected = self.state_dict().keys()
        if expected != state.keys():
            raise ValueError(f"Penalties expect state of {sorted(expected)}, found {sorted(state)}.")
        for owner, penalty in self.named():
            penalty.load_state_dict({name: state[f"{owner}/{name}"] for name in penalty.state_dict()})


@dataclass(frozen=True)
class Losses:
    """Losses of one draw, scalars by task."""

    tasks: dict[str, Tensor]
    """Mean loss of each task, unweighted."""
    penalties: dict[str, dict[str, Tensor]]
    """Weighted penalties of each task by kind."""
    totals: dict[str, Tensor]
    """Total of each task, which is differentiated."""
    factors: dict[str, Tensor]
    """Factor of each task's loss in a balance; empty without a balance."""

    def reported(self) -> dict[str, Tensor]:
        """All values but the totals, under the labels of reports: `<task>`, `<kind>/<task>`, `weight/<task>`."""
        penalties = {
            f"{kind}/{task}": value for task, values in self.penalties.items() for kind, value in values.items()
        }
        return {**self.tasks, **penalties, **{f"weight/{task}": value for task, value in self.factors.items()}}


class StepLosses:
    """Step losses: computes the losses of a draw."""

    def __init__(
        self, model: MultitaskModel, penalties: Penalties, balance: Balance, units: Mapping[str, float] | None = None
    ) -> None:
        """`units` of the losses of tasks (`minbert.techniques.losses.label_unit`); None: 1 for all tasks."""
        self.model, self.penalties, self.balance = model, penalties, balance
        self.units = dict.fromkeys(model.tasks, 1.0) if units is None else units
        self.config = model.config
        self.balanced = {name: model.balanced_parameters(name) for name in model.tasks}

    def __call__(self, draw: Draw, generator_of: GeneratorOf, *, learn: bool = True) -> Losses:
        """Losses of a draw, with their graph. `learn`: whether the balance is updated from them."""
        tasks, penalties = self.forward(draw.batches, generator_of)
        if learn:
            self.balance.update(tasks, self.balanced)
        totals = self.totals(self.balance.weigh(tasks), penalties, draw.progress)
        return Losses(tasks, penalties, totals, self.balance.factors())

    def forward(
        self, batches: Sequence[TaskBatch], generator_of: GeneratorOf
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Loss of each task, and its weighted penalties by kind."""
        losses: dict[str, Tensor] = {}
        penalties: dict[str, dict[str, Tensor]] = {}
        for group in self._groups(batches):
            group_pass = _GroupPass(self.model, group, generator_of, self.units)
            group_pass.penalise(self.penalties)
            losses |= group_pass.losses
            penalties |= group_pass.penalties
        return losses, penalties

    def totals(
        self, weighed: Mapping[str, Tensor], penalties: Mapping[str, Mapping[str, Tensor]], progress: float
    ) -> dict[str, Tensor]:
        """Total of each task, taper_k(progress) (weighed_k + sum of penalties_k)."""
        return {
            task: self.config.taper[task].value(progress) * sum(penalties.get(task, {}).values(), loss)
            for task, loss in weighed.items()
        }

    def _groups(self, batches: Sequence[TaskBatch]) -> Iterator[list[TaskBatch]]:
        """Groups of batches that share a forward pass."""
        apart = self.config.adapter.per_task or self.config.mixing.combine.separate_backward
        together = []
        for batch in batches:
            if apart or self.penalties.of_task[batch.task]:
                yield [batch]
            else:
                together.append(batch)
        if together:
            yield together


class _GroupPass:
    """One forward pass over the batches of a group, and the further passes over the same rows for penalties."""

    def __init__(
        self,
        model: MultitaskModel,
        group: Sequence[TaskBatch],
        generator_of: GeneratorOf,
        units: Mapping[str, float],
    ) -> None:
        self.model, self.group, self.generator_of, self.units = model, group, generator_of, units
        self.input: PassInput = model.input(group)
        self.passes = [self._pass(index, outputs) for index, outputs in enumerate(self._outputs(model))]
        self.losses = {pass_.task.name: pass_.loss(pass_.outputs) for pass_ in self.passes}
        """Mean loss of each task."""
        self.penalties: dict[str, dict[str, Tensor]] = {name: {} for name in self.losses}
        """Weighted penalties of each task by kind."""

    def penalise(self, penalties: Penalties) -> None:
        """Compute the penalties of the group's tasks; second losses change the tasks' losses."""
        for kind, penalty in penalties.every_task.items():
            self._penalise(kind, penalty, self.passes)
        for pass_ in self.passes:
            for kind, penalty in penalties.of_task[pass_.task.name].items():
                self._penalise(kind, penalty, [pass_])

    def _penalise(self, kind: str, penalty: Penalty, passes: Sequence[Pass]) -> None:
        if penalty.teacher is not None:
            teacher = cast(MultitaskModel, penalty.teacher)
            teacher.dtype = self.model.dtype
            with torch.no_grad():
                targets = dict(zip(self.losses, self._outputs(teacher), strict=True))
            passes = [replace(pass_, teacher=targets[pass_.task.name]) for pass_ in passes]
        for pass_ in passes:
            task, added = pass_.task.name, penalty.penalty(pass_)
            self.penalties[task][kind] = added.penalty
            if added.second_loss is not None:
                self.losses[task] = (self.losses[task] + added.second_loss) / 2

    def _pass(self, index: int, outputs: Tensor) -> Pass:
        """The pass of one batch of the group, as a penalty sees it."""
        model, batch = self.model, self.group[index]
        labels, unit = batch.labels.to(model.device, non_blocking=True), self.units[batch.task]

        def forward(offset: Tensor | None = None, masks: str = STEP_MASKS) -> Tensor:
            return self._outputs(model, offset, masks)[index]

        return Pass(
            task=model.tasks[batch.task],
            outputs=outputs,
            labels=labels,
            loss=lambda outputs: model.loss(batch.task, outputs, labels, unit),
            forward=forward,
            generator=lambda stream: self.generator_of(f"{stream}/{batch.task}"),
            packed=self.input.packed if self.input.start is None else None,
            width=model.encoder.config.hidden_size,
            embed=model.encoder.embeddings.word,
            unit=unit,
        )

    def _outputs(self, model: MultitaskModel, offset: Tensor | None = None, masks: str = STEP_MASKS) -> list[Tensor]:
        """Outputs [B, C] of each batch from a model, the trial's own or a teacher."""
        stream = masks if len(self.group) > 1 else f"{masks}/{self.group[0].task}"
        noise = self.model.noise(self.generator_of(stream))
        return model.outputs(self.input, self.group, noise, offset)
