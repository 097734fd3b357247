"""Sweep: stock parts and `hpo run` search for the same number of minutes, one after the other.

    python -m benchmarks.sweep --data ../shared/data/cs224n --out runs/sweep        # 40 minutes a side
    python -m benchmarks.sweep --data ../shared/data/cs224n --minutes 2 --budget 500

Stock parts are Ray Tune, OptunaSearch, ASHAScheduler, `transformers` and `peft` with their defaults. Both sides search
`benchmarks/sweeps/space.py` on the same rows and begin with the same configuration. A side's clock starts with its
command, so it includes imports, tokenising and the start of the cluster. At each minute the best report on `search` is
chosen; the same code then scores both sides' choices on `held`. Written are OUT.svg and OUT.jsonl, with one line for
each report.
"""

from __future__ import annotations

import argparse
import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, compile_bytecode, environment, python, write_lines
from benchmarks.sweeps import held, ours, plot
from benchmarks.sweeps.timeline import Setup, Timeline, minutes_to, points

PATIENCE = 300.0
"""Seconds for which the stock sweep may run beyond its time, because Tune lets running trials stop first."""

SIDES = ("stock", "ours")


def stock(setup: Setup, work: Path) -> Timeline:
    """Run the stock sweep; returns its timeline. Raises RuntimeError if it fails."""
    begun = time.time()
    command = python("benchmarks.sweeps.stock", json.dumps(asdict(setup)), str(begun), str(work))
    token = work / "token"  # otherwise Ray writes one to the user's home, readable by all
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    # Ray's workers start in another folder, so they need PYTHONPATH.
    variables = environment(PYTHONPATH=str(ROOT), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    with (work / "output.txt").open("w") as output:
        finished = subprocess.run(
            command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT, check=False,
            timeout=setup.seconds + PATIENCE,
        )  # fmt: skip
    if finished.returncode:
        raise RuntimeError(f"the stock sweep failed: {(work / 'output.txt').read_text()[-3000:]}")
    return Timeline.from_dict(json.loads((work / "timeline.json").read_text()))


def one_side(side: str, setup: Setup, work: Path, most: int | None) -> list[dict[str, Any]]:
    """Run one side; returns one line for each report, with the held-out score of the best trial at that time."""
    work.mkdir()
    run, predictor = (stock, held.of_stock) if side == "stock" else (ours.sweep, held.of_ours)
    timeline = run(setup, work).until(setup.minutes)
    print(f"{side}: {len(timeline.reports)} reports, now held-out scores", file=sys.stderr, flush=True)
    return [{"side": side, **line} for line in points(timeline, held.scores(timeline, predictor(setup, most)))]


def verdict(lines: dict[str, list[dict[str, Any]]], minutes: float) -> str:
    """The result in words: when ours reached the final score of the stock sweep. The goal is a fifth of its time."""
    sentences = [plot.summary(side, lines[side]) for side in lines]
    if len(lines) == len(SIDES) and all(lines.values()) and lines["stock"][-1]["best_held"] is not None:
        final = lines["stock"][-1]["best_held"]
        reached = minutes_to(lines["ours"], final)
        sentences.append(
            f"ours did not reach the stock stack's final best, {final:.4f}" if reached is None else
            f"ours reached the stock stack's final best, {final:.4f}, after {reached:.1f} min: "
            f"{reached / minutes:.2f} of its time (goal 0.2)"
        )  # fmt: skip
    return "\n".join(sentences)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder in the class format")
    parser.add_argument("--minutes", type=float, default=40.0, help="minutes of each side")
    parser.add_argument("--budget", type=int, default=20_000, help="largest number of examples of a trial")
    parser.add_argument("--workers", type=int, default=2, help="trials that run at the same time, one core each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=int, help="largest number of scored held-out rows of a task; default: all")
    parser.add_argument("--side", choices=SIDES, action="append", help="run only this side; default: both")
    parser.add_argument("--work", type=Path, help="folder for weights, some GB; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="path of the results without suffix")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    data = str(Path(options.data).expanduser().absolute())
    setup = Setup(data, options.minutes, options.workers, options.budget, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    compile_bytecode()
    lines: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="minbert-sweep-", dir=options.work) as folder:
        for side in options.side or SIDES:
            lines[side] = one_side(side, setup, Path(folder) / side, options.held)
    write_lines(options.out.with_suffix(".jsonl"), [line for side in lines.values() for line in side])
    title = f"{options.minutes:g} minutes on {options.workers} cores, {held.size(setup, options.held):,} held-out rows"
    options.out.with_suffix(".svg").write_text(plot.draw(lines, options.minutes, title))
    print(verdict(lines, options.minutes))


if __name__ == "__main__":
    main()
