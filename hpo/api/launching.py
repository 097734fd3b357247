"""Run, resume, open and compare sweeps from Python: `hpo.run`, `hpo.resume`, `hpo.open`, `hpo.compare`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.api.sweep import StoredSweep
from hpo.driver.callbacks import Callback
from hpo.launch.plan import Plan
from hpo.launch.request import Launch, LaunchError, Relaunch, from_options
from search_spaces.domains import Node

if TYPE_CHECKING:
    from hpo.driver.compare import Compared
    from hpo.driver.session import Outcome
    from hpo.search.snapshot import Snapshot


MESSAGES = 20
"""Number of latest messages of the driver that become warnings."""


def open(name: str, store: str = "runs") -> StoredSweep:
    """A sweep of a store. Raises SweepMissing, which names the nearest sweep, if there is none of that name."""
    return StoredSweep(name, store)


def run(
    space: str | Path | Mapping[str, Node] | Launch | Plan,
    *,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> StoredSweep:
    """Run a new sweep until it is done, or until Ctrl-C, `hpo stop` or its time limit: then it can be resumed.

    `space`: the name of a search space, a .py file, or the tree itself; or a whole request (`Launch`, `Plan`).
    `options`: the fields of `Launch`, and of `ResourceRequest` (workers, cpus_per_trial, gpus_per_trial). `callbacks`
    are told of every event. `progress`: show the sweep while it runs. Raises LaunchError, SpaceError, ConfigError or
    DataError for bad input, before anything runs.
    """
    if isinstance(space, Launch | Plan):
        if options:
            raise LaunchError(f"`{next(iter(options))}`: give options to the {type(space).__name__}, not beside it.")
        launch = space
    else:
        launch = from_options(Launch, {"space": space, **options})
    with _display(progress) as observer:
        from hpo.driver import session  # imports Ray, which takes seconds: the display is up by then

        outcome = session.run(launch, observer, callbacks)
    _repeat_messages(outcome)
    return StoredSweep(outcome.name, launch.store)


def resume(
    name: str,
    store: str = "runs",
    *,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> StoredSweep:
    """Continue a sweep that was stopped or interrupted; with `trials` give it more of them, in all.

    `options`: the fields of `Relaunch`, and of `ResourceRequest`. If nothing is left to do, nothing is started. Raises
    BusyError if another driver works on the sweep, MismatchError if its data, base weights or space are others now.
    """
    relaunch = from_options(Relaunch, options)
    with _display(progress) as observer:
        from hpo.driver import session

        outcome = session.resume(str(store), name, relaunch, observer, callbacks)
    _repeat_messages(outcome)
    return StoredSweep(name, store)


def _repeat_messages(outcome: Outcome) -> None:
    """Warn of what the driver had to say: the display that showed it is gone."""
    for message in outcome.snapshot.messages[-MESSAGES:]:
        warnings.warn(message, stacklevel=3)


def compare(*names: str, store: str = "runs") -> Compared:
    """Sweeps of a store, compared with the first one. Raises CompareError unless two have equal base, data and
    tasks."""
    from hpo.driver import compare as comparing

    return comparing.compare([open(name, store).folder for name in names])


@contextmanager
def _display(progress: bool) -> Iterator[Callable[[Snapshot], None] | None]:
    """The display that fits the output: a notebook's cell, a terminal, or lines."""
    if not progress:
        yield None
        return
    from hpo.display.live import observer

    with observer(activity="loading Ray, then reading the data") as show:
        yield show
