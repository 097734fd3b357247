"""GPUs of this machine, as NVIDIA's driver lists them.

Ray hides the GPUs from a task that asks for none, and torch sees what Ray leaves, so the driver itself is asked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
DRIVER = Path("/proc/driver/nvidia/version")
"""Exists where NVIDIA's driver is loaded."""
SECONDS = 20.0
"""Seconds that the driver has to answer; a broken GPU can delay it for ever."""


@dataclass(frozen=True)
class Gpu:
    """A GPU."""

    name: str
    memory: int | None
    """Bytes; None: the driver does not say."""
    driver: str
    """Version of the driver."""


def gpus() -> tuple[list[Gpu] | None, str]:
    """The GPUs, and why the driver lists none (empty: it lists them). None: nothing here can list them."""
    if shutil.which(QUERY[0]) is None:
        return (None, "") if DRIVER.exists() else ([], "there is no NVIDIA driver")
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi gives no answer within {SECONDS:g} s"
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        return [], f"nvidia-smi fails: {lines[0] if lines else f'exit code {done.returncode}'}"
    return parse(done.stdout), ""


def parse(text: str) -> list[Gpu]:
    """GPUs from lines such as `NVIDIA H100 80GB HBM3, 81559, 550.54.15`, memory in MiB."""
    fields = [[field.strip() for field in line.rsplit(",", 2)] for line in text.splitlines() if line.strip()]
    return [Gpu(name, int(size) * 2**20 if size.isdecimal() else None, driver) for name, size, driver in fields]


def mps() -> bool:
    """Whether NVIDIA's Multi-Process Service runs here: processes that share a GPU then work on it side by side."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY") or "/tmp/nvidia-mps") / "control").exists()
