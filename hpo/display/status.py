"""Status of a sweep for `hpo list` and `hpo status`, read from the store alone, while a driver works on it and after.

The `Monitor` behind the live display counts the stored rows here too, so both show the same numbers. Time counts from
the last launch (run, resume or extend); if no driver works on the sweep, it is the time that the last launch took.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hpo.display.units import OVER
from hpo.driver.generations import GenerationRecord, active, newest, total_trials
from hpo.driver.ledger import Ledger
from hpo.driver.monitor import monitor_of
from hpo.driver.selection import Needed, still_needed
from hpo.launch.record import record_of
from hpo.search.snapshot import Snapshot
from hpo.search.states import CLOSED
from hpo.worker.progress import stages_of

if TYPE_CHECKING:
    from results.store import SweepFolder


def read(folder: SweepFolder) -> Snapshot:
    """The sweep as its durable rows describe it now."""
    record, path = record_of(folder), folder.path
    rows = folder.events()
    monitor = monitor_of(record, total_trials(record.trials, path))
    monitor.feed_all(rows)
    live, launch = active(path) is not None, newest(path)
    started, ended = _times(launch, [float(row["time"]) for row in rows], record.created)
    snapshot = monitor.snapshot("searching", started, time.time() if live else ended, live=live)
    predictions = still_needed(folder, Ledger(rows), choose=not live) if snapshot.ended else None
    if live:
        snapshot = _at_work(snapshot, predictions)
    else:
        snapshot = _at_rest(snapshot, predictions, died=launch is not None and launch.state != "ended")
    return replace(snapshot, stages=stages_of(path, snapshot.beginning))


def _times(launch: GenerationRecord | None, times: list[float], created: float) -> tuple[float, float]:
    """When the last launch began and stopped, in seconds since 1970. If its driver died, it stopped at the last row."""
    last = max(times, default=created)
    if launch is None or launch.since is None:
        return min(times, default=created), last
    return launch.since, max(launch.since, last if launch.until is None else launch.until)


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


def follow(open_folder: Callable[[], SweepFolder], every: float) -> list[str]:
    """Show the sweep every `every` seconds until no driver works on it. Ctrl-C ends the display, not the sweep.
    Warnings of files that could not be read are shown as messages; the last ones are returned."""
    from hpo.display.live import observer

    warnings: list[str] = []
    try:
        with observer() as show:
            while True:
                folder = open_folder()
                snapshot = read(folder)
                warnings = folder.warnings
                show(replace(snapshot, messages=tuple(f"warning: {warning}" for warning in warnings)))
                if snapshot.phase in OVER:
                    break
                time.sleep(every)
    except KeyboardInterrupt:
        pass
    return warnings
