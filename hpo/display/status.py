"""Where a sweep stands, read from its store alone, for `hpo list` and `hpo status`: now or long after.

The same `Monitor` that feeds the live display counts the stored rows, so both show the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.display.units import OVER
from hpo.driver.generations import active, total_trials
from hpo.driver.ledger import Ledger
from hpo.driver.monitor import Monitor
from hpo.search.schedulers import Asha
from hpo.search.snapshot import Snapshot
from hpo.search.states import CLOSED
from hpo.worker.progress import stages_of
from results.predictions import predicted

if TYPE_CHECKING:
    from results.store import SweepFolder


def read(folder: SweepFolder) -> Snapshot:
    """The sweep as its durable rows tell it now."""
    meta = folder.meta
    rows = folder.events()
    total, scheduler = total_trials(meta, Path(folder.path)), Asha(int(meta["eta"]))
    monitor = Monitor(meta["name"], total, tuple(meta["milestones"]), scheduler)
    monitor.feed_all(rows)
    live = active(Path(folder.path)) is not None
    times = [float(row["time"]) for row in rows]
    started = min(times, default=created(meta))
    now = time.time() if live else max(times, default=started)
    snapshot = monitor.snapshot("searching", started, now, live=live)
    unpredicted = sorted(Ledger(rows).kept.keys() - predicted(folder).keys())
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


def created(meta: dict[str, Any]) -> float:
    """When the sweep was made, in seconds since 1970; its metadata may hold a number or ISO text."""
    value = meta.get("created", 0.0)
    return float(value) if isinstance(value, int | float) else datetime.fromisoformat(value).timestamp()


def overview(folder: SweepFolder) -> dict[str, Any]:
    """One row of `hpo list`."""
    snapshot = read(folder)
    best = snapshot.best[0] if snapshot.best else None
    return {
        "sweep": snapshot.name,
        "state": snapshot.phase,
        "closed": sum(snapshot.counts[state] for state in CLOSED),
        "trials": snapshot.trials_total,
        "best": best.overall if best else None,
        "by trial": best.trial if best else None,
        "created": time.strftime("%Y-%m-%d %H:%M", time.localtime(created(folder.meta))),
        "data": (folder.meta.get("data") or {}).get("folder") or "sample corpus",
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
