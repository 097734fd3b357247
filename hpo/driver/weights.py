"""Which trials' weights stay: those of the best `keep` that have ended, those of trial 0, and of nobody else.

Trial 0 is the default configuration: a sweep that could not be compared with it on held-out data would not be honest.

A trial's weights are those of its last report, which is what the rungs judged. A trial that still runs owns its
folder of checkpoints; once it has ended its folder is cut down to that one checkpoint, or deleted. Rows come first: a
trial's row names no weights before they are deleted, so a crash in between leaves files that the next `tidy` finds,
never a row that lies.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hpo.worker.job import checkpoint_folder
from minbert.training import checkpoints

BASELINE = 0
"""The trial of the default configuration."""

KEPT_STATES = frozenset({"complete", "pruned"})
"""Ends that leave weights worth keeping."""


@dataclass(frozen=True)
class Ended:
    """The end of a trial, as its row tells it."""

    trial: int
    attempt: int
    state: str
    reason: str
    checkpoint: str | None
    """Path of the kept weights."""


class Shelf:
    """The kept weights of a sweep in folder `sweep`."""

    def __init__(self, sweep: Path, keep: int) -> None:
        self._sweep = sweep
        self._keep = keep
        self._ended: dict[int, Ended] = {}

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Stand where the rows of `trials` end."""
        for row in rows:
            if row.get("event") == "end" and row["state"] not in ("lost", "paused"):
                trial = int(row["trial"])
                self._ended[trial] = Ended(
                    trial, int(row["attempt"]), row["state"], row.get("reason") or "", row.get("checkpoint")
                )

    def kept(self, ranking: Iterable[int]) -> list[Ended]:
        """The best `keep` ended trials that have weights, and the baseline; best first."""
        found = [self._ended[trial] for trial in ranking if trial in self._ended]
        found = [one for one in found if one.checkpoint is not None and one.state in KEPT_STATES]
        return [one for place, one in enumerate(found) if place < self._keep or one.trial == BASELINE]

    def settle(self, ended: Ended, ranking: list[int]) -> tuple[Ended, list[Ended]]:
        """Enter an ended trial. Returns it as its row should be, and the trials whose weights must now go, as theirs
        should be. Nothing is deleted before `tidy`."""
        if ended.state not in KEPT_STATES:
            ended = replace(ended, checkpoint=None)
        before = {one.trial for one in self._ended.values() if one.checkpoint is not None}
        self._ended[ended.trial] = ended
        stay = {one.trial for one in self.kept(ranking)}
        gone = []
        for trial in sorted((before | {ended.trial}) - stay):
            self._ended[trial] = replace(self._ended[trial], checkpoint=None)
            if trial != ended.trial:
                gone.append(self._ended[trial])
        return self._ended[ended.trial], gone

    def tidy(self, trials: Iterable[int] | None = None) -> None:
        """Delete what the rows no longer name, of these trials or of all that have ended. For all, also what a
        crash has left half deleted."""
        if trials is None:
            for grave in checkpoint_folder(self._sweep, BASELINE).parent.glob(".*.removed"):
                shutil.rmtree(grave)
        for trial in self._ended if trials is None else trials:
            ended = self._ended[trial]
            folder = checkpoint_folder(self._sweep, trial)
            if ended.checkpoint is None:
                _delete(folder)
            elif folder.is_dir():
                stays = Path(ended.checkpoint).name
                for path in folder.iterdir():
                    if path.name != stays:
                        _delete(path)
                checkpoints.drop_moments(folder / stays)


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
