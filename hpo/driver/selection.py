"""What is chosen once a search has ended, and which predictions that takes.

An ensemble and the best single trial are chosen on `search`, from evidence (`results.choice`). Only they, the runs of
the answer (`hpo.driver.answer`) and those of the default predict, and only the rows of `held` on which headlines
are estimated, unless more is asked for.

`settle` is the one loop: choose, let the chosen trials predict, leave out those that could not, choose again. A launch
records what it chose in a small file, so that a display need not choose again to know what is missing.

Sweeps of earlier versions have no evidence. Their candidates are the trials whose stored predictions hold `search`; if
there is none, every trial with kept weights predicts the dev files first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hpo.driver.answer import compared, decided, runs_at_full_budget, scores_of
from hpo.driver.jury import scoring
from hpo.driver.ledger import KeptWeights, Ledger
from hpo.launch.record import record_of
from hpo.worker.paths import CHOSEN

if TYPE_CHECKING:
    from results.choice import Selection
    from results.store import SweepFolder

METHOD, SIZE = "auto", 5
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


@dataclass(frozen=True)
class Choice:
    """What is to be chosen."""

    method: str = METHOD
    size: int = SIZE
    full_dev: bool = False
    """Whether the score on all of dev is estimated too."""
    compare: bool = False
    """Whether every method is tried, and an ensemble of the best single trial's seeds estimated too."""
    answer: bool = False
    """Whether the answer of the sweep is compared with the default too, as at the end of a launch."""


LAUNCH = Choice(answer=True)
"""What a launch chooses at its end."""
FORMER = Choice("greedy", answer=True)
"""What launches of earlier versions chose, which recorded nothing."""

Predict = Callable[[Needed], Mapping[int, str] | None]
"""Makes the pending predictions; returns a message for each trial that could not predict, or None to stop early."""


class Settled(NamedTuple):
    """A selection whose trials have predicted."""

    selection: Selection
    trials: list[int]
    """Trials that its estimates need."""
    failed: list[int]
    """Trials that could not predict; they are left out."""


def settle(
    folder: SweepFolder, ledger: Ledger, predict: Predict, choice: Choice = LAUNCH, failed: Collection[int] = ()
) -> Settled | None:
    """Choose, let the chosen trials predict, leave out those that could not, and choose again, until nothing is
    missing; None if `predict` stopped early. `failed`: trials that are known to be unable to predict."""
    without = set(failed)
    while True:
        selection = select(folder, ledger, choice, without)
        needs = needed(folder, ledger, selection, choice, without)
        if not needs.pending:
            return Settled(selection, needs.trials, sorted(without))
        problems = predict(needs)
        if problems is None:
            return None
        without |= problems.keys()


def settled(folder: SweepFolder, ledger: Ledger) -> Selection:
    """The selection of a launch's end. A chosen trial that lacks predictions could not predict."""
    known = recorded(folder, ledger)
    found = settle(
        folder, ledger, lambda needs: dict.fromkeys(needs.waiting, ""), failed=() if known is None else known.failed
    )
    assert found is not None, "this `predict` never stops early"
    return found.selection


def select(folder: SweepFolder, ledger: Ledger, choice: Choice = LAUNCH, without: Collection[int] = ()) -> Selection:
    """Choose an ensemble and the best single trial among the trials with weights or predictions of all parts.

    `without`: trials that could not predict.
    """
    from results import choice as results_choice
    from results.predictions import whole

    usable = ledger.kept.keys() | whole(folder)
    ranked = [trial for trial in ledger.ranking() if trial in usable]
    order = [*ranked, *sorted(usable - set(ranked))]
    runs = runs_at_full_budget(ledger, record_of(folder).budget)
    return results_choice.select(
        folder,
        scoring(folder),
        method=choice.method,
        size=choice.size,
        trials=order,
        without=without,
        compare=list(runs.values()) if choice.compare else None,
    )


