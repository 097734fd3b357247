"""Kept weights: those of the best `keep` trials that have ended, those of trial 0, and of no other trial.

Trial 0 is the default configuration: a sweep that could not be compared with it on held-out data would not be honest.

A trial's weights are those of its last report, which is what the rungs judged. A trial that still runs owns its
folder of checkpoints; once it has ended its folder is cut down to that one checkpoint, or deleted. Rows come first: a
trial's row names no weights before they are deleted, so a crash in between leaves files that the next `tidy` finds,
never a row that lies.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hpo.driver.ledger import KeptWeights, Ledger
from hpo.search.states import CLOSED, ranking
from hpo.worker.job import checkpoint_folder
from minbert.training import checkpoints

BASELINE = 0
"""The trial of the default configuration."""

KEPT_STATES = frozenset({"complete", "pruned"})
"""Ends that leave weights worth keeping."""


@dataclass(frozen=True)
class Ended:
    """The end of an attempt, as its row is to tell it."""

    trial: int
    attempt: int
    state: str
    reason: str
    checkpoint: str | None
    """Path of the kept weights; None: none are kept."""


class Shelf:
    """Decides by a ledger whose weights are kept, and deletes the others from the sweep's folder."""

    def __init__(self, sweep: Path, keep: int) -> None:
        self._sweep = sweep
        self._keep = keep

    def kept(self, ledger: Ledger) -> list[KeptWeights]:
        """The kept weights of the best `keep` trials, and the baseline's; best first."""
        return [ledger.kept[trial] for trial in self._best(ledger, ledger.kept)]

    def settle(self, ledger: Ledger, ended: Ended) -> list[Ended]:
        """The end rows to write for a trial that ends now with the weights `ended.checkpoint`: its own, then those of
        trials whose kept weights have to go. Nothing is deleted before `tidy`."""
        candidates = set(ledger.kept)
        if ended.checkpoint is not None and ended.state in KEPT_STATES:
            candidates.add(ended.trial)
        best = set(self._best(ledger, candidates))
        own = ended if ended.trial in best else replace(ended, checkpoint=None)
        displaced = [(trial, ledger.trials[trial]) for trial in sorted(candidates - best - {ended.trial})]
        return [own, *(Ended(trial, entry.attempt, entry.state, entry.reason, None) for trial, entry in displaced)]

    def _best(self, ledger: Ledger, candidates: Iterable[int]) -> list[int]:
        """Of trials that have weights, those whose weights stay; best first."""
        ranked = ranking({trial: ledger.trials[trial] for trial in candidates})
        return [trial for place, trial in enumerate(ranked) if place < self._keep or trial == BASELINE]

    def tidy(self, ledger: Ledger, trials: Iterable[int] | None = None) -> None:
        """Delete the checkpoints that no row names any longer, of these trials or of all that have ended. For all, also
        what a crash has left half deleted."""
        if trials is None:
            for grave in checkpoint_folder(self._sweep, BASELINE).parent.glob(".*.removed"):
                shutil.rmtree(grave)
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
    """Gone at once for every reader, by a rename; then file by file."""
    if not path.exists():
        return
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    grave = path.with_name(f".{path.name}.removed")
    shutil.rmtree(grave, ignore_errors=True)
    path.rename(grave)
    shutil.rmtree(grave)
