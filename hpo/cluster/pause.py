"""Pause flag, signs of life, and places that get no trials.

The driver raises the flag, for all trials or for those on nodes that leave the cluster; every worker polls it between
steps and batches. A worker that polls also writes a sign of life, which names its place and node. A worker reads which
places get no trials before it begins one. All of this lies in Ray's
internal key-value store, which every process of a cluster can use. It answers in 0.4 ms (a named actor takes 0.6 ms and
needs a process); a worker asks at most four times a second.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from contextlib import suppress

NAMESPACE = b"hpo"
INTERVAL = 0.25
"""Seconds between two reads of the flag."""
BEAT = 10.0
"""Seconds between two signs of life."""


class Board:
    """What the driver tells the workers of one launch, and hears from them."""

    def __init__(self, key: str) -> None:
        """`key`: the key of the pause flag; all others begin with it."""
        self._key = key
        self._for_all = False

    def raise_flag(self, nodes: Collection[str] | None = None) -> None:
        """Ask the trials that poll on these nodes (Ray's ids) to write a checkpoint and stop; None: all trials, from
        now on."""
        if not self._for_all:
            self._for_all = nodes is None
            _put(self._key.encode(), json.dumps(None if nodes is None else sorted(nodes)).encode())

    def clear(self) -> None:
        """Delete all that was written: a cluster that keeps running should not keep it."""
        from ray.experimental.internal_kv import _internal_kv_del

        _internal_kv_del(self._key.encode(), del_by_prefix=True, namespace=NAMESPACE)

    def sign_of_life(self, trial_id: str) -> object:
        """The last sign of life of an attempt's worker; None before the first one. A worker that lives writes new
        ones."""
        return _get(_life(self._key, trial_id))

    def place_of(self, trial_id: str) -> str:
        """The place of an attempt's worker, from its sign of life; empty before the first one."""
        return self._signed(trial_id, "place")

    def node_of(self, trial_id: str) -> str:
        """Ray's id of the node of an attempt's worker, from its sign of life; empty before the first one."""
        return self._signed(trial_id, "node")

    def _signed(self, trial_id: str, field: str) -> str:
        sign = _get(_life(self._key, trial_id))
        return "" if sign is None else str(json.loads(sign)[field])

    def close_places(self, places: Collection[str]) -> None:
        """Let no worker at these places begin a trial; other places get trials again."""
        _put(_closed(self._key), json.dumps(sorted(places)).encode())


def is_closed(key: str, place: str) -> bool:
    """Whether no worker at this place may begin a trial."""
    places = _get(_closed(key)) if key else None
    return places is not None and place in json.loads(places)


def _life(key: str, trial_id: str) -> bytes:
    """Key of an attempt's sign of life."""
    return f"{key}/{trial_id}".encode()


def _closed(key: str) -> bytes:
    """Key of the places that get no trials."""
    return f"{key}/closed".encode()


def _put(key: bytes, value: bytes) -> None:
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(key, value, overwrite=True, namespace=NAMESPACE)


def _get(key: bytes) -> bytes | None:
    from ray.experimental.internal_kv import _internal_kv_get

    value: bytes | None = _internal_kv_get(key, namespace=NAMESPACE)
    return value


class Poll:
    """The function `should_pause()` of one attempt.

    It reads the flag at most once per INTERVAL seconds; a flag that was raised stays raised. It writes a sign of life
    at most once per BEAT seconds. If the store gives no answer, it asks again after INTERVAL seconds: a trial does not
    fail because the head of a cluster is busy or restarts.
    """

    def __init__(self, key: str, trial_id: str, place: str = "") -> None:
        self._key, self._life, self._place = key.encode(), _life(key, trial_id), place
        self._raised = False
        self.leaves = False
        """Whether the flag was raised because this node leaves the cluster."""
        self._next = self._next_sign = 0.0

    def __call__(self) -> bool:
        if self._raised or not self._key or time.monotonic() < self._next:
            return self._raised
        from ray.exceptions import RayError

        now = time.monotonic()
        self._next = now + INTERVAL
        with suppress(RayError, RuntimeError):  # the store's own errors, and those of a lost connection
            self._ask(now)
        return self._raised

    def _ask(self, now: float) -> None:
        import ray

        node = ray.get_runtime_context().get_node_id()
        if now >= self._next_sign:
            _put(self._life, json.dumps({"at": now, "place": self._place, "node": node}).encode())
            self._next_sign = now + BEAT
        if (flag := _get(self._key)) is not None:
            nodes = json.loads(flag)
            self.leaves = nodes is not None and node in nodes
            self._raised = nodes is None or self.leaves
