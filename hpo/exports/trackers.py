"""The trials of a stored sweep as runs of an experiment tracker, on this machine alone: nothing is sent anywhere.

    tensorboard  event files, one folder a trial: tensorboard --logdir DIR
    wandb        offline runs, grouped by the sweep: wandb sync DIR/wandb/offline-run-* sends them
    mlflow       an SQLite database, one experiment a sweep: mlflow ui --backend-store-uri sqlite:///DIR/mlflow.db

A run has the trial's configuration by path, and for each milestone (the step, in examples) its scores on `search` and
its training losses.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.driver.ledger import Ledger
from hpo.driver.retraining import config_from
from hpo.space.tree import flatten

if TYPE_CHECKING:
    from results.store import SweepFolder

LOSS = "loss/"
"""Prefix of the names of training losses."""
MLFLOW = "mlflow.db"
"""MLflow's database in the folder of its runs."""
BATCH = 100
"""Parameters that MLflow takes at once, by its REST interface."""


class TrackerError(ValueError):
    """The runs cannot be written."""


@dataclass(frozen=True)
class Run:
    """One trial as a tracker takes it."""

    trial: int
    state: str
    config: Mapping[str, Any]
    """Values by path, such as adapter/rank; a list as JSON text."""
    seed: int
    origin: str
    begin: float
    """Time of its first start in seconds since 1970."""
    points: Sequence[tuple[int, float, Mapping[str, float]]]
    """Of each milestone: examples, time in seconds since 1970, finite values by name (overall, sst, loss/sst)."""


Tracker = Callable[[str, Sequence[Run], Path], None]
"""Writes the runs of a sweep, named first, under a folder."""


def runs_of(folder: SweepFolder) -> list[Run]:
    """Every trial and repeat of a sweep, by number."""
    from results.reading import report_per_step
    from results.rows import to_rows

    ledger = Ledger.of(folder)
    starts = {row["trial"]: row for row in reversed(to_rows(folder.read("trials"))) if row["event"] == "start"}
    points: dict[int, list[tuple[int, float, dict[str, float]]]] = {}
    for row in to_rows(report_per_step(folder.read("reports"), folder.read("trials"))):
        losses = {LOSS + task: value for task, value in (row["losses"] or {}).items()}
        values = {"overall": row["overall"], **(row["scores"] or {}), **losses}
        finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        points.setdefault(row["trial"], []).append((row["step"], row["time"], finite))
    return [
        Run(
            trial,
            entry.state,
            _flat(config_from(starts[trial]["config"], folder.tasks)),
            starts[trial]["seed"],
            entry.origin or "",
            starts[trial]["time"],
            points.get(trial, []),
        )
        for trial, entry in sorted(ledger.trials.items())
    ]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    plain = (str, int, float, bool)
    return {path: value if isinstance(value, plain) else json.dumps(value) for path, value in flatten(config).items()}


def to_tensorboard(sweep: str, runs: Sequence[Run], out: Path) -> None:
    """Event files: scalars by milestone, and the configuration with the last values under HPARAMS."""
    from tensorboardX import SummaryWriter

    for run in runs:
        with contextlib.closing(SummaryWriter(str(out / f"{sweep}-{run.trial}"), write_to_disk=True)) as writer:
            for step, time, values in run.points:
                for name, value in values.items():
                    writer.add_scalar(name, value, step, walltime=time)
            if run.points:
                step, time, values = run.points[-1]
                last = {f"last/{name}": value for name, value in values.items()}
                facts = {"state": run.state, "origin": run.origin}
                writer.add_hparams({**run.config, **facts}, last, name="hparams", global_step=step)


def to_wandb(sweep: str, runs: Sequence[Run], out: Path) -> None:
    """Offline runs of the project minbert-hpo, in a group named as the sweep."""
    import wandb

    out.mkdir(parents=True, exist_ok=True)
    for run in runs:
        facts = {"state": run.state, "seed": run.seed, "origin": run.origin}
        settings = wandb.Settings(silent=True, disable_git=True, save_code=False, console="off")
        with wandb.init(
            mode="offline", dir=str(out), project="minbert-hpo", group=sweep, name=f"{sweep}-{run.trial}",
            config={**run.config}, settings=settings,
        ) as made:  # fmt: skip
            for step, _, values in run.points:
                made.log(dict(values), step=step)
            made.summary.update(facts)
    wandb.teardown()  # its service writes behind: only now the files are whole


def to_mlflow(sweep: str, runs: Sequence[Run], out: Path) -> None:
    """Runs of an experiment named as the sweep, in the database `mlflow.db`; MLflow gives up its store of plain
    files."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    out.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(f"sqlite:///{(out / MLFLOW).absolute()}")
    experiment = client.create_experiment(sweep, artifact_location=(out / "artifacts").absolute().as_uri())
    for run in runs:
        times = [round(1000 * time) for _, time, _ in run.points]  # MLflow counts milliseconds
        begin = round(1000 * run.begin)
        made = client.create_run(experiment, start_time=begin, run_name=f"{sweep}-{run.trial}")
        metrics = [
            Metric(name, value, time, step)
            for time, (step, _, values) in zip(times, run.points, strict=True)
            for name, value in values.items()
        ]
        parameters = [Param(path, str(value)) for path, value in run.config.items()]
        tags = [RunTag(name, str(getattr(run, name))) for name in ("state", "seed", "origin")]
        for start in range(0, max(len(metrics), len(parameters)), BATCH):
            place = slice(start, start + BATCH)
            client.log_batch(made.info.run_id, metrics[place], parameters[place], [] if start else tags)
        state = "FAILED" if run.state == "failed" else "FINISHED"
        client.set_terminated(made.info.run_id, state, max(times, default=begin))


TRACKERS: Mapping[str, tuple[str, Tracker]] = {
    "tensorboard": ("tensorboardX", to_tensorboard),
    "wandb": ("wandb", to_wandb),
    "mlflow": ("mlflow", to_mlflow),
}
"""Name -> the module that it needs, and its function."""


def write(folder: SweepFolder, to: str, out: Path) -> Sequence[Run]:
    """Write the runs of a sweep for a tracker under the folder `out`; returns them.

    Raises TrackerError for an unknown tracker, one that is not installed, or a folder that holds something already.
    """
    if to not in TRACKERS:
        raise TrackerError(f"Unknown tracker `{to}`. Expected one of: {', '.join(TRACKERS)}.")
    module, function = TRACKERS[to]
    if importlib.util.find_spec(module) is None:
        raise TrackerError(f"`--to {to}` needs the package {module}: pip install {module}")
    if out.exists() and any(out.iterdir()):
        raise TrackerError(f"`--out`: {out} holds something already; name another folder.")
    runs = runs_of(folder)
    function(folder.name, runs, out)
    return runs
