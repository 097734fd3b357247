"""A sweep in simulated time: a small space, a strict stand-in for `Config`, learning curves, a cluster with faults.

`Cluster` acts as driver and workers of a `Sweep` and collects the rows that the store would hold, in the order of
`seq`.
"""

from __future__ import annotations

import copy
import heapq
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hpo.cluster.faults import Cause
from hpo.search.endings import Ending
from hpo.search.schedulers import Asha
from hpo.search.searchers import SEARCHERS, Gp, Searcher, Tpe
from hpo.search.states import Start, State, ranking
from hpo.search.sweep import Sweep
from hpo.space.space import Space
from hpo.space.tree import expand
from search_spaces.domains import Float, Int, Kind, Node, OneOf, PerTask

SPACE: dict[str, Node] = {
    "adapter": Kind(
        none={"/optimizer/encoder_lr": Float(1e-6, 1e-4, log=True)},
        lora={"rank": Int(1, 256, log=True), "targets": OneOf(("q", "v"), ("q", "k")),
              "/optimizer/encoder_lr": Float(1e-4, 1e-2, log=True)},
    ),
    "encoding": {"sts": Kind(cross={}, bi={"head": Kind(linear={"features": OneOf("sum", "concat")}, cosine={})})},
    "batch_size": OneOf({"sst": 3, "qqp": 32, "sts": 2}, {"sst": 16, "qqp": 32, "sts": 16}),
    "taper": PerTask(Float(0.1, 1.0)),
    "steps": Int(1, 9, step=2),
    "x": Float(0.0, 1.0),
}
TREE = expand(SPACE, ("sst", "qqp", "sts"))
FLAT: dict[str, Node] = {"x": Float(0.0, 1.0), "steps": Int(1, 9, step=2)}
FINITE: dict[str, Node] = {
    "adapter": Kind(none={}, lora={"rank": Int(1, 256, log=True), "targets": OneOf(("q", "v"), ("q", "k"))}),
    "steps": Int(1, 9, step=2),
}
TREES: Mapping[str, Mapping[str, Node]] = {"grid": FINITE, "gp": FLAT}
"""Searcher -> a space that it can search, for those that cannot search TREE."""
MILESTONES = Asha().milestones(27_000, least=1_000)

DEFAULTS: dict[str, Any] = {
    "adapter": {"kind": "none"},
    "encoding": {"sts": {"kind": "cross"}},
    "batch_size": {"sst": 16, "qqp": 32, "sts": 16},
    "taper": {"sst": 1.0, "qqp": 1.0, "sts": 1.0},
    "steps": 1,
    "x": 0.5,
    "optimizer": {"encoder_lr": 5e-5},
}
LORA = {"kind": "lora", "rank": 8, "targets": ["q", "v"]}


def complete(nested: dict[str, Any]) -> dict[str, Any]:
    """A configuration with its defaults filled in, strictly read: the stand-in for Config.from_dict(...).to_dict()."""
    result = copy.deepcopy(DEFAULTS)
    for key, value in nested.items():
        if key not in DEFAULTS:
            raise ValueError(f"Unknown parameter `{key}`.")
        result[key] = {**result[key], **value} if isinstance(value, dict) and "kind" not in value else value
    adapter = result["adapter"]
    if adapter.get("kind") == "lora":
        result["adapter"] = adapter = {**LORA, **adapter}
        if not 1 <= adapter["rank"] <= 1024:
            raise ValueError(f"`adapter/rank` must be 1 to 1024, not {adapter['rank']}.")
    allowed = LORA if adapter.get("kind") == "lora" else {"kind"}
    for key in adapter:
        if key not in allowed:
            raise ValueError(f"Unknown parameter `adapter/{key}`.")
    return result


