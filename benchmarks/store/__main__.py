"""How long a large store takes to answer, and Optuna's storages and MLflow with the same trials.

    python -m benchmarks.store fill /tmp/large --trials 10000 --reports 10 --rivals journal sqlite
    python -m benchmarks.store ask /tmp/large
    python -m benchmarks.store fill /tmp/small --trials 1000 --rivals journal mlflow --mlflow mlflow/bin/python
    python -m benchmarks.store ask /tmp/small --mlflow mlflow/bin/python
    python -m benchmarks.store files

`fill` prints CPU seconds and sizes. `ask` starts a process for each question and prints CPU seconds, seconds on the
clock and peak memory; the seconds leave out interpreter start and imports. It stops with an error if a rival gives
another answer. The rivals' trials hold the same parameters and values, and no scores of tasks, losses, times, attempts
or evidence. `files`: how many files sweeps of 1,000 short trials make, how long a start waits for its row, and one read
beside 3,000 files that a merged file has replaced.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, environment, markdown, python
from benchmarks.store import rivals, short
from benchmarks.store.fill import create, fill, write
from benchmarks.store.questions import COMPARED, NAME, SIDES
from results.evidence import EVIDENCE
from results.store import Store

FILES = 3_000
SHORT = {2: 0.1, 16: 0.5, 128: 1.0}
"""Workers -> seconds of a trial."""


def fill_all(store: Path, trials: int, reports: int, names: Sequence[str], mlflow: Path | None) -> None:
    """Fill the store and its rivals, and print a table of CPU seconds and sizes."""
    begun = time.process_time()
    folder = fill(store, NAME, trials, reports)
    seconds = time.process_time() - begun
    rows = [["hpo", f"{seconds:.1f}", f"{(size(folder.path) - size(folder.path / EVIDENCE)) / 1e6:.1f}"]]
    for name in names:
        if name != "mlflow":
            seconds = rivals.fill(name, store)
        elif mlflow is not None:
            seconds = rivals.fill_mlflow(store, mlflow)
        else:
            print(rivals.NEEDED)
            continue
        rows.append([name, f"{seconds:.1f}", f"{size(store / rivals.FILES[name]) / 1e6:.1f}"])
    print(markdown(["filled", "CPU s", "MB without evidence"], rows))


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def ask(store: Path, mlflow: Path | None) -> None:
    """Print a table of every question to every side that has been filled."""
    sides = ["hpo", *(name for name, file in rivals.FILES.items() if (store / file).exists())]
    if "mlflow" in sides and mlflow is None:
        print(rivals.NEEDED)
        sides.remove("mlflow")
    rows = []
    for question in SIDES["hpo"]:
        for side in sides:
            if question in SIDES[side]:
                command = python("benchmarks.store.questions", side, question, str(store.absolute()))
                if side == "mlflow":
                    command[0] = str(mlflow)
                found = run(command)
                if question in COMPARED and side != "hpo":
                    agree(store, side, question, found["answer"])
                seconds = [f"{found[name]:.2f}" for name in ("seconds", "wall", "imports")]
                rows.append([question, side, *seconds, f"{found['memory'] / 1e6:.0f}"])
                print(rows[-1], flush=True)
    print(markdown(["question", "side", "CPU s", "wall s", "imports CPU s", "MB"], rows))
    folder = Store(store).open(NAME)
    evidence = size(folder.path / EVIDENCE)
    print(f"evidence of 1,000 trials: {evidence / len(folder.read(EVIDENCE, columns=())) * 3 / 1e3:.1f} MB")


def run(command: list[str]) -> Any:
    """The JSON that a command prints."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**rivals.OFFLINE), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def agree(store: Path, side: str, question: str, answer: list[float]) -> None:
    """Stop unless `hpo` gives the same answer."""
    arguments, column = COMPARED[question]
    ours = [row[column] for row in run(python("hpo", *arguments, "--json", "--store", str(store.absolute())))]
    if answer != ours:
        raise SystemExit(f"{question}: {side} answers {answer}, and `hpo` answers {ours}.")


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
    asking = commands.add_parser("ask")
    asking.add_argument("store", type=Path)
    for parts in (filling, asking):
        parts.add_argument("--mlflow", type=Path, help="Python of an environment with mlflow-skinny")
    commands.add_parser("files").add_argument("--trials", type=int, default=1_000)
    options = parser.parse_args()
    if options.command == "fill":
        fill_all(options.store, options.trials, options.reports, options.rivals, options.mlflow)
    elif options.command == "ask":
        ask(options.store, options.mlflow)
    else:
        files(options.trials)


if __name__ == "__main__":
    main()
