"""What a sweep knows of its trials: how one starts, what is said to it, and all that became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hpo.space.tree import Nested

Origin = Literal["default", "given", "sampler"]
State = Literal["running", "waiting", "complete", "pruned", "diverged", "failed"]
STATES: tuple[State, ...] = ("running", "waiting", "complete", "pruned", "diverged", "failed")
CLOSED = frozenset({"complete", "pruned", "diverged", "failed"})

RETRIES = 3
"""A lost trial is issued again so often without a new report in between. The count comes from the rows: a resume does
not reset it."""


@dataclass(frozen=True)
class Start:
    """A trial to be started, or started again, now."""

    trial: int
    attempt: int
    """0 for the first start, then one more at every re-issue."""
    config: Nested
    """Complete, nested. A draw that the configuration refuses is left as drawn: it fails, with the reason, when it is
    trained."""
    params: dict[str, Any]
    """By Optuna's names (`adapter.lora/rank`); empty for a configuration outside the space."""
    seed: int
    """Of the training."""
    origin: Origin


@dataclass(frozen=True)
class Verdict:
    """What becomes of a trial."""

    action: Literal["continue", "stop"]
    state: Literal["complete", "pruned", "diverged", "failed", "paused", "lost"] | None
    reason: str


@dataclass
class Record:
    """All that a sweep knows of one trial."""

    start: Start
    state: State = "running"
    values: dict[int, float] = field(default_factory=dict)
    """Overall at each milestone; NaN where it diverged."""
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    losses: int = 0
    """Attempts lost since its last new report."""
    reason: str = ""
    ended: set[int] = field(default_factory=set)
    """Attempts whose end is known."""

    def verdict(self) -> Verdict:
        """What became of a trial that has ended."""
        assert self.state != "running"
        assert self.state != "waiting"
        return Verdict("stop", self.state, self.reason)

    @property
    def last(self) -> tuple[int, float] | None:
        """The highest milestone reported, and its value."""
        return max(self.values.items()) if self.values else None
