"""Encodings: how a row becomes sequences, how their states are pooled, and which head reads them.

The kind decides which tasks and heads fit. Two rules look at all tasks of a run together: `check_shared` for a layer
that the pair tasks share, `check_frozen` for a run whose encoder is not trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from minbert.data.batches import Sequences, bi_encode, bi_lengths, cross_encode, cross_lengths
from minbert.data.tokens import TaskFile
from minbert.encoder.poolings import TOKEN_POOLING
from minbert.encoder.traits import MINILM
from minbert.fields import ConfigError, Run, branch, by_base, choice, load
from minbert.tasks import Task
from minbert.techniques.features import has_score
from minbert.techniques.heads import HEADS, Head, LinearHead, SharedHead

POOLING = by_base(choice(MINILM.pooling, *(name for name in TOKEN_POOLING if name != MINILM.pooling)),
                  lambda base: base.pooling)  # fmt: skip
"""Field of a pooling; the default is the one that the base was trained with."""


class Encoding(Protocol):
    """Encoding of one task."""

    kind: ClassVar[str]
    paired: ClassVar[bool]
    """Whether both sentences are encoded apart, to states u and v."""

    @property
    def pooling(self) -> str:
        """Pooling, a key of `minbert.encoder.poolings.TOKEN_POOLING`."""
        ...

    @property
    def head(self) -> Head:
        """Head on the pooled states."""
        ...

    def sequences(self, file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
        """Sequences of the rows: all first parts, then all second parts; each of at most `limit` word pieces."""
        ...

    def lengths(self, file: TaskFile, limit: int) -> NDArray[np.int64]:
        """Lengths in word pieces of all rows' sequences [parts, R]."""
        ...

    def check(self, task: Task) -> None:
        """Check that the encoding and its head fit the task. Raises ConfigError."""
        ...


def _check_columns(kind: str, task: Task, columns: int) -> None:
    if len(task.columns) != columns:
        fits = "cross, bi" if task.is_pair else "single"
        count = f"{len(task.columns)} text column{'s' if len(task.columns) > 1 else ''}"
        raise ConfigError(f"`encoding/{task.name}/kind` {kind} does not fit the {count} of {task.name}; use {fits}.")


@dataclass(frozen=True)
class Single:
    """Single encoding: [CLS] a [SEP], for tasks with one text."""

    kind: ClassVar[str] = "single"
    paired: ClassVar[bool] = False
    pooling: str = POOLING
    """Pooling of the sequence's token states: [CLS], BERT's pooler on it, or the mean or maximum of all."""
    head: Head = branch(HEADS, LinearHead())
    """Head on the pooled state."""

    def sequences(self, file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
        return bi_encode(file, rows, limit, cls, sep)

    def lengths(self, file: TaskFile, limit: int) -> NDArray[np.int64]:
        return bi_lengths(file, limit)

    def check(self, task: Task) -> None:
        _check_columns(self.kind, task, 1)
        self.head.check(task, self.kind, self.paired)


@dataclass(frozen=True)
class Cross:
    """Cross-encoding: [CLS] a [SEP] b [SEP], so that attention sees both texts (`multi_extended`)."""

    kind: ClassVar[str] = "cross"
    paired: ClassVar[bool] = False
    pooling: str = POOLING
    """Pooling of the sequence's token states: [CLS], BERT's pooler on it, or the mean or maximum of all."""
    head: Head = branch(HEADS, LinearHead())
    """Head on the pooled state."""

    def sequences(self, file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
        return cross_encode(file, rows, limit, cls, sep)

    def lengths(self, file: TaskFile, limit: int) -> NDArray[np.int64]:
        return cross_lengths(file, limit)

    def check(self, task: Task) -> None:
        _check_columns(self.kind, task, 2)
        self.head.check(task, self.kind, self.paired)


@dataclass(frozen=True)
class Bi:
    """Bi-encoding: [CLS] a [SEP] and [CLS] b [SEP], encoded apart."""

    kind: ClassVar[str] = "bi"
    paired: ClassVar[bool] = True
    pooling: str = POOLING
    """Pooling of each sentence's token states: [CLS], BERT's pooler on it, or the mean or maximum of all."""
    head: Head = branch(HEADS, LinearHead())
    """Head on both sentences' pooled states."""

    def sequences(self, file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
        return bi_encode(file, rows, limit, cls, sep)

    def lengths(self, file: TaskFile, limit: int) -> NDArray[np.int64]:
        return bi_lengths(file, limit)

    def check(self, task: Task) -> None:
        _check_columns(self.kind, task, 2)
        self.head.check(task, self.kind, self.paired)


ENCODINGS: dict[str, type[Encoding]] = {kind.kind: kind for kind in (Single, Cross, Bi)}
"""Encodings by name."""


def sharing(tasks: Mapping[str, Task]) -> tuple[str, ...]:
    """Names of the tasks that a shared head is added to: pair tasks with a score or two classes."""
    return tuple(name for name, task in tasks.items() if task.is_pair and has_score(task))


def check_shared(shared: SharedHead, encodings: Mapping[str, Encoding], tasks: Mapping[str, Task]) -> None:
    """Check that at least two tasks can share the head, and that all of those fit it. Raises ConfigError."""
    if not shared.active:
        return
    names = sharing(tasks)
    if len(names) < 2:
        raise ConfigError(
            f"`shared_head/kind` {shared.kind} needs at least two pair tasks with a score or two classes; "
            f"found {', '.join(names) or 'none'}. Use none."
        )
    for name in names:
        encoding = encodings[name]
        if not encoding.paired:
            raise ConfigError(
                f"`shared_head/kind` {shared.kind} reads both sentences' states, which `encoding/{name}/kind` "
                f"{encoding.kind} does not have. Use encoding bi for {', '.join(names)}, or shared_head none."
            )
        if not encoding.head.takes_score:
            raise ConfigError(
                f"`shared_head/kind` {shared.kind} is added to the output of a linear layer, and "
                f"`encoding/{name}/head/kind` {encoding.head.kind} gives a scaled cosine. "
                f"Use head linear for {', '.join(names)}, or shared_head none."
            )


def check_frozen(encodings: Mapping[str, Encoding], tasks: Mapping[str, Task]) -> None:
    """Check that a run with a frozen encoder has weights to train. Raises ConfigError.

    An untrained head beside a trained one is legal: it is a baseline, the base's own cosine.
    """
    if any(encodings[name].head.trains or encodings[name].pooling == "pooler" for name in tasks):
        return
    heads = ", ".join(f"`encoding/{name}/head/kind` {encodings[name].head.kind}" for name in tasks)
    raise ConfigError(
        f"{heads} without weights, and `adapter/kind` frozen: nothing would be trained. Use a head or a pooling with "
        "weights (head linear, head cosine with layer linear, pooling pooler), or another adapter."
    )


def default_encoding(task: Task, run: Run) -> Encoding:
    """Default encoding of a task, the strongest in the papers: cross for pairs, else single."""
    return load(Cross, {}, run=run) if task.is_pair else load(Single, {}, run=run)
