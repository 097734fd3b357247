"""A sweep end to end: the same minutes with stock parts and with `hpo run`, one after the other.

    python -m benchmarks.sweep --data ../shared/data/cs224n --out runs/sweep        # 40 minutes a side
    python -m benchmarks.sweep --data ../shared/data/cs224n --minutes 2 --budget 500

Stock parts are Ray Tune, OptunaSearch, ASHAScheduler, `transformers` and `peft` with their defaults. Both sides search
`benchmarks/sweeps/space.py` on the same rows and begin with the same configuration; the clock starts with each side's
command, so that imports, tokenising and the cluster count. A report on `search` chooses; what was chosen at each minute
is then scored on `held`, by one code. Written are OUT.svg and OUT.jsonl, one line a report.
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
from benchmarks.sweeps.timeline import Given, Timeline, minutes_to, points

PATIENCE = 300.0
"""Seconds after its time at which the stock sweep is ended: Tune gives a trial that trains some to stop."""

SIDES = ("stock", "ours")


def stock(given: Given, work: Path) -> Timeline:
    """Run the stock sweep. Raises RuntimeError where it fails."""
    begun = time.time()
    command = python("benchmarks.sweeps.stock", json.dumps(asdict(given)), str(begun), str(work))
    token = work / "token"  # Ray would leave one in the user's home, readable by all
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    # Ray's workers start elsewhere, hence PYTHONPATH.
    variables = environment(PYTHONPATH=str(ROOT), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    with (work / "output.txt").open("w") as output:
        done = subprocess.run(command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT, check=False,
                              timeout=given.seconds + PATIENCE)  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the stock sweep failed: {(work / 'output.txt').read_text()[-3000:]}")
    return Timeline.from_dict(json.loads((work / "timeline.json").read_text()))


def one_side(side: str, given: Given, work: Path, most: int | None) -> list[dict[str, Any]]:
    """A line for each report of one side, with the held-out score of what was best then."""
    work.mkdir()
    run, predictor = (stock, held.of_stock) if side == "stock" else (ours.sweep, held.of_ours)
    timeline = run(given, work).until(given.minutes)
    print(f"{side}: {len(timeline.reports)} reports, now held-out scores", file=sys.stderr, flush=True)
    return [{"side": side, **line} for line in points(timeline, held.scores(timeline, predictor(given, most)))]


def verdict(lines: dict[str, list[dict[str, Any]]], minutes: float) -> str:
    """When ours reached what the stock stack ended with; the goal is a fifth of the time."""
    told = [plot.words(side, lines[side]) for side in lines]
    if len(lines) == len(SIDES) and all(lines.values()) and lines["stock"][-1]["best_held"] is not None:
        final = lines["stock"][-1]["best_held"]
        reached = minutes_to(lines["ours"], final)
        told.append(
            f"ours did not reach the stock stack's final best, {final:.4f}" if reached is None else
            f"ours reached the stock stack's final best, {final:.4f}, after {reached:.1f} min: "
            f"{reached / minutes:.2f} of its time (goal 0.2)"
        )  # fmt: skip
    return "\n".join(told)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder in the class format")
    parser.add_argument("--minutes", type=float, default=40.0, help="of each side")
    parser.add_argument("--budget", type=int, default=20_000, help="most examples of a trial")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time, a core each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=int, help="held-out rows of a task that are scored, at most; default: all")
    parser.add_argument("--side", choices=SIDES, action="append", help="one side alone; default: both")
    parser.add_argument("--work", type=Path, help="folder for weights, some GB; default: a temporary one")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"), help="path of the results, without suffix")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    data = str(Path(options.data).expanduser().absolute())
    given = Given(data, options.minutes, options.workers, options.budget, options.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    compile_bytecode()
    lines: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="minbert-sweep-", dir=options.work) as folder:
        for side in options.side or SIDES:
            lines[side] = one_side(side, given, Path(folder) / side, options.held)
    write_lines(options.out.with_suffix(".jsonl"), [line for side in lines.values() for line in side])
    title = f"{options.minutes:g} minutes on {options.workers} cores, {held.size(given, options.held):,} held-out rows"
    options.out.with_suffix(".svg").write_text(plot.draw(lines, options.minutes, title))
    print(verdict(lines, options.minutes))


if __name__ == "__main__":
    main()
