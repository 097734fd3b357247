"""The driver's work: for each event without Ray, and for whole trials against stock Ray Tune.

    python -m benchmarks.driver events --trials 1000 10000 --open 100
    python -m benchmarks.driver race --trials 1000 --workers 2

`race`: every side runs the same number of trials, which report three times (`benchmarks.driver.race`), at once or with
`--seconds`. With more workers than cores give them some: otherwise the first processes end all trials.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.driver import events
from benchmarks.driver.race import SIDES, one_side, race


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    alone = commands.add_parser("events", description=events.__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    alone.add_argument("--space", choices=["numbers", "full"], default="numbers")
    alone.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    alone.add_argument("--open", type=int, default=100, help="trials that run at once")
    racing = commands.add_parser("race")
    racing.add_argument("--trials", type=int, default=1000)
    racing.add_argument("--workers", type=int, default=2)
    racing.add_argument("--seconds", type=float, default=0.0, help="how long a trial takes, without work")
    racing.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    one = commands.add_parser("side", help="one side in this process; `race` calls it")
    one.add_argument("side", choices=SIDES)
    for name in ("trials", "workers", "parameters"):
        one.add_argument(name, type=int)
    one.add_argument("store", type=Path)
    one.add_argument("marks", type=int, nargs="+")
    options = parser.parse_args()
    if options.command == "events":
        for trials in options.trials:
            print(json.dumps(events.measure(options.space, trials, options.open)), flush=True)
    elif options.command == "side":
        one_side(options.side, options.trials, options.workers, options.parameters, options.marks, options.store)
    else:
        with tempfile.TemporaryDirectory() as store:
            race(options.trials, options.workers, options.sides, Path(store), options.seconds)


if __name__ == "__main__":
    main()
