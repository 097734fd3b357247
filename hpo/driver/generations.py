"""Generations: each run or resume of a sweep is one, with a number and a heartbeat, so that a sweep has one driver.

The store hands out the numbers (`results.fences`): a generation's claim is `<store>/<sweep>/generations/<number>.json`,
created exclusively, and its fence has the same number. The claim holds the driver's process, and a thread touches it
every ten seconds: the heartbeat. A young heartbeat refuses a new driver, unless its process is known to be dead
(`hpo.cluster.processes`) or the new driver was told to take over. Of two drivers that find the sweep free at once, one
gets the number; the other reads that claim and is refused.

Ages are differences between modification times of files in one folder, so the clocks of two machines need not agree. In
an object store a touch writes the file again. A driver stops when the next number is taken. Readers drop what a lower
generation wrote after a higher one began.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from hpo.cluster.processes import Process, this_process

if TYPE_CHECKING:
    from results.files import Folder

BEAT = 10.0
"""Seconds between two heartbeats."""
YOUNG = 60.0
"""Seconds without a heartbeat after which a driver counts as dead."""


class BusyError(ValueError):
    """Another driver works on the sweep."""


@dataclass(frozen=True)
class GenerationRecord:
    """Content of a generation's file: the driver's process (`hpo.cluster.processes.Process`), and its launch."""

    number: int
    host: str
    pid: int
    started: float | None
    boot: str = ""
    namespace: str = ""
    state: str = "claimed"
    """live, ended; claimed: a driver of an earlier version that had not been accepted yet."""
    trials: int = 0
    """Number of trials that this launch asked for in all. Later launches keep the largest such number."""
    since: float | None = None
    """When the launch began, in seconds since 1970."""
    until: float | None = None
    """When the launch stopped in order, in seconds since 1970; None: it still runs, or its driver died."""
    launch: bool = True
    """Whether it is a launch; False: a command frees disk or writes what it has changed, such as `hpo rm --trial`."""

    def to_bytes(self) -> bytes:
        """Content of the file."""
        return json.dumps(asdict(self)).encode()

    @property
    def process(self) -> Process:
        """The driver's process."""
        return Process(self.host, self.pid, self.started, self.boot, self.namespace)


