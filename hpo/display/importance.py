"""Importance of parameters: table rows, and the sentences around them."""

from __future__ import annotations

from typing import Any

from hpo.display.units import plural
from hpo.search.importance import SHUFFLES, Importance

SURE = 0.05
"""A mark is set where random scores give at least this importance with a probability of at most 0.05."""
MARK = "*"


def importance_rows(result: Importance, number: int | None = None) -> list[dict[str, Any]]:
    """One row for each of the first `number` parameters: name, importance for each target, trials that have it."""
    return [
        {
            "parameter": entry.name,
            **{target: _cell(entry.importance[target], entry.chance.get(target)) for target in result.targets},
            "trials": entry.trials,
        }
        for entry in result.parameters[:number]
    ]


def _cell(share: float, chance: float | None) -> str:
    """`0.42*`: the mark says that chance alone rarely gives so much."""
    return f"{share:.2f}{MARK if chance is not None and chance <= SURE else ''}"


def importance_title(result: Importance, sweep: str) -> str:
    """`importance of the parameters of mine (ped-anova), from 24 trials at the rung of 600 examples`."""
    return (
        f"importance of the parameters of {sweep} ({result.method}), from {plural(result.trials, 'trial')} at the rung "
        f"of {result.rung:,} examples"
    )


def importance_notes(result: Importance, shown: int) -> list[str]:
    """What a reader has to know about the table, one sentence each."""
    assessed = len(result.parameters)
    notes = [f"the shares of all {plural(assessed, 'parameter')} sum to 1 in each column"]
    if any(entry.chance for entry in result.parameters):
        notes.append(
            f"{MARK}: of {SHUFFLES} random scorings of these trials hardly any gave the parameter as much; by chance "
            f"alone 1 in {1 / SURE:.0f} parameters gets this mark"
        )
    if shown < assessed:
        notes.append(f"{plural(assessed - shown, 'parameter')} with less importance not shown: -n {assessed} shows all")
    if result.absent:
        notes.append(
            f"{plural(len(result.absent), 'parameter')} left out, because not every compared trial has them; "
            "--method ped-anova assesses them too"
        )
    if result.left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in result.left_out.items())
        notes.append(f"trials left out: {reasons}")
    if result.selected:
        notes.append(
            "these trials passed the rungs below: what decided there varies less among them and seems to matter less"
        )
    return notes
