"""The same trials in MLflow: a run for each, in an SQLite database, through MLflow's own client.

This file runs in an environment with mlflow-skinny, sqlalchemy and alembic, and imports nothing of this project's
packages. As a command it fills the database with trials, one a line of standard input, in order:

    {"params": {name: choice}, "values": [[step, score], ...], "complete": true}

It prints its CPU seconds, without imports.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = "mlflow.db"
METRIC = "overall"
PAGE = 1_000
"""Runs that a search asks for at once, MLflow's default."""
CREATED = 1_700_000_000_000
"""Start of the first run in milliseconds; MLflow takes 0 for the time of now."""


def connected(store: Path) -> Any:
    """A client of the database beside the store, as its users make one."""
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{(store / FILE).absolute()}")


def fill(store: Path, name: str) -> None:
    """Write the trials of standard input as runs of the experiment `name`."""
    from mlflow.entities import Metric, Param

    client = connected(store)
    experiment = client.create_experiment(name, artifact_location=(store / "artifacts").absolute().as_uri())
    for number, line in enumerate(sys.stdin):
        trial = json.loads(line)
        now = CREATED + number
        run = client.create_run(experiment, start_time=now, run_name=f"{name}-{number}").info.run_id
        # MLflow refuses names that would be another name as a path
        params = [Param(key.replace("//", "/"), str(value)) for key, value in trial["params"].items()]
        metrics = [Metric(METRIC, value, now, step) for step, value in trial["values"]]
        client.log_batch(run, metrics, params)
        client.set_terminated(run, "FINISHED" if trial["complete"] else "FAILED", now)


def top(client: Any, experiment: str) -> list[int]:
    """Numbers of the ten complete trials with the best scores."""
    found = client.search_runs(
        [experiment], "attributes.status = 'FINISHED'", max_results=10, order_by=[f"metrics.{METRIC} DESC"]
    )
    return [int(run.info.run_name.rsplit("-", 1)[1]) for run in found]


def best(client: Any, experiment: str) -> list[float]:
    """Best score so far, after each complete trial."""
    return list(itertools.accumulate((run.data.metrics[METRIC] for run in _complete(client, experiment)), max))


def _complete(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs(
            [experiment], "attributes.status = 'FINISHED'", max_results=PAGE,
            order_by=["attributes.start_time ASC"], page_token=token,
        )  # fmt: skip
        yield from page
        token = page.token
        if not token:
            return


def curve(client: Any, experiment: str) -> list[float]:
    """Scores of trial 7, by step."""
    name = client.get_experiment(experiment).name
    (run,) = client.search_runs([experiment], f"attributes.run_name = '{name}-7'")
    history = client.get_metric_history(run.info.run_id, METRIC)
    return [metric.value for metric in sorted(history, key=lambda metric: metric.step)]


def main() -> None:
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  imported by the client's first call

    begun = time.process_time()
    fill(Path(sys.argv[1]), sys.argv[2])
    print(json.dumps({"seconds": time.process_time() - begun}))


if __name__ == "__main__":
    main()
