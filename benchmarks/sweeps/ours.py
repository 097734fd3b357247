"""Our sweep: `hpo run` as a user types it, and its timeline from its store.

A running trial keeps only its newest checkpoint. To score later what was best at each minute, this process gives every
complete checkpoint's files a second name as they appear; the sweep knows nothing of it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

from benchmarks.common import ROOT, environment, python
from benchmarks.sweeps.timeline import Given, Report, Timeline
from results.schemas import to_rows
from results.store import Store

NAME = "ours"
TRIALS = 10_000
"""More than any time allows: the time ends the sweep."""
LOOK = 0.5
"""Seconds between two looks for new checkpoints; they live at least as long as the trial takes to the next rung."""
STOPPED = 3
"""Exit code of a sweep that its time has ended."""
FILES = ("weights.safetensors", "trial.json", "done.json")


def command(given: Given, store: Path) -> list[str]:
    space = str(ROOT / "benchmarks" / "sweeps" / "space.py")
    return python(
        "hpo", "run", space, "--data", given.data, "--store", str(store), "--name", NAME, "--trials", str(TRIALS),
        "--budget", str(given.budget), "--time", f"{given.seconds:.0f}s", "--workers", str(given.workers),
        "--keep", str(TRIALS), "--seed", str(given.seed),
    )  # fmt: skip


def sweep(given: Given, work: Path) -> Timeline:
    """Run it to its deadline. Raises RuntimeError where it ends otherwise."""
    store, kept = work / "store", work / "weights"
    variables = environment(MINBERT_CACHE=str(work / "cache"))  # the stock side tokenises too
    begun = time.time()
    with (work / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command(given, store), cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            link_new(store / NAME / "checkpoints", kept)
            time.sleep(LOOK)
    link_new(store / NAME / "checkpoints", kept)
    if process.returncode not in (0, STOPPED):
        raise RuntimeError(f"hpo run ended with exit code {process.returncode}: {(work / 'output.txt').read_text()}")
    return timeline(store, kept, begun)


def link_new(checkpoints: Path, kept: Path) -> None:
    """A second name for every complete checkpoint's files that has none yet."""
    for done in checkpoints.glob("*/*/done.json"):
        target = kept / done.parent.parent.name / done.parent.name
        if (target / "done.json").exists():
            continue
        with contextlib.suppress(FileNotFoundError):  # it may just be making room for the next one
            target.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if not (target / name).exists():
                    os.link(done.parent / name, target / name)


def timeline(store: Path, kept: Path, begun: float) -> Timeline:
    """From the store's rows, whose times are those at which the driver wrote them."""
    folder = Store(str(store)).open(NAME)
    reports = [
        Report(
            minutes=(row["time"] - begun) / 60,
            trial=str(row["trial"]),
            examples=int(row["examples"]),
            overall=float("nan") if row["overall"] is None else float(row["overall"]),
            weights=str(kept / str(row["trial"]) / Path(row["checkpoint"] or "").name),
        )
        for row in to_rows(folder.read("reports"))
    ]
    ends = {
        row["trial"]: (row["time"] - begun) / 60
        for row in to_rows(folder.read("trials"))
        if row["event"] == "end" and row["state"] in ("complete", "pruned", "diverged", "failed")
    }
    return Timeline(tuple(reports), tuple(ends.values()))
