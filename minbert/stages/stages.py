"""Stages before the multitask training: each trains the whole encoder on one objective.

    mlm   masked language modelling on the tasks' own training texts (`pal_lora`, section 4.3; Sun et al. 2019)
    nli   cross-encoded natural language inference, three classes (`multi_extended`, section 4)
    mnrl  multiple negatives ranking on pairs that mean the same (`beyond_bert`, section 4)

They run in this order; each starts from the encoder of the stage before it. All use AdamW, weight decay 0.01, a linear
schedule with a tenth of warm-up, and gradients clipped at norm 1. A stage reads training rows only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from minbert.data.files import Corpus, DataError
from minbert.data.nli import digest, find_nli, read_nli
from minbert.data.tokens import Data, TaskFile, Texts, word_piece
from minbert.fields import branch, choice, integer, number
from minbert.stages.objectives import Inference, MaskedLanguage, Objective, Ranking, StageContext
from minbert.tasks import Task


class Stage(Protocol):
    """Hyperparameters of a stage."""

    kind: ClassVar[str]
    sequences: ClassVar[int]
    """Number of sequences that a row becomes."""

    @property
    def epochs(self) -> float: ...
    @property
    def lr(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def max_length(self) -> int: ...

    def multiplications(self, width: int, words: int) -> float:
        """Multiplications of a token after the encoder, for hidden size `width` and so many word embeddings."""

    def check(self, corpus: Corpus) -> None:
        """Check that the corpus has data that the stage can train on. Raises DataError."""

    def texts(self, corpus: Corpus) -> Sequence[tuple[str, ...]]:
        """Texts of the rows that the stage reads. Raises DataError."""

    def digest(self, data: Data) -> str:
        """SHA-256 of the data that the stage reads. Raises DataError."""

    def read(self, data: Data) -> TaskFile:
        """Read and tokenise the rows of the stage. Raises DataError."""

    def build(self, context: StageContext) -> Objective: ...


READ_BY = ("source", "min_score")
"""Settings of a stage that decide which rows it reads."""


def reading(stage: Stage) -> tuple[Any, ...]:
    """What decides the rows that a stage reads: stages with equal readings read the same."""
    return (stage.kind, *(getattr(stage, name, None) for name in READ_BY))


@dataclass(frozen=True)
class NoStage:
    """The stage is off."""

    kind: ClassVar[str] = "none"


@dataclass(frozen=True)
class MLM:
    """Masked language modelling on every text of the tasks' training rows; each text is one sequence."""

    kind: ClassVar[str] = "mlm"
    sequences: ClassVar[int] = 1
    mask_rate: float = number(0.15, 0.0, 0.9, open_low=True)
    """Probability that a word piece is chosen for prediction."""
    epochs: float = number(1.0, 0.0, 100.0, open_low=True)
    """Passes over the texts; may be a fraction."""
    lr: float = number(5e-5, 0.0, 1.0, open_low=True)
    """Peak learning rate of the encoder and the output layer."""
    batch_size: int = integer(32, 1, 4096)
    """Texts in one batch."""
    dropout: float = number(0.1, 0.0, 0.9)
    """Dropout rate of hidden states and attention."""
    max_length: int = integer(128, 8, 512)
    """Longest sequence in word pieces; longer ones are cut."""

    def multiplications(self, width: int, words: int) -> float:
        return self.mask_rate * width * (width + words)

    def check(self, corpus: Corpus) -> None:
        pass

    def texts(self, corpus: Corpus) -> Sequence[tuple[str, ...]]:
        return [(text,) for task in corpus.tasks for row in corpus.rows[task, "train"].texts for text in row if text]

    def digest(self, data: Data) -> str:
        return rows_digest(self.read(data))

    def read(self, data: Data) -> TaskFile:
        columns = []
        for task in data.tasks:
            for texts in data.file(task, "train").texts:
                rows = np.asarray(data.parts[task, "train"])
                columns.append((texts, rows[np.diff(texts.offsets)[rows] > 0]))
        return _task_file((columns,), "No training row has a text for `stages/mlm`")

    def build(self, context: StageContext) -> Objective:
        return MaskedLanguage(context, self.max_length, self.mask_rate)


