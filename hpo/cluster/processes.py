"""Identity of a process, and scratch folders.

A process has a machine, a number, and a start time, which tells it from a later process with the same number. Two
containers may have one host name, and the same numbers for other processes: a machine is its name, its boot, and the
namespace of its process numbers. A scratch folder names its owner in this form, so that the folders of killed processes
are found and removed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

PREFIX = "hpo-"
OWNER = "owner.json"


def host() -> str:
    """This machine's name, as rows and generation files hold it."""
    return socket.gethostname()


def process_start(pid: int) -> float | None:
    """Start time of a process of this host, in clock ticks since boot; None if no process runs or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else float(fields[19])


@dataclass(frozen=True)
class Process:
    """A process, as files name it."""

    host: str
    pid: int
    started: float | None
    """Start time in clock ticks since boot."""
    boot: str = ""
    """Identity of the machine's boot; empty: an earlier version did not record it."""
    namespace: str = ""
    """Namespace of `pid`."""

    @property
    def dead(self) -> bool:
        """Whether the process has certainly ended. Nothing is certain of a process that cannot be seen from here."""
        seen = (self.host, self.boot, self.namespace) == (host(), boot(), namespace()) and bool(self.boot)
        return seen and process_start(self.pid) != self.started


def this_process() -> Process:
    """The calling process."""
    return Process(host(), os.getpid(), process_start(os.getpid()), boot(), namespace())


@cache
def boot() -> str:
    """Identity of this boot of the machine's kernel; empty: not known."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def namespace() -> str:
    """Namespace of the process numbers that this process sees; empty: not known."""
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder of this process, removed at the end; after a kill the next call of `scratch` removes it."""
    _remove_orphans()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # mode 0700
    (folder / OWNER).write_text(json.dumps(asdict(this_process())))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans() -> None:
    """Remove the scratch folders of this user's dead processes on this host."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        try:
            owner = Process(**json.loads(path.read_text()))
            ours = path.stat().st_uid == os.getuid()
        except (OSError, ValueError, TypeError):
            continue  # another process removes it at this moment, or it is not ours
        if ours and owner.dead:
            shutil.rmtree(path.parent, ignore_errors=True)
