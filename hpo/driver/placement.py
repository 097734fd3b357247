"""Placement: how many trials run at once, when an interrupted trial starts again and where not, which workers idle.

Ray chooses the worker of a trial. A worker declines a trial that was lost at its place, and every trial if its place is
in quarantine (`hpo.driver.places`); then it idles, so that Ray gives its device to nobody else. On a node that could
not run trials when the launch began (`hpo.cluster.survey`) Ray starts no worker.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from hpo.driver.places import Places
from hpo.search.endings import Ending, rest

DECLINES = 3
"""Number of workers in a row that may decline a trial because it was lost at their place; the next one takes it."""
DECLINED_REST = 2.0
"""Seconds between such a refusal and the trial's next start: another worker may be free by then."""


class Board(Protocol):
    """What driver and workers tell each other (`hpo.cluster.pause`)."""

    def place_of(self, tune_id: str) -> str:
        """The place of a Tune trial's worker; empty: not known."""
        ...

    def node_of(self, tune_id: str) -> str:
        """Ray's id of the node of a Tune trial's worker; empty: not known."""
        ...

    def raise_flag(self, nodes: Collection[str] | None = None) -> None:
        """Ask the trials on these nodes to write a checkpoint and stop; None: all trials, from now on."""
        ...

    def close_places(self, places: Collection[str]) -> None:
        """Let no worker at these places begin a trial; other places get trials again."""
        ...


class Placement:
    """Rests of trials, and what is known of the places of a launch."""

    def __init__(
        self,
        workers: int,
        board: Board,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        closed: Mapping[str, str] | None = None,
    ) -> None:
        """`workers`: trials that run at once, until `resize`. `tell` receives messages for the person who watches.
        `closed`: places that get no trials from the start -> why."""
        self._board = board
        self._tell = tell
        self._clock = clock
        self._places = Places(workers)
        self._where: dict[str, str] = {}
        """Tune's id -> the place of its worker, once it is known."""
        self._not_before: dict[int, float] = {}
        self._declined: Counter[int] = Counter()
        """Trial -> number of workers in a row that have declined it."""
        self._idle: set[str] = set()
        """Tune's ids whose workers idle."""
        self._leaving: set[str] = set()
        """Nodes of the cluster, by Ray's id, that leave it or have left it."""
        self._closed = closed or {}
        self.quarantined: Mapping[str, str] = self._closed
        """Places that get no more trials -> what fails there."""

    @property
    def fault(self) -> str | None:
        """Why the launch has to stop; None: it need not."""
        return self._places.fault(self._clock())

    @property
    def workers(self) -> int:
        """Number of trials that may run at once: an idle worker trains none."""
        return max(1, self._places.workers - len(self._idle))

    def resize(self, workers: int) -> None:
        """Let `workers` trials run at once from now on; trials that run go on."""
        self._places.workers = workers

    @property
    def resting(self) -> Collection[int]:
        """Trials that may not start yet."""
        now = self._clock()
        self._not_before = {trial: until for trial, until in self._not_before.items() if until > now}
        return self._not_before.keys()

    def avoid(self, trial: int, lost_at: Collection[str]) -> tuple[str, ...]:
        """Hosts and places where a trial must not begin after it was lost at these places."""
        return () if self._declined[trial] >= DECLINES else self._places.avoid(lost_at, self._clock())

    def place_of(self, tune_id: str) -> str:
        """The place of a Tune trial's worker; empty: not known."""
        if not self._where.get(tune_id):
            self._where[tune_id] = self._board.place_of(tune_id)
        return self._where[tune_id]

    def reported(self, tune_id: str, trial: int, place: str) -> None:
        """A trial has reported from a place."""
        self._where[tune_id] = place
        self._declined.pop(trial, None)
        self._places.at_work([place], self._clock())
        self._places.reported(trial, place)

    def ended(self, trial: int, ending: Ending, losses: int, final: bool, running: Iterable[str]) -> None:
        """An attempt has ended by itself. `losses`: places that the trial has lost in a row; `final`: it has failed;
        `running`: Tune's ids of the others."""
        self._not_before[trial] = self._clock() + rest(losses)
        self._places.failed(trial, ending, final)
        self._look(running)

    def declined(self, trial: int) -> None:
        """A worker has declined a trial."""
        self._declined[trial] += 1
        self._not_before[trial] = self._clock() + DECLINED_REST

    def idles(self, tune_id: str, place: str, running: Iterable[str]) -> bool:
        """Whether a worker that has declined its trial goes on idling; if not, Tune ends or reuses it."""
        self._look(running)
        if place in self.quarantined:
            self._idle.add(tune_id)
            return True
        self._idle.discard(tune_id)
        return False

    def leave(self, nodes: Mapping[str, str]) -> None:
        """These nodes (Ray's ids -> their hosts) leave the cluster: trials there write a checkpoint, and their workers
        end."""
        if nodes:
            self._leaving |= nodes.keys()
            self._board.raise_flag(self._leaving)
        for host in nodes.values():
            self._tell(f"{host} leaves the cluster: its trials write a checkpoint and go on elsewhere")

    def left(self, tune_id: str) -> bool:
        """Whether the node of a Tune trial's worker leaves the cluster, or has left it."""
        return bool(self._leaving) and self._board.node_of(tune_id) in self._leaving

    def gone(self, tune_id: str) -> None:
        """A Tune trial has ended."""
        self._idle.discard(tune_id)
        self._where.pop(tune_id, None)

    def _look(self, running: Iterable[str]) -> None:
        """Find out who is at work, and close or open places accordingly."""
        now = self._clock()
        self._places.at_work([self.place_of(tune_id) for tune_id in running], now)
        before, self.quarantined = self.quarantined, {**self._closed, **self._places.quarantined(now)}
        if before.keys() == self.quarantined.keys():
            return
        self._board.close_places(self.quarantined.keys())
        for place in sorted(self.quarantined.keys() - before.keys()):
            self._tell(f"{place} gets no more trials in this launch: {self.quarantined[place]}")
        for place in sorted(before.keys() - self.quarantined.keys()):
            self._tell(f"{place} gets trials again")
