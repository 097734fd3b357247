"""What somebody asks for, before anything of it was looked at: the options of `hpo run`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpo.cluster.resources import check_gpus
from search_spaces.domains import Node


class LaunchError(ValueError):
    """A launch that cannot be run as asked."""


@dataclass(frozen=True)
class Launch:
    """What somebody asks for; field for field the options of `hpo run`."""

    space: str | Path | Mapping[str, Node]
    """Name of a space, path of a Python file that defines SPACE, or the tree itself."""
    data: str | None = None
    """Folder with the files of the tasks; None: the sample corpus."""
    tasks: str | Sequence[str] | None = None
    """Tasks to train, as names or `sst,qqp`; None: the three of the papers' multitask models (sst, qqp, sts)."""
    checkpoint: str | None = None
    """Base encoder: a directory, a hub id, `tiny`; None: the packaged MiniLM."""
    store: str = "runs"
    name: str | None = None
    """None: the space's name and the next free number."""
    trials: int = 24
    budget: int | None = None
    """Largest number of examples of a trial; None: three epochs, at most 20,000."""
    time: float | None = None
    """Seconds after which this launch stops, resumable."""
    seed: int = 0
    settings: tuple[str, ...] = ()
    """Pinned parameters as `path=value`."""
    start: tuple[Path, ...] = ()
    """JSON files with configurations to run right after the default one."""
    address: str | None = None
    """Address of a running Ray cluster; None: one of our own on this machine."""
    workers: int | None = None
    """Trials at the same time; None: as many as fit."""
    cpus_per_trial: int = 1
    gpus_per_trial: float | None = None
    """None: one where there are GPUs."""
    keep: int = 20
    """Trials whose weights stay."""
    eta: int = 3
    """Reduction factor: of eta trials at a rung about one goes on."""
    grace: int | None = None
    """Lowest number of examples before a trial may be stopped; None: budget // 27, but at least a step's."""
    trainer: str = "hpo.worker.trainer"
    """Module that trains; another one in tests."""


def check_numbers(launch: Launch) -> None:
    """Refuse numbers that mean nothing, whatever the space and the data are. Raises LaunchError."""
    lowest = {"trials": 1, "cpus_per_trial": 1, "keep": 1, "eta": 2, "workers": 1, "budget": 1, "grace": 1, "seed": 0}
    for name, least in lowest.items():
        value = getattr(launch, name)
        if value is None and name in ("workers", "budget", "grace"):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise LaunchError(f"`{name}` must be an integer of at least {least}, not {value!r}.")
    if launch.time is not None and not (math.isfinite(launch.time) and launch.time > 0):
        raise LaunchError(f"`time` must be a positive number of seconds, not {launch.time!r}.")
    check_gpus(launch.gpus_per_trial)
