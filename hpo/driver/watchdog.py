"""The watchdog: finds trials that hang (a dead file server, a stuck device, a deadlock). Tune would wait for ever.

A worker gives a sign of life whenever it asks whether to pause: between optimiser steps, steps of a stage and batches
of an evaluation. A sign is only compared with the one at the previous look, so the clocks of two machines need not
agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

LOOK = 10.0
"""Seconds between two looks; a worker gives its signs at about the same interval."""
SILENT = 600.0
"""Seconds without a new sign after which a trial is reported as silent."""
HUNG = 3600.0
"""Seconds without a new sign after which a worker is killed; its trial is lost and issued again. Far longer than any
step. A worker without a first sign is never killed: its trial may be waiting for a busy cluster."""


class Watchdog:
    """Compares the signs of life of the running Tune trials."""

    def __init__(self, sign: Callable[[str], object]) -> None:
        """`sign(tune_id)` returns the newest sign of a Tune trial's worker; None before the first."""
        self._sign = sign
        self._seen: dict[str, tuple[object, float]] = {}
        """Tune's id -> its newest sign, and when that sign was first seen."""
        self._reported: set[str] = set()
        """Tune's ids of the trials that were reported as silent."""
        self._next = 0.0

    def look(self, running: Iterable[str], now: float) -> tuple[list[str], list[str]]:
        """Tune's ids of newly silent trials, each returned once, and of hung trials, whose workers are to be killed."""
        if now < self._next:
            return [], []
        self._next = now + LOOK
        signs = {tune_id: self._sign(tune_id) for tune_id in running}
        before, self._seen = self._seen, {}
        for tune_id, sign in signs.items():
            seen = before.get(tune_id)
            self._seen[tune_id] = seen if seen is not None and seen[0] == sign else (sign, now)
        silence = {tune_id: now - since for tune_id, (_, since) in self._seen.items()}
        silent = [tune_id for tune_id, seconds in silence.items() if seconds > SILENT and tune_id not in self._reported]
        self._reported.update(silent)
        hung = [tune_id for tune_id, seconds in silence.items() if seconds > HUNG and signs[tune_id] is not None]
        return silent, hung
