"""The watchdog: finds trials that hang (a dead file server, a stuck device, a deadlock). Tune would wait for ever.

A worker gives a sign of life whenever it asks whether to pause: before it loads anything, then between optimiser steps,
steps of a stage and batches of an evaluation. A sign is only compared with the one at the previous look, so the clocks
of two machines need not agree. How long a worker may be silent follows from the longest time between two signs so far:
a slow machine gets more. Before its first sign, while its process starts and imports, a worker has a fixed time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

LOOK = 10.0
"""Seconds between two looks; a worker gives its signs at about the same interval."""
FACTOR = 20.0
"""Longest silence of a worker, in units of the longest time between two signs of any worker so far."""
SHORTEST, LONGEST = 600.0, 3600.0
"""Bounds of that silence in seconds. Before two signs of any worker have been seen it is `LONGEST`."""
START = 1800.0
"""Shortest time in seconds that a worker has from getting its resources to its first sign. It usually takes 10 s, but
minutes where Ray first brings code or packages to a new machine."""


def longest_silence(longest: float, given: float | None = None) -> float:
    """Seconds that work may take without a sign, from the longest time that it took so far (0: not known yet), unless
    they are given."""
    if given is not None:
        return given
    return min(LONGEST, max(SHORTEST, FACTOR * longest)) if longest else LONGEST


class Watchdog:
    """Compares the signs of life of the running Tune trials."""

    def __init__(self, sign: Callable[[str], object], limit: float | None = None) -> None:
        """`sign(tune_id)` returns the newest sign of a Tune trial's worker; None before the first. `limit`: seconds
        that a worker may be silent; None: they follow from the signs."""
        self._sign = sign
        self._given = limit
        self._gap = 0.0
        """Longest time in seconds between two signs of a worker so far."""
        self._seen: dict[str, tuple[object, float]] = {}
        """Tune's id -> its newest sign, and when that sign was first seen."""
        self._reported: set[str] = set()
        """Tune's ids of the trials that were reported as silent."""
        self._next = 0.0

    @property
    def limit(self) -> float:
        """Seconds without a new sign after which a worker is killed; its trial is lost and issued again."""
        return longest_silence(self._gap, self._given)

    @property
    def start_limit(self) -> float:
        """Seconds without a first sign after which a worker is killed."""
        return max(START, self._given or 0.0)

    def look(self, running: Iterable[str], now: float) -> tuple[dict[str, float], list[str]]:
        """Trials that have been silent for half their limit, each returned once: Tune's id -> the limit; and Tune's ids
        of hung trials, whose workers are to be killed. `running`: those whose workers have got their resources; others
        wait for a busy cluster."""
        if now < self._next:
            return {}, []
        self._next = now + LOOK
        signs = {tune_id: self._sign(tune_id) for tune_id in running}
        before, self._seen = self._seen, {}
        for tune_id, sign in signs.items():
            seen = before.get(tune_id)
            if seen is not None and seen[0] not in (None, sign):
                self._gap = max(self._gap, now - seen[1])
            self._seen[tune_id] = seen if seen is not None and seen[0] == sign else (sign, now)
        silence = {tune_id: now - since for tune_id, (_, since) in self._seen.items()}
        limits = {tune_id: self.start_limit if sign is None else self.limit for tune_id, sign in signs.items()}
        quiet = {tune_id: limit for tune_id, limit in limits.items() if silence[tune_id] > limit / 2}
        silent = {tune_id: limit for tune_id, limit in quiet.items() if tune_id not in self._reported}
        self._reported.update(silent)
        return silent, [tune_id for tune_id, limit in quiet.items() if silence[tune_id] > limit]
