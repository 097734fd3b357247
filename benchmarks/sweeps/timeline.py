"""Timeline of a sweep: reports and ends of trials, in minutes since the command started."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Setup:
    """Setup of both sweeps."""

    data: str
    """Folder in the class format."""
    minutes: float
    workers: int
    budget: int
    """Largest number of examples of a trial (max_t)."""
    seed: int

    @property
    def seconds(self) -> float:
        """Time of a sweep in seconds."""
        return 60.0 * self.minutes


@dataclass(frozen=True)
class Report:
    """One report of a trial."""

    minutes: float
    trial: str
    examples: int
    """Examples of this trial so far."""
    overall: float
    """Overall score on `search`, by which trials are chosen."""
    weights: str
    """Path of the reported weights."""


@dataclass(frozen=True)
class Timeline:
    """Events of one sweep."""

    reports: tuple[Report, ...]
    """Reports in order of time."""
    ends: tuple[float, ...]
    """Minutes at which trials ended: at their budget, or stopped by the scheduler."""

    def until(self, minutes: float) -> Timeline:
        """The timeline without the events after `minutes`."""
        in_time = (report for report in self.reports if report.minutes <= minutes)
        reports = sorted(in_time, key=lambda report: report.minutes)
        return Timeline(tuple(reports), tuple(sorted(end for end in self.ends if end <= minutes)))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Timeline:
        return Timeline(tuple(Report(**report) for report in values["reports"]), tuple(values["ends"]))


def incumbents(reports: Sequence[Report]) -> list[Report]:
    """The reports that were the best on `search` when they arrived. A user would have chosen them at that minute."""
    best: list[Report] = []
    for report in reports:
        if math.isfinite(report.overall) and (not best or report.overall > best[-1].overall):
            best.append(report)
    return best


def points(timeline: Timeline, held: dict[str, float]) -> list[dict[str, Any]]:
    """One line for each report: the incumbent's held-out score, the examples trained and the trials finished by then.

    `held`: the overall score on `held` of each incumbent, by the path of its weights.
    """
    chosen = {report.weights: held[report.weights] for report in incumbents(timeline.reports)}
    lines, best, examples = [], float("nan"), dict[str, int]()
    for report in timeline.reports:
        best = chosen.get(report.weights, best)
        examples[report.trial] = report.examples
        lines.append({
            "minutes": round(report.minutes, 3),
            "trial": report.trial,
            "trial_examples": report.examples,
            "search": _finite(report.overall),
            "best_held": _finite(best),
            "examples": sum(examples.values()),
            "finished": sum(end <= report.minutes for end in timeline.ends),
        })  # fmt: skip
    return lines


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def minutes_to(lines: Sequence[dict[str, Any]], score: float) -> float | None:
    """Minutes until the incumbent's held-out score reached `score`; None if it never did."""
    reached = (line["minutes"] for line in lines if line["best_held"] is not None and line["best_held"] >= score)
    return next(reached, None)
