"""States of a trial, its start and identity, the verdicts on it, and the ranking of trials.

    running -> complete | pruned | diverged | failed      the trial has ended
            -> lost | paused                              only the attempt has ended: the trial waits for its next start
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args

from hpo.search.endings import Endings
from hpo.space.tree import Nested

Origin = Literal["default", "given", "sampler", "repeat"]
End = Literal["complete", "pruned", "diverged", "failed"]
Interruption = Literal["lost", "paused"]
State = Literal["running", "waiting", End]

DEFAULT = 0
"""Number of the trial of the default configuration."""

STATES: tuple[State, ...] = get_args(State)
"""Every state of a trial. `waiting`: its last attempt was interrupted, and the trial will be started again."""
CLOSED: tuple[End, ...] = get_args(End)
"""States of a trial that has ended."""
INTERRUPTIONS: tuple[Interruption, ...] = get_args(Interruption)
"""Ends of an attempt after which its trial waits."""
REPEAT: Origin = "repeat"
"""Origin of a trial that runs a configuration of the search again; see `hpo.search.repeats`."""
UNRANKED = frozenset({"diverged", "failed"})
"""States without a rank: the scores of such a trial do not speak for its configuration."""


def configuration_id(config: Mapping[str, Any]) -> str:
    """Identity of a complete configuration: the first 16 hexadecimal digits of the SHA-256 of its canonical JSON."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sharing(config: Any, known: Any) -> Any:
    """An equal configuration in which every part that stands in `known` too is the same object: the configurations of a
    sweep differ from its default one in few parts, so this saves a third to two thirds of their memory."""
    if isinstance(config, dict) and isinstance(known, dict):
        parts = {name: sharing(value, known.get(name)) for name, value in config.items()}
        same = list(parts) == list(known) and all(part is known[name] for name, part in parts.items())
        return known if same else parts
    return known if repr(config) == repr(known) else config  # 1 == 1.0 == True, so equality is too little


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a trial, the first or a later one. The trial's identity is (config_id, replicate, seed)."""

    trial: int
    attempt: int
    """Number of earlier starts of the trial."""
    config: Nested
    """The complete nested configuration. An illegal draw stays as drawn: the worker raises the same error, and the
    trial fails with it."""
    params: dict[str, Any]
    """Drawn parameters by Optuna's names (`adapter.lora/rank`); empty for a configuration outside the space."""
    seed: int
    """Seed of the training."""
    origin: Origin
    """Where the configuration comes from: the default one, a start file (given), a draw (sampler), or a trial of the
    search that runs again (repeat)."""
    config_id: str
    """`configuration_id` at the trial's first start; a later migration of the configuration does not change it."""
    replicate: int = 0
    """Which repetition of this configuration in its sweep the trial is; 0: the first."""
    searcher: str | None = None
    """The searcher that drew the configuration, with the part of it that did if it has parts (changes/tpe); None: it
    was not drawn."""

    @property
    def repeat(self) -> bool:
        """Whether the trial runs a configuration of the search again."""
        return self.origin == REPEAT


class Verdict(NamedTuple):
    """Decision on a trial: it continues, or it stops with a state and a reason."""

    action: Literal["continue", "stop"]
    state: End | Interruption | None
    """State after a stop; None if the trial continues."""
    reason: str


@dataclass(slots=True)
class TrialRecord:
    """What a sweep knows about one trial."""

    start: Start
    state: State = "running"
    values: dict[int, float] = field(default_factory=dict)
    """Milestone -> overall score; NaN where the trial diverged."""
    further: dict[int, tuple[float, ...]] = field(default_factory=dict)
    """Milestone -> gains in the objectives after the first (`results.objectives`)."""
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    """Milestone -> verdict on the report there."""
    endings: Endings = field(default_factory=Endings)
    """What the endings of its attempts add up to."""
    failed: bool = False
    """Whether it has failed, also while it waits to be tried again."""
    reason: str = ""
    ended: set[int] = field(default_factory=set)
    """Attempts that have ended."""

    def verdict(self) -> Verdict:
        """The verdict that ended the trial; the trial must have ended."""
        assert self.state != "running"
        assert self.state != "waiting"
        return Verdict("stop", self.state, self.reason)

    @property
    def last(self) -> tuple[int, float] | None:
        """The highest milestone reported, and the value there."""
        return max(self.values.items()) if self.values else None


class Ranked(Protocol):
    """A trial as the ranking needs it."""

    @property
    def state(self) -> State: ...

    @property
    def last(self) -> tuple[int, float] | None:
        """The highest milestone reported, and the value there (NaN: diverged)."""
        ...


def ranking(trials: Mapping[int, Ranked]) -> list[int]:
    """Numbers of the trials with a score, best first by (last milestone, value there); the older trial wins a tie.

    The milestone comes first because scores of different milestones cannot be compared, and a raced trial that passed a
    rung beat the trials that were stopped there. Trials that diverged or failed have no rank.
    """
    scored = [(trial.last, number) for number, trial in trials.items() if trial.state not in UNRANKED]
    finite = [(*last, number) for last, number in scored if last is not None and not math.isnan(last[1])]
    return [number for _, _, number in sorted(finite, key=lambda entry: (-entry[0], -entry[1], entry[2]))]
