"""The losses of a draw: forward passes in as few packs as possible, each task's loss, its penalties, and the total.

    total_k = taper_k(progress) * (balance_k(loss_k) + sum of its penalties)

A taper weighs all that its task adds, a balance only the loss. A task with a regulariser has a pass of its own; so has
every task if the adapter has parts for single tasks or if each task has its own backward pass, which would otherwise go
through the rows of all.
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
"""A generator at the start of a named random stream of a draw."""


class Penalties:
    """All penalties of a trial, with their state."""

    def __init__(self, config: Config, model: MultitaskModel) -> None:
        """The model must be on its device."""
        context = PenaltyContext(model, model.trainable())
        self.every_task: dict[str, Penalty] = {}
        """The proximal, on every task, by its kind."""
        self.of_task: dict[str, dict[str, Penalty]] = {name: {} for name in model.tasks}
        """Each task's regulariser by its kind."""
        proximal = config.proximal.build(context)
        if proximal is not None:
            self.every_task[config.proximal.kind] = proximal
        for name, penalties in self.of_task.items():
            penalty = config.regularizer[name].build(context)
            if penalty is not None:
                penalties[config.regularizer[name].kind] = penalty

    def named(self) -> Iterator[tuple[str, Penalty]]:
        """Every penalty, with a name that no other one has."""
        yield from (("proximal", penalty) for penalty in self.every_task.values())
        for task, penalties in self.of_task.items():
            yield from ((f"regularizer/{task}", penalty) for penalty in penalties.values())

    def after_update(self) -> None:
        """To be called after every update of the weights."""
        for _, penalty in self.named():
            penalty.after_update()

    def state_dict(self) -> dict[str, Tensor]:
        """The state of all penalties: `proximal/<name>`, `regularizer/<task>/<name>`."""
        return {
            f"{owner}/{name}": value for owner, penalty in self.named() for name, value in penalty.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state_dict`. Raises ValueError for other names than this one's."""
        own = self.state_dict().keys()
        if own != state.keys():
            raise ValueError(f"Penalties expect state of {sorted(own)}, found {sorted(state)}.")
        for owner, penalty in self.named():
            penalty.load_state_dict({name: state[f"{owner}/{name}"] for name in penalty.state_dict()})


@dataclass(frozen=True)
class Losses:
    """The losses of one draw; scalars by task."""

    tasks: dict[str, Tensor]
    """Mean loss of each task, unweighted."""
    penalties: dict[str, dict[str, Tensor]]
    """Weighted penalties of each task by kind."""
    totals: dict[str, Tensor]
    """What is differentiated for each task."""
    factors: dict[str, Tensor]
    """What a balance multiplies each task's loss by; empty without balance."""

    def reported(self) -> dict[str, Tensor]:
        """All but the totals under the labels of reports: `<task>`, `<kind>/<task>`, `weight/<task>`."""
        penalties = {
            f"{kind}/{task}": value for task, values in self.penalties.items() for kind, value in values.items()
        }
        return {**self.tasks, **penalties, **{f"weight/{task}": value for task, value in self.factors.items()}}


class StepLosses:
    """From a draw to its losses."""

    def __init__(self, model: MultitaskModel, penalties: Penalties, balance: Balance) -> None:
        self.model, self.penalties, self.balance = model, penalties, balance
        self.config = model.config
        self.balanced = {name: model.balanced_parameters(name) for name in model.tasks}

    def __call__(self, draw: Draw, generator_of: GeneratorOf, *, learn: bool = True) -> Losses:
        """The losses of a draw, with their graph. `learn`: whether the balance may learn from them."""
        tasks, penalties = self.forward(draw.batches, generator_of)
        if learn:
            self.balance.update(tasks, self.balanced)
        totals = self.totals(self.balance.weigh(tasks), penalties, draw.progress)
        return Losses(tasks, penalties, totals, self.balance.factors())

    def forward(
        self, batches: Sequence[TaskBatch], generator_of: GeneratorOf
    ) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
        """Each task's loss, and its weighted penalties by kind."""
        losses: dict[str, Tensor] = {}
        penalties: dict[str, dict[str, Tensor]] = {}
        for group in self._groups(batches):
            shared = _GroupPass(self.model, group, generator_of)
            shared.penalise(self.penalties)
            losses |= shared.losses
            penalties |= shared.penalties
        return losses, penalties

    def totals(
        self, weighed: Mapping[str, Tensor], penalties: Mapping[str, Mapping[str, Tensor]], progress: float
    ) -> dict[str, Tensor]:
        """taper_k(progress) (weighed_k + penalties_k)."""
        return {
            task: self.config.taper[task].value(progress) * sum(penalties.get(task, {}).values(), loss)
            for task, loss in weighed.items()
        }

    def _groups(self, batches: Sequence[TaskBatch]) -> Iterator[list[TaskBatch]]:
        """Batches that share a pass."""
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
    """One pass over the batches of a group, and further ones over the same rows for penalties."""

    def __init__(self, model: MultitaskModel, group: Sequence[TaskBatch], generator_of: GeneratorOf) -> None:
        self.model, self.group, self.generator_of = model, group, generator_of
        self.input: PassInput = model.input(group)
        self.passes = [self._pass(place, outputs) for place, outputs in enumerate(self._outputs(model))]
        self.losses = {each.task.name: each.loss(each.outputs) for each in self.passes}
        """Mean loss of each task."""
        self.penalties: dict[str, dict[str, Tensor]] = {name: {} for name in self.losses}
        """Weighted penalties of each task by kind."""

    def penalise(self, penalties: Penalties) -> None:
        """Add the penalties to those of their tasks, and second losses to the losses."""
        for kind, penalty in penalties.every_task.items():
            self._penalise(kind, penalty, self.passes)
        for each in self.passes:
            for kind, penalty in penalties.of_task[each.task.name].items():
                self._penalise(kind, penalty, [each])

    def _penalise(self, kind: str, penalty: Penalty, passes: Sequence[Pass]) -> None:
        if penalty.teacher is not None:
            teacher = cast(MultitaskModel, penalty.teacher)
            teacher.dtype = self.model.dtype
            with torch.no_grad():
                targets = dict(zip(self.losses, self._outputs(teacher), strict=True))
            passes = [replace(each, teacher=targets[each.task.name]) for each in passes]
        for each in passes:
            task, added = each.task.name, penalty.penalty(each)
            self.penalties[task][kind] = added.penalty
            if added.second_loss is not None:
                self.losses[task] = (self.losses[task] + added.second_loss) / 2

    def _pass(self, place: int, outputs: Tensor) -> Pass:
        """The batch number `place` of the group, as a penalty sees it."""
        model, batch = self.model, self.group[place]
        labels = batch.labels.to(model.device, non_blocking=True)

        def forward(offset: Tensor | None = None, masks: str = STEP_MASKS) -> Tensor:
            return self._outputs(model, offset, masks)[place]

        return Pass(
            task=model.tasks[batch.task],
            outputs=outputs,
            labels=labels,
            loss=lambda outputs: model.loss(batch.task, outputs, labels),
            forward=forward,
            generator=lambda stream: self.generator_of(f"{stream}/{batch.task}"),
            packed=self.input.packed if self.input.start is None else None,
            width=model.encoder.config.hidden_size,
        )

    def _outputs(self, model: MultitaskModel, offset: Tensor | None = None, masks: str = STEP_MASKS) -> list[Tensor]:
        """Outputs [B, C] of each batch."""
        stream = masks if len(self.group) > 1 else f"{masks}/{self.group[0].task}"
        noise = self.model.noise(self.generator_of(stream))
        return model.outputs(self.input, self.group, noise, offset)
