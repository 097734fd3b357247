"""Requests: `Launch` begins a sweep, `Relaunch` continues one. Only single values are checked here.

A request goes as one object from the command line (or `hpo.run`, `hpo.resume`) to the plan. Its part about machines is
a `ResourceRequest`. A new option of the command line touches three files:

1. here: a field with its default and its unit in `Launch`, and in `Relaunch` if later launches may change it. A field
   about a trial's share of a machine goes into `hpo.cluster.resources.ResourceRequest` instead;
2. `hpo.commands.options`: the flag with its help text, one line under the field's name in LAUNCH (and GOING_ON);
3. where it is used: `hpo.launch.prepare` for checks before compute, `hpo.launch.record` for what a resume must know,
   the driver for all else.

The commands, their defaults, `hpo.run`, `hpo.resume` and `hpo extend` need no edit.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from hpo.cluster.resources import ResourceRequest
from hpo.search.repeats import REPLICATES
from hpo.worker.job import TRAINER
from search_spaces.domains import Node

Settings = Mapping[str, Any]
"""A searcher or scheduler as plain data: its `name`, with its settings beside it."""


LEAST_SILENCE = 30.0
"""Shortest silence of a worker in seconds before it may be killed."""


class LaunchError(ValueError):
    """The launch cannot be run as requested."""


@dataclass(frozen=True)
class Launch:
    """Request for a new sweep. Raises LaunchError for a number that no sweep could have, such as 0 trials."""

    space: str | Path | Mapping[str, Node]
    """Name of a space, path of a Python file that defines SPACE, or the tree itself."""
    data: str | None = None
    """Folder with the files of the tasks; None: the sample corpus."""
    tasks: str | Sequence[str] | None = None
    """Tasks to train, as names or `sst,qqp`; None: the three of the papers' multitask models (sst, qqp, sts)."""
    base: str | None = None
    """Base encoder: a directory, a hub id, `tiny`; None: the packaged MiniLM."""
    store: str = "runs"
    """Folder that holds all sweeps."""
    name: str | None = None
    """Name of the sweep; None: the space's name and the next free number."""
    trials: int = 24
    """Total number of trials, the default configuration's included."""
    budget: int | None = None
    """Largest number of examples of a trial; None: three epochs, at most 20,000."""
    time: float | None = None
    """Seconds after which this launch stops, resumable; None: no limit."""
    seed: int = 0
    """Seed of the draws and of the training."""
    settings: tuple[str, ...] = ()
    """Pinned parameters as `path=value`."""
    start: tuple[Path, ...] = ()
    """JSON files with configurations to run right after the default one. They are raced as drawn ones are."""
    start_full: tuple[Path, ...] = ()
    """JSON files with configurations to run after those of `start`. They are exempt from early stopping, as the default
    one is."""
    warm_start: tuple[str, ...] = ()
    """Sweeps of the same store whose best trials become parents and centres of priors; see `hpo.launch.warm`."""
    address: str | None = None
    """Address of a running Ray cluster; None: that of RAY_ADDRESS, else one of our own (`hpo.cluster.address`)."""
    resources: ResourceRequest = ResourceRequest()
    """Number of workers, and CPU cores and GPUs of a trial."""
    trial_timeout: float | None = None
    """Seconds that a trial's worker may be silent before it is killed (`hpo.driver.watchdog`). None: they follow from
    the rate seen."""
    pause_timeout: float | None = None
    """Seconds that a stop of this launch waits for trials to write checkpoints; None: two minutes."""
    keep: int = 20
    """Number of trials whose weights are kept."""
    searcher: str | Settings = "changes"
    """Searcher that draws configurations: a name in `hpo.search.searchers.SEARCHERS`, or its name and settings."""
    scheduler: str | Settings = "asha"
    """Scheduler that stops weak trials: a name in `hpo.search.schedulers.SCHEDULERS`, or its name and settings."""
    objective: str | Sequence[str] = "overall"
    """Objectives, as names or `overall,-seconds`: the first decides rungs, ranks and the answer, and has to be
    `overall`. See `results.objectives`."""
    eta: int | None = None
    """Reduction factor: about 1 in eta trials passes each rung; None: the scheduler's default."""
    repeats: int = REPLICATES
    """Further replicates of the best configurations and the default after the search, as far as a fifth of the sweep's
    examples allows; 0: none. See `hpo.search.repeats`."""
    grace: int | None = None
    """Examples before which no trial is stopped; None: the scheduler's default."""
    trainer: str = TRAINER
    """Module that trains; see `hpo.worker.job.Job.trainer`."""

    def __post_init__(self) -> None:
        _check_lowest(self, trials=1, keep=1, eta=2, budget=1, grace=1, seed=0, repeats=0)
        _check_seconds(self)
        for name in ("settings", "start", "start_full", "warm_start"):
            if isinstance(getattr(self, name), str):
                raise LaunchError(f"`{name}` must be a list, not the text {getattr(self, name)!r}.")
        raced, full = ({Path(path).resolve() for path in paths} for paths in (self.start, self.start_full))
        if both := sorted(raced & full):
            raise LaunchError(f"`start_full`: {both[0]} is also given by `start`, which races it. Name the file once.")
        if twice := sorted({name for name in self.warm_start if self.warm_start.count(name) > 1}):
            raise LaunchError(f"`warm_start` must name each sweep once, found {twice[0]!r} more than once.")


