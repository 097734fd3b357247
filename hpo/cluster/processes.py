"""Identity of a process, and scratch folders. A process has a host, a number, and a start time.

The start time tells a process from a later one with the same number. A scratch folder names its owner in this form, so
that the folders of killed processes are found and removed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder of this process, removed at the end; after a kill the next call of `scratch` removes it."""
    _remove_orphans()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # mode 0700
    owner = {"host": host(), "pid": os.getpid(), "started": process_start(os.getpid())}
    (folder / OWNER).write_text(json.dumps(owner))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_orphans() -> None:
    """Remove the scratch folders of this user's dead processes on this host."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        try:
            owner = json.loads(path.read_text())
            ours = path.stat().st_uid == os.getuid() and owner["host"] == host()
            dead = process_start(int(owner["pid"])) != owner["started"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # another process removes it at this moment, or it is not ours
        if ours and dead:
            shutil.rmtree(path.parent, ignore_errors=True)