def optimum(config: dict[str, Any]) -> float:
    """The score at full budget: highest at x = 0.3 with LoRA of rank 16."""
    adapter = config["adapter"]
    rank: float = abs(math.log2(adapter["rank"]) - 4) / 8 if adapter["kind"] == "lora" else 0.6
    score: float = 1.0 - abs(float(config["x"]) - 0.3) - 0.2 * rank - 0.05 * (config["encoding"]["sts"]["kind"] == "bi")
    return score


def cost(config: dict[str, Any]) -> float:
    """Seconds an example: least with x = 1."""
    return 0.5 + (1.0 - float(config["x"])) ** 2 + 0.1 * (config["encoding"]["sts"]["kind"] == "cross")


def trained(config: dict[str, Any]) -> int:
    """Number of trained parameters: all without LoRA, else in proportion to the rank."""
    return 1000 * int(config["adapter"]["rank"]) if config["adapter"]["kind"] == "lora" else 1_000_000


def spent(start: Start, step: int) -> dict[str, float]:
    """Columns of a report that objectives beside the score read."""
    return {"seconds": step * cost(start.config), "trainable_parameters": trained(start.config)}


def rising(start: Start, step: int) -> float:
    return optimum(start.config) * (1 - math.exp(-3 * step / MILESTONES[-1]))


def crossing(start: Start, step: int) -> float:
    """Trials with small learning rates are worse at first and better in the end."""
    haste = min(1.0, math.log10(start.config["optimizer"]["encoder_lr"]) / 4 + 1.5)
    return optimum(start.config) * math.pow(step / MILESTONES[-1], haste)


def falling(start: Start, step: int) -> float:
    """Overfitting: the score sinks with the budget, least for the trials that are best at full budget."""
    return 1.0 - (1.0 - optimum(start.config)) * step / MILESTONES[-1]


CURVES: tuple[Callable[[Start, int], float], ...] = (rising, crossing, falling)


@dataclass
class Faults:
    """Probability of each fault, per report."""

    fail: float = 0.0
    lose: float = 0.0
    pause: float = 0.0
    again: float = 0.0
    """An error after which the trial is issued again."""
    diverge: float = 0.0
    losses_each: int = 1
    """Largest number of times that a trial may be lost."""