@dataclass(frozen=True)
class NLI:
    """Three-class inference on premise and hypothesis, cross-encoded; the linear classifier is discarded afterwards."""

    kind: ClassVar[str] = "nli"
    sequences: ClassVar[int] = 1
    source: str = choice("all", "mnli")
    """Corpora of the NLI file that are read: all of them, or MNLI alone."""
    epochs: float = number(5.0, 0.0, 100.0, open_low=True)
    """Passes over the pairs; may be a fraction."""
    lr: float = number(5e-6, 0.0, 1.0, open_low=True)
    """Peak learning rate of the encoder and the classifier."""
    batch_size: int = integer(32, 1, 4096)
    """Pairs in one batch."""
    dropout: float = number(0.1, 0.0, 0.9)
    """Dropout rate of hidden states, attention and the classifier's input."""
    max_length: int = integer(128, 8, 512)
    """Longest sequence in word pieces; longer ones are cut."""

    def multiplications(self, width: int, words: int) -> float:
        return 0.0

    def check(self, corpus: Corpus) -> None:
        read_nli(find_nli(corpus.folder), self.source)

    def texts(self, corpus: Corpus) -> Sequence[tuple[str, ...]]:
        pairs = read_nli(find_nli(corpus.folder), self.source)
        return list(zip(pairs.premises, pairs.hypotheses, strict=True))

    def digest(self, data: Data) -> str:
        return digest(find_nli(data.folder))

    def read(self, data: Data) -> TaskFile:
        pairs = read_nli(find_nli(data.folder), self.source)
        tokenizer = word_piece(data.base.vocabulary, data.base.lowercase)
        texts = []
        for column in (pairs.premises, pairs.hypotheses):
            encoded = tokenizer.encode_batch(column, add_special_tokens=False)
            ids = [np.asarray(item.ids, dtype=np.int32) for item in encoded]
            texts.append(Texts(np.concatenate(ids), np.cumsum([0, *map(len, ids)])))
        return TaskFile(tuple(texts), pairs.labels.astype(np.float32))

    def build(self, context: StageContext) -> Objective:
        return Inference(context, self.max_length)


@dataclass(frozen=True)
class MNRL:
    """Multiple negatives ranking on the training pairs that mean the same.

    These are the pairs of class 1 in a task with two classes (QQP) and the pairs scored `min_score` or more in a
    regression (STS-B). The negatives of an anchor are the other positives of its batch, without known duplicates.
    """

    kind: ClassVar[str] = "mnrl"
    sequences: ClassVar[int] = 2
    scale: float = number(20.0, 0.0, 1000.0, open_low=True)
    """Factor on the cosine, an inverse temperature."""
    min_score: float = number(4.0, -1e6, 1e6)
    """Smallest label of a regression that counts as the same meaning."""
    pooling: str = choice("mean", "cls")
    """Sentence embedding: mean of all states (Reimers and Gurevych 2019) or the [CLS] state."""
    epochs: float = number(1.0, 0.0, 100.0, open_low=True)
    """Passes over the pairs; may be a fraction."""
    lr: float = number(2e-5, 0.0, 1.0, open_low=True)
    """Peak learning rate of the encoder."""
    batch_size: int = integer(64, 2, 4096)
    """Pairs in one batch; each anchor has one negative fewer than that."""
    dropout: float = number(0.1, 0.0, 0.9)
    """Dropout rate of hidden states and attention."""
    max_length: int = integer(128, 8, 512)
    """Longest sequence in word pieces; longer ones are cut."""

    def multiplications(self, width: int, words: int) -> float:
        return 0.0

    def check(self, corpus: Corpus) -> None:
        for task in filter(pairs_alike, corpus.tasks.values()):
            if task.kind == "regression" and not task.low <= self.min_score <= task.high:
                raise DataError(
                    f"`stages/mnrl/min_score` must be a label of {task.name}, from {task.low:g} to {task.high:g}, "
                    f"found {self.min_score:g}."
                )
            if (corpus.rows[task.name, "train"].labels >= self._alike(task)).any():
                return
        raise DataError(
            "`stages/mnrl` needs training pairs that mean the same; the tasks "
            f"{', '.join(corpus.tasks)} have none. "
            "Turn the stage off: `--set stages/mnrl/kind=none`."
        )

    def _alike(self, task: Task) -> float:
        """Smallest label of a pair that means the same."""
        return self.min_score if task.kind == "regression" else 1.0

    def texts(self, corpus: Corpus) -> Sequence[tuple[str, ...]]:
        return [
            pair
            for task in filter(pairs_alike, corpus.tasks.values())
            for rows in (corpus.rows[task.name, "train"],)
            for pair, label in zip(rows.texts, rows.labels.tolist(), strict=True)
            if label >= self._alike(task)
        ]

    def digest(self, data: Data) -> str:
        return rows_digest(self.read(data))

    def read(self, data: Data) -> TaskFile:
        chosen = []
        for name, task in data.tasks.items():
            file, rows = data.file(name, "train"), np.asarray(data.parts[name, "train"])
            labels = np.asarray(file.labels)[rows]
            if pairs_alike(task):
                chosen.append((file, rows[labels >= self._alike(task)]))
        columns = [[(file.texts[column], rows) for file, rows in chosen] for column in range(2)]
        return _task_file(
            columns, f"No pair task has a training pair of class 1 or scored `stages/mnrl/min_score` {self.min_score:g}"
        )

    def build(self, context: StageContext) -> Objective:
        return Ranking(context, self.max_length, self.scale, self.pooling)


