"""Resources of a sweep's trials: number of workers, CPU cores, GPUs; and whether the machines have them.

A `ResourceRequest` may leave values open; `choose` fits it to a machine or a cluster and returns `Resources`. Ray waits
for ever and without a word for resources that a cluster does not have, so they are compared with the cluster's first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

NodeResources = tuple[float, float]
"""CPUs and GPUs of one node, which is a machine of a cluster."""


TINY = 1e-6
"""A fraction of a device that is rounding alone: Ray counts in steps of 1e-4."""


class ResourceError(ValueError):
    """The request exceeds the cluster's resources, or the cluster cannot be reached."""


class NoAnswerError(ResourceError):
    """No machine of the cluster can run trials now, and a later try may find one that can."""


@dataclass(frozen=True)
class ResourceRequest:
    """Resources that a launch requests; a value of None is open, and `choose` fills it in."""

    workers: int | None = None
    """Number of trials that run at the same time, on a running cluster at most; None: as many as fit."""
    cpus_per_trial: int | None = None
    """CPU cores of a trial, which are also its threads; None: a node's cores divided by its GPUs, one without GPUs."""
    gpus_per_trial: float | None = None
    """GPUs of a trial; a fraction shares one device; None: one if there are GPUs."""

    def __post_init__(self) -> None:
        for name in ("workers", "cpus_per_trial"):
            number = getattr(self, name)
            if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
                raise ResourceError(f"`{name}` must be an integer of at least 1, not {number!r}.")
        gpus = self.gpus_per_trial
        number = isinstance(gpus, int | float) and not isinstance(gpus, bool) and math.isfinite(gpus)
        if gpus is not None and not (number and gpus >= 0 and (gpus <= 1 or gpus == int(gpus))):
            raise ResourceError(f"`gpus_per_trial` must be 0, a fraction below 1, or a whole number, not {gpus!r}.")

    def over(self, before: ResourceRequest) -> ResourceRequest:
        """This request, with its open values taken from `before`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(before, **{name: value for name, value in values.items() if value is not None})

    def reduced(self, nodes: Sequence[NodeResources]) -> ResourceRequest:
        """This request with the CPUs of a trial left open, if every node that has the trial's kind of device has fewer.
        A sweep's record may hold the number that another machine had by default."""
        kind = [cpus for cpus, gpus in nodes if (gpus if self.gpus_per_trial else cpus)]
        too_many = self.cpus_per_trial is not None and bool(kind) and max(kind) < self.cpus_per_trial
        return replace(self, cpus_per_trial=None) if too_many else self

    def choose(self, cpus: float, gpus: float, nodes: Sequence[NodeResources] = ()) -> Resources:
        """Resources with all open values filled in, for `cpus` cores and `gpus` devices in all, or for these nodes."""
        machines = nodes or [(cpus, gpus)]
        gpus_per_trial = self.gpus_per_trial
        if gpus_per_trial is None:
            gpus_per_trial = 1.0 if gpus >= 1 else 0.0
        cpus_per_trial = self.cpus_per_trial
        if cpus_per_trial is None:
            shares = [int(its_cpus / its_gpus * gpus_per_trial) for its_cpus, its_gpus in machines if its_gpus]
            cpus_per_trial = max(1, min(shares, default=1))
        workers = self.workers
        if workers is None:
            workers = fitting(machines, cpus_per_trial, gpus_per_trial)
        return Resources(max(workers, 1), cpus_per_trial, gpus_per_trial)

    def here(self) -> Resources:
        """What this process takes to do the work of a trial, alone on this machine."""
        return self.choose(local_cpus(), gpus=1)

    def expect(self, nodes: Sequence[NodeResources], absent: Sequence[NodeResources], most: int) -> Resources:
        """Resources on a running cluster with these living nodes, where machines join and leave: at most `most`
        workers, unless their number is given.

        GPUs count as there if they are asleep or gone (`absent`): a sweep never trains on CPUs for want of a machine.
        """
        machines = nodes if any(gpus for _, gpus in nodes) else (*nodes, *absent)
        cpus, gpus = (sum(amounts) for amounts in zip((0.0, 0.0), *machines, strict=True))
        return replace(self, workers=self.workers or most).choose(cpus, gpus, machines)


