"""What the frozen part of an encoder gives for a text, computed once for all trials.

A part that is not trained and has no dropout is a function of the text. Of an encoder that is frozen wholly a head sees
one pooled state [D] a sequence; under trained top layers the token states [n, D] are what they start from. Both are
kept (`minbert.training.kept_rows`) by the SHA-256 of all that decides them, under `<cache>/features/<key>`.

A row's value must not depend on the rows beside it, or a trial's rounding would depend on what others left: on a CPU
every sequence is computed by itself on one thread, on a GPU in blocks of neighbours in its file. MINBERT_FEATURES=off
computes the frozen part in every pass; results agree to rounding (1e-5).
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
from minbert.encoder.poolings import TOKENS, pooled
from minbert.techniques.encodings import Encoding
from minbert.training.kept_rows import Rows

VERSION = 1
"""Part of every key: raise it when the same ingredients give other values."""

BLOCK = 64
"""Neighbouring sequences that a GPU computes together: enough to fill it, few that nobody asked for."""


def wanted() -> bool:
    """Whether frozen parts are kept: unless MINBERT_FEATURES is `off`."""
    return os.environ.get("MINBERT_FEATURES", "").lower() != "off"


@dataclass(frozen=True)
class Reading:
    """How a task's rows become sequences."""

    encoding: Encoding
    limit: int
    """Most word pieces of a sequence."""
    cls: int
    sep: int

    def sequences(self, file: TaskFile, rows: Sequence[int]) -> Sequences:
        return self.encoding.sequences(file, rows, self.limit, self.cls, self.sep)


class FrozenPart:
    """The frozen part of one encoder."""

    def __init__(self, encoder: Bert, depth: int, weights: str | None, dtype: torch.dtype) -> None:
        """Of an encoder that stands on its device: the embeddings and the lowest `depth` layers, L for all of it.

        `weights`: an identity of the encoder's weights; None takes their SHA-256. `dtype`: arithmetic of the linear
        layers.
        """
        self.encoder, self.depth, self.dtype = encoder, depth, dtype
        self.whole = depth == len(encoder.layers)
        self.device = encoder.embeddings.norm.weight.device
        self.weights = weights or self._digest()
        self.tables: dict[tuple[str, int], _Table] = {}
        """By task and file: a table holds its file, so that the identity stays its own."""

    def __deepcopy__(self, memo: object) -> FrozenPart:
        return self  # what is constant is shared with copies of the model

    def _digest(self) -> str:
        """SHA-256 of the part's weights."""
        digest = hashlib.sha256()
        for module in (self.encoder.embeddings, *self.encoder.layers[: self.depth]):
            for name, value in module.state_dict().items():
                digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def states(self, batch: TaskBatch, reading: Reading) -> NDArray[np.float32]:
        """Pooled states [S, D] of the batch's S sequences, or their tokens' states end to end [N, D]."""
        place = batch.task, id(batch.file)
        if place not in self.tables:
            self.tables[place] = _Table(self, batch.file, reading)
        return self.tables[place].fetch(batch.rows)

    def recipe(self, file: TaskFile, reading: Reading) -> dict[str, Any]:
        """All that decides a file's values."""
        return {
            "version": VERSION,
            "torch": torch.__version__,  # another one may round differently
            "device": self.device.type,
            "arithmetic": str(self.dtype).removeprefix("torch."),
            "encoder": asdict(self.encoder.config),
            "weights": self.weights,
            "output": TOKENS[reading.encoding.pooling] if self.whole else f"layer {self.depth}",
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
    """A file's sequences under one reading: part p of row r stands at p R + r."""

    def __init__(self, part: FrozenPart, file: TaskFile, reading: Reading) -> None:
        self.part, self.file, self.reading = part, file, reading
        self.pooling = TOKENS[reading.encoding.pooling]
        lengths = reading.encoding.lengths(file, reading.limit)  # [parts, R]
        if part.whole:
            lengths = np.ones_like(lengths)
        recipe = json.dumps(part.recipe(file, reading), sort_keys=True)
        room, width = cache_folder() / "features", part.encoder.config.hidden_size
        folder = room / hashlib.sha256(recipe.encode()).hexdigest()[:32]
        own = len(file.labels) - file.added
        self.kept = _Stretch(self, 0, Rows(folder, lengths[:, :own].ravel(), width), own)
        self.added = None
        if file.added:  # they differ from trial to trial: an unnamed file, gone with this one
            self.added = _Stretch(self, own, Rows(None, lengths[:, own:].ravel(), width, room), file.added)
        self.lengths = lengths
        with contextlib.suppress(OSError):  # for people: no code reads it
            (folder / "recipe.json").exists() or (folder / "recipe.json").write_text(recipe)

    def fetch(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Values of rows: all first parts, then all second ones."""
        if self.added is None:
            return self.kept.fetch(rows, len(self.lengths))
        late = rows >= self.added.begin
        values = np.empty((int(self.lengths[:, rows].sum()), self.part.encoder.config.hidden_size), dtype=np.float32)
        mine = np.repeat(np.tile(late, len(self.lengths)), self.lengths[:, rows].ravel())
        for stretch, chosen, lines in ((self.kept, rows[~late], ~mine), (self.added, rows[late], mine)):
            if len(chosen):
                values[lines] = stretch.fetch(chosen, len(self.lengths))
        return values


@dataclass
class _Stretch:
    """Rows `begin` to `begin + count` of a table's file, and where their values are kept."""

    table: _Table
    begin: int
    values: Rows
    count: int

    def fetch(self, rows: NDArray[np.int64], parts: int) -> NDArray[np.float32]:
        places = rows - self.begin if self.begin else rows
        if parts > 1:
            places = np.concatenate([places + part * self.count for part in range(parts)])
        return self.values.fetch(places, self._compute)

    def _compute(self, places: list[int]) -> Mapping[int, NDArray[np.float32]]:
        part = self.table.part
        found: dict[int, NDArray[np.float32]] = {}
        with _one_thread():
            for group in self._groups(places):
                values = part.compute([self._sequence(place) for place in group], self.table.pooling)
                found.update(zip(group, values, strict=True))
        return found

    def _groups(self, places: list[int]) -> Iterator[list[int]]:
        """What is computed together: never what happens to be missing, but what is always the same."""
        if self.table.part.device.type == "cpu":
            yield from ([place] for place in places)
            return
        for block in sorted({place // BLOCK for place in places}):
            yield list(range(block * BLOCK, min((block + 1) * BLOCK, len(self.values.lengths))))

    def _sequence(self, place: int) -> tuple[NDArray[np.int32], int]:
        which, row = divmod(place, self.count)
        return self.table.reading.sequences(self.table.file, [self.begin + row])[which]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, however many threads a process has: what one keeps another would have computed."""
    before = torch.get_num_threads()
    if before > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if before > 1:
            torch.set_num_threads(before)
