"""What somebody asks for, before anything of it is looked at: `Launch` begins a sweep, `Relaunch` goes on with one.

Both travel whole, from the command line (or `hpo.run`, `hpo.resume`) to the plan; `ResourceRequest` is the part of them
that is about machines. A new option of the command line touches three files:

1. here: a field with its default and its unit, in `Launch`, also in `Relaunch` if later launches may change it (in
   `hpo.cluster.resources.ResourceRequest`, and there alone, if it says what a trial gets of a machine);
2. `hpo.commands.options`: the flag with its help text, one line under the field's name in LAUNCH (and GOING_ON);
3. where it is used: `hpo.launch.prepare` for what must be known before compute, `hpo.launch.record` for what a resume
   must know, the driver for the rest.

The commands, their defaults, `hpo.run`, `hpo.resume` and `hpo extend` need no edit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from hpo.cluster.resources import ResourceRequest
from search_spaces.domains import Node

Settings = Mapping[str, Any]
"""A technique as plain data: its `name`, and its settings beside it."""


class LaunchError(ValueError):
    """A launch that cannot be run as asked."""


@dataclass(frozen=True)
class Launch:
    """A new sweep. Numbers that mean nothing, whatever the space and the data are, raise LaunchError."""

    space: str | Path | Mapping[str, Node]
    """Name of a space, path of a Python file that defines SPACE, or the tree itself."""
    data: str | None = None
    """Folder with the files of the tasks; None: the sample corpus."""
    tasks: str | Sequence[str] | None = None
    """Tasks to train, as names or `sst,qqp`; None: the three of the papers' multitask models (sst, qqp, sts)."""
    base: str | None = None
    """Base encoder: a directory, a hub id, `tiny`; None: the packaged MiniLM."""
    store: str = "runs"
    """Folder of all sweeps."""
    name: str | None = None
    """Name of the sweep; None: the space's name and the next free number."""
    trials: int = 24
    """Trials in all, the default configuration among them."""
    budget: int | None = None
    """Largest number of examples of a trial; None: three epochs, at most 20,000."""
    time: float | None = None
    """Seconds after which this launch stops, resumable; None: no limit."""
    seed: int = 0
    """Seed of draws and of training."""
    settings: tuple[str, ...] = ()
    """Pinned parameters as `path=value`."""
    start: tuple[Path, ...] = ()
    """JSON files with configurations to run right after the default one."""
    address: str | None = None
    """Address of a running Ray cluster; None: one of our own on this machine."""
    resources: ResourceRequest = ResourceRequest()
    """What trials get of the machines."""
    keep: int = 20
    """Trials whose weights stay."""
    searcher: str | Settings = "tpe"
    """Searcher that draws configurations: a name in `hpo.search.searchers.SEARCHERS`, or its name and settings."""
    scheduler: str | Settings = "asha"
    """Scheduler that stops weak trials: a name in `hpo.search.schedulers.SCHEDULERS`, or its name and settings."""
    eta: int | None = None
    """Reduction factor: about 1 in eta trials passes each rung; None: the scheduler's default."""
    grace: int | None = None
    """Examples before which no trial is stopped; None: the scheduler's default, but at least a step's."""
    trainer: str = "hpo.worker.trainer"
    """Module that trains; see `hpo.worker.job.Job.trainer`."""

    def __post_init__(self) -> None:
        _check_lowest(self, trials=1, keep=1, eta=2, budget=1, grace=1, seed=0)
        _check_time(self.time)


@dataclass(frozen=True)
class Relaunch:
    """Another launch of a sweep: what may differ from the launch before; None: as before."""

    trials: int | None = None
    """New, larger total of trials."""
    takeover: bool = False
    """Go on although another driver seems to be at work; that one leaves."""
    data: str | None = None
    """Folder where the same data lies now."""
    time: float | None = None
    """Seconds after which this launch stops, resumable; None: no limit."""
    address: str | None = None
    """Address of a running Ray cluster; None: one of our own on this machine."""
    resources: ResourceRequest = ResourceRequest()
    """What trials get of the machines."""
    keep: int | None = None
    """Trials whose weights stay."""
    searcher: Settings | None = None
    """Searcher of this launch; another one than before is refused."""
    scheduler: Settings | None = None
    """Scheduler of this launch; another one than before is refused."""

    def __post_init__(self) -> None:
        _check_lowest(self, trials=1, keep=1)
        _check_time(self.time)


Request = TypeVar("Request", Launch, Relaunch)


def from_options(kind: type[Request], values: Mapping[str, Any]) -> Request:
    """A request from flat values by option; those of `ResourceRequest` are gathered into its `resources`."""
    of_machines = {each.name for each in fields(ResourceRequest)}
    resources = ResourceRequest(**{name: value for name, value in values.items() if name in of_machines})
    return kind(**{name: value for name, value in values.items() if name not in of_machines}, resources=resources)


def default_of(kind: type[Launch] | type[Relaunch], name: str) -> Any:
    """Default of a request's field, or of the field of `ResourceRequest` in it; `dataclasses.MISSING`: none."""
    return {each.name: each.default for each in (*fields(ResourceRequest), *fields(kind))}[name]


def _check_lowest(request: Launch | Relaunch, **lowest: int) -> None:
    """Raise unless each field is an integer of at least so much; None passes where it is the field's default."""
    for name, least in lowest.items():
        value = getattr(request, name)
        if value is None and default_of(type(request), name) is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise LaunchError(f"`{name}` must be an integer of at least {least}, not {value!r}.")


def _check_time(seconds: float | None) -> None:
    if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
        raise LaunchError(f"`time` must be a positive number of seconds, not {seconds!r}.")