@dataclass(frozen=True)
class Resources:
    """Resources that the trials of a sweep get."""

    workers: int = 1
    """Number of trials that run at the same time."""
    cpus_per_trial: int = 1
    """CPU cores of a trial, which are also its threads."""
    gpus_per_trial: float = 0.0
    """GPUs of a trial; a fraction shares one device."""
    closed: tuple[str, ...] = ()
    """Ray's ids of the nodes where no trial may run."""

    @property
    def needs(self) -> str:
        """What a trial takes, in words."""
        return amounts(self.cpus_per_trial, self.gpus_per_trial or None)

    @property
    def open_nodes(self) -> dict[str, str]:
        """Ray's label selector for the nodes where trials may run; empty: all nodes."""
        # Ray accepts a blank after a comma, and then compares it with the id.
        return {"ray.io/node-id": f"!in({','.join(self.closed)})"} if self.closed else {}

    def fits(self, nodes: Sequence[NodeResources]) -> int:
        """Number of such trials that fit onto the nodes at once."""
        return fitting(nodes, self.cpus_per_trial, self.gpus_per_trial)

    def within(self, nodes: Sequence[NodeResources]) -> Resources:
        """The same with only as many workers as fit onto the nodes, at least one."""
        return replace(self, workers=max(1, min(self.workers, self.fits(nodes))))

    def check(self, cpus: float, gpus: float, where: str) -> None:
        """Raise ResourceError unless `workers` trials fit into `cpus` cores and `gpus` devices at once."""
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

    def check_nodes(self, nodes: Sequence[NodeResources], where: str) -> None:
        """Raise ResourceError unless `workers` trials fit onto these nodes at once: a trial never spans two nodes."""
        fits = self.fits(nodes)
        if self.workers > fits:
            sizes = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in sorted(set(nodes), reverse=True))
            advice = f"at most --workers {fits}" if fits else "less for each trial, at most one node's,"
            raise ResourceError(
                f"workers = {self.workers} with cpus_per_trial = {self.cpus_per_trial} and gpus_per_trial = "
                f"{self.gpus_per_trial:g} need whole trials on single nodes, but the {len(nodes)} of {where} "
                f"(with {sizes}) hold {fits}: {advice} would fit"
            )


def fitting(nodes: Sequence[NodeResources], cpus_per_trial: int, gpus_per_trial: float) -> int:
    """Number of trials that fit onto the nodes at once, each trial on one node."""

    def on_node(cpus: float, gpus: float) -> int:
        by_cpus = int(cpus // cpus_per_trial)
        if gpus_per_trial <= 0:
            return by_cpus
        if gpus_per_trial >= 1:
            return min(by_cpus, int(gpus // gpus_needed(1, gpus_per_trial)))
        whole = int(gpus + TINY)  # of what is left, a device may have a part
        return min(by_cpus, whole * int(1 / gpus_per_trial) + int((gpus - whole) / gpus_per_trial + TINY))

    return sum(on_node(*node) for node in nodes)


def gpus_needed(workers: int, gpus_per_trial: float) -> int:
    """Number of devices that `workers` trials take. A fraction never spans two devices: 0.4 puts two trials on one."""
    if gpus_per_trial <= 0:
        return 0
    if gpus_per_trial >= 1:
        return workers * int(-(-gpus_per_trial // 1))
    return -(-workers // int(1 / gpus_per_trial))


def amounts(cpus: float, gpus: float | None) -> str:
    """`4 CPUs and 1 GPU`; `4 CPUs` where no GPUs are asked for."""
    numbers = ((cpus, "CPU"), (gpus, "GPU"))
    return " and ".join(f"{count:g} {noun}{'' if count == 1 else 's'}" for count, noun in numbers if count is not None)


def local_cpus() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def local_gpus() -> int:
    """CUDA devices that this process can see."""
    import torch

    return torch.cuda.device_count()
