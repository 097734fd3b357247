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
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hpo.driver.stopping import RESUMABLE
from results.places import locate
from tests.chaos import control
from tests.chaos.driver import NAME, REFUSED
from tests.chaos.hosts import HEAD, children

DONE, KILLED = "done", "killed"
AGAIN = 3.0
"""Seconds between the end of a driver and the next one."""


class Operator:
    """Starts drivers, one after the other."""

    def __init__(self, hosts: Any, store: str, trials: int, seed: int) -> None:
        self._hosts, self._store = hosts, store
        self._options = {"store": store, "trials": trials, "seed": seed, "address": hosts.address}
        self._process: Any = None
        self._host = ""
        self._killed = self._cut = self._takes_over = False
        self._unconnected: set[str] = set()
        self._next = 0.0
        self._lines: list[str] = []
        self.done = False
        self.launches = 0
        self.ends: Counter[str] = Counter()
        """How drivers ended -> how many."""
        self.messages: list[str] = []
        """What drivers said."""
        self.crashes: list[str] = []
        """The output of drivers that have ended with an error of Python, without being cut off."""

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

    def cut_off(self, host: str) -> None:
        """A host is cut off: its driver, if it has one or gets one, may end for it."""
        self._unconnected.add(host)
        self._cut = self._cut or host == self._host

    def connected(self, host: str) -> None:
        """A host is connected again."""
        self._unconnected.discard(host)

    def close(self) -> None:
        if self._process is not None:
            self.kill_driver()
            self._process.wait()

    def _start(self) -> None:
        places = [HEAD, *self._hosts.workers]
        others = [place for place in places if place != self._host]
        self._host = others[self.launches % len(others)]
        action = "resume" if locate(self._store).child(NAME).exists("sweep.json") else "run"
        options = self._options | {"takeover": self._takes_over}
        command = [sys.executable, "-m", "tests.chaos.driver", action, json.dumps(options)]
        self._process = self._hosts.start(self._host, command)
        self._killed, self._cut, self._lines = False, self._host in self._unconnected, []
        self._reader = threading.Thread(target=self._lines.extend, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        self.launches += 1
        control.note("launches", host=self._host, action=action, time=time.time())

    def _ended(self, code: int) -> None:
        self._reader.join(10)
        lines = [line.strip() for line in self._lines if line.strip()]
        end, said = self._read(code, lines)
        self.done = end == DONE
        self.ends[end] += 1
        self.messages += said
        # A driver that has not stopped in order has a young heartbeat; the operator knows that it is dead.
        self._takes_over = end == KILLED or end.startswith(("cut off", "exit code", "refused: BusyError"))
        if end.startswith("exit code"):
            self.crashes.append("\n".join(lines[-60:]))
        self._process, self._killed = None, False
        print(f"          launch {self.launches} on {self._host}: {end}", flush=True)

    def _read(self, code: int, lines: Sequence[str]) -> tuple[str, list[str]]:
        """How a driver has ended, from its exit code and its output, and what it said."""
        last = lines[-1] if lines else ""
        if code in (0, RESUMABLE):
            said = json.loads(last)["messages"]
            return (DONE if code == 0 else f"stopped: {said[-1] if said else ''}"), said
        if self._killed or self._host not in [HEAD, *self._hosts.workers]:
            return KILLED, []
        if code == REFUSED:
            return f"refused: {last}", []
        return f"cut off: {last}" if self._cut else f"exit code {code}: {last}", []
