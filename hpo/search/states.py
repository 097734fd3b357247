"""The states of a trial, its start, the verdicts on it, its identity, and the rule by which trials are ranked.

    running > complete | pruned | diverged | failed      an end: the trial is closed
            > lost | paused                              the end of an attempt: the trial waits to be issued again
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from hpo.space.tree import Nested

Origin = Literal["default", "given", "sampler"]
End = Literal["complete", "pruned", "diverged", "failed"]
Interruption = Literal["lost", "paused"]
State = Literal["running", "waiting", End]

STATES: tuple[State, ...] = get_args(State)
"""Every state of a trial. `waiting`: an attempt was interrupted, and the trial is to be issued again."""
CLOSED: tuple[End, ...] = get_args(End)
"""States that a trial does not leave."""
INTERRUPTIONS: tuple[Interruption, ...] = get_args(Interruption)
"""Ends of an attempt after which its trial waits."""
UNRANKED = frozenset({"diverged", "failed"})
"""States without a rank: no score of such a trial stands for its configuration."""

RETRIES = 3
"""Number of times in a row that a lost trial is issued again without a new report. The store's rows hold the count: a
resume does not reset it."""


def configuration_id(config: Mapping[str, Any]) -> str:
    """Identity of a complete configuration: the first 16 hexadecimal digits of the SHA-256 of its canonical JSON."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Start:
    """A trial to be started, or started again, now. Its identity is (config_id, replicate, seed)."""

    trial: int
    attempt: int
    """0 for the first start, then one more at every re-issue."""
    config: Nested
    """Complete and nested. A draw that the configuration refuses is left as drawn: its worker refuses it too, and the
    trial fails with the reason."""
    params: dict[str, Any]
    """Drawn parameters by Optuna's names (`adapter.lora/rank`); empty for a configuration outside the space."""
    seed: int
    """Seed of the training."""
    origin: Origin
    config_id: str
    """`configuration_id` of the configuration at birth; a later migration of the configuration does not change it."""
    replicate: int = 0
    """Number of the repetition of this configuration in its sweep."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of a trial."""

    action: Literal["continue", "stop"]
    state: End | Interruption | None
    """State after a stop; None where the trial continues."""
    reason: str


@dataclass
class TrialRecord:
    """All that a sweep knows of one trial."""

    start: Start
    state: State = "running"
    values: dict[int, float] = field(default_factory=dict)
    """Overall score at each milestone; NaN where the trial diverged."""
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    losses: int = 0
    """Attempts lost since the last new report."""
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
        """The highest milestone reported, and the value there."""
        return max(self.values.items()) if self.values else None


class Ranked(Protocol):
    """What the ranking needs of a trial."""

    @property
    def state(self) -> State: ...

    @property
    def last(self) -> tuple[int, float] | None:
        """The highest milestone reported, and the value there (NaN: diverged)."""
        ...


def ranking(trials: Mapping[int, Ranked]) -> list[int]:
    """Trials with a score, best first by (last step, value), of equals the older one: a trial that went further was
    judged better there. Trials that diverged or failed have no rank."""
    scored = [(trial.last, number) for number, trial in trials.items() if trial.state not in UNRANKED]
    finite = [(*last, number) for last, number in scored if last is not None and not math.isnan(last[1])]
    return [number for _, _, number in sorted(finite, key=lambda entry: (-entry[0], -entry[1], entry[2]))]
