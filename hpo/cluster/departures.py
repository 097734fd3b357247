"""Departures: nodes that were told to go and end soon, such as spot machines.

Whoever ends a node tells Ray: SIGTERM to `ray start --block`, `ray drain-node`, an autoscaler. Ray then starts nothing
more there, and ends the node once nothing runs on it, or after the time that was given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from hpo.cluster.machines import hosts_of, leaving_nodes

LOOK = 1.0
"""Seconds between two looks: a spot machine may end 30 seconds after it was told to go."""


class Departures:
    """The nodes that leave the cluster of this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._known: set[str] = set()

    def new(self) -> Mapping[str, str]:
        """Nodes (Ray's ids) that have begun to leave since the last call -> their hosts. It looks once in `LOOK`
        seconds; without an answer there are none."""
        now = self._clock()
        if now < self._next:
            return {}
        self._next = now + LOOK
        from ray.exceptions import RayError

        with suppress(RayError, RuntimeError):
            if unknown := set(leaving_nodes()) - self._known:
                hosts = hosts_of(unknown)
                self._known |= hosts.keys()
                return hosts
        return {}
