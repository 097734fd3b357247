"""Runs of the search benchmark: one simulated sweep from its job."""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import configuration
from benchmarks.search import answers, fitting
from benchmarks.search.observations import CURVES, NOISES, Observer
from benchmarks.search.responses import RESPONSES, Plan, Response
from benchmarks.search.rivals import ENGINES, Ours, Setting
from benchmarks.search.simulation import BUDGET, CHECKPOINTS, Simulation
from hpo.launch.plan import complete_for
from hpo.search.schedulers import EXEMPT, scheduler_from
from hpo.space.build import build
from hpo.space.pins import Complete
from hpo.space.space import Space
from minbert.tasks import choose_tasks
from minbert.training.milestones import examples_to_judge

Job = Mapping[str, Any]
ROWS = {"sst": 8_544, "qqp": 76_113, "sts": 6_040}
"""Training rows of the class data."""
TOKENS = {"sst": 25.0, "qqp": 29.6, "sts": 27.4}
"""Mean word pieces of a training row of the class data."""


@functools.cache
def opened(source: str) -> tuple[Space, Complete, Plan]:
    """A space over the default tasks, its completion, and its plan."""
    tasks = choose_tasks(None)
    complete = complete_for(tasks)
    space = build(source, list(tasks)).space.resolved(complete)
    return space, complete, Plan.of(space, complete)


@functools.cache
def least() -> int:
    """Examples after which the default configuration can be judged: `hpo run` asks for them before its first rung."""
    return examples_to_judge(configuration(), ROWS, BUDGET)


def cost_of() -> Callable[[Mapping[str, Any]], float]:
    """The relative cost of an example with a complete configuration, over the default tasks and the class data."""
    from minbert.config import Config
    from minbert.training.cost import Workload, cost

    tasks = choose_tasks(None)
    workload = Workload(tasks, ROWS, TOKENS)
    return lambda config: cost(Config.from_dict(config, tasks), workload)


def response_of(kind: str, plan: Plan, seed: int, fitted: str | None = None) -> Response:
    """The response of a seed."""
    rng = random.Random(f"response/{kind}/{seed}")
    if kind == "fitted":
        if fitted is None:
            raise ValueError("`fitted` needs --fitted STORE/SWEEP, a real sweep to learn from.")
        return fitting.fit(plan, fitting.read(fitted), rng)
    return RESPONSES[kind](plan, rng)


def run_one(job: Job, neps: Path | None = None, fitted: str | None = None) -> dict[str, Any]:
    """The answers of one sweep, and what its draws cost."""
    kind, noise, workers = job["cell"].split("/")
    space, complete, plan = opened(job["space"])
    seed = job["seed"]
    response = response_of(kind, plan, seed, fitted)
    family = list(CURVES)[seed % len(CURVES)] if job["curves"] == "all" else job["curves"]
    engine = ENGINES[job["engine"]](Setting(
        space, complete, cost_of(), plan.defaults, seed, int(workers), job["least"],
        scheduler=scheduler_from({"name": job["scheduler"]}),
        searcher={name: json.loads(value) for name, value in job["settings"].items()},
        exempt=EXEMPT if job["exempt"] else (),
        neps=neps,
    ))  # fmt: skip
    simulation = Simulation(
        engine,
        Observer(response, CURVES[family], NOISES[noise], seed, job["paired"]),
        int(workers),
        checkpoints=[point for point in CHECKPOINTS if point <= job["until"]],
        by_time=job["by_time"],
        rule=lambda sweep: response.score(sweep.params[answers.decided(sweep, job["repeats"])]),
    )
    begun = time.process_time()
    found = simulation.run()
    return {
        "answers": {f"{point:g}": asdict(answer)
                    for point, answer in zip(simulation.checkpoints, found, strict=False)},
        "parts": worth(engine, simulation, response),
        "gap": response.gap(),
        "family": family,
        "draw_ms": 1000 * simulation.asking / max(1, len(simulation.params)),
        "cpu": time.process_time() - begun,
    }


def worth(engine: Any, simulation: Simulation, response: Response) -> dict[str, list[float]]:
    """Part of our searcher (`changes/best`) -> true gain of each configuration that it drew; empty for rivals."""
    found: dict[str, list[float]] = {}
    for number, record in engine.sweep.records.items() if isinstance(engine, Ours) else ():
        if record.start.origin == "sampler":
            gain = round(response.score(simulation.params[number]), 5)  # all of them are stored
            found.setdefault(record.start.searcher, []).append(gain)
    return found
