"""Slots: how many trials run at once on a running cluster. Their number follows the machines that join and leave.

    slots = trials of ours that hold resources + trials that fit onto what is free + 1, at most `--workers`

What other people's jobs take is not free: it is left alone. The one more waits in Ray's queue: an autoscaler starts a
machine for it, and it begins at once on a machine that joins or becomes free.

The number changes only as far as two looks in a row agree, so a job of somebody else that ends just as another begins
changes nothing. A trial that runs is never stopped for it.
"""

from __future__ import annotations

from collections.abc import Callable

from hpo.cluster.machines import Room
from hpo.cluster.resources import Resources

LOOK = 10.0
"""Seconds between two looks at the cluster."""


class Slots:
    """The number of slots of a launch. Pure: `now` is any clock in seconds."""

    def __init__(self, resources: Resources, look: Callable[[], Room], tell: Callable[[str], None], now: float) -> None:
        """`resources`: what a trial takes, and the largest number of slots. `look`: the room on the cluster now.
        `tell` receives messages for the person who watches."""
        self._resources = resources
        self._look = look
        self._tell = tell
        self._next = now + LOOK
        room = look()
        self.number = self._seen = self._wanted(0, room)
        """Number of trials that may run at once now, and what the last look would have made of it."""
        self._most = self._capacity(room)
        """Number of trials that all machines together can run."""
        self._in_vain = 0
        """Number of looks in a row at which no trial held resources and none would have fitted."""

    def follow(self, held: int, now: float) -> int:
        """The number of slots, after another look if it is time for one. `held`: trials of ours that hold resources."""
        if now >= self._next:
            self._next = now + LOOK
            room = self._look()
            wanted = self._wanted(held, room)
            low, high = sorted((self._seen, wanted))
            self.number, self._seen = min(max(self.number, low), high), wanted
            self._say_how_many(room)
            self._say_what_is_missing(held, room)
        return self.number

    def _wanted(self, held: int, room: Room) -> int:
        """The number of slots by one look. A node that died may still count as held, so all nodes are a limit."""
        now = min(held + self._resources.fits(room.free), self._resources.fits(room.nodes))
        return min(self._resources.workers, now + 1)

    def _capacity(self, room: Room) -> int:
        return min(self._resources.workers, self._resources.fits(room.nodes))

    def _say_how_many(self, room: Room) -> None:
        before, self._most = self._most, self._capacity(room)
        if before != self._most:
            change = "machines joined" if self._most > before else "machines left"
            others = ", as far as no other job takes them" if self._most else ""
            self._tell(f"{change}: the cluster has room for {self._most} trials at a time{others} (before: {before})")

    def _say_what_is_missing(self, held: int, room: Room) -> None:
        """Say once why no trial runs, at the second such look in a row."""
        self._in_vain = 0 if held or self._resources.fits(room.free) else self._in_vain + 1
        if self._in_vain == 2:
            self._tell(f"a trial waits for a machine: {room.missing(self._resources)}")