@dataclass
class Cluster:
    """Driver and workers in simulated time; trials resume at the milestone after their last report."""

    sweep: Sweep
    curve: Callable[[Start, int], float] = rising
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    costs: Callable[[Start, int], dict[str, float]] = spent
    rows: list[dict[str, Any]] = field(default_factory=list)
    reached: dict[int, int] = field(default_factory=dict)
    """Trial -> number of milestones that its checkpoint has passed."""

    def __post_init__(self) -> None:
        self.lost: dict[int, int] = {}
        self.clock = 0.0
        self.queue: list[tuple[float, int, int, Start]] = []

    def run(self, most_rows: int | None = None) -> list[dict[str, Any]]:
        """Run until the sweep has nothing more to do, or until there are `most_rows` rows (a crash). Returns the
        rows."""
        while most_rows is None or len(self.rows) < most_rows:
            while (start := self.sweep.next()) is not None:
                self._write_start(start)
                self._schedule(start)
            if not self.queue:
                break
            self.clock, _, _, start = heapq.heappop(self.queue)
            self._event(start)
        return self.rows if most_rows is None else self.rows[:most_rows]

    def _schedule(self, start: Start) -> None:
        passed = self.reached.get(start.trial, 0)
        work = MILESTONES[min(passed, len(MILESTONES) - 1)] - (MILESTONES[passed - 1] if passed else 0)
        speed = 0.5 + self._chance(start, passed, "speed")
        heapq.heappush(self.queue, (self.clock + work * speed, start.trial, start.attempt, start))

    def _chance(self, start: Start, passed: int, what: str) -> float:
        return random.Random(f"{self.seed}/{start.trial}/{start.attempt}/{passed}/{what}").random()

    def _event(self, start: Start) -> None:
        passed = self.reached.get(start.trial, 0)
        chance, faults = self._chance(start, passed, "fault"), self.faults
        causes: tuple[tuple[Cause, float], ...]
        causes = ("refused", faults.fail), ("place", faults.lose), ("driver", faults.pause), ("raised", faults.again)
        for cause, probability in causes:
            if chance < probability and (cause != "place" or self.lost.get(start.trial, 0) < faults.losses_each):
                self.lost[start.trial] = self.lost.get(start.trial, 0) + (cause == "place")
                verdict = self.sweep.end(start.trial, start.attempt, Ending(cause, "simulated"))
                self._write(event="end", trial=start.trial, attempt=start.attempt, state=verdict.state,
                            reason=verdict.reason, cause=cause)
                return
            chance -= probability
        self._report(start, passed, random.Random(f"{self.seed}/{start.trial}/{passed}").random() < faults.diverge)

    def _report(self, start: Start, passed: int, diverged: bool) -> None:
        step = MILESTONES[passed]
        value = math.nan if diverged else self.curve(start, step)
        costs = self.costs(start, step)
        verdict = self.sweep.report(start.trial, start.attempt, step, value, diverged=diverged, row=costs)
        self.reached[start.trial] = passed + 1
        self._write(trial=start.trial, attempt=start.attempt, step=step, overall=value, diverged=diverged,
                    verdict=verdict.action, **costs)
        if verdict.action == "stop":
            self._write(event="end", trial=start.trial, attempt=start.attempt, state=verdict.state,
                        reason=verdict.reason)
        else:
            self._schedule(start)

    def _write_start(self, start: Start) -> None:
        self._write(event="start", trial=start.trial, attempt=start.attempt, config=json.dumps(start.config),
                    params=json.dumps(start.params), seed=start.seed, origin=start.origin,
                    config_id=start.config_id, replicate=start.replicate, searcher=start.searcher)

    def _write(self, **row: Any) -> None:
        self.rows.append({"seq": len(self.rows), "table": "trials" if "event" in row else "reports", **row})


def examples() -> list[Searcher]:
    """Every searcher; the dear one models few trials of a test's sweep."""
    return [Gp(startup=16) if entry is Gp else entry() for entry in SEARCHERS.values()]


def tree_of(searcher: Searcher) -> Mapping[str, Node]:
    """A space that a searcher can search."""
    return TREES.get(searcher.name, TREE)


def new_sweep(
    *, trials: int = 24, workers: int = 3, seed: int = 0, pinned: dict[str, Any] | None = None, **changes: Any
) -> Sweep:
    usual: dict[str, Any] = {"milestones": MILESTONES, "searcher": Tpe(), "scheduler": Asha(), "complete": complete}
    parts = usual | changes
    return Sweep(Space(tree_of(parts["searcher"]), pinned or {}), seed=seed, trials=trials, workers=workers, **parts)


def counts(sweep: Sweep) -> Counter[State]:
    """Trials by state."""
    return Counter(record.state for record in sweep.records.values())


def fingerprint(sweep: Sweep) -> dict[str, Any]:
    """Everything in which two equal sweeps agree: draws, values, states, rungs, ranking, trials in Optuna's study."""
    records = sorted(sweep.records.items())
    return {
        "trials": {number: (record.start.config, record.start.params, record.start.seed, record.start.origin,
                            record.start.config_id, record.start.replicate, record.start.searcher)
                   for number, record in records},
        "values": {number: [(step, repr(value)) for step, value in sorted(record.values.items())]
                   for number, record in records},
        "states": {number: "open" if record.state in ("running", "waiting") else record.state
                   for number, record in records},
        "rungs": sweep.judge.rows(),
        "ranking": ranking(sweep.records),
        "optuna": [(trial.state, trial.params, repr(sorted(trial.intermediate_values.items())), trial.value,
                    trial.user_attrs)
                   for trial in sweep.study.trials()],
    }
