"""Task heads: from a sequence's pooled state to the outputs of a task.

    linear             W features + b,   features of a pair (u, v): [u;v], u + v, [u;v;u*v], [u;v;|u-v|], [u;v;cos],
                       optionally + cos(u, v) (`pal_lora` 4.2.3; [u;v;cos] is `exploration` 5.3.3, 2bii)
    cosine             5 relu(cos), 2.5 (cos + 1), 5 sigmoid(20 cos) or 5 sigmoid(s (cos - c)) of u' and v', both
                       through one linear layer, or of u and v as they are (`pal_lora` 4.2.2, `beyond_bert` 4,
                       `exploration` 5.3.3, 2bi). In float32 sigmoid(20 cos) has a gradient of 0 from cos 0.87 on,
                       where the states of an encoder often lie; the last form learns its scale s and centre c.
    cosine_embedding   2.5 (cos + 1), trained with the cosine-embedding loss (`exploration` 5.3.3, 2a)

These formulas are for labels in [0, 5]; for labels in [low, high] a cosine head gives low + (high - low) f(cos), f in
[0, 1]. A cosine or the shared layer's z = w . [u;v] + b (`beyond_bert` 4) is added to a regression's score or to the
logit of class 1 of a binary task: two logits with a softmax then agree with the papers' one logit with a sigmoid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from minbert.encoder.noise import Noise, dropout
from minbert.encoder.poolings import Pooler
from minbert.fields import ConfigError, choice, number
from minbert.tasks import Task
from minbert.techniques.features import FEATURES, TRANSFORMS, add_score, cosine, has_score
from minbert.techniques.losses import cosine_embedding, task_loss


@dataclass(frozen=True)
class HeadContext:
    """Arguments that a head is built from."""

    task: Task
    width: int
    """Hidden size D."""
    paired: bool
    """Whether the head reads u and v (bi-encoding) instead of one state."""
    generator: torch.Generator
    """Generator of the initial weights."""
    pooling: str = "cls"
    """The encoding's pooling, a key of `minbert.encoder.poolings.TOKENS`."""
    pooler: tuple[Tensor, Tensor] | None = None
    """Weight [D, D] and bias [D] of the base's pooler; None where the base has none."""


class HeadModule(nn.Module):
    """Base class of heads: the pooler, if the encoding has pooling pooler, then `outputs`; both in float32."""

    def __init__(self, context: HeadContext) -> None:
        super().__init__()
        pooled = context.pooling == "pooler"
        self.pooler = Pooler(context.width, context.pooler, context.generator) if pooled else None

    def forward(self, states: tuple[Tensor, ...], noise: Noise, shared: nn.Module | None = None) -> Tensor:
        """Outputs [B, C] from one state [B, D], or from u and v, each [B, D].

        `shared` is the layer that several tasks share: it reads the same pooled states, and its score is added.
        """
        states = tuple(state.float() for state in states)
        if self.pooler is not None:
            states = tuple(self.pooler(state).float() for state in states)
        outputs = self.outputs(states, noise).float()
        return outputs if shared is None else add_score(outputs, shared(states, noise))

    def outputs(self, states: tuple[Tensor, ...], noise: Noise) -> Tensor:
        """Outputs [B, C] from pooled states."""
        raise NotImplementedError


class LinearModule(HeadModule):
    """Linear head: dropout, then one linear layer on the features; with `added` cos(u, v) is added to its output."""

    def __init__(self, context: HeadContext, features: str, added: bool) -> None:
        super().__init__(context)
        self.features = FEATURES[features] if context.paired else None
        width = self.features.width(context.width) if self.features else context.width
        self.added = added
        # A regression starts at the middle of its range: from 0 the first steps only move the mean.
        middle = (context.task.low + context.task.high) / 2 if context.task.kind == "regression" else 0.0
        self.linear = _linear(width, context.task.classes, middle, context.generator)

    def outputs(self, states: tuple[Tensor, ...], noise: Noise) -> Tensor:
        x = self.features.combine(*states) if self.features else states[0]
        outputs = cast(Tensor, self.linear(dropout(x, noise.head, noise.generator)))
        return add_score(outputs, cosine(*states)) if self.added else outputs


