"""Our sweep: runs `hpo run` as a user types it, and reads its timeline from its store.

A running trial keeps only its newest checkpoint, but the best checkpoint of each minute is scored later. So this
process gives the files of every complete checkpoint a second name (a hard link) as soon as they appear. The sweep is
not affected.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

from benchmarks.common import ROOT, environment, python
from benchmarks.sweeps.timeline import Report, Setup, Timeline
from results.rows import to_rows
from results.store import Store

NAME = "ours"
TRIALS = 10_000
"""More trials than the time allows, so that the time ends the sweep."""
LOOK = 0.5
"""Seconds between searches for new checkpoints. A checkpoint lives at least until the trial reaches its next rung."""
STOPPED = 3
"""Exit code of a sweep that was stopped by its time limit."""
FILES = ("weights.safetensors", "trial.json", "done.json")
"""Files of a checkpoint that predictions need; done.json is linked last, because it marks a complete checkpoint."""


def command(setup: Setup, store: Path) -> list[str]:
    """The `hpo run` command."""
    space = str(ROOT / "benchmarks" / "sweeps" / "space.py")
    return python(
        "hpo", "run", space, "--data", setup.data, "--store", str(store), "--name", NAME, "--trials", str(TRIALS),
        "--budget", str(setup.budget), "--time", f"{setup.seconds:.0f}s", "--workers", str(setup.workers),
        "--keep", str(TRIALS), "--seed", str(setup.seed),
    )  # fmt: skip


def sweep(setup: Setup, work: Path) -> Timeline:
    """Run the sweep until its time is over; returns its timeline. Raises RuntimeError if it ends in another way."""
    store, links = work / "store", work / "weights"
    variables = environment(MINBERT_CACHE=str(work / "cache"))  # an empty cache, because the stock side tokenises too
    begun = time.time()
    with (work / "output.txt").open("w") as output:
        process = subprocess.Popen(
            command(setup, store), cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            link_new(store / NAME / "checkpoints", links)
            time.sleep(LOOK)
    link_new(store / NAME / "checkpoints", links)
    if process.returncode not in (0, STOPPED):
        raise RuntimeError(f"hpo run stopped with exit code {process.returncode}: {(work / 'output.txt').read_text()}")
    return timeline(store, links, begun)


def link_new(checkpoints: Path, links: Path) -> None:
    """Link the files of every complete checkpoint into `links`, unless they have been linked already."""
    for done in checkpoints.glob("*/*/done.json"):
        target = links / done.parent.parent.name / done.parent.name
        if (target / "done.json").exists():
            continue
        with contextlib.suppress(FileNotFoundError):  # the checkpoint may just be replaced by the next one
            target.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if not (target / name).exists():
                    os.link(done.parent / name, target / name)


def timeline(store: Path, links: Path, begun: float) -> Timeline:
    """The timeline from the store's rows, which carry the time at which the driver wrote them."""
    folder = Store(str(store)).open(NAME)
    reports = [
        Report(
            minutes=(row["time"] - begun) / 60,
            trial=str(row["trial"]),
            examples=int(row["examples"]),
            overall=float("nan") if row["overall"] is None else float(row["overall"]),
            weights=str(links / str(row["trial"]) / Path(row["checkpoint"] or "").name),
        )
        for row in to_rows(folder.read("reports"))
    ]
    ends: dict[int, float] = {}
    for row in to_rows(folder.read("trials")):
        if row["event"] == "end" and row["state"] in ("complete", "pruned", "diverged", "failed"):
            ends.setdefault(row["trial"], (row["time"] - begun) / 60)  # later rows only change the kept weights
    return Timeline(tuple(reports), tuple(ends.values()))
