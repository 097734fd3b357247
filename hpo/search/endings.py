"""Endings: what becomes of a trial whose attempt ended without a verdict of the scheduler.

| cause (`hpo.cluster.faults`) | the trial |
| --- | --- |
| refused | fails |
| raised, memory | is issued again once, elsewhere; fails the second time. After `memory` it runs alone on its device |
| place | is issued again elsewhere; fails after `LOSSES` places in a row without a newer checkpoint |
| driver, disk | is issued again, at no cost |

A new report and a checkpoint newer than that of the last attempt are progress: places are counted anew after them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hpo.cluster.faults import Cause

LOSSES = 3
"""Number of places that a trial may lose in a row without a newer checkpoint; then it fails."""
FIRST_REST = 2.0
"""Seconds between the first loss of a trial and its next start."""
GROWTH = 4.0
"""Factor between the rests after two losses in a row."""


@dataclass(frozen=True)
class Ending:
    """The end of an attempt that the driver observed."""

    cause: Cause
    reason: str = ""
    place: str = ""
    """Host and device where it ran; empty: not known."""
    reached: int = 0
    """Examples at the trial's newest checkpoint; 0: it has none."""


@dataclass(slots=True)
class Endings:
    """What the endings of a trial's attempts add up to."""

    losses: int = 0
    """Places lost in a row without progress."""
    places: list[str] = field(default_factory=list)
    """Places where attempts ended since the last progress, and where the trial should not run again."""
    raised: bool = False
    """Whether an attempt has raised an error."""
    memory: bool = False
    """Whether an attempt has run out of memory: the next one runs alone on its device, if one becomes free
    (`hpo.driver.whole_gpus`)."""
    reached: int = 0
    """Examples at the newest checkpoint when an attempt last ended."""

    def progress(self) -> None:
        """Take a new report."""
        self.losses = 0
        self.places.clear()

    def add(self, ending: Ending) -> Literal["failed", "lost", "paused"]:
        """Take the end of an attempt; returns its state. failed: the trial has ended; else it is issued again."""
        if ending.reached > self.reached:
            self.reached = ending.reached
            self.progress()
        if ending.cause in ("driver", "disk"):
            return "paused"
        if ending.place and ending.place not in self.places:
            self.places.append(ending.place)
        if ending.cause == "refused":
            return "failed"
        if ending.cause == "place":
            self.losses += 1
            return "failed" if self.losses >= LOSSES else "lost"
        again = self.memory if ending.cause == "memory" else self.raised
        self.memory |= ending.cause == "memory"
        self.raised |= ending.cause == "raised"
        return "failed" if again else "lost"

    def why(self, reason: str) -> str:
        """The reason of a trial that fails now."""
        return (
            f"lost at {self.losses} places in a row{f': {reason}' * bool(reason)}" if self.losses >= LOSSES else reason
        )


def rest(losses: int) -> float:
    """Seconds between the end of an attempt and the next start of its trial, which has lost so many places in a row."""
    return FIRST_REST * GROWTH ** (losses - 1) if losses else 0.0
