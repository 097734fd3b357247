"""What another launch of a sweep would do, known before Ray starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hpo.driver import generations
from hpo.driver.finalise import is_done
from hpo.launch.record import SweepRecord, record_of
from hpo.launch.relaunch import total_of
from hpo.launch.request import Relaunch

if TYPE_CHECKING:
    from results.store import SweepFolder


class Resumption(NamedTuple):
    """A sweep that may be launched again."""

    record: SweepRecord
    trials: int
    """Total number of trials from this launch on."""
    done: bool
    """Whether nothing is left to do: all trials have ended, and the chosen ones have predicted."""


def resumption(folder: SweepFolder, relaunch: Relaunch) -> Resumption:
    """What another launch would do. Raises BusyError if a driver works on the sweep, LaunchError for fewer
    trials, or for more than the searcher can draw."""
    record = record_of(folder)
    trials = total_of(generations.total_trials(record.trials, folder.folder), relaunch, record)
    if not relaunch.takeover:
        generations.check_free(folder.folder)
    return Resumption(record, trials, is_done(folder, trials, relaunch.retry_failed))
