"""Membership: whether the cluster still takes the node of this process for alive.

A node that gives no sign for some time, for a cut network or a frozen machine, is dead to its cluster for good: the
jobs of its drivers are over, even if it comes back. Such a driver would wait for ever for its trials.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LOOK = 10.0
"""Seconds between two looks."""


class Membership:
    """The node of this process in the cluster that it is connected to."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0

    def lost(self) -> bool:
        """Whether the cluster has given up this node. It looks once in `LOOK` seconds; without an answer nothing is
        known."""
        ray: Any = importlib.import_module("ray")
        now = self._clock()
        if now < self._next or not ray.is_initialized():
            return False
        self._next = now + LOOK
        from ray.exceptions import RayError

        with suppress(RayError, RuntimeError):
            own = ray.get_runtime_context().get_node_id()
            return any(node["NodeID"] == own and not node["Alive"] for node in ray.nodes())
        return False
