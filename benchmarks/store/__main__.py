"""How long a large store takes to answer, and Optuna's storages with the same trials.

    python -m benchmarks.store fill /tmp/large --trials 10000 --reports 10 --rivals journal sqlite
    python -m benchmarks.store ask /tmp/large
    python -m benchmarks.store files

`ask` starts a process for each question and prints CPU seconds, seconds on the clock and peak memory; the seconds leave
out interpreter start and imports. Optuna's trials hold the same parameters and values, and no scores of tasks, losses,
times, attempts or evidence. `files`: how many files sweeps of 1,000 short trials make, how long a start waits for its
row, and one read beside 3,000 files that a merged file has replaced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.common import ROOT, environment, markdown, python
from benchmarks.store import rivals, short
from benchmarks.store.fill import create, fill, write
from benchmarks.store.questions import NAME, SIDES
from results.evidence import EVIDENCE
from results.store import Store

FILES = 3_000
SHORT = {2: 0.1, 16: 0.5, 128: 1.0}
"""Workers -> seconds of a trial."""


def ask(store: Path) -> None:
    """Print a table of every question to every side that has been filled."""
    sides = ["hpo", *(name for name, file in rivals.FILES.items() if (store / file).exists())]
    rows = []
    for question in SIDES["hpo"]:
        for side in sides:
            if question in SIDES[side]:
                command = python("benchmarks.store.questions", side, question, str(store))
                done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                seconds = [f"{found[name]:.2f}" for name in ("seconds", "wall", "imports")]
                rows.append([question, side, *seconds, f"{found['memory'] / 1e6:.0f}"])
                print(rows[-1], flush=True)
    print(markdown(["question", "side", "CPU s", "wall s", "imports CPU s", "MB"], rows))
    folder = Store(store).open(NAME)
    size = sum(file.stat().st_size for file in (folder.path / EVIDENCE).iterdir())
    print(f"evidence of 1,000 trials: {size / len(folder.read(EVIDENCE, columns=())) * 3 / 1e3:.1f} MB")


def files(trials: int) -> None:
    """Print the files that sweeps of short trials make, and the time of one read beside many replaced files."""
    header = ["workers", "s a trial", "s in all", "a start waits, ms", "95 %", "files", "after the merge"]
    print(markdown(header, [short.measure(trials, workers, seconds) for workers, seconds in SHORT.items()]), flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = create(Path(place), NAME, FILES, 1)
        for seq in range(1, FILES + 1):
            start = {"trial": seq, "attempt": 0, "event": "start", "config": "{}", "params": "{}"}
            write(folder, "trials", seq, seq, [{"seq": seq, "generation": 1, **start}])
        begun = time.process_time()
        folder.compact()
        merging = time.process_time() - begun
        begun = time.process_time()
        rows = Store(Path(place)).open(NAME).read("trials").num_rows
        taken = time.process_time() - begun
        there = len(list((folder.path / "trials").iterdir()))
        print(f"{rows} rows beside {there} files: {taken:.3f} CPU s; merging them took {merging:.2f} CPU s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    filling = commands.add_parser("fill")
    filling.add_argument("store", type=Path)
    filling.add_argument("--trials", type=int, default=10_000)
    filling.add_argument("--reports", type=int, default=10)
    filling.add_argument("--rivals", nargs="*", choices=list(rivals.FILES), default=[])
    commands.add_parser("ask").add_argument("store", type=Path)
    commands.add_parser("files").add_argument("--trials", type=int, default=1_000)
    options = parser.parse_args()
    if options.command == "fill":
        fill(options.store, NAME, options.trials, options.reports)
        for storage in options.rivals:
            rivals.fill(storage, options.store)
    elif options.command == "ask":
        ask(options.store)
    else:
        files(options.trials)


if __name__ == "__main__":
    main()
