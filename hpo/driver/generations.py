"""Generations: each run or resume of a sweep is one, with a file and a heartbeat, so that a sweep has one driver.

A generation's file is `<store>/<sweep>/generations/<number>.json`. It is created exclusively, so two drivers never
share a number, and a thread touches it every ten seconds: the heartbeat. A new driver takes the next number and looks
at the older files. A young heartbeat among them refuses the new driver, unless that older process is known to be dead
(`hpo.cluster.processes`) or the new driver was told to take over.

Ages are differences between modification times of files in one folder, so the clocks of two machines need not agree. A
driver that sees a higher accepted number stops. Readers drop what a lower generation wrote after a higher one began.
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
from typing import TYPE_CHECKING

from hpo.cluster.processes import Process, this_process
from hpo.worker.paths import generation_folder

if TYPE_CHECKING:
    from results.files import Disk

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
    """claimed (not yet accepted), live, ended."""
    trials: int = 0
    """Number of trials that this launch asked for in all. Later launches keep the largest such number."""
    since: float | None = None
    """When the launch began, in seconds since 1970."""
    until: float | None = None
    """When the launch stopped in order, in seconds since 1970; None: it still runs, or its driver died."""
    launch: bool = True
    """Whether it is a launch; False: a command frees disk or writes what it has changed, such as `hpo rm --trial`."""

    @property
    def process(self) -> Process:
        """The driver's process."""
        return Process(self.host, self.pid, self.started, self.boot, self.namespace)


class Generation:
    """The accepted generation of this process. Call `end` when the driver stops."""

    def __init__(self, folder: Path, record: GenerationRecord) -> None:
        self.number = record.number
        self._folder = folder
        self._record = record
        self.began = _path(folder, record.number).stat().st_mtime
        """When it was accepted, by the clock of the sweep's file system. An older file was there before."""
        self._stop = threading.Event()
        self._superseded = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="hpo-heartbeat", daemon=True)
        self._thread.start()

    @property
    def superseded(self) -> bool:
        """Whether a higher generation works on this sweep: this driver has to stop and write nothing more."""
        return self._superseded.is_set()

    def _beat(self) -> None:
        path = _path(self._folder, self.number)
        while not self._stop.wait(BEAT):
            try:
                os.utime(path)
                if any(record.number > self.number and record.state == "live" for record in _records(self._folder)):
                    self._superseded.set()
            except OSError:
                # The disk may work again at the next beat. If not, the writer of rows fails and says why.
                continue

    def end(self) -> None:
        """Record that this driver has stopped, so that the next one need not wait. Call it after all rows are
        durable."""
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # a failing disk was reported before
            try:
                _write(self._folder, replace(self._record, state="ended", until=time.time()))
            except OSError:  # a full disk: an old heartbeat says the same and takes no room
                os.utime(_path(self._folder, self.number), (0.0, 0.0))
                raise


def claim(
    sweep: Path, takeover: bool = False, trials: int = 0, since: float | None = None, launch: bool = True
) -> Generation:
    """Make this process the one driver of the sweep in folder `sweep`; raises BusyError, and leaves no file, if another
    driver works on it.

    `takeover`: claim it all the same. `trials`: total number of trials that this launch asks for. `since`: when the
    launch began, in seconds since 1970; None: now. `launch`: see `GenerationRecord`.
    """
    folder = generation_folder(sweep)
    try:
        _disk(folder).make()
        record = _claim_number(folder)
    except OSError as error:
        error.filename = error.filename or str(folder)  # the error of a full disk names no file
        raise
    try:
        if not takeover:
            _refuse_if_busy(folder, record, sweep.name)
        since = time.time() if since is None else since
        record = replace(record, state="live", trials=trials, since=since, launch=launch)
        _write(folder, record)
    except (BusyError, OSError):
        _path(folder, record.number).unlink(missing_ok=True)
        raise
    return Generation(folder, record)


def check_free(sweep: Path) -> None:
    """Raise BusyError if a driver works on this sweep. A check before costly work; `claim` checks again."""
    if (driver := active(sweep)) is not None:
        raise _busy(driver, sweep.name)


def active(sweep: Path) -> GenerationRecord | None:
    """The driver that works on this sweep now, judged by its file and its process; None: no driver does."""
    folder = generation_folder(sweep)
    if not folder.is_dir():
        return None
    now = clock(folder)
    return next((record for record in reversed(_records(folder)) if _alive(folder, record, now)), None)


def newest(sweep: Path) -> GenerationRecord | None:
    """The last launch of this sweep that was accepted, running or not; None: there was none."""
    folder = generation_folder(sweep)
    records = _records(folder) if folder.is_dir() else []
    accepted = [record for record in records if record.launch and record.state != "claimed"]
    return accepted[-1] if accepted else None


def clock(folder: Path) -> float:
    """The time in seconds since 1970, by the clock that stamps this folder's files; by this machine's clock if the
    folder cannot be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:
        return time.time()


def total_trials(begun_with: int, sweep: Path) -> int:
    """Total number of trials of a sweep: it began with `begun_with`, and later launches may have asked for more."""
    folder = generation_folder(sweep)
    totals = [record.trials for record in _records(folder)] if folder.is_dir() else []
    return max([begun_with, *totals])


def _claim_number(folder: Path) -> GenerationRecord:
    """Create the file of the next free number."""
    while True:
        number = max((record.number for record in _records(folder)), default=0) + 1
        record = GenerationRecord(number, **asdict(this_process()))
        try:
            _write(folder, record, new=True)
        except FileExistsError:
            continue  # another driver took the number first
        return record


def _refuse_if_busy(folder: Path, own: GenerationRecord, sweep: str) -> None:
    now = _path(folder, own.number).stat().st_mtime
    for record in _records(folder):
        if record.number < own.number and _alive(folder, record, now):
            raise _busy(record, sweep)


def _busy(driver: GenerationRecord, sweep: str) -> BusyError:
    return BusyError(
        f"sweep {sweep!r} is being worked on by process {driver.pid} on {driver.host}. Wait for its end, stop it with "
        f"`hpo stop {sweep}`, or, if you know that it is dead, use: hpo resume {sweep} --takeover"
    )


def _alive(folder: Path, record: GenerationRecord, now: float) -> bool:
    if record.state == "ended":
        return False
    if record.process.dead:
        return False
    try:
        return now - _path(folder, record.number).stat().st_mtime < YOUNG
    except FileNotFoundError:
        return False  # its claim was refused, and its file removed


def _records(folder: Path) -> list[GenerationRecord]:
    """All generations, by ascending number."""
    records = []
    for path in folder.glob("*.json"):
        try:
            records.append(GenerationRecord(**json.loads(path.read_text(encoding="utf-8"))))
        except FileNotFoundError:
            continue  # the file of a refused claim, removed since the folder was listed
        except (ValueError, TypeError):
            # Being written at this moment, or damaged: its name alone shows that the number is taken.
            if path.stem.isdigit():
                records.append(GenerationRecord(int(path.stem), "", 0, None))
    return sorted(records, key=lambda record: record.number)


def _disk(folder: Path) -> Disk:
    """The folder as the store's files see it: what is written there survives a loss of power."""
    from results.files import Disk  # commands look for shadowed packages before they import one

    return Disk(str(folder))


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _write(folder: Path, record: GenerationRecord, new: bool = False) -> None:
    content = json.dumps(asdict(record)).encode()
    _disk(folder).write(_path(folder, record.number).name, content, new=new)
