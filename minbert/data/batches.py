"""Packed batches made from rows of tokenised text, and the order of training rows.

cross-encoding   [CLS] a [SEP] b [SEP]  with segment ids       one sequence a row (Devlin et al. 2019)
bi-encoding      [CLS] a [SEP]   and   [CLS] b [SEP]           two sequences a row (Reimers and Gurevych 2019)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minbert.data.tokens import TaskFile
from minbert.encoder.packed import Packed, Run
from minbert.randomness import numpy_generator

Sequences = list[tuple[NDArray[np.int32], int]]
"""One (word-piece ids with special tokens, length of the first segment) per sequence."""


def trim(first: NDArray[np.int32], second: NDArray[np.int32], room: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Cut two texts to `room` tokens together by removing tokens from the end of the longer one."""
    excess = len(first) + len(second) - room
    if excess <= 0:
        return first, second
    keep_first = max(room - len(second), min(len(first), (room + 1) // 2))
    return first[:keep_first], second[: room - keep_first]


def cross_encode(file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
    """One sequence of at most `limit` tokens for each row of a sentence pair."""
    sequences: Sequences = []
    for row in rows:
        first, second = trim(file.texts[0][row], file.texts[1][row], limit - 3)
        sequences.append((np.concatenate([[cls], first, [sep], second, [sep]], dtype=np.int32), len(first) + 2))
    return sequences


def bi_encode(file: TaskFile, rows: Sequence[int], limit: int, cls: int, sep: int) -> Sequences:
    """One sequence of at most `limit` tokens for each text: those of the first column, then those of the second."""
    sequences: Sequences = []
    for texts in file.texts:
        for row in rows:
            ids = np.concatenate([[cls], texts[row][: limit - 2], [sep]], dtype=np.int32)
            sequences.append((ids, len(ids)))
    return sequences


def cross_lengths(file: TaskFile, limit: int) -> NDArray[np.int64]:
    """Lengths [1, R] of the sequences that `cross_encode` makes of all rows."""
    texts = sum(np.diff(column.offsets) for column in file.texts)
    return np.asarray(np.minimum(texts, limit - 3) + 3, dtype=np.int64)[None]


def bi_lengths(file: TaskFile, limit: int) -> NDArray[np.int64]:
    """Lengths [columns, R] of the sequences that `bi_encode` makes of all rows."""
    return np.stack([np.minimum(np.diff(column.offsets), limit - 2) + 2 for column in file.texts]).astype(np.int64)


@dataclass(frozen=True)
class TaskBatch:
    """A batch of one task's rows, for the model."""

    task: str
    file: TaskFile
    rows: NDArray[np.int64]
    """Row numbers in the file [B]."""
    labels: Tensor
    """Labels [B]; NaN for a row without one."""
    encode: Callable[[TaskFile, Sequence[int]], Sequences] = field(repr=False)
    """Turns rows of the file into sequences."""

    @functools.cached_property
    def sequences(self) -> Sequences:
        """Sequences of the first texts, then of the second ones; made at the first use."""
        return self.encode(self.file, self.rows.tolist())


def pack(sequences: Sequences, ratio: float = 1.4) -> Packed:
    """Pack sequences end to end, in order of length.

    An attention run ends before a sequence that is more than `ratio` times as long as the run's shortest one. This
    keeps both the padding of a run and the number of runs small.
    """
    sizes = np.array([len(ids) for ids, _ in sequences])
    order = np.argsort(sizes, kind="stable")
    lengths = sizes[order]  # [B]
    starts = np.concatenate([[0], np.cumsum(lengths)])  # [B + 1]
    positions = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)  # [N]
    segments = positions >= np.repeat([sequences[index][1] for index in order], lengths)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Packed(
        ids=torch.from_numpy(np.concatenate([sequences[index][0] for index in order]).astype(np.int64)),
        positions=torch.from_numpy(positions),
        segments=torch.from_numpy(segments.astype(np.int64)),
        first=torch.from_numpy(starts[:-1]),
        place=torch.from_numpy(place),
        runs=tuple(_runs(lengths, starts, positions, ratio)),
    )


def in_order_of_packing(packed: Packed) -> Tensor:
    """Index [N] of each packed token when the sequences lie end to end in the order of `pack`'s argument; on a CPU."""
    lengths = torch.diff(packed.first, append=torch.tensor([len(packed.ids)]))  # [B], in order of length
    sizes = lengths[packed.place]  # [B], in the order of the argument
    starts = torch.empty_like(lengths)
    starts[packed.place] = sizes.cumsum(0) - sizes
    return starts.repeat_interleave(lengths) + packed.positions


def _runs(
    lengths: NDArray[np.int64], starts: NDArray[np.int64], positions: NDArray[np.int64], ratio: float
) -> Iterator[Run]:
    """Runs of sequences of similar length, from sorted `lengths` [B] with `starts` [B + 1] and `positions` [N]."""
    begin = 0
    while begin < len(lengths):
        end = int(np.searchsorted(lengths, lengths[begin] * ratio, side="right"))
        run_lengths, longest = lengths[begin:end], int(lengths[end - 1])
        tokens = slice(int(starts[begin]), int(starts[end]))
        slots = positions[tokens] + np.repeat(np.arange(len(run_lengths)) * longest, run_lengths)
        padding = torch.from_numpy(np.arange(longest)[None, :] >= run_lengths[:, None])  # [b, T]
        mask = torch.zeros(len(run_lengths), 1, 1, longest).masked_fill_(padding[:, None, None], -torch.inf)
        yield Run(tokens, slice(begin, end), torch.from_numpy(slots), mask)
        begin = end


def training_rows(rows: NDArray[np.int32], seed: int, task: str, start: int, count: int) -> list[int]:
    """The next `count` rows of a task's training order, from position `start`; the order never ends.

    The permutation of an epoch depends on (seed, task, epoch) alone, so a checkpoint saves only the position.
    """
    chosen: list[int] = []
    while len(chosen) < count:
        epoch, offset = divmod(start + len(chosen), len(rows))
        order = permutation(len(rows), seed, task, epoch)
        chosen.extend(rows[order[offset : offset + count - len(chosen)]].tolist())
    return chosen


@functools.lru_cache(maxsize=16)  # two epochs of a few tasks; without it each batch of 32 would draw 76,000 numbers
def permutation(count: int, seed: int, task: str, epoch: int) -> NDArray[np.int64]:
    """Order of a task's rows in one epoch."""
    return numpy_generator(seed, "order", task, epoch).permutation(count)


def by_length(sizes: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Evaluation batches: indices of rows in groups of similar length, of at most `tokens` tokens after padding.

    `sizes` [texts per row, R] are the lengths of the rows' sequences. A row longer than `tokens` is a group alone.
    """
    texts_per_row, rows = sizes.shape
    lengths = sizes.max(axis=0)
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < rows:
        stop = start + 1
        while stop < rows and (stop + 1 - start) * lengths[order[stop]] * texts_per_row <= tokens:
            stop += 1
        yield order[start:stop]
        start = stop
