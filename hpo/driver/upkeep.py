"""Upkeep of a store: what no sweep needs any longer, and its deletion. Rows, logs and predictions always stay.

    weights       weights of a finished sweep, beyond the best ones and those that something needs; only on request
    checkpoints   checkpoints that no row names, older ones of trials that wait, the state of training of ended trials
    unfinished    files of processes that were killed while they wrote
    merged        Parquet files that a merged file has replaced

Freeing a sweep is a generation of its own (`hpo.driver.generations`), so no driver works on the sweep meanwhile. Rows
come first, as in `hpo.driver.weights`: before weights go, a row of their trial says that it has none. A kill in between
leaves files, which the next call deletes, and never a row that names missing weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.driver import generations
from hpo.driver.answer import compared, decided
from hpo.driver.finalise import is_done
from hpo.driver.ledger import Ledger, TrialEntry
from hpo.driver.selection import FORMER, record_again, recorded, select, settled
from hpo.driver.weights import EndRow, delete, outdated
from hpo.launch.record import record_of
from hpo.search.states import CLOSED, DEFAULT
from hpo.worker.paths import checkpoint_folder, generation_folder
from minbert import caches
from minbert.disk import age, bytes_on_disk
from minbert.training import checkpoints

if TYPE_CHECKING:
    from results.store import Store, SweepFolder

GRACE = 600.0
"""Seconds without a change after which an unfinished file is taken for that of a dead process."""


@dataclass(frozen=True)
class Waste:
    """A file or folder that may be deleted."""

    kind: str
    path: Path
    size: int
    """Bytes on the disk."""


@dataclass(frozen=True)
class Upkeep:
    """What was deleted in one place, or would be."""

    place: str
    """Name of a sweep, or a folder."""
    waste: list[Waste] = field(default_factory=list)
    left_alone: str = ""
    """Why nothing is deleted; empty: it is."""


def free(folder: SweepFolder, keep: int | None = None, *, dry_run: bool = False) -> Upkeep:
    """Delete what this sweep does not need; with `dry_run` only say what. A sweep on which a driver works is left
    alone.

    `keep`: number of best trials of a finished sweep whose weights stay beside the needed ones; None: all kept weights
    stay. Raises ValueError for a sweep that cannot be read.
    """
    if (driver := generations.active(folder.path)) is not None:
        return Upkeep(folder.name, left_alone=f"process {driver.pid} on {driver.host} works on it")
    ledger = Ledger.of(folder)
    waste = _waste(folder, ledger, _ends(folder, ledger, keep))
    if dry_run or not waste:
        return Upkeep(folder.name, waste)
    try:
        generation = generations.claim(folder.path, launch=False)
    except generations.BusyError as error:
        return Upkeep(folder.name, left_alone=str(error))
    try:
        ledger = Ledger.of(folder)  # a driver may have worked on the sweep since
        if ends := _ends(folder, ledger, keep):
            with folder.writer(generation.number) as writer:
                for end in ends:
                    writer.append("trials", _row(end))
        known = recorded(folder, ledger)
        waste = _waste(folder, ledger, ends)
        if known is not None and ends:
            record_again(folder, ledger, known)  # weights that nothing needs do not change what was chosen
        _delete(waste)
    finally:
        generation.end()
    return Upkeep(folder.name, waste)


def free_all(
    store: Store, names: Sequence[str] | None, keep: int | None = None, *, dry_run: bool = False
) -> list[Upkeep]:
    """`free` for these sweeps; without names for all that can be read, and for what killed commands left beside them.
    A sweep that cannot be judged is left alone. Raises StoreError for a name that the store does not have."""
    folders = [store.open(name) for name in names] if names else store.readable()
    freed = []
    for folder in folders:
        try:
            freed.append(free(folder, keep, dry_run=dry_run))
        except ValueError as error:
            freed.append(Upkeep(folder.name, left_alone=str(error)))
    if not names:
        freed.append(_free_beside(Path(store.uri.removeprefix("file://")).expanduser(), dry_run))
    return freed


def _free_beside(store: Path, dry_run: bool) -> Upkeep:
    paths = [*store.glob(".*.removed"), *store.glob(".reach-*")]
    waste = [Waste("unfinished", path, bytes_on_disk(path)) for path in _abandoned(paths, generations.clock(store))]
    if not dry_run:
        _delete(waste)
    return Upkeep(str(store), waste)


def free_caches(limit: int, *, dry_run: bool = False) -> Upkeep:
    """Shrink this machine's caches to `limit` bytes, as far as processes do not use them (`minbert.caches`)."""
    folder = caches.cache_folder()
    gone = caches.evict(folder, limit, dry_run=dry_run)
    left = [Waste("unfinished", path, bytes_on_disk(path)) for path in caches.leftovers(folder, time.time())]
    if not dry_run:
        _delete(left)
    return Upkeep(str(folder), [*(Waste(entry.kind, entry.path, entry.size) for entry in gone), *left])