class CosineModule(HeadModule):
    """Cosine head: the scaled cosine of both sentences' states, by default after one linear layer for both."""

    def __init__(self, context: HeadContext, transform: str, layer: str) -> None:
        super().__init__(context)
        self.transform = LearnedSigmoid() if transform == "learned_sigmoid" else TRANSFORMS[transform]
        self.low, self.span = context.task.low, context.task.high - context.task.low
        self.linear = nn.Linear(context.width, context.width) if layer == "linear" else None
        if self.linear is not None:
            with torch.no_grad():
                nn.init.eye_(self.linear.weight)
                self.linear.bias.zero_()

    def outputs(self, states: tuple[Tensor, ...], noise: Noise) -> Tensor:
        u, v = (dropout(state, noise.head, noise.generator) for state in states)
        if self.linear is not None:
            u, v = self.linear(u), self.linear(v)
        return self.low + self.span * self.transform(cosine(u, v))


class LearnedSigmoid(nn.Module):
    """Map of a cosine to [0, 1], sigmoid(s (cos - c)), with a learned scale s, from 5 on, and centre c, from 0.5 on."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.centre = nn.Parameter(torch.tensor(0.5))

    def forward(self, cosine: Tensor) -> Tensor:
        return torch.sigmoid(self.scale * (cosine - self.centre))


class SharedModule(nn.Module):
    """Layer that tasks share: dropout, then z = w . [u;v] + b, [B, 1] in float32."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = _linear(2 * width, 1, 0.0, generator)

    def forward(self, states: tuple[Tensor, ...], noise: Noise) -> Tensor:
        x = torch.cat(states, dim=-1).float()
        return cast(Tensor, self.linear(dropout(x, noise.head, noise.generator)).float())


def _linear(inputs: int, outputs: int, bias: float, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.02, generator=generator)
        layer.bias.fill_(bias)
    return layer


class Head(Protocol):
    """Hyperparameters of a head."""

    kind: ClassVar[str]

    takes_score: ClassVar[bool]
    """Whether a shared layer's score may be added to its output."""

    @property
    def trains(self) -> bool:
        """Whether it has weights other than a pooler's."""
        ...

    def check(self, task: Task, encoding: str, paired: bool) -> None:
        """Check that the head fits the task and the encoding, given by its kind and whether it gives u and v.

        Raises ConfigError.
        """
        ...

    def build(self, context: HeadContext) -> HeadModule:
        """Head module with its initial weights."""
        ...

    def loss(self, task: Task, outputs: Tensor, labels: Tensor, unit: float = 1.0) -> Tensor:
        """Mean loss, a scalar, of the head's outputs [B, C] against labels [B].

        `unit` is the label unit of a squared error.
        """
        ...


@dataclass(frozen=True)
class LinearHead:
    """Linear head: one linear layer on the pooled state, or on features of both sentences' states."""

    kind: ClassVar[str] = "linear"
    takes_score: ClassVar[bool] = True
    trains: ClassVar[bool] = True
    features: str = choice("concat", "sum", "product", "difference", "cosine")
    """Pair features; used by bi-encoding alone."""
    cosine: str = choice("none", "added")
    """Whether cos(u, v) is added to the score or to the logit of class 1; for bi-encoded pairs alone."""

    def check(self, task: Task, encoding: str, paired: bool) -> None:
        path = f"`encoding/{task.name}/head"
        remedy = f"which `encoding/{task.name}/kind` {encoding} does not have. Leave it out, or use encoding bi."
        if not paired and self.features != LinearHead.features:
            raise ConfigError(f"{path}/features` {self.features} combines two sentence states, {remedy}")
        if not paired and self.cosine != "none":
            raise ConfigError(f"{path}/cosine` {self.cosine} compares two sentence states, {remedy}")
        if self.cosine != "none" and not has_score(task):
            raise ConfigError(
                f"{path}/cosine` {self.cosine} adds to a score or to the logit of class 1 of two, "
                f"and {task.name} has {task.classes} classes; use none."
            )

    def build(self, context: HeadContext) -> HeadModule:
        return LinearModule(context, self.features, self.cosine == "added")

    def loss(self, task: Task, outputs: Tensor, labels: Tensor, unit: float = 1.0) -> Tensor:
        return task_loss(task, outputs, labels, unit)