def pairs_alike(task: Task) -> bool:
    """Whether a task's labels say which of its pairs mean the same: a pair task with a score or two classes."""
    return task.is_pair and (task.kind == "regression" or task.classes == 2)


def gather(parts: Iterable[tuple[Texts, NDArray[Any]]]) -> Texts:
    """Copy the texts of the given rows of each column into one column, end to end."""
    ids, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for texts, rows in parts:
        starts, counts = texts.offsets[rows], np.diff(texts.offsets)[rows]
        shift = starts - np.concatenate([[0], np.cumsum(counts)[:-1]]) if len(rows) else starts
        ids.append(np.asarray(texts.ids)[np.repeat(shift, counts) + np.arange(counts.sum())])
        lengths.append(counts)
    return Texts(np.concatenate(ids), np.concatenate([[0], np.cumsum(np.concatenate(lengths))]))


def _task_file(columns: Sequence[Sequence[tuple[Texts, NDArray[Any]]]], fault: str) -> TaskFile:
    """A file without labels from (texts, rows) of its columns. Raises DataError with `fault` where it has no rows."""
    texts = tuple(gather(parts) for parts in columns)
    rows = len(texts[0].offsets) - 1
    if not rows:
        raise DataError(f"{fault}. Choose another value, or turn the stage off with kind none.")
    return TaskFile(texts, np.zeros(rows, np.float32))


def rows_digest(file: TaskFile) -> str:
    """SHA-256 of a file's texts and labels."""
    sha256 = hashlib.sha256()
    for array in (*(array for texts in file.texts for array in (texts.ids, texts.offsets)), file.labels):
        sha256.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return sha256.hexdigest()


STAGES: dict[str, dict[str, type]] = {stage.kind: {"none": NoStage, stage.kind: stage} for stage in (MLM, NLI, MNRL)}
"""Choices for each stage, by kind; the stages stand in the order in which they run."""


@dataclass(frozen=True)
class Stages:
    """Stages before the multitask training, each on or off."""

    mlm: NoStage | MLM = branch(STAGES["mlm"], NoStage())
    """Masked language modelling on the tasks' texts."""
    nli: NoStage | NLI = branch(STAGES["nli"], NoStage())
    """Natural language inference."""
    mnrl: NoStage | MNRL = branch(STAGES["mnrl"], NoStage())
    """Multiple negatives ranking on the tasks' pairs."""

    def chain(self) -> tuple[Stage, ...]:
        """The stages that are on, in the order in which they run."""
        return tuple(stage for stage in (self.mlm, self.nli, self.mnrl) if not isinstance(stage, NoStage))
