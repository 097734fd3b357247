"""The driver against stock Ray Tune: trials that report three times, without training, over `full`, with durable rows.

Each side runs in a process of its own, one after the other. What counts are the trials from the first tenth to the end,
so that the start of the cluster and of the workers is left out. CPU and memory are those of the driver's process.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.common import ROOT, compile_bytecode, environment, markdown, python
from benchmarks.driver import stock

OURS = "hpo"
SIDES = (OURS, *stock.SIDES)
NAME = "race"
"""Name of our sweep."""


class Meter:
    """Notes seconds, CPU seconds and memory of this process when as many trials have ended as `marks` say."""

    def __init__(self, marks: Sequence[int]) -> None:
        self.notes: dict[int, dict[str, float]] = {}
        self._marks = frozenset(marks)
        self._ended = 0

    def ended(self) -> None:
        """A trial has ended."""
        self._ended += 1
        if self._ended in self._marks:
            self.notes[self._ended] = {
                "wall": time.perf_counter(), "cpu": time.process_time(), "memory": float(memory())
            }  # fmt: skip


def memory() -> int:
    """Memory of this process that lies in RAM now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ours(store: Path, trials: int, workers: int, meter: Meter) -> None:
    """A sweep as `hpo run full` runs it, with another trainer."""
    from benchmarks.driver.noop import BUDGET
    from hpo.cluster.connection import own_cluster
    from hpo.driver.callbacks import Callback, Row
    from hpo.driver.session import run
    from hpo.launch.request import Launch, from_options

    class Ended(Callback):
        def ended(self, row: Row) -> None:
            meter.ended()

    launch = from_options(
        Launch,
        {
            "space": "full", "store": str(store), "name": NAME, "trials": trials, "repeats": 0,
            "searcher": "random", "scheduler": "none", "budget": BUDGET, "workers": workers,
            "gpus_per_trial": 0.0, "trainer": "benchmarks.driver.noop", "address": "local",
        },
    )  # fmt: skip
    with own_cluster(cpus=workers):
        run(launch, callbacks=[Ended()])


def one_side(side: str, trials: int, workers: int, parameters: int, marks: Sequence[int], store: Path) -> None:
    """Run one side in this process, and print what it noted as a line of JSON."""
    meter = Meter(marks)
    if side == OURS:
        ours(store, trials, workers, meter)
    else:
        stock.run(side, trials, workers, parameters, meter.ended)
    print(json.dumps({str(mark): note for mark, note in meter.notes.items()}))


def parameters_of_full(draws: int = 50) -> int:
    """Mean number of parameters in a draw of `full`."""
    from hpo.samplers.problem import Problem
    from hpo.search.searchers import Random
    from hpo.search.study import Study
    from hpo.space.build import build
    from minbert.tasks import choose_tasks

    study = Study(Problem(build("full", list(choose_tasks(None))).space.leaves), 0, Random())
    return round(sum(len(study.draw(number).params) for number in range(draws)) / draws)


def race(trials: int, workers: int, sides: Sequence[str], store: Path, seconds: float = 0.0) -> None:
    """Run the sides one after the other, and print a table."""
    compile_bytecode()
    parameters, marks = parameters_of_full(), (trials // 10, trials)
    print(f"{trials} trials, {workers} workers, {parameters} parameters a trial, load {os.getloadavg()[0]:.0f}")
    rows = []
    token = store / "token"  # otherwise Ray writes one to the user's home, readable by all
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    for side in sides:
        command = python("benchmarks.driver", "side", side, *map(str, (trials, workers, parameters)), str(store / side))
        # Workers start in another folder, so they need PYTHONPATH.
        variables = environment(
            PYTHONPATH=str(ROOT), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token), **{stock.SECONDS: str(seconds)}
        )  # fmt: skip
        done = subprocess.run(
            [*command, *map(str, marks)], cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        first, last = json.loads(done.stdout.splitlines()[-1]).values()
        rows.append([side, *cells(first, last, trials - marks[0])])
        print(rows[-1], file=sys.stderr, flush=True)
    print(markdown(["side", "wall s", "driver CPU s", "driver memory kB"], rows))
    print(f"load {os.getloadavg()[0]:.0f} at the end")


def cells(first: Mapping[str, float], last: Mapping[str, float], trials: int) -> list[str]:
    """Seconds, CPU seconds and memory for each of the trials between two notes."""
    wall, cpu, size = ((last[name] - first[name]) / trials for name in ("wall", "cpu", "memory"))
    return [f"{wall:.3f}", f"{cpu:.4f}", f"{size / 1e3:.1f}"]
