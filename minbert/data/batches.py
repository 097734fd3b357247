"""Rows of tokenised text put together into packed batches.

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
"""Word-piece ids with special tokens, and the length of the first segment."""


def trim(first: NDArray[np.int32], second: NDArray[np.int32], room: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Cut the longer of two texts, token by token, until both fit into `room` together."""
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
    """One sequence for each text of a row: all first texts, then all second ones (if there are two columns)."""
    sequences: Sequences = []
    for texts in file.texts:
        for row in rows:
            ids = np.concatenate([[cls], texts[row][: limit - 2], [sep]], dtype=np.int32)
            sequences.append((ids, len(ids)))
    return sequences


def cross_lengths(file: TaskFile, limit: int) -> NDArray[np.int64]:
    """The lengths of all rows' sequences as `cross_encode` makes them [1, R]."""
    texts = sum(np.diff(column.offsets) for column in file.texts)
    return np.asarray(np.minimum(texts, limit - 3) + 3, dtype=np.int64)[None]


def bi_lengths(file: TaskFile, limit: int) -> NDArray[np.int64]:
    """The lengths of all rows' sequences as `bi_encode` makes them [columns, R]."""
    return np.stack([np.minimum(np.diff(column.offsets), limit - 2) + 2 for column in file.texts]).astype(np.int64)


@dataclass(frozen=True)
class TaskBatch:
    """Rows of one task, ready for the model."""

    task: str
    file: TaskFile
    rows: NDArray[np.int64]
    """Row numbers in the file [B]."""
    labels: Tensor
    """Labels [B]; NaN where there is none."""
    encode: Callable[[TaskFile, Sequence[int]], Sequences] = field(repr=False)
    """How rows of the file become sequences."""

    @functools.cached_property
    def sequences(self) -> Sequences:
        """One or two sequences a row: all first ones, then all second ones. Made when they are first asked for."""
        return self.encode(self.file, self.rows.tolist())


def pack(sequences: Sequences, ratio: float = 1.4) -> Packed:
    """Lay sequences end to end, in order of length.

    A run of attention ends where a sequence is more than `ratio` times as long as the run's shortest one: its padded
    layout then wastes little, and there are few runs.
    """
    given = np.array([len(ids) for ids, _ in sequences])
    order = np.argsort(given, kind="stable")
    lengths = given[order]  # [B]
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
    """Where each packed token stood while the sequences lay end to end as they were given [N]; on a CPU."""
    lengths = torch.diff(packed.first, append=torch.tensor([len(packed.ids)]))  # [B], in order of length
    given = lengths[packed.place]
    starts = torch.empty_like(lengths)
    starts[packed.place] = given.cumsum(0) - given
    return starts.repeat_interleave(lengths) + packed.positions


def _runs(
    lengths: NDArray[np.int64], starts: NDArray[np.int64], positions: NDArray[np.int64], ratio: float
) -> Iterator[Run]:
    begin = 0
    while begin < len(lengths):
        end = int(np.searchsorted(lengths, lengths[begin] * ratio, side="right"))
        some, longest = lengths[begin:end], int(lengths[end - 1])
        tokens = slice(int(starts[begin]), int(starts[end]))
        slots = positions[tokens] + np.repeat(np.arange(len(some)) * longest, some)
        padding = torch.from_numpy(np.arange(longest)[None, :] >= some[:, None])  # [b, T]
        mask = torch.zeros(len(some), 1, 1, longest).masked_fill_(padding[:, None, None], -torch.inf)
        yield Run(tokens, slice(begin, end), torch.from_numpy(slots), mask)
        begin = end


def training_rows(rows: NDArray[np.int32], seed: int, task: str, start: int, count: int) -> list[int]:
    """`count` rows of a task's endless training order, from position `start`.

    Every epoch is a permutation that depends on (seed, task, epoch) alone, so a position is all there is to save.
    """
    chosen: list[int] = []
    while len(chosen) < count:
        epoch, offset = divmod(start + len(chosen), len(rows))
        order = permutation(len(rows), seed, task, epoch)
        chosen.extend(rows[order[offset : offset + count - len(chosen)]].tolist())
    return chosen


@functools.lru_cache(maxsize=16)  # two epochs of a few tasks: drawing 76,000 numbers for a batch of 32 would be waste
def permutation(count: int, seed: int, task: str, epoch: int) -> NDArray[np.int64]:
    """The order of a task's rows in one epoch."""
    return numpy_generator(seed, "order", task, epoch).permutation(count)


def by_length(sizes: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Indices of rows, whose sequences have lengths `sizes` [parts, R], in groups of similar length and at most about
    `tokens` tokens: evaluation batches."""
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
