"""Memory of the machine, and a memory limit for a worker. A trial that needs more fails with an error.

A kill by Ray's memory monitor hits any worker, and costs it an attempt. With a limit on the data of each process
(RLIMIT_DATA) the system refuses an allocation that exceeds it, and the trial that needs it reports a failure.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path


def available_memory() -> int:
    """Free bytes for this process and its children: the machine's, or the control group's if those are fewer."""
    free = [_meminfo_available()]
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # absent, or "max": no such limit
            free.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
    return min(free)


def _meminfo_available() -> int:
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    return sys.maxsize


def limit_memory(limit: int | None) -> None:
    """Limit the data of this process to `limit` bytes: a larger allocation raises an error; None: no limit."""
    if limit is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
