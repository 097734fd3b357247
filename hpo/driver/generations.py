"""One driver per sweep: each run or resume is a generation with a file of its own and a heartbeat.

`<store>/<sweep>/generations/<number>.json` is created exclusively, which settles who has the number, and touched
every ten seconds by a thread. A new driver takes the next number and looks at the others: one with a young heartbeat
refuses it, unless that process is known to be dead (same host, no such process, or another one under its number) or
it was told to take over. Ages compare the modification times of files in one folder, so clocks of two machines do not
matter. A driver that sees a higher accepted number leaves; readers drop what a lower generation wrote after a higher
one began.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hpo.cluster.processes import host, process_start

BEAT = 10.0
"""Seconds between two heartbeats."""
YOUNG = 60.0
"""Seconds after which a silent driver is taken for dead."""


class BusyError(ValueError):
    """Another driver works on this sweep."""


@dataclass(frozen=True)
class Entry:
    """What a generation's file says."""

    number: int
    host: str
    pid: int
    started: float | None
    """Start time of the process (clock ticks since boot): tells a process from a later one with its number."""
    state: str = "claimed"
    """claimed (not yet accepted), live, ended."""
    trials: int = 0
    """Trials the sweep has in all by the wish of this launch: an extension outlives it."""
    since: float | None = None
    """When the launch began, in seconds since 1970."""
    until: float | None = None
    """When it ended in order, in seconds since 1970; None: it has not, or its driver died."""


class Generation:
    """The accepted generation of this process; `end` when the driver leaves."""

    def __init__(self, folder: Path, entry: Entry) -> None:
        self.number = entry.number
        self._folder = folder
        self._entry = entry
        self.began = _path(folder, entry.number).stat().st_mtime
        """When it went live, by the clock of the sweep's file system: what is older was there before."""
        self._stop = threading.Event()
        self._superseded = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hpo-heartbeat", daemon=True)
        self._thread.start()

    @property
    def superseded(self) -> bool:
        """A higher generation works on this sweep: leave, write nothing more."""
        return self._superseded.is_set()

    def _beat(self) -> None:
        path = _path(self._folder, self.number)
        while not self._stop.wait(BEAT):
            try:
                os.utime(path)
                if any(other.number > self.number and other.state == "live" for other in _entries(self._folder)):
                    self._superseded.set()
            except OSError:
                # The disk may be back at the next beat. If it is not, the writer of rows fails, and it says why.
                continue

    def end(self) -> None:
        """Tell the next driver that it need not wait. Rows must be durable by now."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a failing disk was told of before; the heartbeat grows old
            _write(self._folder, replace(self._entry, state="ended", until=time.time()))


def claim(sweep: Path, takeover: bool = False, trials: int = 0, since: float | None = None) -> Generation:
    """Become the one driver of the sweep in folder `sweep`, or raise BusyError and leave no trace. `since`: when the
    launch began, in seconds since 1970; now, if left out."""
    folder = sweep / "generations"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        entry = _claim_number(folder)
    except OSError as error:
        error.filename = error.filename or str(folder)  # a full disk names no file
        raise
    try:
        if not takeover:
            _refuse_if_busy(folder, entry, sweep.name)
    except BusyError:
        _path(folder, entry.number).unlink(missing_ok=True)
        raise
    entry = replace(entry, state="live", trials=trials, since=time.time() if since is None else since)
    _write(folder, entry)
    return Generation(folder, entry)


def check_free(sweep: Path) -> None:
    """Raise BusyError if a driver works on this sweep: says early what `claim` would refuse later."""
    if (driver := active(sweep)) is not None:
        raise _busy(driver, sweep.name)


def active(sweep: Path) -> Entry | None:
    """The driver that works on this sweep now, as far as files and processes tell; None: nobody does."""
    folder = sweep / "generations"
    if not folder.is_dir():
        return None
    now = _now(folder)
    return next((entry for entry in reversed(_entries(folder)) if _alive(folder, entry, now)), None)


def newest(sweep: Path) -> Entry | None:
    """The last launch of this sweep that was accepted, whether it still works or not; None: there was none."""
    folder = sweep / "generations"
    accepted = [entry for entry in _entries(folder) if entry.state != "claimed"] if folder.is_dir() else []
    return accepted[-1] if accepted else None


def _now(folder: Path) -> float:
    """By the clock that stamps this folder's files; by this machine's where nothing can be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def total_trials(begun_with: int, sweep: Path) -> int:
    """How many trials a sweep has: it began with so many, later launches may have asked for more."""
    folder = sweep / "generations"
    asked = [entry.trials for entry in _entries(folder)] if folder.is_dir() else []
    return max([begun_with, *asked])


def _claim_number(folder: Path) -> Entry:
    while True:
        number = max((entry.number for entry in _entries(folder)), default=0) + 1
        entry = Entry(number, host(), os.getpid(), process_start(os.getpid()))
        try:
            with _path(folder, number).open("x", encoding="utf-8") as file:
                json.dump(asdict(entry), file)
        except FileExistsError:
            continue  # another driver was quicker
        return entry


def _refuse_if_busy(folder: Path, own: Entry, sweep: str) -> None:
    now = _path(folder, own.number).stat().st_mtime
    for other in _entries(folder):
        if other.number < own.number and _alive(folder, other, now):
            raise _busy(other, sweep)


def _busy(other: Entry, sweep: str) -> BusyError:
    return BusyError(
        f"sweep {sweep!r} is being worked on by process {other.pid} on {other.host}. Wait for its end, stop it with "
        f"`hpo stop {sweep}`, or, if you know that it is dead, give --takeover"
    )


def _alive(folder: Path, entry: Entry, now: float) -> bool:
    if entry.state == "ended":
        return False
    if entry.host == host() and process_start(entry.pid) != entry.started:
        return False
    try:
        return now - _path(folder, entry.number).stat().st_mtime < YOUNG
    except FileNotFoundError:
        return False  # it was refused and has taken its claim back


def _entries(folder: Path) -> list[Entry]:
    """All generations, ascending."""
    entries = []
    for path in folder.glob("*.json"):
        try:
            entries.append(Entry(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:
            continue  # a refused claim, taken back since the folder was listed
        except (ValueError, TypeError):
            # Being created at this moment, or damaged: the name alone says that the number is taken.
            if path.stem.isdigit():
                entries.append(Entry(int(path.stem), "", 0, None))
    return sorted(entries, key=lambda entry: entry.number)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _write(folder: Path, entry: Entry) -> None:
    path = _path(folder, entry.number)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(entry)), encoding="utf-8")
    temporary.replace(path)
