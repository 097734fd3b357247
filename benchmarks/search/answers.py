"""The answer rule of `hpo run` in the search benchmark: repeats of the finalists, then the posterior.

Of B full-trial equivalents a sweep leaves one fifth to repeats (`hpo.search.repeats`), so the rule looks at the search
after SEARCHED of B, repeats as many finalists as the rest allows, and decides (`hpo.search.answer`). Trials that run at
that moment do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.search.simulation import BUDGET, Simulation
from hpo.search.answer import Challenger, decide
from hpo.search.repeats import Run, missing
from hpo.search.states import DEFAULT


def decided(simulation: Simulation, replicates: int) -> int:
    """Trial whose configuration is the answer now, after `replicates` more runs of each finalist."""
    params, values, observer, budget = simulation.params, simulation.values, simulation.observer, BUDGET
    order = list(params)  # every engine begins with the default
    runs = []
    for place, trial in enumerate(order):
        last = max(values[trial].items()) if values.get(trial) else None
        complete = last is not None and last[0] == budget
        runs.append(Run(place, _identity(params[trial]), 0, "sampler", "complete" if complete else "pruned", last))
    scores: dict[int, list[float]] = {}
    first: dict[str, int] = {}
    for run in runs:
        if run.complete(budget) and run.last is not None:
            scores.setdefault(first.setdefault(run.config_id, run.trial), []).append(run.last[1])
    for repeat in missing(runs, budget, replicates) if replicates else ():
        trial = order[repeat.of]
        score = observer.observed(params[trial], 1.0, trial, repeat.replicate)
        scores[first[_identity(params[trial])]].append(score)
    sampling = 2**0.5 * observer.noise.rows
    challengers = [Challenger(place, tuple(found), sampling) for place, found in scores.items() if place != DEFAULT]
    answer = decide(scores.get(DEFAULT, []), challengers).trial
    return order[DEFAULT if answer is None else answer]


def _identity(params: Mapping[str, Any]) -> str:
    return repr(sorted(params.items()))
