"""Engines of the search benchmark: our sweep with each searcher, and rivals. The table ENGINES holds all of them.

Every searcher of `hpo.search.searchers` by its name, in the real `Sweep` under the real `asha`. Besides:

uniform      independent uniform draws, raced as ours
earlier-tpe  the searcher `tpe` as it was before spaces had priors: Optuna's TPE, groups, told the truth, raced as ours
stock        Ray Tune's way: Optuna's TPE as its defaults have it, told the last value of every trial as its result; the
             default configuration first; Ray's rule of ASHA (factor 4: a trial stops if its value is below the 75 %
             quantile of the values there before it) from our lowest rung on
priorband    PriorBand of `neural-pipeline-search` through ask and tell, in another environment, over the space with its
             branches; `priorband-flat`: all parameters side by side, those of other branches without effect

All engines get the same lowest rung and the same budget, and all run the default configuration first.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from benchmarks.search.simulation import BUDGET, Trial
from hpo.search.records import from_record
from hpo.search.schedulers import EXEMPT, Asha, Scheduler
from hpo.search.searchers import SEARCHERS
from hpo.search.study import derived_seed, draw
from hpo.search.sweep import Sweep
from hpo.space.pins import Complete
from hpo.space.space import Space
from hpo.space.tree import Leaf, compose
from search_spaces.domains import Float, OneOf

TRIALS = 10_000
"""More trials than any simulated sweep begins."""
FACTOR = 4
"""Ray's reduction factor, its default."""


@dataclass(frozen=True)
class Setting:
    """What every engine gets."""

    space: Space
    complete: Complete
    cost: Callable[[Mapping[str, Any]], float]
    """Relative cost of an example with a complete configuration."""
    defaults: Mapping[str, Any]
    """Leaf's name -> the choice that counts as its default, also in branches that the default configuration lacks."""
    seed: int
    workers: int
    least: int
    """Examples after which the default configuration can be judged; see `Scheduler.milestones`."""
    scheduler: Scheduler = field(default_factory=Asha)
    searcher: Mapping[str, Any] = field(default_factory=dict)
    """Settings of our searcher that differ from its defaults."""
    exempt: Sequence[int] = EXEMPT
    neps: Path | None = None
    """Python of the environment with `neural-pipeline-search`."""

    @property
    def milestones(self) -> tuple[int, ...]:
        return self.scheduler.milestones(BUDGET, least=self.least)

    def trial(self, number: int, params: Mapping[str, Any], steps: Sequence[int], trained: int = 0) -> Trial:
        """A trial of drawn parameters; those that the core refuses cost as the default."""
        drawn = compose(self.space.leaves, lambda leaf: params[leaf.name])[0]
        return Trial(number, params, steps, self._cost(drawn), trained)

    def _cost(self, drawn: Mapping[str, Any]) -> float:
        try:
            return self.cost(self.space.apply(drawn, self.complete))
        except ValueError:
            return 1.0

    def default(self) -> dict[str, Any]:
        """Parameters of the default configuration."""
        return self.space.parameters(self.space.apply({}, self.complete), self.complete)


class Ours:
    """Our sweep, as `hpo run` makes it."""

    def __init__(self, setting: Setting, name: str) -> None:
        self._setting = setting
        self.sweep = Sweep(
            setting.space,
            seed=setting.seed,
            trials=TRIALS,
            milestones=setting.milestones,
            searcher=from_record(SEARCHERS, "searcher", {"name": name, **setting.searcher}),
            scheduler=setting.scheduler,
            workers=setting.workers,
            complete=setting.complete,
            exempt=setting.exempt,
            cost=setting.cost,
        )

    def ask(self) -> Trial | None:
        start = self.sweep.next()
        if start is None:
            return None
        return Trial(start.trial, start.params, self.sweep.milestones, self._setting.cost(start.config))

    def report(self, trial: Trial, step: int, value: float) -> bool:
        verdict = self.sweep.report(trial.number, 0, step, value, diverged=False)
        return verdict.action == "continue"


class Independent:
    """An Optuna sampler that is made anew for each draw and told the truth, under our scheduler."""

    def __init__(self, setting: Setting, sampler: Callable[[int], BaseSampler]) -> None:
        self._setting, self._sampler = setting, sampler
        self._study = _study()
        self._judge = setting.scheduler.build(setting.milestones, setting.exempt)
        self._trials: dict[int, optuna.Trial] = {}

    def ask(self) -> Trial:
        number = len(self._trials)
        self._study.sampler = self._sampler(derived_seed(self._setting.seed, "draw", number))
        if number == 0:
            self._study.enqueue_trial(self._setting.default())
        self._trials[number] = self._study.ask()
        params = draw(self._trials[number], self._setting.space.leaves)[1]
        return self._setting.trial(number, params, self._setting.milestones)

    def report(self, trial: Trial, step: int, value: float) -> bool:
        asked = self._trials[trial.number]
        asked.report(value, step)
        verdict = self._judge.report(trial.number, step, value)
        if verdict.action == "stop":
            ended = (value, TrialState.COMPLETE) if verdict.state == "complete" else (None, TrialState.PRUNED)
            self._study.tell(asked, *ended)
        return verdict.action == "continue"


