"""The stock sweep: Ray Tune, OptunaSearch, ASHAScheduler, `transformers` and `peft`, with their defaults.

ASHA counts examples instead of iterations, with our budget and our lowest rung; its reduction factor is the default
(4). OptunaSearch gets our first configuration as its first point. The sweep runs in a separate process and writes its
timeline.
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
from benchmarks.sweeps.timeline import Report, Setup, Timeline
from hpo.cluster.processes import scratch
from hpo.search.schedulers import Asha
from minbert.data.files import read_corpus
from minbert.encoder.base import find_base

TRIALS = 10_000
"""More trials than the time allows, so that the time ends the sweep."""


class TimelineCallback(tune.Callback):
    """Callback that records the time of each report and of each trial's end."""

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.reports: list[Report] = []
        self.ends: list[float] = []

    def minutes(self) -> float:
        """Minutes since the command started."""
        return (time.time() - self.begun) / 60

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        weights = Path(trial.path) / result["checkpoint_dir_name"] / FILE
        self.reports.append(
            Report(self.minutes(), trial.trial_id, result["examples"], float(result["overall"]), str(weights))
        )

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.ends.append(self.minutes())

    def __getstate__(self) -> dict[str, Any]:  # small, because Tune pickles its callbacks often
        return {"begun": self.begun, "reports": [], "ends": []}


def rungs(budget: int, factor: int = 4) -> tuple[int, ...]:
    """Milestones of a trial in examples: ASHA's rungs, beginning with our lowest one in a small budget, and the budget.

    More reports would cost time without effect.
    """
    milestones = [Asha().milestones(budget, least=budget)[0]]  # least=budget: the latest first rung that ASHA allows
    while milestones[-1] * factor <= budget:
        milestones.append(milestones[-1] * factor)
    return tuple(dict.fromkeys((*milestones, budget)))


def prepare(setup: Setup) -> Prepared:
    """Tokenise all rows for training and scoring, once."""
    base, corpus = find_base(), read_corpus(setup.data, TASKS_HERE)
    assert base.path is not None
    tokenizer = rival.tokenizer_of(base.path)
    chosen = search_rows(corpus, setup.budget, len(rungs(setup.budget)))
    parts = {name: corpus.parts[name, "train"] for name in TASKS_HERE}
    return Prepared(
        encoder=str(base.path),
        train={name: rival.tokenised(corpus.rows[name, "train"], rows, tokenizer) for name, rows in parts.items()},
        search={name: rival.tokenised(corpus.rows[name, "dev"], rows, tokenizer) for name, rows in chosen.items()},
        labels=labels_of(corpus, chosen),
        reports=rungs(setup.budget),
        seed=setup.seed,
    )


def tuner(setup: Setup, begun: float, work: Path, callback: TimelineCallback) -> tune.Tuner:
    """The stock sweep, ready to run."""
    scheduler = ASHAScheduler(
        time_attr="examples", metric="overall", mode="max", max_t=setup.budget, grace_period=rungs(setup.budget)[0]
    )
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(train, prepared=prepare(setup)), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(suggest, metric="overall", mode="max", points_to_evaluate=[FIRST], seed=setup.seed),
            scheduler=scheduler,
            num_samples=TRIALS,
            max_concurrent_trials=setup.workers,
            time_budget_s=setup.seconds - (time.time() - begun),
        ),
        run_config=tune.RunConfig(name="stock", storage_path=str(work), callbacks=[callback], verbose=0),
    )


def main() -> None:
    """Run the stock sweep. Arguments: the setup as JSON, the start in seconds since 1970, a folder for files."""
    setup, begun, work = Setup(**json.loads(sys.argv[1])), float(sys.argv[2]), Path(sys.argv[3])
    os.environ.setdefault("RAY_worker_niceness", "0")  # our sweep sets it too; 15, Ray's default, starves workers
    optuna_logging.set_verbosity(optuna_logging.WARNING)
    callback = TimelineCallback(begun)
    with scratch() as folder:  # a short path, because names of Ray's sockets must be short
        ray.init(address="local", num_cpus=setup.workers, include_dashboard=False, _node_ip_address="127.0.0.1",
                 _temp_dir=str(folder / "r"), log_to_driver=False)  # fmt: skip
        try:
            tuner(setup, begun, work, callback).fit()
        finally:
            ray.shutdown()
    timeline = Timeline(tuple(callback.reports), tuple(callback.ends))
    (work / "timeline.json").write_text(json.dumps(timeline.to_dict()))


if __name__ == "__main__":
    main()
