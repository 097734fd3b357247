"""Frozen part of an encoder: its features are computed once for all trials.

Frozen layers are untrained and have no dropout, so their output is a function of the text. If the whole encoder is
frozen, the heads read one pooled state [D] of each sequence; if top layers are trained, those start from the token
states [n, D] of the frozen layers. Both are cached (`minbert.training.feature_cache`) under `<cache>/features/<key>`;
the key is the SHA-256 of everything that decides the values.

A row's value must not depend on which rows are computed with it, or a trial's rounding would depend on what other
trials cached. So a CPU computes every sequence by itself on one thread, a GPU fixed blocks of neighbours in the file.
MINBERT_FEATURES=off computes the frozen part in every pass; results agree to rounding (1e-5).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minbert.caches import cache_folder
from minbert.data.batches import Sequences, TaskBatch, pack
from minbert.data.tokens import TaskFile
from minbert.encoder.bert import Bert
from minbert.encoder.poolings import TOKEN_POOLING, pooled
from minbert.techniques.encodings import Encoding
from minbert.training.feature_cache import CachedRows

VERSION = 1
"""Version in every key: raise it when the same recipe gives different values."""

BLOCK = 64
"""Number of neighbouring sequences that a GPU computes together: enough to fill it, with few unrequested ones."""


def caching() -> bool:
    """Whether features are cached: True unless MINBERT_FEATURES is `off`."""
    return os.environ.get("MINBERT_FEATURES", "").lower() != "off"


@dataclass(frozen=True)
class Reading:
    """Reading of a task's rows: how they become sequences."""

    encoding: Encoding
    limit: int
    """Largest number of word pieces of a sequence."""
    cls: int
    """Id of [CLS]."""
    sep: int
    """Id of [SEP]."""

    def sequences(self, file: TaskFile, rows: Sequence[int]) -> Sequences:
        """Sequences of the rows: all first parts, then all second parts."""
        return self.encoding.sequences(file, rows, self.limit, self.cls, self.sep)


