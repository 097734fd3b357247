"""Stock Ray Tune with trials that report at once, as its users write it, and the scores that both sides report.

logged   a function that calls `tune.report`, with Tune's default loggers (CSV, JSON, TensorBoard): results are kept
plain    the same without loggers: only Tune's own snapshot is written
reused   a class with `reuse_actors`, without loggers: a process runs one trial after the other
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import Any

SIDES = ("logged", "plain", "reused")
REPORTS = 3
"""Reports of a trial."""
SECONDS = "TRIAL_SECONDS"
"""Environment variable: how long a trial takes, in seconds, without any work; 0 unless given."""


def work() -> None:
    """What a trial does before a report: it waits."""
    time.sleep(float(os.environ.get(SECONDS, "0")) / REPORTS)


def score(trial: int, number: int) -> float:
    """The score of a trial's report: it grows with each report."""
    return (trial * 7919 % 1000 + 500 * number) / 2000


def results(number: int) -> dict[str, float]:
    """What a report says, after the work for it: as many values as one of ours."""
    work()
    value = score(0, number)
    values: dict[str, float] = {"step": number, "examples": number, "overall": value, "seconds": 0.0}
    return values | {f"{kind}/{task}": value for kind in ("score", "loss", "rows") for task in ("sst", "qqp", "sts")}


def train(config: dict[str, float]) -> None:
    """The function trainable."""
    from ray import tune

    for number in range(REPORTS):
        tune.report(results(number))


def run(side: str, trials: int, workers: int, parameters: int, ended: Any) -> None:
    """Run trials over so many parameters on a cluster of this process; `ended()` is called at the end of each."""
    if side != "logged":
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ.setdefault("RAY_worker_niceness", "0")  # our sweeps set these two too
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    from ray import tune

    class Ended(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ended()

        def __getstate__(self) -> dict[str, Any]:
            return {}

    class Reused(tune.Trainable):
        def setup(self, config: dict[str, float]) -> None:
            self.number = 0

        def reset_config(self, new_config: dict[str, float]) -> bool:
            self.number = 0
            return True

        def step(self) -> dict[str, Any]:
            self.number += 1
            return {**results(self.number - 1), "done": self.number == REPORTS}

    with tempfile.TemporaryDirectory(prefix="hpo-") as folder:
        ray.init(address="local", num_cpus=workers, include_dashboard=False, _node_ip_address="127.0.0.1",
                 _temp_dir=f"{folder}/r", log_to_driver=False)  # fmt: skip
        try:
            tune.Tuner(
                Reused if side == "reused" else train,
                param_space={f"x{number}": tune.uniform(0.0, 1.0) for number in range(parameters)},
                tune_config=tune.TuneConfig(
                    metric="overall", mode="max", num_samples=trials, max_concurrent_trials=workers,
                    reuse_actors=side == "reused",
                ),
                run_config=tune.RunConfig(
                    storage_path=f"{folder}/results", callbacks=[Ended()], verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            ).fit()  # fmt: skip
        finally:
            ray.shutdown()
