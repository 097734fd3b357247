"""Ensembles of a sweep: the record of a selection as table rows and sentences.

Members are chosen on the split `search`. The main figure is the score on the split `held`, with n and a 95 % interval.
The score on full dev, as papers report it, is shown on request and marked: it contains the examples that chose the
members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hpo.display.tables import MISSING
from hpo.display.units import interval, plural, score, signed

PREDICTORS = {
    "ensemble": "ensemble",
    "best_single": "best single trial on `search`",
    "default": "default",
    "seeds": "average of the seeds of the best single trial's configuration",
}
"""Predictor that is estimated -> its name in tables."""
PARTS = {"held": "held out, seen by no choice", "dev": "full dev, as papers report it: selected on"}
"""Part of the examples on which an estimate is made -> its title; shown in this order, `dev` where it was estimated."""
SOUP = "soup"
"""Combination of an ensemble that is one model (`results.choice`)."""
SINGLE = ("top-k", 1)
"""Method and size that choose the best single trial."""
MARK = "chosen"
NO_SOUP = "no soup is saved; --method soup makes one"
NOT_VALIDATED = (
    "A soup is not cross-validated: every part of the rows would choose another mean of weights, a new model to "
    "evaluate. Its score on `search` is that of the rows that chose it, so it is too high."
)
"""Why soups have no row among the methods."""


def alone(record: Mapping[str, Any]) -> str | None:
    """The sentence for a choice among methods that fell on the best single trial; None for other choices."""
    if not _is_single(record) or len(record["compared"]) < 2:
        return None
    trial = record["members"][0]["trial"]
    return (
        f"No ensemble scored better than the best single trial by cross-validation on `search`: trial {trial} predicts "
        "alone."
    )


def _is_single(record: Mapping[str, Any]) -> bool:
    """Whether the best single trial is the only member."""
    return (record["method"], record["size"]) == SINGLE


def member_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a member: its weight (by task where tasks differ), its own score, what adding it gains, its time."""
    rows = []
    for member in record["members"]:
        row: dict[str, Any] = {"trial": _member(member), "weight": f"{member['weight']:.2f}"}
        if _differ(record):
            row |= {task: f"{share:.2f}" for task, share in member["weights"].items()}
        row["alone, search"] = score(member["alone"])
        row |= {f"adds, {part}": signed(gain) for part, gain in member["gain"].items()}
        rows.append(row | {"seconds": MISSING if member["seconds"] is None else f"{member['seconds']:.1f}x"})
    return rows


def _member(member: Mapping[str, Any]) -> str:
    """`12 (repeat of 1)`."""
    origin = member.get("repeat_of")  # absent from older records
    return str(member["trial"]) if origin is None else f"{member['trial']} (repeat of {origin})"


def _differ(record: Mapping[str, Any]) -> bool:
    """Whether a member's weight differs between tasks."""
    return any(len({round(share, 4) for share in member["weights"].values()}) > 1 for member in record["members"])


def cost(record: Mapping[str, Any]) -> str:
    """`predicting takes 3 members and 3.1 times the seconds of the best single trial`."""
    if record["combination"] == SOUP:
        return "one model with the mean weights of its members: predicting takes as long as with a single trial"
    line = f"predicting takes {plural(len(record['members']), 'member')}"
    seconds = record["seconds"]
    return line if seconds is None else f"{line} and {seconds:.1f} times the seconds of the best single trial"


def compared_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a method and size that was tried by cross-validation, the best first."""
    rows = []
    for tried in sorted(record["compared"], key=lambda tried: -tried["value"]):
        own = (tried["method"], tried["size"])
        rows.append(
            {
                "method": "best single trial" if own == SINGLE else tried["method"],
                "size": MISSING if own == SINGLE else tried["size"],
                "members": tried["members"],
                "cross-validated": score(tried["value"]),
                "against single": MISSING if own == SINGLE else signed(tried["gain"]["value"]),
                "95 % interval": MISSING if own == SINGLE else _ends(tried["gain"]),
                "optimism": signed(tried["optimism"]),
                "": MARK if own == (record["method"], record["size"]) else "",
            }
        )
    return rows


def validated(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The line of `compared` about the ensemble's own method and size; None: it was not cross-validated, as a soup."""
    own, lines = (record["method"], record["size"]), record.get("compared", ())  # absent from older records
    return next((tried for tried in lines if (tried["method"], tried["size"]) == own), None)