def needed(
    folder: SweepFolder, ledger: Ledger, selection: Selection, choice: Choice = LAUNCH, without: Collection[int] = ()
) -> Needed:
    """The predictions that a selection needs to be estimated. `without`: trials that could not predict."""
    from results.predictions import DEV, HELD

    able = [trial for trial in ledger.kept if trial not in without]
    if selection.ensemble is None and (first := lacking(folder, ledger, able, [DEV])):
        return Needed(able, first)
    trials = selection.trials
    if choice.answer:
        budget = record_of(folder).budget
        answer = decided(folder, ledger, budget)
        trials = list(dict.fromkeys([*trials, *compared(ledger, answer, budget, without)]))
    return Needed(trials, lacking(folder, ledger, trials, [HELD, DEV] if choice.full_dev else [HELD]))


def lacking(folder: SweepFolder, ledger: Ledger, trials: Collection[int], parts: Sequence[str]) -> list[Pending]:
    """Predictions of these trials that the store lacks and kept weights can make."""
    from results.predictions import has

    return [
        Pending(ledger.kept[trial], part)
        for trial in trials
        for part in parts
        if trial in ledger.kept and not has(folder, trial, ledger.kept[trial].attempt, part)
    ]


class Recorded(NamedTuple):
    """What a launch has chosen: the content of its file."""

    rows: int
    """Number of rows of the sweep that the choice is made from; with other rows it does not count."""
    part: str
    """The part that the chosen trials predict."""
    trials: list[int]
    """Trials that predict."""
    failed: list[int]
    """Trials that could not."""


def record_choice(folder: SweepFolder, ledger: Ledger, needs: Needed, failed: Collection[int]) -> None:
    """Record what a launch has chosen, for `recorded`."""
    from results.predictions import HELD

    part = needs.pending[0].part if needs.pending else HELD
    record_again(folder, ledger, Recorded(ledger.rows, part, needs.trials, sorted(failed)))


def record_again(folder: SweepFolder, ledger: Ledger, known: Recorded) -> None:
    """Record a choice for the rows in the ledger: those that it was made from, or more that do not change it."""
    known = known._replace(rows=ledger.rows)
    folder.folder.write(CHOSEN, json.dumps(known._asdict()).encode())


def recorded(folder: SweepFolder, ledger: Ledger) -> Recorded | None:
    """What the last launch chose; None if it has not, or if rows were added since."""
    try:
        found = Recorded(**json.loads(folder.folder.read(CHOSEN)))
    except (OSError, ValueError, TypeError):  # missing, damaged or of another version: it is chosen again
        return None
    return found if found.rows == ledger.rows else None


def still_needed(folder: SweepFolder, ledger: Ledger, *, choose: bool = True) -> Needed | None:
    """The predictions that the end of a launch needs, by what it recorded. Where rows were added since they are
    chosen now, or None is returned without `choose`."""
    known = recorded(folder, ledger)
    if known is not None:
        return Needed(known.trials, lacking(folder, ledger, known.trials, [known.part]))
    if not choose:
        return None
    choice = LAUNCH if folder.folder.exists(CHOSEN) else FORMER
    return needed(folder, ledger, select(folder, ledger, choice), choice)


def conclude(folder: SweepFolder, ledger: Ledger, selection: Selection, name: str | None = None) -> dict[str, Any]:
    """Estimate a selection's scores and save its record under `<store>/<sweep>/ensembles/`. Returns the record."""
    from results.selection import conclude as estimate

    repeats = {trial: origin for trial in ledger.repeats if (origin := ledger.repeat_of(trial)) is not None}
    return estimate(folder, scoring(folder), selection, name=name, noise=noise(folder, ledger), repeats=repeats)


def noise(folder: SweepFolder, ledger: Ledger) -> float | None:
    """Standard deviation of a trial's overall over seeds; None if no configuration ran twice at full budget."""
    from results.noise import pooled

    runs = [scores_of(ledger, trials) for trials in runs_at_full_budget(ledger, record_of(folder).budget).values()]
    return pooled(runs) if any(len(scores) > 1 for scores in runs) else None
