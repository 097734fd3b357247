"""Which trials hang: a dead file server, a stuck device, a deadlock. Tune itself would wait for ever.

A worker shows a sign of life whenever it asks whether to pause: between optimiser steps, steps of a stage and batches
of an evaluation. Signs are compared with the previous look alone, so clocks of two machines do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

LOOK = 10.0
"""Seconds between two looks, and about between two signs of a worker."""
SILENT = 600.0
"""Seconds without a new sign after which a trial is named."""
HUNG = 3600.0
"""Seconds without a new sign after which its worker is killed: the trial is lost, and issued again. Far longer than
any step, and only where a first sign was seen: what has not begun may be waiting for a busy cluster."""


class Watchdog:
    """Looks at the signs of the trials that run."""

    def __init__(self, sign: Callable[[str], object]) -> None:
        """`sign(trial_id)` is the newest sign of an attempt; None before the first."""
        self._sign = sign
        self._seen: dict[str, tuple[object, float]] = {}
        self._named: set[str] = set()
        self._next = 0.0

    def look(self, running: Iterable[str], now: float) -> tuple[list[str], list[str]]:
        """Attempts that have been silent for too long, each named once, and those whose workers are to be killed."""
        if now < self._next:
            return [], []
        self._next = now + LOOK
        signs = {one: self._sign(one) for one in running}
        before, self._seen = self._seen, {}
        for one, sign in signs.items():
            known = before.get(one)
            self._seen[one] = known if known is not None and known[0] == sign else (sign, now)
        silence = {one: now - since for one, (_, since) in self._seen.items()}
        silent = [one for one, seconds in silence.items() if seconds > SILENT and one not in self._named]
        self._named.update(silent)
        hung = [one for one, seconds in silence.items() if seconds > HUNG and signs[one] is not None]
        return silent, hung
