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
from hpo.driver.ledger import Ledger, TrialEntry, name_of
from hpo.driver.selection import FORMER, record_again, recorded, select, settled
from hpo.driver.weights import EndRow, Item, kept_names, outdated
from hpo.launch.record import record_of
from hpo.search.states import CLOSED, DEFAULT
from hpo.worker.checkpoints import complete, delete
from hpo.worker.paths import checkpoint_folder
from minbert import caches
from minbert.training.checkpoints import order_of
from results.places import locate

if TYPE_CHECKING:
    from results.files import Folder
    from results.store import Store, SweepFolder

GRACE = 600.0
"""Seconds without a change after which an unfinished file is taken for that of a dead process."""


@dataclass(frozen=True)
class Waste:
    """A file or folder that may be deleted."""

    kind: str
    item: Item
    size: int
    """Bytes that it takes."""


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
    if (driver := generations.active(folder.folder)) is not None:
        return Upkeep(folder.name, left_alone=f"process {driver.pid} on {driver.host} works on it")
    ledger = Ledger.of(folder)
    waste = _waste(folder, ledger, _ends(folder, ledger, keep))
    if dry_run or not waste:
        return Upkeep(folder.name, waste)
    try:
        generation = generations.claim(folder.folder, launch=False)
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
        freed.append(_free_beside(locate(store.uri), dry_run))
    return freed


def _free_beside(store: Folder, dry_run: bool) -> Upkeep:
    waste = [_waste_at("unfinished", Item(store, name)) for name in store.temporaries(store.clock(), GRACE)]
    if not dry_run:
        _delete(waste)
    return Upkeep(store.path, waste)


def free_caches(limit: int, *, dry_run: bool = False) -> Upkeep:
    """Shrink this machine's caches to `limit` bytes, as far as processes do not use them (`minbert.caches`)."""
    folder = caches.cache_folder()
    gone = caches.evict(folder, limit, dry_run=dry_run)
    left = [_waste_at("unfinished", _item(path)) for path in caches.leftovers(folder, time.time())]
    if not dry_run:
        _delete(left)
    return Upkeep(str(folder), [*(Waste(entry.kind, _item(entry.path), entry.size) for entry in gone), *left])


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
    if keep is None or not is_done(folder, generations.total_trials(record_of(folder).trials, folder.folder)):
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
    from results.fences import CLAIMS

    sweep = folder.folder
    now = sweep.child(CLAIMS).clock()
    weights = {str(end.trial) for end in ends}
    items = outdated(sweep, kept_names(ledger))
    found = [("weights" if item.name in weights else "checkpoints", item) for item in items]
    found += (("checkpoints", item) for item in _older(sweep, ledger))
    found += (("unfinished", item) for item in _unfinished(sweep, ledger, now))
    found += (("merged", Item(sweep.child(table), name)) for table, name in replaced(sweep, now))
    return [_waste_at(kind, item) for kind, item in found]


def _waste_at(kind: str, item: Item) -> Waste:
    return Waste(kind, item, item.folder.size(item.name))


def _item(path: Path) -> Item:
    from results.files import Disk

    return Item(Disk(str(path.parent)), path.name)


def _open(ledger: Ledger) -> Iterator[tuple[int, TrialEntry]]:
    """The trials that have not ended: a resume continues them."""
    return ((trial, entry) for trial, entry in ledger.trials.items() if entry.state not in CLOSED)


def _older(sweep: Folder, ledger: Ledger) -> Iterator[Item]:
    """Complete checkpoints of trials that wait, other than the newest and the one that their last report names."""
    for trial, entry in _open(ledger):
        folder = checkpoint_folder(sweep, trial)
        named = entry.checkpoint and name_of(entry.checkpoint)
        yield from (Item(folder, name) for name in complete(folder)[:-1] if name != named)


def _unfinished(sweep: Folder, ledger: Ledger, now: float) -> Iterator[Item]:
    """Checkpoints of trials that wait, and files of tables and generations, which a process did not finish."""
    for trial, _ in _open(ledger):
        folder = checkpoint_folder(sweep, trial)
        for name in sorted({name for name in folder.folders() if order_of(name)} - set(complete(folder))):
            part = folder.child(name)
            if min((part.age(file, now) for file in part.names()), default=folder.age(name, now)) > GRACE:
                yield Item(folder, name)
    for place in (sweep, *map(sweep.child, sweep.folders())):
        yield from (Item(place, name) for name in place.temporaries(now, GRACE))


def _delete(waste: Iterable[Waste]) -> None:
    for found in waste:
        delete(*found.item)
