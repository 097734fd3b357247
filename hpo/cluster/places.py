"""Places: a place is a host and the devices of it that a process has, written `node7 GPU 3`, or `node7` without any."""

from __future__ import annotations

import os

from hpo.cluster.processes import host


def place_of_trial(gpus_per_trial: float) -> str:
    """The place of this process, which trains a trial with so many GPUs: Ray shows it these devices alone."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus_per_trial > 0 else ""
    return f"{host()} GPU {devices}" if devices else host()


def host_of(place: str) -> str:
    """The host of a place."""
    return place.partition(" GPU ")[0]
