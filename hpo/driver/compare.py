"""Several stored sweeps compared: what each found for its examples, and their best configurations on `held`.

The first sweep is what the others are compared with. Scores of two sweeps mean the same only with equal base, data and
tasks: a sweep with others is left out, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.driver.answer import best_trial, difference_on_held, runs_at_full_budget
from hpo.driver.ledger import Ledger
from hpo.driver.retraining import config_of
from hpo.launch.record import record_of
from hpo.launch.warm import differences
from hpo.search.states import REPEAT
from hpo.space.tree import flatten

if TYPE_CHECKING:
    from results.estimates import Estimate
    from results.store import SweepFolder

PARTS = 4
"""Numbers of examples at which the course of each sweep is given, evenly spaced."""


class CompareError(ValueError):
    """The sweeps cannot be compared."""


@dataclass(frozen=True)
class Side:
    """One of the sweeps that are compared."""

    sweep: str
    trials: int
    """Trials that have started, without repeats."""
    budget: int
    """Largest number of examples of a trial."""
    examples: int
    """Examples that all trials and repeats have used together."""
    best: int
    """The trial of the sweep's answer; before its end, its best trial so far."""
    runs: tuple[int, ...]
    """The runs of its configuration at full budget; itself alone if it has none."""
    overall: float
    """Mean of their overall score on `search`."""
    course: tuple[float | None, ...]
    """Best overall score on `search` at full budget, once the sweep had used each of `Compared.examples`."""


@dataclass(frozen=True)
class Pair:
    """The best configuration of a sweep against that of the first one, on `held`."""

    sweep: str
    runs: tuple[int, ...]
    """Its runs that have predicted `held`."""
    reference_runs: tuple[int, ...]
    """Those of the first sweep's best configuration."""
    difference: Estimate | None
    """Mean overall of `runs` minus that of `reference_runs`, paired by example, with its 95 % interval; None: one of
    the two has not predicted `held`."""

    @property
    def significant(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)


@dataclass(frozen=True)
class Compared:
    """Several sweeps, compared."""

    examples: tuple[int, ...]
    """Numbers of examples at which courses are given; the last one is what the smallest sweep used."""
    sides: tuple[Side, ...]
    pairs: tuple[Pair, ...]
    """One for each sweep after the first."""
    settings: Mapping[str, Mapping[str, Any]]
    """Path of a parameter in which the best configurations differ -> sweep -> value; a sweep whose configuration has no
    such parameter is absent."""
    left_out: Mapping[str, str]
    """Sweep that cannot be compared with the first -> the reason."""


def compare(folders: Sequence[SweepFolder]) -> Compared:
    """Compare sweeps with the first of them. Raises CompareError unless two sweeps remain, StoreError for one without a
    score."""
    if len({folder.name for folder in folders}) < max(2, len(folders)):
        raise CompareError(f"Name at least two different sweeps, not: {', '.join(folder.name for folder in folders)}.")
    first, *others = folders
    record = record_of(first)
    left_out = {}
    for folder in others:
        if found := list(differences(record_of(folder), record.base, record.data.fingerprint, record.tasks)):
            left_out[folder.name] = "; ".join(found)
    kept = [folder for folder in folders if folder.name not in left_out]
    if len(kept) < 2:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise CompareError(f"No sweep can be compared with {first.name!r}. {reasons}. Needed: equal base, data, tasks.")
    courses = {folder.name: _course(folder) for folder in kept}
    least = min(course[-1][0] for course in courses.values())
    marks = tuple(least * part // PARTS for part in range(1, PARTS + 1))
    sides = tuple(_side(folder, [_at(courses[folder.name], mark) for mark in marks]) for folder in kept)
    pairs = tuple(_pair(folder, side, first, sides[0]) for folder, side in zip(kept[1:], sides[1:], strict=True))
    return Compared(marks, sides, pairs, _settings(kept, sides), left_out)


Course = Sequence[tuple[int, float | None]]
"""(examples used by all trials, best overall at full budget by then), ascending."""


def _course(folder: SweepFolder) -> Course:
    budget, ledger = record_of(folder).budget, Ledger()
    best: float | None = None
    course: list[tuple[int, float | None]] = [(0, None)]
    for row in folder.events():
        ledger.feed(row)
        entry = ledger.trials.get(int(row["trial"]))
        if row["table"] == "reports" and entry is not None and entry.origin != REPEAT and row["step"] == budget:
            report = entry.last_report
            if report is not None and not report.diverged:
                best = report.overall if best is None else max(best, report.overall)
        course.append((ledger.examples_used, best))
    return course


def _at(course: Course, examples: int) -> float | None:
    """The best score once the sweep had used that many examples."""
    return [best for used, best in course if used <= examples][-1]


def _side(folder: SweepFolder, course: Sequence[float | None]) -> Side:
    ledger, budget, best = Ledger.of(folder), record_of(folder).budget, best_trial(folder)
    runs = tuple(runs_at_full_budget(ledger, budget).get(best, (best,)))
    reports = [ledger.trials[run].last_report for run in runs]
    scores = [report.overall for report in reports if report is not None]
    mean = sum(scores) / len(scores)
    return Side(folder.name, len(ledger.searched), budget, ledger.examples_used, best, runs, mean, tuple(course))


def _pair(folder: SweepFolder, side: Side, first: SweepFolder, reference: Side) -> Pair:
    found = difference_on_held((folder, side.runs), (first, reference.runs))
    return Pair(side.sweep, *(found or ((), (), None)))


def _settings(folders: Sequence[SweepFolder], sides: Sequence[Side]) -> dict[str, dict[str, Any]]:
    """The parameters in which the best configurations differ."""
    configs = {
        folder.name: flatten(config_of(folder, side.best)) for folder, side in zip(folders, sides, strict=True)
    }
    paths = dict.fromkeys(path for config in configs.values() for path in config)
    values = {path: {name: config[path] for name, config in configs.items() if path in config} for path in paths}
    return {
        path: found
        for path, found in values.items()
        if len(found) < len(configs) or any(value != found[sides[0].sweep] for value in found.values())
    }