class FrozenPart:
    """Frozen part of one encoder: computes features and keeps them in the cache."""

    def __init__(self, encoder: Bert, depth: int, weights: str | None, dtype: torch.dtype) -> None:
        """The part is the embeddings and the lowest `depth` layers of an encoder, which must be on its device.

        `weights` identifies the encoder's weights; None: their SHA-256 is computed. `dtype` is the arithmetic of the
        linear layers.
        """
        self.encoder, self.depth, self.dtype = encoder, depth, dtype
        self.whole = depth == len(encoder.layers)
        self.device = encoder.embeddings.norm.weight.device
        self.weights = weights or self._digest()
        self.tables: dict[tuple[str, int], _Table] = {}
        """Features by task and `id` of the file; a table holds its file, so that no other object gets the same `id`."""

    def __deepcopy__(self, memo: object) -> FrozenPart:
        return self  # it does not change: copies of the model share it

    def _digest(self) -> str:
        """SHA-256 of the part's weights."""
        digest = hashlib.sha256()
        for module in (self.encoder.embeddings, *self.encoder.layers[: self.depth]):
            for name, value in module.state_dict().items():
                digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def states(self, batch: TaskBatch, reading: Reading) -> NDArray[np.float32]:
        """Features of a batch: pooled states [S, D] of its S sequences, or their token states end to end [N, D]."""
        key = batch.task, id(batch.file)
        if key not in self.tables:
            self.tables[key] = _Table(self, batch.file, reading)
        return self.tables[key].fetch(batch.rows)

    def recipe(self, file: TaskFile, reading: Reading) -> dict[str, Any]:
        """Everything that decides the features of a file, as JSON values."""
        return {
            "version": VERSION,
            "torch": torch.__version__,  # another version may round differently
            "device": self.device.type,
            "arithmetic": str(self.dtype).removeprefix("torch."),
            "encoder": asdict(self.encoder.config),
            "weights": self.weights,
            "output": TOKEN_POOLING[reading.encoding.pooling] if self.whole else f"layer {self.depth}",
            "texts": file.digest,
            "encoding": reading.encoding.kind,
            "max_length": reading.limit,
            "special": [reading.cls, reading.sep],
        }

    def compute(self, sequences: Sequences, pooling: str) -> list[NDArray[np.float32]]:
        """Features of sequences, computed together: [1, D] each if the whole encoder is frozen, else [n, D]."""
        packed = pack(sequences).to(self.device)
        with torch.no_grad(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if self.whole:
                states = pooled({pooling}, packed, lambda first: self.encoder(packed, first_only=first))[pooling]
                return list(states.float()[:, None].cpu().numpy())
            tokens = self.encoder.lowest(packed, self.depth).float().cpu()
        by_length = tokens.split(sorted(len(ids) for ids, _ in sequences))  # type: ignore[no-untyped-call]
        return [by_length[index].numpy() for index in packed.place.tolist()]


class _Table:
    """Features of a file under one reading: those of its own rows, cached for all trials, and of added rows."""

    def __init__(self, part: FrozenPart, file: TaskFile, reading: Reading) -> None:
        self.part, self.file, self.reading = part, file, reading
        self.pooling = TOKEN_POOLING[reading.encoding.pooling]
        lengths = reading.encoding.lengths(file, reading.limit)  # [parts, R]
        if part.whole:
            lengths = np.ones_like(lengths)
        recipe = json.dumps(part.recipe(file, reading), sort_keys=True)
        parent, width = cache_folder() / "features", part.encoder.config.hidden_size
        folder = parent / hashlib.sha256(recipe.encode()).hexdigest()[:32]
        own = len(file.labels) - file.added
        self.shared = _Stretch(self, 0, CachedRows(folder, lengths[:, :own].ravel(), width), own)
        self.added = None
        if file.added:  # augmented rows differ from trial to trial: unnamed files, deleted with this table
            self.added = _Stretch(self, own, CachedRows(None, lengths[:, own:].ravel(), width, parent), file.added)
        self.lengths = lengths
        with contextlib.suppress(OSError):  # for people: no code reads this file
            (folder / "recipe.json").exists() or (folder / "recipe.json").write_text(recipe)

    def fetch(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features of rows: all first parts, then all second parts."""
        if self.added is None:
            return self.shared.fetch(rows, len(self.lengths))
        is_added = rows >= self.added.begin
        values = np.empty((int(self.lengths[:, rows].sum()), self.part.encoder.config.hidden_size), dtype=np.float32)
        added_lines = np.repeat(np.tile(is_added, len(self.lengths)), self.lengths[:, rows].ravel())
        parts = (self.shared, rows[~is_added], ~added_lines), (self.added, rows[is_added], added_lines)
        for stretch, chosen, lines in parts:
            if len(chosen):
                values[lines] = stretch.fetch(chosen, len(self.lengths))
        return values


@dataclass
class _Stretch:
    """Rows `begin` to `begin + count` of a table's file, and their cached features.

    Part p of the stretch's row r is row p count + r of the cache, its place there.
    """

    table: _Table
    begin: int
    values: CachedRows
    count: int

    def fetch(self, rows: NDArray[np.int64], parts: int) -> NDArray[np.float32]:
        places = rows - self.begin if self.begin else rows
        if parts > 1:
            places = np.concatenate([places + part * self.count for part in range(parts)])
        return self.values.fetch(places, self._compute)

    def _compute(self, places: list[int]) -> Mapping[int, NDArray[np.float32]]:
        part = self.table.part
        features: dict[int, NDArray[np.float32]] = {}
        with _one_thread():
            for group in self._groups(places):
                values = part.compute([self._sequence(place) for place in group], self.table.pooling)
                features.update(zip(group, values, strict=True))
        return features

    def _groups(self, places: list[int]) -> Iterator[list[int]]:
        """Groups of places that are computed together: always the same blocks, whichever of their rows are missing."""
        if self.table.part.device.type == "cpu":
            yield from ([place] for place in places)
            return
        for block in sorted({place // BLOCK for place in places}):
            yield list(range(block * BLOCK, min((block + 1) * BLOCK, len(self.values.lengths))))

    def _sequence(self, place: int) -> tuple[NDArray[np.int32], int]:
        part, row = divmod(place, self.count)
        return self.table.reading.sequences(self.table.file, [self.begin + row])[part]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, so that sums have one order and all processes compute the same features."""
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)