def soup_rows(soups: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a saved soup, by name; a mark at the one that has just been chosen."""
    rows = []
    for soup in soups:
        search, held = (soup["estimates"]["ensemble"][part]["overall"] for part in ("search", "held"))
        rows.append(
            {
                "soup": soup["name"],
                "members": len(soup["members"]),
                "on `search`, which chose it": score(search["value"]),
                "held out": score(held["value"]),
                "95 % interval": interval(held["low"], held["high"]),
                "against single, held out": MISSING if soup["gain"] is None else signed(soup["gain"]["value"]),
                "": MARK if soup["name"] == chosen["name"] else "",
            }
        )
    return rows


def optimism(record: Mapping[str, Any]) -> str | None:
    """What the ensemble scores on the rows that chose it, and by cross-validation where it was validated; None if
    neither is known."""
    tried = validated(record)
    if tried is None:
        value = record["estimates"]["ensemble"].get("search", {}).get("overall", {}).get("value")
        if value is None:
            return None
        taken = f", after {plural(record['evaluations'], 'evaluation')} there" if record["combination"] == SOUP else ""
        return (
            f"on `search`: {score(value)} on the rows that chose it{taken}, without cross-validation, so it is too "
            "high; `held` chose nothing"
        )
    chosen = tried["value"] + tried["optimism"]
    return (
        f"on `search`: {score(chosen)} on the rows that chose it, {score(tried['value'])} by cross-validation, "
        f"optimism {signed(tried['optimism'])}"
    )


def estimate_rows(record: Mapping[str, Any], part: str) -> list[dict[str, str]]:
    """One row a predictor: overall score with its interval, score of each task."""
    rows = []
    for predictor, parts in record["estimates"].items():
        if part not in parts or (predictor == "ensemble" and _is_single(record)):
            continue
        rows.append(estimate_row(f"{PREDICTORS[predictor]}{_trials_of(record, predictor)}", parts[part]))
    return rows


def estimate_row(name: str, estimate: Mapping[str, Any]) -> dict[str, str]:
    """The row of one predictor."""
    overall = estimate["overall"]
    row = {"": name, "overall": score(overall["value"]), "95 % interval": interval(overall["low"], overall["high"])}
    return row | {task: score(task_estimate["value"]) for task, task_estimate in estimate["tasks"].items()}


def size_of(record: Mapping[str, Any], part: str) -> str:
    """`n = 300: 100 sst, 100 qqp, 100 sts`."""
    return rows_of(record["estimates"]["ensemble"][part])


def rows_of(estimate: Mapping[str, Any]) -> str:
    """`n = 300: 100 sst, 100 qqp, 100 sts`, of the scores of one predictor on one part."""
    tasks = ", ".join(f"{task_estimate['n']:,} {task}" for task, task_estimate in estimate["tasks"].items())
    return f"n = {estimate['overall']['n']:,}: {tasks}"


def _trials_of(record: Mapping[str, Any], predictor: str) -> str:
    """Numbers of the trials that predict, in parentheses; empty for the ensemble, whose members have a table."""
    trials = None if predictor == "ensemble" else record[predictor]
    return "" if trials is None else f" ({', '.join(map(str, trials)) if isinstance(trials, list) else trials})"


def gains(record: Mapping[str, Any]) -> list[str]:
    """Differences on held-out data, one sentence each: the ensemble against the best single trial, that against the
    default; with the interval that allows for other seeds where the sweep repeated configurations."""
    pairs = {"gain": "ensemble minus best single trial", "gain_over_default": "best single trial minus default"}
    if _is_single(record):
        del pairs["gain"]
    lines = []
    for name, words in pairs.items():
        if (difference := record.get(name)) is not None:  # older records hold fewer differences, without seeds
            seeds = f"; with other seeds too {_ends(difference['seeds'])}" if difference.get("seeds") else ""
            lines.append(f"{words}, held out: {signed(difference['value'])} ({_ends(difference)}{seeds})")
    return lines


def looks(record: Mapping[str, Any]) -> str:
    """How many predictors' scores on `held` have been shown."""
    return (
        f"{plural(record['looks'], 'predictor')} of this sweep had a score on `held` shown so far; the best of many is "
        "no longer honest"
    )


def _ends(bounds: Mapping[str, float]) -> str:
    return f"{bounds['low']:+.4f} .. {bounds['high']:+.4f}"
