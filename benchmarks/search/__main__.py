"""Search benchmark: how much a sweep gains over the default configuration, by our searchers and by rivals.

    python -m benchmarks.search                                   # the headline cells; runs that are stored are skipped
    python -m benchmarks.search --cell good/low/8 --engine tpe --seeds 40 --until 100
    python -m benchmarks.search --table --plot benchmarks/search.svg

The real `Sweep`, space and scheduler run in simulated time (`simulation.py`): no training, scores come from a response
(`responses.py`) that each seed draws anew, seen through curves and noise (`observations.py`). A cell is
RESPONSE/NOISE/WORKERS. Every run appends one JSON line to `--out`. Runs over a space that has changed since, or raced
from another first rung, are neither shown nor taken for done.

Ablations are settings of a searcher (`--set startup=16`), of the scheduler (`--scheduler none`), and `--no-exempt`,
under which trial 0 is raced as the others; such runs have a name of their own (`--label`).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import missing, read_lines
from benchmarks.search import tables
from benchmarks.search.observations import CURVES, NOISES
from benchmarks.search.responses import RESPONSES
from benchmarks.search.rivals import ENGINES
from benchmarks.search.runs import least, opened, run_one
from hpo.search.searchers import SEARCHERS

OUT = Path(__file__).parent.with_name("search.jsonl")
HEADLINE = ("good/low/8", "good/measured/8", "optimal/low/8", "poor/low/8")
ELSEWHERE = ("grid", "gp", "nsga2")
"""Searchers for finite spaces, for flat spaces of numbers, for several objectives."""
ENGINES_BY_DEFAULT = (*(name for name in SEARCHERS if name not in ELSEWHERE), "stock")
CELLS = tuple(f"{response}/{noise}/{workers}"
              for response in (*RESPONSES, "fitted") for noise in NOISES if noise != "none" for workers in (2, 8, 64))


def jobs_of(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One job for each cell, engine and seed. Seeds come first, so that an interrupted run has even cells."""
    engines = options.engine or (*ENGINES_BY_DEFAULT, *(["priorband"] if options.neps is not None else []))
    common = {
        "space": options.space,
        "space_hash": opened(options.space)[0].hash,
        "least": least(),
        "until": options.until,
        "paired": options.paired,
        "curves": options.curves,
        "by_time": options.by_time,
        "scheduler": options.scheduler,
        "exempt": not options.no_exempt,
        "repeats": options.repeats,
        "settings": dict(pair.split("=", 1) for pair in options.set),
        "label": options.label,
    }
    return [
        {"cell": cell, "engine": engine, "seed": seed, **common}
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for cell in options.cell or HEADLINE
        for engine in engines
    ]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", action="append", metavar="RESPONSE/NOISE/WORKERS",
                        help=f"responses {', '.join((*RESPONSES, 'fitted'))}; noises {', '.join(NOISES)}; "
                        f"may be repeated; default: {', '.join(HEADLINE)}")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="all cells with 2, 8 and 64 workers")
    parser.add_argument("--engine", action="append", choices=list(ENGINES),
                        help="may be repeated; default: our searchers, stock, and with --neps priorband")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--until", type=float, default=24.0, help="full-trial equivalents of examples at which a run "
                        "ends: answers are looked at after 3, 6, 12, 24, 50 and 100")  # fmt: skip
    parser.add_argument("--by-time", action="store_true", help="count the workers' time instead of examples")
    parser.add_argument("--space", default="full")
    parser.add_argument("--curves", choices=["all", *CURVES], default="all", help="all: each seed has one of them")
    parser.add_argument("--paired", type=float, default=0.0, help="share of the variance over seeds that trials of "
                        "one replicate have in common")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="setting of our searcher")
    parser.add_argument("--scheduler", default="asha")
    parser.add_argument("--repeats", type=int, default=2, help="further runs of each finalist, for the rule's answer")
    parser.add_argument("--no-exempt", action="store_true", help="trial 0 may be stopped early")
    parser.add_argument("--label", default="", help="name of an ablation in tables; needed with its options")
    parser.add_argument("--neps", type=Path, help="Python of an environment with neural-pipeline-search")
    parser.add_argument("--fitted", help="STORE/SWEEP whose rows the response `fitted` learns from")
    parser.add_argument("--out", type=Path, default=OUT, help="file of results, one JSON line for each run")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of the stored runs and run nothing")
    parser.add_argument("--parts", action="store_true", help="print what draws of each part of our searchers are worth")
    parser.add_argument("--differences", action="append", default=[], metavar="FTE",
                        help="print the engines' differences by seed at this checkpoint; may be repeated")
    parser.add_argument("--plot", type=Path, help="write the plot of the first cell as SVG")
    options = parser.parse_args()
    if options.all:
        options.cell = list(CELLS)
    if (options.set or options.scheduler != "asha" or options.no_exempt) and not options.label:
        parser.error("`--label` must name the ablation that --set, --scheduler and --no-exempt make.")
    return options


def main() -> None:
    options = parsed()
    if not options.table:
        todo = missing(jobs_of(options), read_lines(options.out))
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(options.processes, mp_context=context) as pool:
            pending = {pool.submit(run_one, job, options.neps, options.fitted): job for job in todo}
            for future in concurrent.futures.as_completed(pending):
                job = pending[future]
                name = f"{job['cell']} {job['engine']} {job['label']} seed {job['seed']}"
                if (error := future.exception()) is not None:
                    print(f"{name}: {error!r}", file=sys.stderr, flush=True)
                    continue
                with options.out.open("a") as stream:
                    stream.write(json.dumps({**job, **future.result()}) + "\n")
    here = opened(options.space)[0].hash, least()
    rows = [row for row in read_lines(options.out) if (row["space_hash"], row.get("least")) == here]
    print(tables.table(rows, options.cell))
    if options.parts:
        print(f"\n{tables.parts(rows, options.cell)}")
    for point in options.differences:
        for cell in options.cell or HEADLINE:
            print(f"\n{cell}\n\n{tables.differences(rows, cell, point)}")
    if options.plot is not None:
        options.plot.write_text(tables.plot(rows, (options.cell or HEADLINE)[0]))


if __name__ == "__main__":
    main()
