"""The chain of stages run before a trial: from the cache, or computed once and kept there.

A result's key is the SHA-256 of all that decides it: the base weights or the previous stage's key, the vocabulary, the
data that the stage reads, its settings, the arithmetic and a version of this code. Whoever finds no result takes the
lock and computes; others wait, and take over from the last partial result where the one who computed was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minbert.data.files import Corpus
from minbert.data.nli import find_nli
from minbert.data.tokens import Data, cache_folder
from minbert.fields import dump, load
from minbert.randomness import derive
from minbert.stages.cache import DamagedError, Done, Entry
from minbert.stages.loop import StageLoop
from minbert.stages.objectives import StageContext
from minbert.stages.stages import NLI, Stage, Stages

VERSION = 2
"""Part of every key: raise it when the same settings give another result."""

POLL_SECONDS = 0.25
"""How often one who waits looks whether the lock is free, or a pause is asked for."""

PARTIAL_SECONDS = 60.0
"""An unfinished stage is written at most this often."""

OnStage = Callable[[str, int, int], None]
"""Hears of a stage's kind, the steps it has done and those in all; 0 in all while another process computes it."""

log = logging.getLogger("minbert")


def unheard(kind: str, done: int, total: int) -> None:
    """No one listens."""


@dataclass(frozen=True)
class Result:
    """What the stages hand to a trial."""

    tensors: dict[str, Tensor] | None
    """The encoder's tensors [float32, CPU] by name; None where no stage is on: the base's own."""
    key: str
    """Key of the last stage; the base's SHA-256 where no stage is on."""
    sha256: str
    """SHA-256 of the tensors' file."""
    seconds: float = 0.0
    """Seconds of compute of the whole chain, whoever spent them."""
    examples: int = 0
    """Rows through the losses of the whole chain."""
    hits: int = 0
    """Stages that were not computed here."""
    diverged: bool = False
    """Whether a stage's loss was no longer finite: the tensors are of no use, and later stages did not run."""


def needs(stages: Stages, corpus: Corpus) -> None:
    """Raise DataError, before any compute, where what a stage reads is missing or of no use."""
    for stage in stages.chain():
        stage.needs(corpus)


def reads(stages: Stages, corpus: Corpus) -> list[Path]:
    """The files beside the tasks' own that decide a chain's result. Raises DataError."""
    return [find_nli(corpus.folder) for stage in stages.chain() if isinstance(stage, NLI)]


def keys(stages: Stages, data: Data, dtype: torch.dtype, device: torch.device) -> list[tuple[str, dict[str, Any]]]:
    """Each stage's key and what it is made of, in the order of the chain. Raises DataError."""
    vocabulary = "\n".join((*data.base.vocabulary, str(data.base.lowercase)))
    found: list[tuple[str, dict[str, Any]]] = []
    for stage in stages.chain():
        recipe = {
            "version": VERSION,
            "start": found[-1][0] if found else data.base.sha256,
            "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(),
            "data": stage.digest(data),
            "settings": _canonical(stage),
            "arithmetic": str(dtype).removeprefix("torch."),
            "device": device.type,  # each draws other masks
        }
        found.append((hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(), recipe))
    return found


def _canonical(stage: Stage) -> dict[str, Any]:
    """A stage's settings in their fields' types: 5 epochs and 5.0 are one key."""
    values = {name: value for name, value in dump(stage).items() if name != "kind"}
    settings: dict[str, Any] = dump(load(type(stage), values))
    return settings


def staged(
    stages: Stages,
    data: Data,
    *,
    device: torch.device | None = None,
    should_pause: Callable[[], bool] = lambda: False,
    dtype: torch.dtype = torch.float32,
    cache: Path | None = None,
    on_stage: OnStage = unheard,
) -> Result | None:
    """The encoder after a chain of stages; None where a pause was asked for, the progress being kept.

    `dtype` is what linear layers compute in; `cache` replaces `minbert.data.tokens.cache_folder()`; `should_pause` is
    polled at every step and while waiting, and `on_stage` is told how far it is. Raises DataError.
    """
    device = device or torch.device("cpu")
    recipes = keys(stages, data, dtype, device)
    if not recipes:
        return Result(None, data.base.sha256, data.base.sha256)
    root = (cache or cache_folder()) / "stages"
    entries = [Entry(root, key) for key, _ in recipes]
    made_of = [recipe for _, recipe in recipes]
    chain = _Chain(stages.chain(), data, device, dtype, should_pause, on_stage, made_of, entries)
    return chain.obtain(len(entries) - 1)


