"""The same trials in Optuna's storages, a journal file and SQLite, and in MLflow; each is filled once."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, environment
from benchmarks.store import tracking
from benchmarks.store.questions import NAME, journal, sqlite
from hpo.launch.record import record_of
from hpo.samplers.problem import Problem
from hpo.space.space import Space
from results.fold import fold
from results.store import Store

STORAGES: dict[str, Callable[[Path], Any]] = {"journal": journal, "sqlite": sqlite}
FILES = {"journal": "optuna.log", "sqlite": "optuna.db", "mlflow": tracking.FILE}
"""Rival -> its file beside the store."""
NEEDED = "mlflow: left out, as it needs --mlflow PYTHON; `benchmarks/README.md` says how to make its environment."

OFFLINE = {"MLFLOW_DISABLE_TELEMETRY": "true"}
"""Environment variables with which MLflow sends nothing."""


def fill(storage: str, store: Path) -> float:
    """Copy the sweep's trials into a storage of Optuna; returns CPU seconds, without imports."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    begun = time.process_time()
    study = optuna.create_study(study_name=NAME, storage=STORAGES[storage](store), direction="maximize")
    for trial in trials(store):
        study.add_trial(trial)
    return time.process_time() - begun


def fill_mlflow(store: Path, python: Path) -> float:
    """Copy the sweep's trials into MLflow, with the Python of its environment; returns CPU seconds, without imports."""
    lines = [
        json.dumps({
            "params": trial.params,
            "values": list(trial.intermediate_values.items()),
            "complete": trial.value is not None,
        })
        for trial in trials(store)
    ]  # fmt: skip
    done = subprocess.run(
        [str(python), "-m", "benchmarks.store.tracking", str(store.absolute()), NAME],
        cwd=ROOT, env=environment(**OFFLINE), input="\n".join(lines), stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    return float(json.loads(done.stdout)["seconds"])


def trials(store: Path) -> Iterator[Any]:
    """The trials as Optuna's, with their parameters and reports."""
    from optuna.trial import TrialState, create_trial

    folder = Store(store).open(NAME)
    record, found = record_of(folder), fold(folder)
    distributions = Problem(Space.from_json(record.space, record.pinned).leaves).distributions
    starts = folder.rows("trials", found.first["seq"].to_pylist())
    params = dict(zip(starts["trial"].to_pylist(), starts["params"].to_pylist(), strict=True))
    values: dict[int, dict[int, float]] = {}
    columns = (found.reports[name].to_pylist() for name in ("trial", "step", "overall"))
    for trial, step, overall in zip(*columns, strict=True):
        values.setdefault(trial, {}).setdefault(step, overall)
    for trial, state in zip(found.trials.tolist(), found.event["state"].to_pylist(), strict=True):
        drawn, reported = json.loads(params[trial]), values.get(trial, {})
        complete = state == "complete"
        yield create_trial(
            state=TrialState.COMPLETE if complete else TrialState.FAIL,
            value=reported[record.budget] if complete else None,
            params=drawn,
            distributions={name: distributions[name] for name in drawn},
            intermediate_values=reported,
        )
