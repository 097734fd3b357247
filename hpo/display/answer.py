"""The answer of a sweep as sentences and as JSON (`hpo.driver.answer`)."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hpo.display.units import plural, score
from hpo.search.answer import SURE
from hpo.search.states import DEFAULT

if TYPE_CHECKING:
    from hpo.driver.answer import Comparison, Decision
    from hpo.search.answer import Answer, Judged


def sentences(decision: Decision) -> list[str]:
    """Which configuration is the answer and why, then its difference from the default on held-out data."""
    lines = [_verdict(decision.answer)]
    if decision.answer.leader is not None and decision.answer.default is not None:
        lines.append(_scores(decision.answer, decision.answer.leader))
    if decision.held is not None:
        lines.append(_held(decision.answer, decision.held))
    return lines


def _verdict(answer: Answer) -> str:
    leader = answer.leader
    if answer.trial is None:
        return "Answer: none, as no trial has reached the full budget."
    if answer.default is None:
        return (
            f"Answer: trial {answer.trial}, the best at full budget. It cannot be compared, as the default has not "
            "reached the full budget."
        )
    if leader is None:
        return f"Answer: the default (trial {answer.trial}), as no other configuration has reached the full budget."
    if answer.trial == leader.trial:
        return f"Answer: trial {leader.trial}, better than the default with probability {chance(leader.probability)}."
    return (
        f"Answer: the default (trial {answer.trial}), as no configuration is better with a probability of {SURE:g} or "
        f"more. The nearest is trial {leader.trial} with {chance(leader.probability)}."
    )


def chance(probability: float) -> str:
    """A probability with two decimals, rounded down, never 0 or 1: nothing below a limit reads as the limit."""
    if math.isnan(probability):
        return "-"
    if probability < 0.01:
        return "below 0.01"
    return "above 0.99" if probability > 0.99 else f"{math.floor(100 * probability + 1e-9) / 100:.2f}"


def _scores(answer: Answer, leader: Judged) -> str:
    assert answer.default is not None
    return (
        f"On `search` trial {leader.trial} has {score(leader.mean)} ({_runs(leader.runs)}), the default "
        f"{score(answer.default)} ({_runs(answer.default_runs)}); expected gain {leader.gain:+.4f}, shrunk for noise "
        "and for having been picked."
    )


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"mean of {plural(number, 'run')}"


def _held(answer: Answer, held: Comparison) -> str:
    name = "answer" if held.trial == answer.trial else f"trial {held.trial}"
    estimate = held.difference
    return (
        f"{name} against default, held out: {estimate.value:+.4f} ({estimate.low:+.4f} .. {estimate.high:+.4f}), "
        f"{plural(len(held.runs), 'run')} against {len(held.default_runs)}, n = {estimate.n:,}"
    )


def to_json(decision: Decision) -> dict[str, Any]:
    """The answer for programs: `trial`, `default_is_answer`, `noise`, the default's `default` mean and `default_runs`,
    the compared configurations as `judged`, and `held` with `trial`, `runs`, `default_runs` and `difference`."""
    held = decision.held
    return {
        **asdict(decision.answer),
        "default_is_answer": decision.answer.trial == DEFAULT,
        "held": None if held is None else held._asdict() | {"difference": held.difference.to_dict()},
    }