@dataclass(frozen=True)
class _Chain:
    """One caller's way through the chain, from its end: what is there already needs nothing before it."""

    stages: tuple[Stage, ...]
    data: Data
    device: torch.device
    dtype: torch.dtype
    should_pause: Callable[[], bool]
    on_stage: OnStage
    recipes: list[dict[str, Any]]
    """What each stage's key is made of."""
    entries: list[Entry]
    """Where each stage's result stands."""

    def obtain(self, index: int) -> Result | None:
        """The result of a stage: found, waited for, or computed."""
        entry = self.entries[index]
        try:
            if (found := entry.load()) is not None:  # needs no lock, nor a folder that can be written
                return self._result(index, *found, hits=index + 1)
        except DamagedError:
            pass  # the lock's holder sees to it
        while True:
            with entry.lock() as held:
                if held:
                    if (found := entry.load_or_discard()) is not None:
                        return self._result(index, *found, hits=index + 1)
                    return self._compute(index)
            if self.should_pause():
                return None
            self.on_stage(self.stages[index].kind, 0, 0)
            time.sleep(POLL_SECONDS)

    def _compute(self, index: int) -> Result | None:
        """Compute a stage while holding its lock; the locks of earlier stages are taken in falling order."""
        entry, loop, hits = self.entries[index], self._resumed(index), index
        if loop is None:
            before = self.obtain(index - 1) if index else Result(None, "", "")
            if before is None or before.diverged:
                return before
            loop, hits = self._loop(index, before.tensors), before.hits
            loop.seconds_before, loop.examples_before = before.seconds, before.examples
        if not self._finish(index, loop):
            return None
        tensors = loop.weights()
        done = Done(
            sha256="",
            seconds=loop.elapsed(),
            examples=loop.examples,
            seconds_before=loop.seconds_before,
            examples_before=loop.examples_before,
            diverged=loop.diverged,
            recipe=self.recipes[index],
        )
        return self._result(index, tensors, entry.publish(tensors, done), hits)

    def _finish(self, index: int, loop: StageLoop) -> bool:
        """Take the steps that are left; False where a pause was asked for before, the progress being kept."""
        kind, saved_at = self.stages[index].kind, time.monotonic()
        log.info("stage %s: from step %d of %d", kind, loop.step_count, loop.total)
        self.on_stage(kind, loop.step_count, loop.total)
        while not loop.finished:
            if self.should_pause():
                self.entries[index].save_partial(loop.partial())
                return False
            loop.step()
            self.on_stage(kind, loop.step_count, loop.total)
            if time.monotonic() - saved_at >= PARTIAL_SECONDS and not loop.finished:
                self.entries[index].save_partial(loop.partial())
                saved_at = time.monotonic()
        log.info("stage %s: %s after %.0f s", kind, "diverged" if loop.diverged else "done", loop.elapsed())
        return True

    def _resumed(self, index: int) -> StageLoop | None:
        """The stage where the last holder of its lock left it; None where it left nothing of use."""
        partial = self.entries[index].load_partial()
        if partial is None:
            return None
        loop = self._loop(index, None)
        loop.restore(partial)
        return loop

    def _loop(self, index: int, tensors: dict[str, Tensor] | None) -> StageLoop:
        """A stage at its beginning, from an encoder's tensors (None: the base's)."""
        stage, seed = self.stages[index], int(self.entries[index].key[:15], 16)
        encoder = self.data.base.load()
        if tensors is not None:
            encoder.load_state_dict(tensors)
        generator = torch.Generator().manual_seed(derive(seed, "objective"))
        objective = stage.build(StageContext(self.data.base, stage.read(self.data), generator))
        return StageLoop(stage, encoder, objective, seed, self.device, self.dtype)

    def _result(self, index: int, tensors: dict[str, Tensor], done: Done, hits: int) -> Result:
        return Result(
            tensors=tensors,
            key=self.entries[index].key,
            sha256=done.sha256,
            seconds=done.seconds_before + done.seconds,
            examples=done.examples_before + done.examples,
            hits=hits,
            diverged=done.diverged,
        )
