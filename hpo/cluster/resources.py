"""What the trials of a sweep need together: processes, CPU cores, GPUs; and whether machines hold that at once.

A `ResourceRequest` is what somebody asks for, with what was left open; `choose` fits it to a machine or a cluster and
gives `Resources`. Both travel whole, from the command line to the workers. Ray waits for ever for what a cluster does
not have, so everything is compared before anything waits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

Node = tuple[float, float]
"""CPUs and GPUs of one machine of a cluster."""


class ResourceError(ValueError):
    """More was asked than the cluster has, or the cluster cannot be reached."""


@dataclass(frozen=True)
class ResourceRequest:
    """What a launch asks for; None is left open, and chosen to fit."""

    workers: int | None = None
    """Trials that run at the same time; None: as many as fit."""
    cpus_per_trial: int | None = None
    """CPU cores of a trial, which are also its threads; None: one."""
    gpus_per_trial: float | None = None
    """GPUs of a trial; a fraction shares one device; None: one where there are GPUs."""

    def __post_init__(self) -> None:
        for name in ("workers", "cpus_per_trial"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
                raise ResourceError(f"`{name}` must be an integer of at least 1, not {number!r}.")
        gpus = self.gpus_per_trial
        if gpus is not None and not (math.isfinite(gpus) and gpus >= 0 and (gpus <= 1 or gpus == int(gpus))):
            raise ResourceError(f"`gpus_per_trial` must be 0, a fraction below 1, or a whole number, not {gpus!r}.")

    def over(self, before: ResourceRequest) -> ResourceRequest:
        """This request, with what it leaves open as `before` had it."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(before, **{name: value for name, value in given.items() if value is not None})

    def choose(self, cpus: float, gpus: float, nodes: Sequence[Node] = ()) -> Resources:
        """Fill in what is open, for `cpus` cores and `gpus` devices, spread over `nodes` where there are several."""
        cpus_per_trial = 1 if self.cpus_per_trial is None else self.cpus_per_trial
        gpus_per_trial = self.gpus_per_trial
        if gpus_per_trial is None:
            gpus_per_trial = 1.0 if gpus >= 1 else 0.0
        workers = self.workers
        if workers is None:
            workers = fitting(nodes or [(cpus, gpus)], cpus_per_trial, gpus_per_trial)
        return Resources(max(workers, 1), cpus_per_trial, gpus_per_trial)


@dataclass(frozen=True)
class Resources:
    """What the trials of a sweep get."""

    workers: int = 1
    """Trials that run at the same time."""
    cpus_per_trial: int = 1
    """CPU cores of a trial, which are also its threads."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial; a fraction shares one device."""

    def check(self, cpus: float, gpus: float, where: str) -> None:
        """Raise unless `workers` trials fit into `cpus` cores and `gpus` devices at once."""
        needed = self.workers * self.cpus_per_trial
        if needed > cpus:
            fits = int(cpus // self.cpus_per_trial)
            advice = f"at most --workers {fits}" if fits else f"--cpus-per-trial of at most {int(cpus)}"
            raise ResourceError(
                f"workers = {self.workers} with cpus_per_trial = {self.cpus_per_trial} need {needed} CPUs, but {where} "
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
            sizes = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(set(nodes), reverse=True))
            advice = f"at most --workers {fits}" if fits else "less for each trial, at most one node's,"
            raise ResourceError(
                f"workers = {self.workers} with cpus_per_trial = {self.cpus_per_trial} and gpus_per_trial = "
                f"{self.gpus_per_trial:g} need whole trials on single nodes, but the {len(nodes)} of {where} "
                f"(with {sizes}) hold {fits}: {advice} would fit"
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
