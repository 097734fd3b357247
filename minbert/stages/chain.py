"""The chain of stages before a trial: each stage's result is loaded from the cache, or computed once and cached.

The key of a result is the SHA-256 of everything that decides it: the base weights or the previous stage's key, the
vocabulary, the data that the stage reads, its settings, the arithmetic, the device's type and a version of this code.
A process that finds no result takes the lock and computes it. Other processes wait. If the computing process is
interrupted, a waiting one continues from the last saved part.
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

from minbert.caches import cache_folder
from minbert.data.files import Corpus
from minbert.data.nli import find_nli
from minbert.data.tokens import Data
from minbert.fields import dump, load
from minbert.randomness import derive
from minbert.stages.cache import CacheEntry, DamagedError, Done
from minbert.stages.loop import StageLoop
from minbert.stages.objectives import StageContext
from minbert.stages.stages import NLI, Stage, Stages

VERSION = 2
"""Part of every key; raise it when the same settings give another result."""

POLL_SECONDS = 0.25
"""Seconds between two looks of a waiting process at the lock and at the request to pause."""

PARTIAL_SECONDS = 60.0
"""Fewest seconds between two saves of an unfinished stage."""

OnStage = Callable[[str, int, int], None]
"""Progress callback: (stage's kind, steps taken, steps in total); the total is 0 while another process computes it."""

log = logging.getLogger("minbert")


def ignore_progress(kind: str, done: int, total: int) -> None:
    """Progress callback that does nothing."""


@dataclass(frozen=True)
class Result:
    """Encoder that the stages hand to a trial, and its cost."""

    tensors: dict[str, Tensor] | None
    """The encoder's tensors [float32, CPU] by name; None where no stage is on, so that the base's own are used."""
    key: str
    """Key of the last stage; the base's SHA-256 where no stage is on."""
    sha256: str
    """SHA-256 of the tensors' file."""
    seconds: float = 0.0
    """Seconds of compute of the whole chain, those of cached stages included."""
    examples: int = 0
    """Rows that went through the losses of the whole chain."""
    hits: int = 0
    """Stages whose result came from the cache."""
    diverged: bool = False
    """Whether a stage's loss was no longer finite. The tensors are then useless, and later stages did not run."""


def check(stages: Stages, corpus: Corpus) -> None:
    """Check, before any compute, that every stage has data that it can train on. Raises DataError."""
    for stage in stages.chain():
        stage.check(corpus)


def reads(stages: Stages, corpus: Corpus) -> list[Path]:
    """Files, other than those of the tasks, that the stages read. Raises DataError."""
    return [find_nli(corpus.folder) for stage in stages.chain() if isinstance(stage, NLI)]


def keys(stages: Stages, data: Data, dtype: torch.dtype, device: torch.device) -> list[tuple[str, dict[str, Any]]]:
    """(key, recipe) of each stage in the order of the chain; the key is the SHA-256 of the recipe. Raises DataError."""
    vocabulary = "\n".join((*data.base.vocabulary, str(data.base.lowercase)))
    recipes: list[tuple[str, dict[str, Any]]] = []
    for stage in stages.chain():
        recipe = {
            "version": VERSION,
            "start": recipes[-1][0] if recipes else data.base.sha256,
            "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(),
            "data": stage.digest(data),
            "settings": _canonical(stage),
            "arithmetic": str(dtype).removeprefix("torch."),
            "device": device.type,  # dropout masks differ between device types
        }
        recipes.append((hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest(), recipe))
    return recipes


def _canonical(stage: Stage) -> dict[str, Any]:
    """A stage's settings in the types of their fields, so that 5 and 5.0 epochs give one key."""
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
    on_stage: OnStage = ignore_progress,
) -> Result | None:
    """Load or compute the encoder after a chain of stages; None after a pause, with the progress saved.

    `dtype` is the arithmetic of linear layers. `cache` replaces `minbert.caches.cache_folder()`. `should_pause` is
    polled at every step and while waiting. `on_stage` is called at the start and after every step of a stage that is
    computed here, and at every poll while another process computes one. Raises DataError.
    """
    device = device or torch.device("cpu")
    keyed = keys(stages, data, dtype, device)
    if not keyed:
        return Result(None, data.base.sha256, data.base.sha256)
    root = (cache or cache_folder()) / "stages"
    entries = [CacheEntry(root, key) for key, _ in keyed]
    recipes = [recipe for _, recipe in keyed]
    chain = _Chain(stages.chain(), data, device, dtype, should_pause, on_stage, recipes, entries)
    return chain.obtain(len(entries) - 1)


@dataclass(frozen=True)
class _Chain:
    """A chain computed from its end: a cached stage needs none of the stages before it."""

    stages: tuple[Stage, ...]
    data: Data
    device: torch.device
    dtype: torch.dtype
    should_pause: Callable[[], bool]
    on_stage: OnStage
    recipes: list[dict[str, Any]]
    """Everything that each stage's key is made of."""
    entries: list[CacheEntry]
    """Cache entry of each stage."""

    def obtain(self, index: int) -> Result | None:
        """Load the result of a stage, wait for it, or compute it; None after a pause."""
        entry = self.entries[index]
        try:
            if (cached := entry.load()) is not None:  # needs no lock and no writable folder
                return self._result(index, *cached, hits=index + 1)
        except DamagedError:
            pass  # the lock's holder deletes it below
        while True:
            with entry.lock() as held:
                if held:
                    if (cached := entry.load_or_discard()) is not None:
                        return self._result(index, *cached, hits=index + 1)
                    return self._compute(index)
            if self.should_pause():
                return None
            self.on_stage(self.stages[index].kind, 0, 0)
            time.sleep(POLL_SECONDS)

    def _compute(self, index: int) -> Result | None:
        """Compute a stage while holding its lock; the locks of earlier stages are taken from the last to the first."""
        entry, loop, hits = self.entries[index], self._resumed(index), index
        if loop is None:
            previous = self.obtain(index - 1) if index else Result(None, "", "")
            if previous is None or previous.diverged:
                return previous
            loop, hits = self._loop(index, previous.tensors), previous.hits
            loop.seconds_before, loop.examples_before = previous.seconds, previous.examples
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
        """Take the remaining steps; False after a pause, with the progress saved."""
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
        """A stage at the point where the last holder of its lock saved it; None where nothing usable was saved."""
        partial = self.entries[index].load_partial()
        if partial is None:
            return None
        loop = self._loop(index, None)
        loop.restore(partial)
        return loop

    def _loop(self, index: int, tensors: dict[str, Tensor] | None) -> StageLoop:
        """A stage at its first step, from an encoder's tensors (None: those of the base)."""
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
