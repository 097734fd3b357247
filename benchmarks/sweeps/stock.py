"""The stock sweep: Ray Tune, OptunaSearch, ASHAScheduler, `transformers` and `peft`, with their defaults.

ASHA is told examples instead of iterations, with our budget and our lowest rung; its reduction factor is its own (4).
OptunaSearch gets our first configuration as its first point. Runs as a process of its own and writes its timeline.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
from optuna import logging as optuna_logging
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks import rival
from benchmarks.sweeps.data import labels_of, search_rows
from benchmarks.sweeps.space import FIRST, suggest
from benchmarks.sweeps.stock_trial import FILE, TASKS_HERE, Prepared, train
from benchmarks.sweeps.timeline import Given, Report, Timeline
from hpo.cluster.processes import scratch
from hpo.search.schedulers import GRACE
from minbert.data.files import read_corpus
from minbert.encoder.base import find_base

TRIALS = 10_000
"""More than any time allows: the time ends the sweep."""


class Record(tune.Callback):
    """Notes when each report arrived and each trial ended."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.reports: list[Report] = []
        self.ends: list[float] = []

    def minutes(self) -> float:
        return (time.time() - self.begun) / 60

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        weights = Path(trial.path) / result["checkpoint_dir_name"] / FILE
        self.reports.append(
            Report(self.minutes(), trial.trial_id, result["examples"], float(result["overall"]), str(weights))
        )

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.ends.append(self.minutes())

    def __getstate__(self) -> dict[str, Any]:  # Tune pickles its callbacks again and again
        return {"begun": self.begun, "reports": [], "ends": []}


def rungs(budget: int, factor: int = 4) -> tuple[int, ...]:
    """Examples of ASHA's rungs from our lowest one, and the budget: reports between them would only cost time."""
    lowest = max(1, budget // GRACE)
    found = [lowest]
    while found[-1] * factor <= budget:
        found.append(found[-1] * factor)
    return tuple(dict.fromkeys((*found, budget)))


def prepare(given: Given) -> Prepared:
    """Tokenise every row that is trained on or scored, once."""
    base, corpus = find_base(), read_corpus(given.data, TASKS_HERE)
    tokenizer = rival.tokenizer_of(base.path)
    chosen = search_rows(corpus, given.budget)
    parts = {name: corpus.parts[name, "train"] for name in TASKS_HERE}
    return Prepared(
        encoder=str(base.path),
        train={name: rival.tokenised(corpus.rows[name, "train"], rows, tokenizer) for name, rows in parts.items()},
        search={name: rival.tokenised(corpus.rows[name, "dev"], rows, tokenizer) for name, rows in chosen.items()},
        labels=labels_of(corpus, chosen),
        reports=rungs(given.budget),
        seed=given.seed,
    )


def tuner(given: Given, begun: float, work: Path, record: Record) -> tune.Tuner:
    scheduler = ASHAScheduler(
        time_attr="examples", metric="overall", mode="max", max_t=given.budget, grace_period=rungs(given.budget)[0]
    )
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(train, prepared=prepare(given)), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(suggest, metric="overall", mode="max", points_to_evaluate=[FIRST], seed=given.seed),
            scheduler=scheduler,
            num_samples=TRIALS,
            max_concurrent_trials=given.workers,
            time_budget_s=given.seconds - (time.time() - begun),
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(work), callbacks=[record], verbose=0),
    )


def main() -> None:
    """Arguments: the settings as JSON, the second at which the command started, a folder to work in."""
    given, begun, work = Given(**json.loads(sys.argv[1])), float(sys.argv[2]), Path(sys.argv[3])
    os.environ.setdefault("RAY_worker_niceness", "0")  # ours sets it too: Ray's 15 would starve beside any process
    optuna_logging.set_verbosity(optuna_logging.WARNING)
    record = Record(begun)
    with scratch() as folder:  # a short path: the names of Ray's sockets have little room
        ray.init(address="local", num_cpus=given.workers, include_dashboard=False, _node_ip_address="127.0.0.1",
                 _temp_dir=str(folder / "r"), log_to_driver=False)  # fmt: skip
        try:
            tuner(given, begun, work, record).fit()
        finally:
            ray.shutdown()
    timeline = Timeline(tuple(record.reports), tuple(record.ends))
    (work / "timeline.json").write_text(json.dumps(timeline.to_dict()))


if __name__ == "__main__":
    main()
