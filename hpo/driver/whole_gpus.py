"""Whole GPUs: a trial that ran out of memory on a shared GPU gets the next one to itself.

The workers of other trials hold parts of the GPUs, and a worker that has ended a trial takes the next one at once. So
no other trial starts while an attempt waits for a whole GPU: Tune then ends the workers that become free, until nobody
holds a part of some GPU. Where other people's jobs hold parts of all GPUs, that never happens: after `PATIENCE` the
attempt is taken back, and in this launch trials that run out of memory share GPUs as before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from hpo.cluster.machines import Room
from hpo.cluster.resources import Resources

PATIENCE = 1800.0
"""Seconds that an attempt waits for a whole GPU, and other trials for its start."""
QUIET = 30.0
"""Seconds of that time before the person who watches is told."""


class WholeGpus:
    """The attempt of a launch that waits for a whole GPU. Pure: `now` is any clock in seconds."""

    def __init__(self, resources: Resources, look: Callable[[], Room], tell: Callable[[str], None]) -> None:
        """`resources`: what a trial takes. `look`: the room on the cluster now. `tell` receives messages for the person
        who watches."""
        self._shared = 0 < resources.gpus_per_trial < 1
        self._needs = replace(resources, gpus_per_trial=1.0)
        self._look = look
        self._tell = tell
        self._attempts: set[str] = set()
        """Attempts that get a whole GPU and have not ended; at most one of them waits for it."""
        self.waiting: str | None = None
        """The attempt that waits; no other trial starts meanwhile."""
        self._since: float | None = None
        """When it began to wait, not counting the time in which another attempt had a whole GPU."""
        self._told = False

    def needed(self, out_of_memory: bool) -> bool:
        """Whether a trial's next attempt needs a whole GPU. `out_of_memory`: whether an earlier one lacked memory."""
        return self._shared and out_of_memory

    def started(self, attempt: str) -> None:
        """An attempt that needs a whole GPU has started, and waits for it."""
        self._attempts.add(attempt)
        self.waiting, self._since, self._told = attempt, None, False

    def ended(self, attempt: str) -> None:
        """An attempt has ended."""
        self._attempts.discard(attempt)
        if attempt == self.waiting:
            self.waiting = None

    def follow(self, placed: Callable[[], Collection[str]], now: float) -> str | None:
        """The attempt that has waited too long and is to be taken back; None: none. `placed()`: the attempts that have
        got their resources."""
        if self.waiting is None:
            return None
        there = self._attempts.intersection(placed())
        if self.waiting in there:
            self.waiting = None
            return None
        if self._since is None or there:
            self._since = now
        waited, minutes = now - self._since, f"{PATIENCE / 60:.0f} minutes"
        if waited > PATIENCE:
            self._shared = False
            self._tell(
                f"attempt {self.waiting} got no GPU to itself in {minutes}: in this launch, trials that run out of "
                "memory are tried again on shared GPUs from now on"
            )
            return self.waiting
        if waited > QUIET and not self._told:
            self._told = True
            self._tell(
                f"attempt {self.waiting} waits for a GPU to itself, as its trial ran out of memory: "
                f"{self._look().missing(self._needs)}; no other trial starts meanwhile, for at most {minutes}"
            )
        return None
