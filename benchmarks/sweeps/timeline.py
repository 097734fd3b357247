"""What a sweep did, minute by minute: reports and ends of trials, on one clock that starts with the command."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Given:
    """What both sweeps are told."""

    data: str
    """Folder in the class format."""
    minutes: float
    workers: int
    budget: int
    """Most examples of a trial (max_t)."""
    seed: int

    @property
    def seconds(self) -> float:
        return 60.0 * self.minutes


@dataclass(frozen=True)
class Report:
    """A trial's report."""

    minutes: float
    trial: str
    examples: int
    """Of this trial so far."""
    overall: float
    """On `search`, which chooses."""
    weights: str
    """Path of the weights that were judged."""


@dataclass(frozen=True)
class Timeline:
    """One sweep, up to its deadline."""

    reports: tuple[Report, ...]
    """In order of time."""
    ends: tuple[float, ...]
    """Minutes at which a trial was finished: at its budget, or stopped by the scheduler."""

    def until(self, minutes: float) -> Timeline:
        """Without what came too late."""
        reports = sorted((one for one in self.reports if one.minutes <= minutes), key=lambda one: one.minutes)
        return Timeline(tuple(reports), tuple(sorted(end for end in self.ends if end <= minutes)))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Timeline:
        return Timeline(tuple(Report(**one) for one in values["reports"]), tuple(values["ends"]))


def incumbents(reports: Sequence[Report]) -> list[Report]:
    """The reports that were, when they came, the best on `search` so far: what one would have taken at that minute."""
    best: list[Report] = []
    for report in reports:
        if math.isfinite(report.overall) and (not best or report.overall > best[-1].overall):
            best.append(report)
    return best


def points(timeline: Timeline, held: dict[str, float]) -> list[dict[str, Any]]:
    """A line for each report: what was best then on held-out rows, examples trained and trials finished until then.

    `held`: the overall score on `held` of an incumbent, by the path of its weights.
    """
    chosen = {one.weights: held[one.weights] for one in incumbents(timeline.reports)}
    found, best, examples = [], float("nan"), dict[str, int]()
    for report in timeline.reports:
        best = chosen.get(report.weights, best)
        examples[report.trial] = report.examples
        found.append({
            "minutes": round(report.minutes, 3),
            "trial": report.trial,
            "trial_examples": report.examples,
            "search": _finite(report.overall),
            "best_held": _finite(best),
            "examples": sum(examples.values()),
            "finished": sum(end <= report.minutes for end in timeline.ends),
        })  # fmt: skip
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def minutes_to(lines: Sequence[dict[str, Any]], score: float) -> float | None:
    """When the best held-out score first reached a value; None: never."""
    reached = (line["minutes"] for line in lines if line["best_held"] is not None and line["best_held"] >= score)
    return next(reached, None)