class Generation:
    """The generation of this process. Call `end` when the driver stops."""

    def __init__(self, sweep: Folder, record: GenerationRecord) -> None:
        self.number = record.number
        self._sweep = sweep
        self._folder, self._name = _claims(sweep), _name(record.number)
        self._record = record
        self.began = self._folder.changed(self._name)
        """When it was claimed, by the clock that stamps the sweep's files. An older file was there before."""
        self._stop = threading.Event()
        self._superseded = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hpo-heartbeat", daemon=True)
        self._thread.start()

    @property
    def superseded(self) -> bool:
        """Whether a higher generation works on this sweep: this driver has to stop and write nothing more."""
        return self._superseded.is_set()

    def _beat(self) -> None:
        from results.fences import superseded

        while not self._stop.wait(BEAT):
            try:
                self._folder.touch(self._name)
                if superseded(self._sweep, self.number):
                    self._superseded.set()
            except Exception:  # noqa: BLE001  whatever it is, a heart that stops lets another driver take over
                # The place may work again at the next beat. If not, the writer of rows fails and says why.
                continue

    def end(self) -> None:
        """Record that this driver has stopped, so that the next one need not wait. Call it after all rows are
        durable."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a failing disk was reported before
            ended = replace(self._record, state="ended", until=time.time())
            try:
                self._folder.write(self._name, ended.to_bytes())
            except OSError:  # a full disk: an old heartbeat says the same and takes no room
                self._folder.touch(self._name, past=True)
                raise


def claim(
    sweep: Folder, takeover: bool = False, trials: int = 0, since: float | None = None, launch: bool = True
) -> Generation:
    """Make this process the one driver of the sweep in folder `sweep`. Raises BusyError, and leaves no file, if another
    driver works on it; StoreError if the claim cannot be written.

    `takeover`: claim it all the same. `trials`: total number of trials that this launch asks for. `since`: when the
    launch began, in seconds since 1970; None: now. `launch`: see `GenerationRecord`.
    """
    from results import fences

    if not takeover:
        check_free(sweep)
    since = time.time() if since is None else since
    own = GenerationRecord(0, **asdict(this_process()), state="live", trials=trials, since=since, launch=launch)

    def refuse_if_busy(number: int) -> None:
        folder = _claims(sweep)
        record = _record(folder, _name(number))
        if not takeover and record is not None and _alive(folder, record, folder.clock()):
            raise _busy(record, sweep)

    number = fences.claim(sweep, lambda number: replace(own, number=number).to_bytes(), refuse_if_busy)
    return Generation(sweep, replace(own, number=number))


def check_free(sweep: Folder) -> None:
    """Raise BusyError if a driver works on this sweep. A check before costly work; `claim` checks again."""
    if (driver := active(sweep)) is not None:
        raise _busy(driver, sweep)


def active(sweep: Folder) -> GenerationRecord | None:
    """The driver that works on this sweep now, judged by its file and its process; None: no driver does."""
    folder = _claims(sweep)
    live = [record for record in reversed(_records(folder)) if record.state != "ended"]
    if not live:
        return None
    now = folder.clock()
    return next((record for record in live if _alive(folder, record, now)), None)


def newest(sweep: Folder) -> GenerationRecord | None:
    """The last launch of this sweep that was accepted, running or not; None: there was none."""
    accepted = launches(sweep)
    return accepted[-1] if accepted else None


def launches(sweep: Folder) -> list[GenerationRecord]:
    """The launches of this sweep that were accepted, the earliest first."""
    return [record for record in _records(_claims(sweep)) if record.launch and record.state != "claimed"]


def total_trials(begun_with: int, sweep: Folder) -> int:
    """Total number of trials of a sweep: it began with `begun_with`, and later launches may have asked for more."""
    return max([begun_with, *(record.trials for record in _records(_claims(sweep)))])


def _busy(driver: GenerationRecord, sweep: Folder) -> BusyError:
    name = sweep.path.rpartition("/")[2]
    return BusyError(
        f"sweep {name!r} is being worked on by process {driver.pid} on {driver.host}. Wait for its end, stop it with "
        f"`hpo stop {name}`, or, if you know that it is dead, use: hpo resume {name} --takeover"
    )


def _alive(folder: Folder, record: GenerationRecord, now: float) -> bool:
    if record.state == "ended":
        return False
    if record.process.dead:
        return False
    try:
        return now - folder.changed(_name(record.number)) < YOUNG
    except FileNotFoundError:
        return False  # the sweep is being deleted


def _records(folder: Folder) -> list[GenerationRecord]:
    """All generations of drivers, by ascending number."""
    names = [name for name in folder.names() if name.endswith(".json")]
    records = [record for record in folder.map(lambda name: _record(folder, name), names) if record is not None]
    return sorted(records, key=lambda record: record.number)


def _record(folder: Folder, name: str) -> GenerationRecord | None:
    """The generation in a file; None: a writer without a heartbeat has claimed it, or it is no generation."""
    try:
        content = json.loads(folder.read(name))
        return GenerationRecord(**content) if content else None
    except FileNotFoundError:
        return None  # the sweep is being deleted
    except (ValueError, TypeError):  # damaged: the driver may be alive, and its heartbeat tells
        stem = name.removesuffix(".json")
        return GenerationRecord(int(stem), "", 0, None) if stem.isdigit() else None


def _claims(sweep: Folder) -> Folder:
    from results.fences import CLAIMS  # commands look for shadowed packages before they import one

    return sweep.child(CLAIMS)


def _name(number: int) -> str:
    from results.fences import claim_name

    return claim_name(number)
