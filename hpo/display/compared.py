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
            "budget": f"{side.budget:,}",
            "examples": f"{side.examples:,}",
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


def sentence(found: Compared, pair: Pair) -> str:
    """`b minus a, held out: +0.0123 (+0.0021 .. +0.0224), 3 runs against 2, n = 6,312: b is better`"""
    reference, difference = found.sides[0].sweep, pair.difference
    if difference is None:
        return (
            f"{pair.sweep} minus {reference}, held out: unknown, as one of the two has not predicted `held`; a sweep "
            "does so at its end: hpo resume"
        )
    word = "no difference is shown"
    if _alike(found, pair):
        word = "budget and configuration are equal, so neither is better"
    elif pair.significant:
        word = f"{pair.sweep if difference.value > 0 else reference} is better"
    runs = f"{plural(len(pair.runs), 'run')} against {len(pair.reference_runs)}"
    return (
        f"{pair.sweep} minus {reference}, held out: {difference.value:+.4f} ({difference.low:+.4f} .. "
        f"{difference.high:+.4f}), {runs}, n = {difference.n:,}: {word}"
    )


def _alike(found: Compared, pair: Pair) -> bool:
    """Whether the best configuration of a sweep is that of the first one, for the same budget."""
    reference = found.sides[0]
    [budget] = [side.budget for side in found.sides if side.sweep == pair.sweep]
    settings = found.settings.values()
    return budget == reference.budget and all(own.get(pair.sweep) == own.get(reference.sweep) for own in settings)


def to_json(found: Compared) -> dict[str, Any]:
    """The comparison as JSON, each pair with `significant`."""
    pairs = [asdict(pair) | {"significant": pair.significant} for pair in found.pairs]
    return asdict(found) | {"pairs": pairs}
