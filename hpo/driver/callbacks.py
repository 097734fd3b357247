"""Callbacks: functions of the caller that are told of every event of a launch: of a trial once its row is durable, of
the launch's phases, messages and end.

They are called in the driver's process, one event after the other, between two steps of the search. A slow callback
delays the search; one that raises an error only causes a warning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from results.names import by_path

Row = Mapping[str, Any]


class Callback:
    """Base class of callbacks: override the events that you need.

    An event of a trial (`started`, `reported`, `ended`) is a row of the store as a dict, without the columns that it
    leaves empty; `results.schemas` says type, unit and meaning of each column.
    """

    def started(self, row: Row) -> None:
        """An attempt at a trial starts. `row`: trial, attempt, origin, config (nested), params (by path, as
        `adapter/rank`), seed, and more columns of `trials`."""

    def reported(self, row: Row) -> None:
        """A trial has reported at a milestone. `row`: trial, attempt, step and examples (training examples), overall,
        scores by task, seconds, verdict, and more columns of `reports`."""

    def ended(self, row: Row) -> None:
        """An attempt has ended. `row`: trial, attempt, state (complete, pruned, diverged or failed: the trial has
        ended; lost or paused: it will go on), reason, error, and more columns of `trials`."""

    def phase(self, name: str) -> None:
        """The launch begins a phase. `name`: starting, searching, repeating, finalising (the chosen trials predict) or
        stopping; at the end done or stopped."""

    def message(self, text: str) -> None:
        """The driver has a message: a lost trial, a place in quarantine, a hung worker, why the launch stops, a file
        that cannot be read."""

    def finished(self, row: Row) -> None:
        """The launch has ended. `row`: sweep (its name) and state (done; stopped: it can be resumed); of a sweep that
        is done also answer (a trial; None: none has reached the full budget), method (of the ensemble) and members
        (trial -> its weight)."""


class Callbacks:
    """The callbacks of a launch. `tell` receives a warning of each new error of theirs."""

    def __init__(self, callbacks: Sequence[Callback], tell: Callable[[str], None]) -> None:
        for number, callback in enumerate(callbacks):
            if not isinstance(callback, Callback):
                raise ValueError(
                    f"`callbacks[{number}]` must be an object of a subclass of hpo.Callback, not {callback!r}."
                )
        self._callbacks = tuple(callbacks)
        self._tell = tell
        self._ended: set[tuple[int, int]] = set()
        """(trial, attempt) that have ended: a later row of an end only says that weights were deleted."""
        self._told: set[str] = set()

    def recall(self, rows: Iterable[Row]) -> None:
        """Take the rows of earlier launches, which are no news."""
        self._ended |= {_attempt(row) for row in rows if row.get("event") == "end"}

    def __call__(self, rows: Iterable[Row]) -> None:
        """Tell every callback of rows that have become durable."""
        for row in rows:
            event = {"start": "started", "end": "ended"}.get(row.get("event") or "", "reported")
            if event == "ended":
                if _attempt(row) in self._ended:
                    continue
                self._ended.add(_attempt(row))
            for callback in self._callbacks:
                self._call(callback, event, _plain(row))

    def phase(self, name: str) -> None:
        """Tell every callback that a phase begins."""
        for callback in self._callbacks:
            self._call(callback, "phase", name)

    def message(self, text: str) -> None:
        """Tell every callback a message of the driver."""
        for callback in self._callbacks:
            self._call(callback, "message", text)

    def finished(self, row: Row) -> None:
        """Tell every callback that the launch has ended."""
        for callback in self._callbacks:
            self._call(callback, "finished", dict(row))

    def _call(self, callback: Callback, event: str, told: Row | str) -> None:
        try:
            getattr(callback, event)(told)
        except Exception as error:  # noqa: BLE001  a callback that fails must not stop a sweep
            warning = f"a callback failed: {type(callback).__name__}.{event}: {type(error).__name__}: {error}"
            if warning not in self._told:
                self._told.add(warning)
                self._tell(warning)


def _attempt(row: Row) -> tuple[int, int]:
    return int(row["trial"]), int(row["attempt"])


def _plain(row: Row) -> dict[str, Any]:
    """The row without empty columns, its JSON columns as dicts, parameters by path; each callback gets its own copy."""
    plain = {name: value for name, value in row.items() if value is not None}
    plain |= {name: json.loads(plain[name]) for name in ("config", "params") if isinstance(plain.get(name), str)}
    if "params" in plain:
        plain["params"] = by_path(plain["params"])
    return plain
