"""Draws docs/display.svg: the live display of a stored sweep after a share of its rows, 0.6 by default.

    python docs/display.py STORE SWEEP [SHARE]
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from hpo.display.live import picture
from hpo.driver.monitor import Monitor
from hpo.launch.record import record_of
from hpo.search.schedulers import scheduler_from
from hpo.search.snapshot import Snapshot
from results.store import Store

WIDTH = 80


def moment(store: str, sweep: str, share: float) -> Snapshot:
    """The sweep after a share (0 to 1) of its rows, at the time of the last of them."""
    folder = Store(store).open(sweep)
    rows = folder.events()
    rows = rows[: max(1, round(share * len(rows)))]
    record = record_of(folder)
    monitor = Monitor(sweep, record.trials, record.milestones, scheduler_from(record.scheduler), record.exempt)
    monitor.feed_all(rows)
    return monitor.snapshot("searching", float(rows[0]["time"]), float(rows[-1]["time"]))


def main(store: str, sweep: str, share: str = "0.6") -> None:
    """Draw the picture; print its path."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(picture(moment(store, sweep, float(share)), WIDTH), width=WIDTH)
    out = Path(__file__).with_suffix(".svg")
    console.save_svg(str(out), title="hpo run", unique_id="display")
    sys.stdout.write(f"{out}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
