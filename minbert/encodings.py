"""How a row becomes sequences, and which head reads their states. The kind decides which tasks and heads fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from minbert.batches import Sequences, bi_encode, cross_encode
from minbert.data import TaskFile
from minbert.heads import HEADS, CosineHead, Head, LinearHead
from minbert.schema import ConfigError, branch
from minbert.tasks import Task


class Encoding(Protocol):
    """One of the classes below."""

    kind: ClassVar[str]
    paired: ClassVar[bool]
    """Whether u and v are encoded apart."""

    @property
    def head(self) -> Head: ...

    def sequences(self, file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences: ...

    def check(self, task: Task) -> None: ...


def _check_columns(kind: str, task: Task, columns: int) -> None:
    if len(task.columns) != columns:
        fits = "cross, bi" if task.is_pair else "single"
        found = f"{len(task.columns)} text column(s)"
        raise ConfigError(f"`encoding/{task.name}/kind` {kind} does not fit {found} of {task.name}; use {fits}.")


def _check_linear(task: Task, head: Head, kind: str) -> None:
    if not isinstance(head, LinearHead):
        raise ConfigError(
            f"`encoding/{task.name}/head/kind` {head.kind} compares two sentence states, "
            f"which `encoding/{task.name}/kind` {kind} does not have. Use head linear, or encoding bi."
        )
    if head.features != LinearHead.features:
        raise ConfigError(
            f"`encoding/{task.name}/head/features` {head.features} combines two sentence states, which "
            f"`encoding/{task.name}/kind` {kind} does not have. Leave it out, or use encoding bi."
        )


@dataclass(frozen=True)
class Single:
    """[CLS] a [SEP], for tasks with one text."""

    kind: ClassVar[str] = "single"
    paired: ClassVar[bool] = False
    head: Head = branch(HEADS, LinearHead())
    """Head on the [CLS] state."""

    def sequences(self, file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
        return bi_encode(file, rows, limit, cls, sep)

    def check(self, task: Task) -> None:
        _check_columns(self.kind, task, 1)
        _check_linear(task, self.head, self.kind)


@dataclass(frozen=True)
class Cross:
    """[CLS] a [SEP] b [SEP]: attention sees both texts (`multi_extended`)."""

    kind: ClassVar[str] = "cross"
    paired: ClassVar[bool] = False
    head: Head = branch(HEADS, LinearHead())
    """Head on the [CLS] state."""

    def sequences(self, file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
        return cross_encode(file, rows, limit, cls, sep)

    def check(self, task: Task) -> None:
        _check_columns(self.kind, task, 2)
        _check_linear(task, self.head, self.kind)


@dataclass(frozen=True)
class Bi:
    """[CLS] a [SEP] and [CLS] b [SEP], encoded apart."""

    kind: ClassVar[str] = "bi"
    paired: ClassVar[bool] = True
    head: Head = branch(HEADS, LinearHead())
    """Head on both sentences' [CLS] states."""

    def sequences(self, file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
        return bi_encode(file, rows, limit, cls, sep)

    def check(self, task: Task) -> None:
        _check_columns(self.kind, task, 2)
        if isinstance(self.head, CosineHead) and task.kind != "regression":
            raise ConfigError(
                f"`encoding/{task.name}/head/kind` cosine gives a score, and {task.name} predicts classes; use linear."
            )


ENCODINGS: dict[str, type] = {kind.kind: kind for kind in (Single, Cross, Bi)}


def default_encoding(task: Task) -> Encoding:
    """The strongest encoding of a task in the papers: cross for pairs."""
    return Cross() if task.is_pair else Single()
