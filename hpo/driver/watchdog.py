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
"""Seconds without a new sign after which a worker is killed: its trial is lost, and issued again. Far longer than any
step, and only where a first sign was seen: a trial that has not begun may be waiting for a busy cluster."""


class Watchdog:
    """Looks at the signs of the Tune trials that run."""

    def __init__(self, sign: Callable[[str], object]) -> None:
        """`sign(tune_id)` is the newest sign of a Tune trial's worker; None before the first."""
        self._sign = sign
        self._seen: dict[str, tuple[object, float]] = {}
        """Tune's id -> the newest sign, and when it was first seen."""
        self._named: set[str] = set()
        self._next = 0.0

    def look(self, running: Iterable[str], now: float) -> tuple[list[str], list[str]]:
        """Trials that have been silent for too long, each named once, and those whose workers are to be killed."""
        if now < self._next:
            return [], []
        self._next = now + LOOK
        signs = {tune_id: self._sign(tune_id) for tune_id in running}
        before, self._seen = self._seen, {}
        for tune_id, sign in signs.items():
            seen = before.get(tune_id)
            self._seen[tune_id] = seen if seen is not None and seen[0] == sign else (sign, now)
        silence = {tune_id: now - since for tune_id, (_, since) in self._seen.items()}
        silent = [tune_id for tune_id, seconds in silence.items() if seconds > SILENT and tune_id not in self._named]
        self._named.update(silent)
        hung = [tune_id for tune_id, seconds in silence.items() if seconds > HUNG and signs[tune_id] is not None]
        return silent, hung
