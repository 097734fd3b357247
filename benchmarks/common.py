"""Helpers of all benchmarks: configurations, tables, intervals, JSON lines, runs in separate processes."""

from __future__ import annotations

import compileall
import concurrent.futures
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.tasks import Task

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


def run_all(
    jobs: Iterable[dict[str, Any]], command: Callable[[dict[str, Any]], list[str]], out: Path, processes: int
) -> None:
    """Run the jobs' commands, `processes` at a time, and append to `out` each job with the JSON object that it prints.

    Jobs that `out` already holds are not run again. The error of a failed job is printed; the other jobs continue.
    """
    rows = read_lines(out)
    missing = [job for job in jobs if not any(all(row.get(key) == job[key] for key in job) for row in rows)]

    def run(job: dict[str, Any]) -> None:
        finished = subprocess.run(command(job), cwd=ROOT, capture_output=True, text=True, check=False)
        if finished.returncode:
            print(f"{job}: {finished.stderr[-2000:]}", file=sys.stderr, flush=True)
            return
        with out.open("a") as stream:
            stream.write(json.dumps({**job, **json.loads(finished.stdout)}) + "\n")
        print(f"{job} done", flush=True)

    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        list(pool.map(run, missing))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def interval(values: Sequence[float]) -> str:
    """Half width of the 95 % interval of a mean over seeds, by Student's t, as text; empty for one seed."""
    from scipy.stats import t

    if len(values) < 2:
        return ""
    spread = (sum((value - mean(values)) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return f" ± {float(t.ppf(0.975, len(values) - 1)) * spread / len(values) ** 0.5:.4f}"