def needed(folder: SweepFolder, ledger: Ledger, keep: int) -> set[int]:
    """Trials of a finished sweep whose weights stay: the best `keep`, the default, the runs of the answer, and those
    that the sweep's own ensemble and the saved ensembles name. Raises StoreError if a saved one cannot be read."""
    from results.selection import load, saved

    budget = record_of(folder).budget
    best = [trial for trial in ledger.ranking() if trial in ledger.kept][:keep]
    answer = compared(ledger, decided(folder, ledger, budget), budget)
    known = recorded(folder, ledger)
    launch = select(folder, ledger, FORMER).trials if known is None else known.trials
    trials = {DEFAULT, *best, *answer, *launch, *settled(folder, ledger).trials}
    for ensemble in (load(folder, name) for name in saved(folder)):
        trials |= {ensemble["best_single"], ensemble["default"], *(member["trial"] for member in ensemble["members"])}
    return trials


def _ends(folder: SweepFolder, ledger: Ledger, keep: int | None) -> list[EndRow]:
    """The end rows of the trials whose weights go: each repeats the trial's end and names no checkpoint."""
    if keep is None or not is_done(folder, generations.total_trials(record_of(folder).trials, folder.path)):
        return []
    going = sorted(ledger.kept.keys() - needed(folder, ledger, keep))
    entries = {trial: ledger.trials[trial] for trial in going}
    return [EndRow(trial, entry.attempt, entry.state, entry.reason, None) for trial, entry in entries.items()]


def _row(end: EndRow) -> dict[str, Any]:
    return {"event": "end", **asdict(end)}


def _waste(folder: SweepFolder, ledger: Ledger, ends: Sequence[EndRow]) -> list[Waste]:
    """All that may be deleted once these rows are written. Nothing works on the sweep."""
    for end in ends:
        ledger.feed(_row(end))
    from results.compaction import replaced

    sweep, now = folder.path, generations.clock(generation_folder(folder.path))
    weights = {checkpoint_folder(sweep, end.trial) for end in ends}
    found: list[tuple[str, Path]] = []
    found += (("weights" if path in weights else "checkpoints", path) for path in outdated(sweep, ledger))
    found += (("checkpoints", path) for path in _older(sweep, ledger))
    found += (("unfinished", path) for path in _unfinished(folder, ledger, now))
    found += (("merged", sweep / table / name) for table, name in replaced(folder.folder, now))
    return [Waste(kind, path, bytes_on_disk(path)) for kind, path in found]


def _open(ledger: Ledger) -> Iterator[tuple[int, TrialEntry]]:
    """The trials that have not ended: a resume continues them."""
    return ((trial, entry) for trial, entry in ledger.trials.items() if entry.state not in CLOSED)


def _older(sweep: Path, ledger: Ledger) -> Iterator[Path]:
    """Complete checkpoints of trials that wait, other than the newest and the one that their last report names."""
    for trial, entry in _open(ledger):
        older = checkpoints.complete(checkpoint_folder(sweep, trial))[:-1]
        named = entry.checkpoint and Path(entry.checkpoint).name
        yield from (path for path in older if path.name != named)


def _unfinished(folder: SweepFolder, ledger: Ledger, now: float) -> Iterator[Path]:
    """Checkpoints of trials that wait, and files of tables and generations, which a process did not finish."""
    sweep = folder.path
    for trial, _ in _open(ledger):
        incomplete = (path for path in checkpoint_folder(sweep, trial).glob("*-*") if not checkpoints.is_complete(path))
        yield from _abandoned(incomplete, now)
    for place in (folder.folder, *map(folder.folder.child, folder.folder.folders())):
        yield from (Path(place.path) / name for name in place.temporaries(now, GRACE))
    yield from _abandoned(generation_folder(sweep).glob("*.tmp"), now)


def _abandoned(paths: Iterable[Path], now: float) -> Iterator[Path]:
    return (path for path in paths if age(path, now) > GRACE)


def _delete(waste: Iterable[Waste]) -> None:
    for item in waste:
        delete(item.path)