@dataclass(frozen=True)
class CosineHead:
    """Cosine head: the cosine of both sentences, scaled to the label range; for bi-encoded regression."""

    kind: ClassVar[str] = "cosine"
    takes_score: ClassVar[bool] = False
    transform: str = choice("relu", "shift", "sigmoid", "learned_sigmoid")
    """5 relu(cos), 2.5 (cos + 1), 5 sigmoid(20 cos), or 5 sigmoid(s (cos - c)) with s and c learned."""
    layer: str = choice("linear", "none")
    """linear: one layer of D features on each state, which starts as the identity; none: the states as they are."""

    @property
    def trains(self) -> bool:
        return self.layer == "linear" or self.transform == "learned_sigmoid"

    def check(self, task: Task, encoding: str, paired: bool) -> None:
        _check_cosine(self.kind, task, encoding, paired)

    def build(self, context: HeadContext) -> HeadModule:
        return CosineModule(context, self.transform, self.layer)

    def loss(self, task: Task, outputs: Tensor, labels: Tensor, unit: float = 1.0) -> Tensor:
        return task_loss(task, outputs, labels, unit)


@dataclass(frozen=True)
class CosineEmbeddingHead:
    """Cosine-embedding head: 2.5 (cos + 1) for labels in [0, 5], without weights.

    Its loss sees of each label only whether it reaches a threshold.
    """

    kind: ClassVar[str] = "cosine_embedding"
    takes_score: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    threshold: float = number(2.5, -1e6, 1e6)
    """Smallest label of a similar pair, in label units."""
    margin: float = number(0.0, 0.0, 1.0)
    """Largest cosine at which a dissimilar pair has no loss."""

    def check(self, task: Task, encoding: str, paired: bool) -> None:
        _check_cosine(self.kind, task, encoding, paired)
        if not task.low < self.threshold <= task.high:
            raise ConfigError(
                f"`encoding/{task.name}/head/threshold` must divide the labels of {task.name}: expected a number above "
                f"{task.low} and at most {task.high}, found {self.threshold}."
            )

    def build(self, context: HeadContext) -> HeadModule:
        return CosineModule(context, "shift", "none")

    def loss(self, task: Task, outputs: Tensor, labels: Tensor, unit: float = 1.0) -> Tensor:
        cosines = 2.0 * (outputs.squeeze(-1) - task.low) / (task.high - task.low) - 1.0
        return cosine_embedding(cosines, labels >= self.threshold, self.margin)


def _check_cosine(kind: str, task: Task, encoding: str, paired: bool) -> None:
    if not paired:
        raise ConfigError(
            f"`encoding/{task.name}/head/kind` {kind} compares two sentence states, "
            f"which `encoding/{task.name}/kind` {encoding} does not have. Use head linear, or encoding bi."
        )
    if task.kind != "regression":
        raise ConfigError(
            f"`encoding/{task.name}/head/kind` {kind} gives a score, and {task.name} predicts classes; use linear."
        )


class SharedHead(Protocol):
    """Choice of a layer that pair tasks share."""

    kind: ClassVar[str]
    active: ClassVar[bool]
    """Whether there is such a layer."""

    def build(self, width: int, generator: torch.Generator) -> SharedModule | None:
        """The layer for hidden size `width`; None where there is none."""
        ...


@dataclass(frozen=True)
class NoSharedHead:
    """No shared head: every task has only its own head."""

    kind: ClassVar[str] = "none"
    active: ClassVar[bool] = False

    def build(self, width: int, generator: torch.Generator) -> SharedModule | None:
        return None


@dataclass(frozen=True)
class LinearSharedHead:
    """Linear shared head: one layer on [u;v] for all pair tasks, added to each task's own output (`beyond_bert`)."""

    kind: ClassVar[str] = "linear"
    active: ClassVar[bool] = True

    def build(self, width: int, generator: torch.Generator) -> SharedModule | None:
        return SharedModule(width, generator)


HEADS: dict[str, type[Head]] = {kind.kind: kind for kind in (LinearHead, CosineHead, CosineEmbeddingHead)}
"""Heads by name."""

SHARED_HEADS: dict[str, type[SharedHead]] = {kind.kind: kind for kind in (NoSharedHead, LinearSharedHead)}
"""Shared heads by name."""
