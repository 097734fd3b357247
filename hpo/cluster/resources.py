"""What the trials of a sweep ask for together: processes, CPU cores, GPUs; and whether machines hold that at once.

Ray waits for ever for what a cluster does not have, so everything is compared before anything waits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

Node = tuple[float, float]
"""CPUs and GPUs of one machine of a cluster."""


class ResourceError(ValueError):
    """More was asked than the cluster has, or the cluster cannot be reached."""


@dataclass(frozen=True)
class Resources:
    """What the trials of a sweep ask for together."""

    workers: int
    """Trials that run at the same time."""
    cpus_per_trial: int = 1
    """CPU cores of a trial, which are also its threads."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial; a fraction shares one device."""

    def check(self, cpus: float, gpus: float, where: str) -> None:
        """Raise unless `workers` trials fit into `cpus` cores and `gpus` devices at once."""
        asked = self.workers * self.cpus_per_trial
        if asked > cpus:
            fits = int(cpus // self.cpus_per_trial)
            advice = f"at most --workers {fits}" if fits else f"--cpus-per-trial of at most {int(cpus)}"
            raise ResourceError(
                f"workers = {self.workers} with cpus_per_trial = {self.cpus_per_trial} need {asked} CPUs, but {where} "
                f"has {cpus:g}: {advice} would fit"
            )
        devices = gpus_needed(self.workers, self.gpus_per_trial)
        if devices > gpus:
            raise ResourceError(
                f"workers = {self.workers} with gpus_per_trial = {self.gpus_per_trial:g} need {devices} GPUs, but "
                f"{where} has {gpus:g}: give gpus_per_trial = 0, or fewer workers, or a cluster with more"
            )

    def check_nodes(self, nodes: Sequence[Node], where: str) -> None:
        """Raise unless `workers` trials fit onto these nodes at once: a trial never spans two."""
        fits = fitting(nodes, self.cpus_per_trial, self.gpus_per_trial)
        if self.workers > fits:
            found = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(set(nodes), reverse=True))
            advice = f"at most --workers {fits}" if fits else "less for each trial, at most one node's,"
            raise ResourceError(
                f"workers = {self.workers} with cpus_per_trial = {self.cpus_per_trial} and gpus_per_trial = "
                f"{self.gpus_per_trial:g} need whole trials on single nodes, but the {len(nodes)} of {where} "
                f"(with {found}) hold {fits}: {advice} would fit"
            )


def fitting(nodes: Sequence[Node], cpus_per_trial: int, gpus_per_trial: float) -> int:
    """Trials that fit at once onto nodes of (CPUs, GPUs), each trial within one."""

    def on_one(cpus: float, gpus: float) -> int:
        by_cpus = int(cpus // cpus_per_trial)
        if gpus_per_trial <= 0:
            return by_cpus
        if gpus_per_trial >= 1:
            return min(by_cpus, int(gpus // gpus_needed(1, gpus_per_trial)))
        return min(by_cpus, int(gpus) * int(1 / gpus_per_trial))

    return sum(on_one(*node) for node in nodes)


def gpus_needed(workers: int, gpus_per_trial: float) -> int:
    """Whole devices that `workers` trials take. A fraction never spans two devices: 0.4 puts two trials on one."""
    if gpus_per_trial <= 0:
        return 0
    if gpus_per_trial >= 1:
        return workers * int(-(-gpus_per_trial // 1))
    return -(-workers // int(1 / gpus_per_trial))


def local_cpus() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def local_gpus() -> int:
    """CUDA devices of this machine that this process may see."""
    import torch

    return torch.cuda.device_count()


def choose(
    workers: int | None,
    cpus_per_trial: int,
    gpus_per_trial: float | None,
    cpus: float,
    gpus: float,
    nodes: Sequence[Node] = (),
) -> Resources:
    """Fill in what was left open: one GPU a trial where there are any, and as many trials at once as fit."""
    if gpus_per_trial is None:
        gpus_per_trial = 1.0 if gpus >= 1 else 0.0
    if workers is None:
        workers = fitting(nodes or [(cpus, gpus)], cpus_per_trial, gpus_per_trial)
    return Resources(max(workers, 1), cpus_per_trial, gpus_per_trial)


def check_gpus(gpus: float | None) -> None:
    """Raise where no trial could have so many GPUs; None is left open."""
    if gpus is not None and not (math.isfinite(gpus) and gpus >= 0 and (gpus <= 1 or gpus == int(gpus))):
        raise ResourceError(f"`gpus_per_trial` must be 0, a fraction below 1, or a whole number, not {gpus!r}.")
