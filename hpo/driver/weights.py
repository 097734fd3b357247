"""Kept weights: those of the best `keep` trials that have ended, of the members of an ensemble, and of trial 0.

Trial 0 is the default configuration. Its weights are kept so that a sweep can be compared with it on held-out data. So
are those of every repeat (`hpo.search.repeats`): repeats are few and have no rank. The ensemble is chosen anew whenever
a trial reaches the full budget (`hpo.driver.jury`); a trial that ranks low may help it. All kept trials of the search
together are at most twice `keep`.

A trial's weights are those of its last report, the one that the rungs judged. A trial that still runs owns its folder
of checkpoints. Once it has ended, its folder is cut down to that one checkpoint, or deleted. The row comes first:
before weights are deleted, a row of their trial says that it has none. A crash in between leaves files, which the next
`tidy` deletes, and never a row that names missing weights.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from hpo.driver.jury import Jury
from hpo.driver.ledger import Ledger
from hpo.search.states import CLOSED, DEFAULT, ranking
from hpo.worker.checkpoints import complete, delete
from hpo.worker.paths import checkpoint_folder, checkpoints_folder
from minbert.training import checkpoints

if TYPE_CHECKING:
    from results.evidence import Evidence
    from results.files import Folder

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

    def __init__(self, sweep: Folder, keep: int, jury: Jury | None = None) -> None:
        """`jury` chooses the ensemble; None: there is none."""
        self._sweep = sweep
        self._keep = keep
        self._jury = jury
        self._members: list[int] = []
        """Members of the ensemble, in the order in which they were picked."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hpo-weights")
        """Deletes: neither a slow disk nor an object store holds up the search."""
        self._deletions: list[Future[None]] = []
        """Those that have not ended, or that have ended with an error of this code."""
        self._problems: list[str] = []

    def recall(self, ledger: Ledger) -> None:
        """Choose the ensemble that the stored rows imply. Call it before the first `end_rows` of a resumed sweep."""
        self._choose(ledger, ledger.kept)

    def take(self, trial: int, evidence: Evidence) -> None:
        """Take the evidence of the last report of a trial that ends now, and whose weights may be kept."""
        if self._jury is not None:
            self._jury.take(trial, evidence)

    def reached(self, trial: int) -> int:
        """Examples at the newest complete checkpoint of a trial; 0: it has none."""
        names = complete(checkpoint_folder(self._sweep, trial))
        return checkpoints.step_of(names[-1]) if names else 0

    def end_rows(self, ledger: Ledger, end: EndRow) -> list[EndRow]:
        """The end rows to write for a trial that ends now with the weights `end.checkpoint`: first its own, then one
        for each trial whose weights are no longer kept. Nothing is deleted before `tidy`."""
        candidates = set(ledger.kept)
        if end.checkpoint is not None and end.state in KEPT_STATES:
            candidates.add(end.trial)
        if end.state == "complete":
            self._choose(ledger, candidates)
        best = set(self._best(ledger, candidates))
        own = end if end.trial in best else replace(end, checkpoint=None)
        displaced = [(trial, ledger.trials[trial]) for trial in sorted(candidates - best - {end.trial})]
        return [own, *(EndRow(trial, entry.attempt, entry.state, entry.reason, None) for trial, entry in displaced)]

    def _choose(self, ledger: Ledger, candidates: Collection[int]) -> None:
        """Choose the ensemble anew, unless all candidates are kept in any case."""
        if self._jury is not None and len(candidates) > self._keep:
            self._members = self._jury.members(ranking({trial: ledger.trials[trial] for trial in candidates}))

    def _best(self, ledger: Ledger, candidates: Iterable[int]) -> list[int]:
        """The trials among `candidates` whose weights are kept, best first. Each candidate has weights."""
        entries = {trial: ledger.trials[trial] for trial in candidates}
        ranked = ranking({trial: entry for trial, entry in entries.items() if not entry.repeat})
        first = {*ranked[: self._keep], DEFAULT}.intersection(ranked)
        members = [trial for trial in self._members if trial in ranked and trial not in first]
        kept = first.union(members[: 2 * self._keep - len(first)])
        repeats = [trial for trial, entry in sorted(entries.items()) if entry.repeat]
        return [*(trial for trial in ranked if trial in kept), *repeats]

    def tidy(self, ledger: Ledger, trials: Iterable[int] | None = None) -> None:
        """Delete the checkpoints of `trials` that no row names any longer, in a thread. None: those of all trials that
        have ended, and what a crash left half deleted."""
        names = kept_names(ledger, trials)
        self._deletions = [deletion for deletion in self._deletions if not deletion.done() or deletion.exception()]
        self._deletions.append(self._thread.submit(self._delete, names, half_deleted=trials is None))
        for trial in names if trials is None else trials:
            if self._jury is not None and trial not in ledger.kept:
                self._jury.forget(trial)

    def _delete(self, names: Mapping[int, str | None], half_deleted: bool) -> None:
        try:
            for item in outdated(self._sweep, names, half_deleted):
                delete(*item)
        except OSError as error:
            self._problems.append(f"{error.filename}: {error.strerror}")

    def tidied(self) -> list[str]:
        """Wait until all that `tidy` was asked for has been tried; returns what could not be deleted, with the
        reasons."""
        for deletion in self._deletions:
            deletion.result()
        problems, self._problems = self._problems, []
        return problems


class Item(NamedTuple):
    """A file or folder: its name in a folder."""

    folder: Folder
    name: str


def kept_names(ledger: Ledger, trials: Iterable[int] | None = None) -> dict[int, str | None]:
    """Trial that has ended -> the name of its kept checkpoint, or None. `trials`: these; None: all."""
    if trials is None:
        trials = [trial for trial, entry in ledger.trials.items() if entry.state in CLOSED]
    kept = ledger.kept
    return {trial: kept[trial].name if trial in kept else None for trial in trials}


def outdated(sweep: Folder, kept: Mapping[int, str | None], half_deleted: bool = True) -> list[Item]:
    """Checkpoints of trials that no row names any longer, and the state of training in kept ones.

    `kept`: trial that has ended -> the name of its kept checkpoint, or None. `half_deleted`: with what a crash left.
    """
    place = checkpoints_folder(sweep)
    there = set(place.folders())
    items = [Item(place, name) for name in place.temporaries(math.inf, 0.0)] if half_deleted else []
    for trial, name in kept.items():
        if str(trial) not in there:
            continue
        if name is None:
            items.append(Item(place, str(trial)))
            continue
        folder = checkpoint_folder(sweep, trial)
        others = {*folder.folders(), *folder.names(), *folder.temporaries(math.inf, 0.0)} - {name}
        items += (Item(folder, other) for other in sorted(others))
        if folder.child(name).exists(checkpoints.MOMENTS):
            items.append(Item(folder.child(name), checkpoints.MOMENTS))
    return items
