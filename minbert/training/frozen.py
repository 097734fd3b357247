"""Features of the frozen part of an encoder, computed once for all trials.

Frozen layers are untrained and have no dropout, so that their output is a function of the text. If the whole encoder is
frozen, heads read one pooled state [D] of each sequence; if top layers are trained, they start from the token states
[n, D] of the frozen layers. Both are cached (`minbert.training.feature_cache`) under `<cache>/features/<key>`, with the
SHA-256 of everything that decides them as the key.

A row's value must not depend on neighbouring rows, or a trial's rounding would depend on what other trials cached. On a
CPU every sequence is computed by itself on one thread, on a GPU in blocks of neighbours in its file.
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

from minbert.data.batches import Sequences, TaskBatch, pack
from minbert.data.tokens import TaskFile, cache_folder
from minbert.encoder.bert import Bert
from minbert.encoder.poolings import TOKEN_POOLING, pooled
from minbert.techniques.encodings import Encoding
from minbert.training.feature_cache import CachedRows

VERSION = 1
"""Part of every key: raise it when the same recipe gives other values."""

BLOCK = 64
"""Neighbouring sequences that a GPU computes together: enough to fill it, and few unrequested ones."""


def caching() -> bool:
    """Whether features are cached: unless MINBERT_FEATURES is `off`."""
    return os.environ.get("MINBERT_FEATURES", "").lower() != "off"


@dataclass(frozen=True)
class Reading:
    """How a task's rows become sequences."""

    encoding: Encoding
    limit: int
    """Largest number of word pieces of a sequence."""
    cls: int
    sep: int

    def sequences(self, file: TaskFile, rows: Sequence[int]) -> Sequences:
        return self.encoding.sequences(file, rows, self.limit, self.cls, self.sep)


class FrozenPart:
    """The frozen part of one encoder."""

    def __init__(self, encoder: Bert, depth: int, weights: str | None, dtype: torch.dtype) -> None:
        """The embeddings and the lowest `depth` layers of an encoder that is on its device; L layers are all of it.

        `weights`: identity of the encoder's weights; None takes their SHA-256. `dtype`: arithmetic of the linear
        layers.
        """
        self.encoder, self.depth, self.dtype = encoder, depth, dtype
        self.whole = depth == len(encoder.layers)
        self.device = encoder.embeddings.norm.weight.device
        self.weights = weights or self._digest()
        self.tables: dict[tuple[str, int], _Table] = {}
        """By task and identity of the file; a table holds its file, so that no other object takes the identity."""

    def __deepcopy__(self, memo: object) -> FrozenPart:
        return self  # constant: copies of the model share it

    def _digest(self) -> str:
        """SHA-256 of the part's weights."""
        digest = hashlib.sha256()
        for module in (self.encoder.embeddings, *self.encoder.layers[: self.depth]):
            for name, value in module.state_dict().items():
                digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def states(self, batch: TaskBatch, reading: Reading) -> NDArray[np.float32]:
        """Pooled states [S, D] of the batch's S sequences, or their tokens' states end to end [N, D]."""
        key = batch.task, id(batch.file)
        if key not in self.tables:
            self.tables[key] = _Table(self, batch.file, reading)
        return self.tables[key].fetch(batch.rows)

    def recipe(self, file: TaskFile, reading: Reading) -> dict[str, Any]:
        """Everything that decides the features of a file."""
        return {
            "version": VERSION,
            "torch": torch.__version__,  # another one may round differently
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
        """Values [1 or n, D] of sequences, computed together."""
        packed = pack(sequences).to(self.device)
        with torch.no_grad(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if self.whole:
                states = pooled({pooling}, packed, lambda first: self.encoder(packed, first_only=first))[pooling]
                return list(states.float()[:, None].cpu().numpy())
            tokens = self.encoder.lowest(packed, self.depth).float().cpu()
        ordered = tokens.split(sorted(len(ids) for ids, _ in sequences))  # type: ignore[no-untyped-call]
        return [ordered[place].numpy() for place in packed.place.tolist()]


class _Table:
    """The features of a file under one reading; those of part p of row r are row p R + r of the cache."""

    def __init__(self, part: FrozenPart, file: TaskFile, reading: Reading) -> None:
        self.part, self.file, self.reading = part, file, reading
        self.pooling = TOKEN_POOLING[reading.encoding.pooling]
        lengths = reading.encoding.lengths(file, reading.limit)  # [parts, R]
        if part.whole:
            lengths = np.ones_like(lengths)
        recipe = json.dumps(part.recipe(file, reading), sort_keys=True)
        room, width = cache_folder() / "features", part.encoder.config.hidden_size
        folder = room / hashlib.sha256(recipe.encode()).hexdigest()[:32]
        own = len(file.labels) - file.added
        self.shared = _Stretch(self, 0, CachedRows(folder, lengths[:, :own].ravel(), width), own)
        self.added = None
        if file.added:  # augmented rows differ from trial to trial: an unnamed file, deleted with this table
            self.added = _Stretch(self, own, CachedRows(None, lengths[:, own:].ravel(), width, room), file.added)
        self.lengths = lengths
        with contextlib.suppress(OSError):  # for people; no code reads this file
            (folder / "recipe.json").exists() or (folder / "recipe.json").write_text(recipe)

    def fetch(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features of rows: all first parts, then all second ones."""
        if self.added is None:
            return self.shared.fetch(rows, len(self.lengths))
        late = rows >= self.added.begin
        values = np.empty((int(self.lengths[:, rows].sum()), self.part.encoder.config.hidden_size), dtype=np.float32)
        late_lines = np.repeat(np.tile(late, len(self.lengths)), self.lengths[:, rows].ravel())
        for stretch, chosen, lines in ((self.shared, rows[~late], ~late_lines), (self.added, rows[late], late_lines)):
            if len(chosen):
                values[lines] = stretch.fetch(chosen, len(self.lengths))
        return values


@dataclass
class _Stretch:
    """Rows `begin` to `begin + count` of a table's file, and the cache of their features."""

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
        """Places that are computed together: always the same blocks, whichever of their rows are missing."""
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
    """Sum in one order, however many threads a process has: all processes then compute the same features."""
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)
