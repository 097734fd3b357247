"""Quarantine: places of a launch that fail where others go on, and failures that all places share.

A place (`hpo.cluster.places`) at which `ALIKE` trials have failed alike, with no report from there in between, gets no
more trials in this launch while another place is at work, so that the last place goes on. A trial that fails for good
takes its failures with it: then it was the trial, and not the places. An error that may be the configuration's counts
against a place only once the trial has reported from another one.

If trial after trial fails alike, without any report, more trials would fail too: the launch has to stop (`fault`).

Pure: `now` is any clock in seconds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from hpo.cluster.faults import Cause
from hpo.cluster.places import host_of
from hpo.search.endings import Ending

ALIKE = 2
"""Number of trials that fail alike at a place before it gets no more."""
SAME_FAILURES = 5
"""Number of failures alike, with no report in between, before the search stops; at least as many as workers.
The cause is then taken to be what all places share (missing data, a broken installation); fewer such failures may come
from a bad region of the space."""
RECENT = 60.0
"""Seconds for which a place counts as at work after it was last seen so: between two trials it has none."""


class Failure(NamedTuple):
    """A failure of a trial at a place."""

    kind: str
    """Its reason without numbers and its host's name: failures alike have the same."""
    reason: str


class Places:
    """The places of a launch, and the failures at them."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        """Number of trials that run at once."""
        self._failures: dict[str, dict[int, Failure]] = {}
        """Place -> trial -> its failure there, since the last report from there."""
        self._doubts: dict[int, tuple[str, Failure]] = {}
        """Trial -> place and failure that may be the configuration's."""
        self._work: dict[str, float] = {}
        """Place -> when a trial was last at work there."""
        self._in_a_row: list[tuple[int, Failure]] = []
        """Trials and their failures since the last report from anywhere; all alike."""

    def at_work(self, places: Iterable[str], now: float) -> None:
        """Trials are at work at these places."""
        self._work.update((place, now) for place in places if place)

    def reported(self, trial: int, place: str) -> None:
        """A trial has reported: its place works."""
        self._in_a_row.clear()
        self._failures.pop(place, None)
        where, failure = self._doubts.pop(trial, (place, None))
        if failure is not None and where != place:
            self._failures.setdefault(where, {})[trial] = failure

    def failed(self, trial: int, ending: Ending, final: bool) -> None:
        """An attempt at a trial has ended by itself. `final`: the trial has failed with it."""
        if ending.cause in ("driver", "disk"):
            return
        host = re.escape(host_of(ending.place))
        failure = Failure(re.sub(rf"\b{host}\b|\d+", "", ending.reason), ending.reason)
        self._follow(trial, failure, ending.cause, final)
        if final:
            self._doubts.pop(trial, None)
            for failures in self._failures.values():
                failures.pop(trial, None)
        elif ending.cause == "place" and ending.place:
            self._failures.setdefault(ending.place, {})[trial] = failure
        elif ending.place:
            self._doubts[trial] = (ending.place, failure)

    def _follow(self, trial: int, failure: Failure, cause: Cause, final: bool) -> None:
        """Keep the failures in a row. A trial that raises twice counts once; one that has lost its last place does not
        count."""
        if cause == "memory":
            return
        alike = [entry for entry in self._in_a_row if entry[1].kind == failure.kind]
        own = cause != "place" or final
        self._in_a_row = [entry for entry in alike if not (own and entry[0] == trial)]
        if cause != "place" or not final:
            self._in_a_row.append((trial, failure))

    def fault(self, now: float) -> str | None:
        """Why the launch has to stop: trial after trial fails alike; None: it need not. Where places are at fault, the
        launch goes on as long as another one, which has not failed, is at work."""
        if len(self._in_a_row) < max(SAME_FAILURES, self.workers):
            return None
        trials = {trial for trial, _ in self._in_a_row}
        at_places = any(not trials.isdisjoint(failures) for failures in self._failures.values())
        if at_places and self._recent(now) - self._failures.keys():
            return None
        return f"{len(self._in_a_row)} failures in a row were alike: {self._in_a_row[-1][1].reason}"

    def quarantined(self, now: float) -> dict[str, str]:
        """The places that get no more trials -> what fails there."""
        suspects = {place: reason for place in self._failures if (reason := self._suspicion(place))}
        others = self._recent(now) - suspects.keys()
        return suspects if others else {}

    def avoid(self, lost_at: Collection[str], now: float) -> tuple[str, ...]:
        """Hosts and places that a trial should avoid after it was lost at these places: their hosts if other hosts are
        at work, else the places if others are, else none."""
        others = self._recent(now) - self.quarantined(now).keys()
        hosts = {host_of(place) for place in lost_at}
        if any(host_of(place) not in hosts for place in others):
            return tuple(sorted(hosts))
        return tuple(sorted(lost_at)) if others.difference(lost_at) else ()

    def _recent(self, now: float) -> set[str]:
        """Places that are at work."""
        return {place for place, since in self._work.items() if now - since <= RECENT}

    def _suspicion(self, place: str) -> str | None:
        """What fails at a place, in words; None: nothing that matters."""
        failures = self._failures.get(place, {}).values()
        kinds = Counter(failure.kind for failure in failures)
        kind, count = kinds.most_common(1)[0] if kinds else ("", 0)
        if count < ALIKE:
            return None
        reason = next(failure.reason for failure in failures if failure.kind == kind)
        return f"{count} trials failed there alike: {reason}"
