"""Several sweeps compared (`hpo.driver.compare`): table rows, sentences, JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hpo.display.units import plural, score

if TYPE_CHECKING:
    from hpo.driver.compare import Compared, Pair


def side_rows(found: Compared) -> list[dict[str, Any]]:
    """One row per sweep: trials, examples, its best configuration with its mean on `search`."""
    return [
        {
            "sweep": side.sweep,
            "trials": side.trials,
            "budget": side.budget,
            "examples": side.examples,
            "best trial": side.best,
            "runs": len(side.runs),
            "overall": score(side.overall),
        }
        for side in found.sides
    ]


def course_rows(found: Compared) -> list[dict[str, Any]]:
    """One row per sweep: its best score at full budget after equal numbers of examples."""
    return [
        {"sweep": side.sweep}
        | {
            f"{examples:,}": None if best is None else score(best)
            for examples, best in zip(found.examples, side.course, strict=True)
        }
        for side in found.sides
    ]


def setting_rows(found: Compared) -> list[dict[str, Any]]:
    """One row per parameter in which the best configurations differ."""
    names = [side.sweep for side in found.sides]
    rows = found.settings.items()
    return [{"parameter": path, **{name: values.get(name) for name in names}} for path, values in rows]


def sentence(pair: Pair, reference: str) -> str:
    """`b - a on held: +0.0123 [+0.0021, +0.0224] from 6,312 rows, 3 runs against 2: b is better.`"""
    difference = pair.difference
    if difference is None:
        return (
            f"{pair.sweep} - {reference} on held: unknown, as one of the two has not predicted held; a sweep does so "
            "at its end: hpo resume"
        )
    word = "no difference is shown"
    if pair.significant:
        word = f"{pair.sweep if difference.value > 0 else reference} is better"
    runs = f"{plural(len(pair.runs), 'run')} against {len(pair.reference_runs)}"
    return (
        f"{pair.sweep} - {reference} on held: {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] "
        f"from {plural(difference.n, 'row')}, {runs}: {word}."
    )


def to_json(found: Compared) -> dict[str, Any]:
    """The comparison as JSON, each pair with `significant`."""
    pairs = [asdict(pair) | {"significant": pair.significant} for pair in found.pairs]
    return asdict(found) | {"pairs": pairs}
