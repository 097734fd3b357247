"""What is chosen once a search has ended, and which predictions that takes.

An ensemble and the best single trial are chosen on `search`, from evidence (`results.choice`). Only they, the runs of
the answer (`hpo.driver.comparison`) and those of the default predict, and only the rows of `held` on which headlines
are estimated, unless more is asked for.

Sweeps of earlier versions have no evidence. Their candidates are the trials whose stored predictions hold `search`; if
there is none, every trial with kept weights predicts the dev files first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hpo.driver.comparison import compared, decided
from hpo.driver.jury import scoring
from hpo.driver.ledger import KeptWeights, Ledger
from hpo.launch.record import record_of

if TYPE_CHECKING:
    from results.choice import Selection
    from results.store import SweepFolder

METHOD, SIZE = "greedy", 5
"""Ensemble that a launch chooses at its end."""


class Pending(NamedTuple):
    """Predictions to be made: a part of those of one trial."""

    weights: KeptWeights
    part: str
    """held, dev or test; see `results.predictions`."""


class Needed(NamedTuple):
    """Predictions that a selection needs."""

    trials: list[int]
    """Trials that need them."""
    pending: list[Pending]
    """Those that the store lacks and kept weights can make."""

    @property
    def waiting(self) -> list[int]:
        """Trials that have yet to predict."""
        return sorted({entry.weights.trial for entry in self.pending})


def select(
    folder: SweepFolder, ledger: Ledger, *, method: str = METHOD, size: int = SIZE, without: Collection[int] = ()
) -> Selection:
    """Choose an ensemble and the best single trial among the trials with weights or predictions of all parts.

    `without`: trials that could not predict.
    """
    from results import choice
    from results.predictions import whole

    usable = ledger.kept.keys() | whole(folder)
    ranked = [trial for trial in ledger.ranking() if trial in usable]
    order = [*ranked, *sorted(usable - set(ranked))]
    return choice.select(folder, scoring(folder), method=method, size=size, trials=order, without=without)


def settled(folder: SweepFolder, ledger: Ledger) -> Selection:
    """The selection of a launch's end, after its predictions: a chosen trial that lacks `held` could not predict, so
    it is left out and the choice is made again, as the launch did."""
    from results.predictions import headline

    failed: list[int] = []
    while True:
        chosen = select(folder, ledger, without=failed)
        missing = [trial for trial in chosen.trials if not headline(folder, trial)]
        if not chosen.picks or not missing:
            return chosen
        failed += missing


def needed(
    folder: SweepFolder,
    ledger: Ledger,
    selection: Selection | None = None,
    *,
    full_dev: bool = False,
    without: Collection[int] = (),
) -> Needed:
    """The predictions that a selection needs to be estimated; None: that of a launch's end, with what its answer needs.
    `full_dev`: on all of dev too. `without`: trials that could not predict."""
    from results.predictions import DEV, HELD

    chosen = select(folder, ledger, without=without) if selection is None else selection
    able = [trial for trial in ledger.kept if trial not in without]
    if not chosen.picks and (first := lacking(folder, ledger, able, [DEV])):
        return Needed(able, first)
    trials = chosen.trials
    if selection is None:
        budget = record_of(folder).budget
        answer = decided(folder, ledger, budget)
        trials = list(dict.fromkeys([*trials, *compared(ledger, answer, budget, without)]))
    return Needed(trials, lacking(folder, ledger, trials, [HELD, DEV] if full_dev else [HELD]))


def lacking(folder: SweepFolder, ledger: Ledger, trials: Collection[int], parts: Sequence[str]) -> list[Pending]:
    """Predictions of these trials that the store lacks and kept weights can make."""
    from results.predictions import has

    return [
        Pending(ledger.kept[trial], part)
        for trial in trials
        for part in parts
        if trial in ledger.kept and not has(folder, trial, ledger.kept[trial].attempt, part)
    ]


def conclude(folder: SweepFolder, selection: Selection, name: str | None = None) -> dict[str, Any]:
    """Estimate a selection's scores and save its record under `<store>/<sweep>/ensembles/`. Returns the record."""
    from results.selection import conclude as estimate

    return estimate(folder, scoring(folder), selection, name=name)
