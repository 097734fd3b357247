"""Helpers of all benchmarks: configurations, tables, intervals, JSON lines, runs in separate processes."""

from __future__ import annotations

import compileall
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.data.tokens import Data
    from minbert.tasks import Task
    from minbert.training.report import Report

ROOT = Path(__file__).resolve().parent.parent
"""Root of the repository. Other processes start there, so that they find `benchmarks`, which is not installed."""

PACKAGES = ("benchmarks", "hpo", "minbert", "results", "search_spaces")


def configuration(*pairs: str, tasks: Mapping[str, Task] | None = None) -> Config:
    """The default configuration over `tasks` (None: the default tasks), changed by `path=value` settings.

    Raises ConfigError.
    """
    from minbert.config import Config
    from minbert.tasks import run_tasks

    chosen = run_tasks(tasks)
    return Config.from_dict({}, chosen).changed(pairs, chosen)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table. A bar in a cell would end the cell, so it becomes a slash."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; empty if the file does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def compile_bytecode() -> None:
    """Compile our packages to bytecode. Otherwise the first process of a round would do it and take longer."""
    for name in PACKAGES:
        compileall.compile_dir(ROOT / name, quiet=2)


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this repository. Its working directory must be ROOT."""
    return [sys.executable, "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """Environment variables of this process, with `more` added."""
    return {**os.environ, **more}


def missing(jobs: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The jobs that no stored row is the result of: a row holds all entries of its job."""
    stored = list(rows)
    return [job for job in jobs if not any(all(row.get(key) == job[key] for key in job) for row in stored)]


def run_all(
    jobs: Iterable[dict[str, Any]], command: Callable[[dict[str, Any]], list[str]], out: Path, processes: int
) -> None:
    """Run the jobs' commands, `processes` at a time, and append to `out` each job with the JSON object that it prints.

    Jobs that `out` already holds are not run again. The error of a failed job is printed; the other jobs continue.
    """

    def run(job: dict[str, Any]) -> None:
        finished = subprocess.run(command(job), cwd=ROOT, capture_output=True, text=True, check=False)
        if finished.returncode:
            print(f"{job}: {finished.stderr[-2000:]}", file=sys.stderr, flush=True)
            return
        with out.open("a") as stream:
            stream.write(json.dumps({**job, **json.loads(finished.stdout)}) + "\n")
        print(f"{job} done", flush=True)

    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, missing(jobs, read_lines(out))))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def interval(values: Sequence[float]) -> str:
    """Half width of the 95 % interval of a mean over seeds, by Student's t, as text; empty for one seed."""
    from scipy.stats import t

    if len(values) < 2:
        return ""
    spread = (sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f" ± {float(t.ppf(0.975, len(values) - 1)) * spread / len(values) ** 0.5:.4f}"


@dataclass(frozen=True)
class Trained:
    """One trained configuration, scored on `held`."""

    reports: list[Report]
    scores: dict[str, float]
    """Score of each task on the first rows of `held`."""
    overall: float
    examples_per_cpu_second: float
    """Training examples a CPU second, evaluation and stages left out."""
    arithmetic: str
    """Type that linear layers computed in."""


def train_and_score(
    config: Config, data: Data, seed: int, milestones: Sequence[int], search_rows: int, held_rows: int
) -> Trained:
    """Train a configuration on one thread and score its last weights on `held`.

    Reports are scored on at most `search_rows` rows of each task, the result on at most `held_rows`.
    """
    import numpy as np
    import torch

    from minbert.metrics import overall, score
    from minbert.training.evaluation import predict_rows
    from minbert.training.predict import load_model
    from minbert.training.train import State, train

    torch.set_num_threads(1)
    report_rows = [dict.fromkeys(data.tasks, search_rows)] * len(milestones)
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        reports = list(train(config, data, State.fresh(seed, milestones, Path(folder), report_rows=report_rows)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        last = reports[-1]
        model = load_model(Path(last.checkpoint), data)
        scores = {}
        for name, task in data.tasks.items():
            rows = np.asarray(data.parts[name, "held"])[:held_rows]
            values = predict_rows(model, data, name, "dev", rows).values
            scores[name] = score(task.metric, values, data.file(name, "dev").labels[rows])
    metrics = {name: task.metric for name, task in data.tasks.items()}
    return Trained(
        reports,
        scores,
        overall(scores, metrics, dict.fromkeys(scores, 1.0)),
        last.examples / (cpu * (last.seconds - last.evaluation_seconds) / wall),
        str(model.dtype).removeprefix("torch."),
    )


def by_case_and_seed(rows: Iterable[dict[str, Any]]) -> dict[str, dict[int, dict[str, Any]]]:
    """Stored runs by case, then by seed."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["case"], {})[row["seed"]] = row
    return found
