"""Memory of the machine and of one worker: a limit that makes a greedy trial fail with an error instead of a kill.

Ray's memory monitor would end the whole search; a limit on the data of each process (RLIMIT_DATA) refuses the
allocation that is too much, and the trial that asked for it reports a failure.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path


def available_memory() -> int:
    """Bytes of memory this process and its children may still take: the machine's, or its control group's if less."""
    found = [_meminfo_available()]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max": no such limit
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return min(found)


def _meminfo_available() -> int:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    return sys.maxsize


def limit_memory(limit: int | None) -> None:
    """Let this process fail with an error it can report instead of being killed: memory beyond `limit` is refused."""
    if limit is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
