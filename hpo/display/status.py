"""Status of a sweep for `hpo list` and `hpo status`, read from the store alone, while a driver works on it and after.

The `Monitor` behind the live display counts the stored rows here too, so both show the same numbers. Time counts from
the last launch (run, resume or extend); if no driver works on the sweep, it is the time that the last launch took.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.display.units import OVER
from hpo.driver.generations import GenerationRecord, active, newest, total_trials
from hpo.driver.monitor import WINDOW, monitor_of
from hpo.driver.quarantines import quarantines
from hpo.driver.selection import Needed, still_needed
from hpo.launch.record import record_of
from hpo.search.snapshot import Snapshot
from hpo.search.states import CLOSED
from hpo.worker.progress import stages_of

if TYPE_CHECKING:
    from results.files import Folder
    from results.store import SweepFolder


class Watch:
    """Looks at a sweep again and again. A look reads the rows that have been added since the look before."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder = folder
        self._record = record_of(folder)
        self._generation: int | None = None
        """Newest generation of writer when all rows were read; None: they must be read again."""

    def look(self) -> Snapshot:
        """The sweep as its durable rows describe it now."""
        path, generation = self._folder.folder, self._folder.generation
        if generation != self._generation:  # a new writer: late rows of the one before do not count
            self._generation = generation
            self._begin()
        self._feed()
        driver, launch = active(path), newest(path)
        live = driver is not None
        started, ended = _times(launch, self._times, self._record.created)
        snapshot = self._monitor.snapshot("searching", started, time.time() if live else ended, live=live)
        ledger = self._monitor.ledger
        predictions = still_needed(self._folder, ledger, choose=not live) if snapshot.ended else None
        if driver is not None:
            snapshot = replace(_at_work(snapshot, predictions), messages=(*snapshot.messages, *_quarantined(path)))
        else:
            snapshot = _at_rest(snapshot, predictions, died=launch is not None and launch.state != "ended")
        return replace(snapshot, stages=stages_of(path, snapshot.beginning))

    def _begin(self) -> None:
        """Read what the store holds, but for the reports of the last minutes and what follows: the rate counts them."""
        from results.fold import EVENTS, REPORTS, folded
        from results.reading import chosen

        self._monitor = monitor_of(self._record, total_trials(self._record.trials, self._folder.folder))
        tables = self._folder.history(EVENTS, (*REPORTS, "time"))
        seqs, times = (np.concatenate([table[name].to_numpy() for table in tables]) for name in ("seq", "time"))
        recent = tables[1]["time"].to_numpy() >= time.time() - WINDOW
        first = min(tables[1]["seq"].to_numpy()[recent], default=math.inf)
        self._monitor.begin(self._folder, folded(*(chosen(table, table["seq"].to_numpy() < first) for table in tables)))
        self._newest = int(max(seqs[seqs < first], default=0))
        self._times = (float(np.nanmin(times)), float(np.nanmax(times))) if len(times) else None

    def _feed(self) -> None:
        """Count the rows since the look before."""
        rows = self._folder.events(after=self._newest)
        self._monitor.feed_all(rows)
        if rows:
            newest, times = int(rows[-1]["seq"]), [float(row["time"]) for row in rows]
            if newest - self._newest != len(rows):  # a listing of NFS may show a row before an older one
                self._generation = None
            self._newest = newest
            self._times = (min(times), max(times)) if self._times is None else (self._times[0], max(times))


def read(folder: SweepFolder) -> Snapshot:
    """The sweep as its durable rows describe it now."""
    return Watch(folder).look()


def _times(launch: GenerationRecord | None, times: tuple[float, float] | None, created: float) -> tuple[float, float]:
    """When the last launch began and stopped, in seconds since 1970, from the times of the first and the last row. If
    its driver died, it stopped at the last row."""
    first, last = times or (created, created)
    if launch is None or launch.since is None:
        return first, last
    return launch.since, max(launch.since, last if launch.until is None else launch.until)


def _quarantined(sweep: Folder) -> list[str]:
    """The places that get no more trials of the launch at work, a message for each reason."""
    places: dict[str, list[str]] = {}
    for each in quarantines(sweep):
        if each.end is None:
            places.setdefault(each.reason, []).append(each.place)
    return [f"in quarantine: {', '.join(names)}: {reason}" for reason, names in places.items()]


def _at_work(snapshot: Snapshot, predictions: Needed | None) -> Snapshot:
    """The snapshot with the phase of a sweep whose driver is alive. `predictions`: None before it has chosen the trials
    that predict."""
    if not snapshot.ended:
        return replace(snapshot, phase="repeating" if snapshot.search_ended else "searching")
    if predictions is None:
        return replace(snapshot, phase="finalising", activity="choosing the trials that predict")
    of = len(predictions.trials)
    activity = f"{of - len(predictions.waiting)} of {of} trials have predicted"
    return replace(snapshot, phase="finalising", activity=activity)


def _at_rest(snapshot: Snapshot, predictions: Needed | None, *, died: bool) -> Snapshot:
    """The snapshot of a sweep on which no driver works: it is done, stopped or interrupted. Its open trials wait for a
    resume. `died`: the last driver did not stop in order."""
    phase = "interrupted" if died else "stopped"
    if predictions is not None and predictions.pending:
        trials = ", ".join(map(str, predictions.waiting))
        message = f"no predictions yet of trials {trials}: hpo resume {snapshot.name}"
        snapshot = replace(snapshot, messages=(*snapshot.messages, message))
    elif predictions is not None:
        phase = "done"
    return replace(snapshot.at_rest(), phase=phase)


def overview(folder: SweepFolder) -> dict[str, Any]:
    """One row of `hpo list`."""
    record, snapshot = record_of(folder), read(folder)
    best = snapshot.best[0] if snapshot.best else None
    return {
        "sweep": snapshot.name,
        "state": snapshot.phase,
        "closed": sum(snapshot.counts[state] for state in CLOSED),
        "trials": snapshot.trials_total,
        "repeats": f"{snapshot.repeats_ended} of {snapshot.repeats_total}" if snapshot.repeats_total else None,
        "best": best.overall if best else None,
        "by trial": best.trial if best else None,
        "created": time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created)),
        "data": record.data.folder or "sample corpus",
    }


def follow(folder: SweepFolder, every: float) -> list[str]:
    """Show the sweep every `every` seconds until no driver works on it. Ctrl-C ends the display, not the sweep.
    Warnings of files that could not be read are shown with the messages; the last ones are returned."""
    from hpo.display.live import observer

    watch = Watch(folder)
    try:
        with observer() as show:
            while True:
                snapshot = watch.look()
                warnings = [f"warning: {warning}" for warning in folder.warnings]
                show(replace(snapshot, messages=(*snapshot.messages, *warnings)))
                if snapshot.phase in OVER:
                    break
                time.sleep(every)
    except KeyboardInterrupt:
        pass
    return folder.warnings
