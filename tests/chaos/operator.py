"""The operator: keeps a driver at work on the sweep, as a person or a queue would.

A driver that has died or stopped is resumed on another host. Where the killed driver's heartbeat is still young the
operator, who knows that it is dead, tells the new one to take over.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos import control
from tests.chaos.driver import BUSY, NAME
from tests.chaos.hosts import children

AGAIN = 3.0
"""Seconds between the end of a driver and the next one."""


class Operator:
    """Starts drivers, one after the other."""

    def __init__(self, hosts: Any, store: Path, trials: int, seed: int) -> None:
        self._hosts, self._store = hosts, store
        self._options = {"store": str(store), "trials": trials, "seed": seed, "address": hosts.address}
        self._process: Any = None
        self._host = ""
        self._killed = False
        self._next = 0.0
        self._lines: list[str] = []
        self.done = False
        self.launches = 0
        self.ends: Counter[str] = Counter()
        """How drivers ended -> how many."""
        self.messages: list[str] = []
        """What drivers said."""

    def turn(self) -> None:
        """Look at the driver; start another one if it has ended."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            self._ended(self._process.wait())
            self._next = now + AGAIN
        if self._process is None and not self.done and now >= self._next and self._hosts.workers:
            self._start()

    def kill_driver(self) -> str | None:
        """Kill the driver, if there is one; returns its host."""
        if self._process is None or (self._hosts.real and not children(self._process.pid)):
            return None
        self._killed = True
        for pid in children(self._process.pid) if self._hosts.real else [self._process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return self._host

    def close(self) -> None:
        if self._process is not None:
            self.kill_driver()
            self._process.wait()

    def _start(self) -> None:
        places = ["h1", *self._hosts.workers]
        others = [place for place in places if place != self._host]
        self._host = others[self.launches % len(others)]
        action = "resume" if (self._store / NAME / "sweep.json").exists() else "run"
        options = self._options | {"takeover": self._killed, "retry_failed": False}
        command = [sys.executable, "-m", "tests.chaos.driver", action, json.dumps(options)]
        self._process = self._hosts.start(self._host, command)
        self._killed, self._lines = False, []
        threading.Thread(target=self._lines.extend, args=(self._process.stdout,), daemon=True).start()
        self.launches += 1
        control.note("launches", host=self._host, action=action, time=time.time())

    def _ended(self, code: int) -> None:
        lines = [line.strip() for line in self._lines if line.strip()]
        last = lines[-1] if lines else ""
        if code in (0, 3) and last.startswith("{"):
            said = json.loads(last)["messages"]
            self.messages += said
            why = said[-1] if said else "stopped"
            self.done = code == 0
            self.ends["done" if self.done else f"stopped: {why}"] += 1
        elif code == BUSY:
            self.ends[f"refused: {last}"] += 1
            self._killed = "BusyError" in last
        elif self._killed or self._host not in ["h1", *self._hosts.workers]:
            self.ends["killed"] += 1
            self._killed = True
        else:
            self.ends[f"exit code {code}: {last}"] += 1
            self.messages.append("\n".join(lines[-40:]))
            self._killed = True
        self._process = None
