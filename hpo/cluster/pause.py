"""Pause flag and signs of life. The driver raises the flag; every worker polls it between steps and batches.

A worker that polls also writes a sign of life. Flag and signs lie in Ray's internal key-value store, which every
process of a cluster can use. It answers in 0.4 ms (a named actor takes 0.6 ms and needs a process); a worker asks at
most four times a second.
"""

from __future__ import annotations

import time

NAMESPACE = b"hpo"
INTERVAL = 0.25
"""Seconds between two reads of the flag."""
BEAT = 10.0
"""Seconds between two signs of life."""


def raise_flag(key: str) -> None:
    """Ask every trial that polls `key` to write a checkpoint and stop."""
    from ray.experimental.internal_kv import _internal_kv_put

    _internal_kv_put(key.encode(), b"1", overwrite=True, namespace=NAMESPACE)


def drop_flag(key: str) -> None:
    """Delete the flag and all signs of life: a cluster that keeps running should not keep them."""
    from ray.experimental.internal_kv import _internal_kv_del

    _internal_kv_del(key.encode(), del_by_prefix=True, namespace=NAMESPACE)


def sign_of_life(key: str, trial_id: str) -> object:
    """The last sign of life of an attempt's worker; None before the first one. A worker that lives writes new ones."""
    from ray.experimental.internal_kv import _internal_kv_get

    return _internal_kv_get(_life(key, trial_id), namespace=NAMESPACE)


def _life(key: str, trial_id: str) -> bytes:
    """Key of an attempt's sign of life."""
    return f"{key}/{trial_id}".encode()


class Poll:
    """The function `should_pause()` of one attempt.

    It reads the flag at most once per INTERVAL seconds; a flag that was raised stays raised. It writes a sign of life
    at most once per BEAT seconds.
    """

    def __init__(self, key: str, trial_id: str) -> None:
        self._key, self._life = key.encode(), _life(key, trial_id)
        self._raised = False
        self._next = self._next_sign = 0.0

    def __call__(self) -> bool:
        if self._raised or not self._key or time.monotonic() < self._next:
            return self._raised
        from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

        now = time.monotonic()
        if now >= self._next_sign:
            _internal_kv_put(self._life, str(now).encode(), overwrite=True, namespace=NAMESPACE)
            self._next_sign = now + BEAT
        self._raised = _internal_kv_get(self._key, namespace=NAMESPACE) is not None
        self._next = now + INTERVAL
        return self._raised
