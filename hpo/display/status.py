"""Where a sweep stands, read from its store alone, for `hpo list` and `hpo status`: now or long after.

The same `Tally` that feeds the live display counts the stored rows, so both show the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.display.units import CLOSED, OVER
from hpo.driver.finalise import kept
from hpo.driver.generations import active, total_trials
from hpo.launch.record import record_of
from hpo.search.snapshot import Snapshot, Tally
from hpo.worker.progress import stages_of
from results.predictions import predicted

if TYPE_CHECKING:
    from results.store import SweepFolder


def read(folder: SweepFolder) -> Snapshot:
    """The sweep as its durable rows tell it now."""
    record = record_of(folder)
    rows = folder.events()
    tally = Tally(record.name, total_trials(record.trials, Path(folder.path)), record.milestones, record.eta)
    tally.feed_all(rows)
    live = active(Path(folder.path)) is not None
    times = [float(row["time"]) for row in rows]
    started = min(times, default=record.created)
    now = time.time() if live else max(times, default=started)
    snapshot = tally.snapshot("searching", started, now, live=live)
    unpredicted = sorted(kept(rows).keys() - predicted(folder).keys())
    snapshot = _settled(snapshot, live, unpredicted)
    return replace(snapshot, stages=stages_of(Path(folder.path), snapshot.beginning))


def _settled(snapshot: Snapshot, live: bool, unpredicted: list[int]) -> Snapshot:
    """The phase that the counts tell, and which kept trials have not predicted; without a driver nothing runs, what was
    open waits for a resume."""
    over = sum(snapshot.counts[state] for state in CLOSED) >= snapshot.trials_total
    if live:
        return replace(snapshot, phase="finalising" if over else "searching")
    if over and unpredicted:
        trials = ", ".join(map(str, unpredicted))
        told = f"no predictions yet of trials {trials}: hpo resume {snapshot.name}"
        over, snapshot = False, replace(snapshot, messages=(*snapshot.messages, told))
    counts = dict(snapshot.counts)
    counts["waiting"] += counts["running"]
    counts["running"] = 0
    return replace(snapshot, counts=counts, running=[], time_left=None, phase="done" if over else "stopped")


def overview(folder: SweepFolder) -> dict[str, Any]:
    """One row of `hpo list`."""
    record, snapshot = record_of(folder), read(folder)
    best = snapshot.best[0] if snapshot.best else None
    return {
        "sweep": snapshot.name,
        "state": snapshot.phase,
        "closed": sum(snapshot.counts[state] for state in CLOSED),
        "trials": snapshot.trials_total,
        "best": best[1] if best else None,
        "by trial": best[0] if best else None,
        "created": time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created)),
        "data": record.data.folder or "sample corpus",
    }


def follow(look: Callable[[], SweepFolder], every: float) -> list[str]:
    """Show the sweep until no driver works on it any more; Ctrl-C leaves it running. What could not be read of it
    stands among the messages, and is returned at the end."""
    from hpo.display.live import observer

    warnings: list[str] = []
    try:
        with observer() as show:
            while True:
                folder = look()
                snapshot = read(folder)
                warnings = folder.warnings
                show(replace(snapshot, messages=tuple(f"warning: {line}" for line in warnings)))
                if snapshot.phase in OVER:
                    break
                time.sleep(every)
    except KeyboardInterrupt:
        pass
    return warnings