class Stock:
    """Ray Tune with OptunaSearch and ASHAScheduler as their defaults have it."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        lowest = setting.milestones[0]
        self.rungs = [lowest * FACTOR**k for k in range(40) if lowest * FACTOR**k < BUDGET]
        self._recorded: dict[int, list[float]] = {rung: [] for rung in self.rungs}
        self._study = _study(TPESampler(seed=setting.seed))
        self._study.enqueue_trial(setting.default())
        self._trials: dict[int, optuna.Trial] = {}

    def ask(self) -> Trial:
        number = len(self._trials)
        self._trials[number] = self._study.ask()
        params = draw(self._trials[number], self._setting.space.leaves)[1]
        return self._setting.trial(number, params, (*self.rungs, BUDGET))

    def report(self, trial: Trial, step: int, value: float) -> bool:
        asked = self._trials[trial.number]
        asked.report(value, step)
        if self.stops(step, value):
            self._study.tell(asked, value)
            return False
        return True

    def stops(self, step: int, value: float) -> bool:
        """Ray's rule (`ray.tune.schedulers.async_hyperband._Bracket.on_result`); the value is recorded."""
        if step == BUDGET:
            return True
        before = self._recorded[step]
        below = bool(before) and value < np.nanpercentile(before, (1 - 1 / FACTOR) * 100)
        before.append(value)
        return below


class PriorBand:
    """PriorBand in a process of its own; see `benchmarks/search/priorband.py`.

    A trial that PriorBand promotes continues from its checkpoint: only the further examples are trained.
    """

    def __init__(self, setting: Setting, flat: bool = False) -> None:
        if setting.neps is None:
            raise ValueError("`priorband` needs --neps PYTHON, the interpreter of an environment with "
                             "neural-pipeline-search; `benchmarks/README.md` says how to make one.")
        self._setting = setting
        self._process = neps_process(setting.neps)
        self._trained: dict[int, int] = {}
        self._asked: dict[int, str] = {}
        self._send({
            "leaves": described(setting.space.leaves),
            "defaults": setting.defaults,
            "fidelity": [setting.milestones[0], BUDGET],
            "seed": setting.seed,
            "flat": flat,
        })  # fmt: skip

    def ask(self) -> Trial | None:
        found = self._send({"ask": True})
        number, fidelity = int(found["id"].split("_")[0]), int(found["fidelity"])
        if number in self._asked:  # a promotion of a trial that still runs: NePS does not do that with hyperband
            raise RuntimeError(f"PriorBand asked for trial {number} twice at once.")
        self._asked[number] = found["id"]
        params = compose(self._setting.space.leaves, lambda leaf: found["params"][leaf.name])[1]
        return self._setting.trial(number, params, (fidelity,), self._trained.get(number, 0))

    def report(self, trial: Trial, step: int, value: float) -> bool:
        self._trained[trial.number] = step
        self._send({"tell": self._asked.pop(trial.number), "value": value})
        return False

    def _send(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The process of PriorBand ended; its error is above.")
        answer: dict[str, Any] = json.loads(line)
        return answer


@functools.cache
def neps_process(python: Path) -> subprocess.Popen[str]:
    """The process of PriorBand; one serves many sweeps, since its imports take seconds. It ends with this one."""
    script = Path(__file__).with_name("priorband.py")
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread
    )


def described(leaves: Sequence[Leaf]) -> list[dict[str, Any]]:
    """The drawn leaves as plain data, for another environment. Their conditions name drawn kinds alone."""
    fixed = {leaf.path for leaf in leaves if leaf.constant and leaf.is_kind}
    return [_described(leaf, fixed) for leaf in leaves if not leaf.constant]


def _described(leaf: Leaf, fixed: Collection[str]) -> dict[str, Any]:
    domain = leaf.domain
    conditions = [(path, kind) for path, kind in leaf.conditions if path not in fixed]
    text: dict[str, Any] = {"name": leaf.name, "path": leaf.path, "conditions": conditions}
    if isinstance(domain, OneOf):
        return {**text, "choices": domain.choices}
    kind = "float" if isinstance(domain, Float) else "int"
    return {**text, "type": kind, "low": domain.low, "high": domain.high, "log": domain.log}


def _study(sampler: BaseSampler | None = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=sampler or RandomSampler())


def _uniform(setting: Setting) -> Independent:
    return Independent(setting, lambda seed: RandomSampler(seed=seed))


def _earlier_tpe(setting: Setting) -> Independent:
    def sampler(seed: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(seed=seed, n_startup_trials=8, multivariate=True, group=True, constant_liar=True)

    return Independent(setting, sampler)


def _ours(name: str) -> Callable[[Setting], Ours]:
    return lambda setting: Ours(setting, name)


ENGINES: Mapping[str, Callable[[Setting], Any]] = {
    **{name: _ours(name) for name in SEARCHERS},
    "uniform": _uniform,
    "earlier-tpe": _earlier_tpe,
    "stock": Stock,
    "priorband": PriorBand,
    "priorband-flat": lambda setting: PriorBand(setting, flat=True),
}
"""Every engine by its name."""
