"""Kept weights: those of the best `keep` trials that have ended, and in any case those of trial 0.

Trial 0 is the default configuration. Its weights are kept so that a sweep can be compared with it on held-out data.

A trial's weights are those of its last report, the one that the rungs judged. A trial that still runs owns its folder
of checkpoints. Once it has ended, its folder is cut down to that one checkpoint, or deleted. The row comes first:
before weights are deleted, a row of their trial says that it has none. A crash in between leaves files, which the next
`tidy` deletes, and never a row that names missing weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hpo.driver.ledger import KeptWeights, Ledger
from hpo.search.states import CLOSED, ranking
from hpo.worker.place import checkpoint_folder
from minbert.training import checkpoints

BASELINE = 0
"""The trial of the default configuration."""

KEPT_STATES = frozenset({"complete", "pruned"})
"""Ends of a trial after which its weights may be kept."""


@dataclass(frozen=True)
class EndRow:
    """Content of an end row: the end of an attempt."""

    trial: int
    attempt: int
    state: str
    reason: str
    checkpoint: str | None
    """Path of the kept weights; None: none are kept."""


class Shelf:
    """Decides from a ledger whose weights are kept, and deletes the other weights from the sweep's folder."""

    def __init__(self, sweep: Path, keep: int) -> None:
        self._sweep = sweep
        self._keep = keep

    def kept(self, ledger: Ledger) -> list[KeptWeights]:
        """The kept weights of the best `keep` trials and of the baseline, best first."""
        return [ledger.kept[trial] for trial in self._best(ledger, ledger.kept)]

    def end_rows(self, ledger: Ledger, end: EndRow) -> list[EndRow]:
        """The end rows to write for a trial that ends now with the weights `end.checkpoint`: first its own, then one
        for each trial whose weights are no longer kept. Nothing is deleted before `tidy`."""
        candidates = set(ledger.kept)
        if end.checkpoint is not None and end.state in KEPT_STATES:
            candidates.add(end.trial)
        best = set(self._best(ledger, candidates))
        own = end if end.trial in best else replace(end, checkpoint=None)
        displaced = [(trial, ledger.trials[trial]) for trial in sorted(candidates - best - {end.trial})]
        return [own, *(EndRow(trial, entry.attempt, entry.state, entry.reason, None) for trial, entry in displaced)]

    def _best(self, ledger: Ledger, candidates: Iterable[int]) -> list[int]:
        """The trials among `candidates` whose weights are kept, best first. Each candidate has weights."""
        ranked = ranking({trial: ledger.trials[trial] for trial in candidates})
        return [trial for place, trial in enumerate(ranked) if place < self._keep or trial == BASELINE]

    def tidy(self, ledger: Ledger, trials: Iterable[int] | None = None) -> None:
        """Delete the checkpoints of `trials` that no row names any longer. None: those of all trials that have ended,
        and what a crash left half deleted."""
        if trials is None:
            for leftover in checkpoint_folder(self._sweep, BASELINE).parent.glob(".*.removed"):
                shutil.rmtree(leftover)
            trials = [trial for trial, entry in ledger.trials.items() if entry.state in CLOSED]
        for trial in trials:
            folder = checkpoint_folder(self._sweep, trial)
            if trial not in ledger.kept:
                _delete(folder)
            elif folder.is_dir():
                name = Path(ledger.kept[trial].checkpoint).name
                for path in folder.iterdir():
                    if path.name != name:
                        _delete(path)
                checkpoints.drop_moments(folder / name)


def _delete(path: Path) -> None:
    """Delete a file or folder. A folder is renamed first, so that no reader sees it half deleted."""
    if not path.exists():
        return
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    renamed = path.with_name(f".{path.name}.removed")
    shutil.rmtree(renamed, ignore_errors=True)
    path.rename(renamed)
    shutil.rmtree(renamed)
