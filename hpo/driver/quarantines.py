"""Quarantines of a sweep as its store keeps them: which places got no more trials, from when to when, and why.

Each time that these places change (`hpo.driver.places`), the driver writes all of them to a file of its own,
`<store>/<sweep>/quarantines/<generation>-<number>.json`. A quarantine ends when a later file of its launch does not
name its place, at the latest with the launch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from hpo.driver.generations import launches
from hpo.worker.paths import quarantine_folder

if TYPE_CHECKING:
    import pandas as pd

    from results.files import Folder
    from results.store import SweepFolder


@dataclass(frozen=True)
class Quarantine:
    """A place without new trials."""

    place: str
    reason: str
    """What failed there."""
    begin: float
    """In seconds since 1970."""
    end: float | None
    """None: its launch goes on, or its driver died and nothing followed."""


@dataclass(frozen=True)
class _State:
    """The places without new trials from a time on: the content of a file, and the generation in the file's name."""

    generation: int
    time: float
    """In seconds since 1970."""
    places: Mapping[str, str]
    """Place -> what failed there."""


class QuarantineLog:
    """Writes the quarantines of one launch."""

    def __init__(self, sweep: Folder, generation: int, tell: Callable[[str], None]) -> None:
        """`tell` gets a message if a file cannot be written: the search goes on without it."""
        self._folder = quarantine_folder(sweep)
        self._generation = generation
        self._tell = tell
        self._number = 0
        self._places = frozenset[str]()

    def follow(self, quarantined: Mapping[str, str]) -> None:
        """The places that get no more trials now -> what fails there. A file is written if they have changed."""
        if quarantined.keys() == self._places:
            return
        self._places = frozenset(quarantined)
        self._number += 1
        content = json.dumps({"time": time.time(), "places": dict(quarantined)}).encode()
        try:
            self._folder.make()
            self._folder.write(f"{self._generation:06d}-{self._number:06d}.json", content)
        except (OSError, ValueError) as error:
            self._tell(f"the places in quarantine were not recorded: {error}")


def quarantines(sweep: Folder) -> list[Quarantine]:
    """All quarantines of a sweep, in the order of their launches, the earliest of each first. Files that cannot be read
    are left out."""
    folder = quarantine_folder(sweep)
    states = [state for state in folder.map(lambda name: _state(folder, name), folder.names()) if state is not None]
    known = {launch.number: launch for launch in launches(sweep)} if states else {}
    found = []
    for generation, group in groupby(states, key=lambda state: state.generation):
        later = (launch.since for number, launch in sorted(known.items()) if number > generation and launch.since)
        over = known[generation].until if generation in known else None
        found += _of_launch(list(group), next(later, None) if over is None else over)
    return found


def _of_launch(states: list[_State], over: float | None) -> list[Quarantine]:
    """The quarantines of one launch, which ended at `over`."""
    begun: dict[str, tuple[float, str]] = {}
    found = []
    for state in states:
        for place in begun.keys() - state.places.keys():
            since, reason = begun.pop(place)
            found.append(Quarantine(place, reason, since, state.time))
        for place, reason in state.places.items():
            begun.setdefault(place, (state.time, reason))
    found += [Quarantine(place, reason, since, over) for place, (since, reason) in begun.items()]
    return sorted(found, key=lambda each: (each.begin, each.place))


def _state(folder: Folder, name: str) -> _State | None:
    try:
        content = json.loads(folder.read(name))
        places = {str(place): str(reason) for place, reason in content["places"].items()}
        return _State(int(name.partition("-")[0]), float(content["time"]), places)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def quarantines_frame(folder: SweepFolder, attempts: pd.DataFrame) -> pd.DataFrame:
    """The quarantines as a table: place, reason, begin and end in seconds since the sweep's first row. One that goes on
    ends at its latest row. `attempts` as of `results.frames.attempts_frame`; `results.plots` draws both."""
    import pandas as pd

    from results.frames import first_time

    every = quarantines(folder.folder)
    began = first_time(folder) if every else 0.0
    latest = float(attempts["end"].max()) if len(attempts) else 0.0
    rows = []
    for each in every:
        begin = max(0.0, each.begin - began)
        end = max(begin, latest if each.end is None else each.end - began)
        rows.append({"place": each.place, "reason": each.reason, "begin": begin, "end": end})
    return pd.DataFrame(rows, columns=["place", "reason", "begin", "end"])