@dataclass(frozen=True)
class Relaunch:
    """Request for another launch of a sweep: the values that it may change. None: as in the sweep's record."""

    trials: int | None = None
    """New total number of trials, not lower than before."""
    takeover: bool = False
    """Start although another driver seems to work on the sweep; that driver then stops."""
    data: str | None = None
    """Folder that holds the same data now."""
    time: float | None = None
    """Seconds after which this launch stops, resumable; None: no limit."""
    address: str | None = None
    """Address of a running Ray cluster; None: that of RAY_ADDRESS, else one of our own (`hpo.cluster.address`)."""
    resources: ResourceRequest = ResourceRequest()
    """Number of workers, and CPU cores and GPUs of a trial."""
    trial_timeout: float | None = None
    """Seconds that a trial's worker may be silent before it is killed (`hpo.driver.watchdog`). None: they follow from
    the rate seen."""
    pause_timeout: float | None = None
    """Seconds that a stop of this launch waits for trials to write checkpoints; None: two minutes."""
    retry_failed: bool = False
    """Try failed trials again."""
    keep: int | None = None
    """Number of trials whose weights are kept."""
    trainer: str | None = None
    """Module that trains, for a sweep whose record names another one than the product's own."""

    def __post_init__(self) -> None:
        _check_lowest(self, trials=1, keep=1)
        _check_seconds(self)


Request = TypeVar("Request", Launch, Relaunch)


def from_options(kind: type[Request], values: Mapping[str, Any]) -> Request:
    """A request from the values of its options; options of `ResourceRequest` go into its `resources`. Raises
    LaunchError for an unknown option."""
    resource_names = {option.name for option in fields(ResourceRequest)}
    check_names(values, {option.name for option in fields(kind)} - {"resources"} | resource_names)
    resources = ResourceRequest(**{name: value for name, value in values.items() if name in resource_names})
    return kind(**{name: value for name, value in values.items() if name not in resource_names}, resources=resources)


def check_names(given: Iterable[str], accepted: Collection[str]) -> None:
    """Raise LaunchError, which names the nearest option and all others, unless each of `given` is `accepted`."""
    for name in given:
        if name not in accepted:
            near = difflib.get_close_matches(name, accepted, 1)
            hint = f"Did you mean `{near[0]}`? " if near else ""
            raise LaunchError(f"Unknown option `{name}`. {hint}Accepted: {', '.join(sorted(accepted))}.")


def default_of(kind: type[Launch] | type[Relaunch], name: str) -> Any:
    """Default of a request's field, or of a field of its `ResourceRequest`; `dataclasses.MISSING`: it has none."""
    return {option.name: option.default for option in (*fields(ResourceRequest), *fields(kind))}[name]


def _check_lowest(request: Launch | Relaunch, **lowest: int) -> None:
    """Raise LaunchError unless each field is an integer of at least its bound; None passes where it is the default."""
    for name, least in lowest.items():
        value = getattr(request, name)
        if value is None and default_of(type(request), name) is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise LaunchError(f"`{name}` must be an integer of at least {least}, not {value!r}.")


def _check_seconds(request: Launch | Relaunch) -> None:
    """Raise LaunchError unless each time limit is None or a finite number of seconds that is long enough."""
    for name, least, rule in (
        ("time", 0.0, "a positive number of seconds"),
        ("pause_timeout", 0.0, "a positive number of seconds"),
        ("trial_timeout", LEAST_SILENCE, f"more than {LEAST_SILENCE:g} seconds, in which a worker gives three signs"),
    ):
        seconds = getattr(request, name)
        if seconds is None and default_of(type(request), name) is None:
            continue
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not (number and math.isfinite(seconds) and seconds > least):
            raise LaunchError(f"`{name}` must be {rule}, not {seconds!r}.")
