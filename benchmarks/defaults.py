"""Defaults: the default configuration against the old one, and what each change of it gave, on real data, by seeds.

    python -m benchmarks.defaults --data ../shared/data/cs224n
    python -m benchmarks.defaults --table

Each run is a separate process with one thread; two run at a time. Results are appended to `defaults.jsonl` line by
line, and stored runs are not repeated. Cases of OLD_CASES change the default of configuration version 5, those of
NEW_CASES the present one; a case of the latter must be renamed when the default changes. A run is scored on `search`
after a ninth, a third and the whole of `--budget`, and in the end on `held`: all rows of SST and STS, 5,000 pairs of
QQP. Differences are paired by seed: runs of one seed share data order and first weights. Runs beside other work hold no
speed (null).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.common import by_case_and_seed, interval, markdown, mean, python, read_lines, run_all, train_and_score

OUT = Path(__file__).with_name("defaults.jsonl")
TASKS = ("sst", "qqp", "sts")
OLD = {"config_version": 5}
"""The old default configuration: absent fields are migrated to the values that they had."""
HELD = 5000
"""Largest number of a task's `held` rows that are scored."""
SEARCH = 1000
"""Largest number of a task's `search` rows that reports are scored on."""

MEAN = tuple(f"encoding/{task}/pooling=mean" for task in TASKS)
SMALL = ("batch_size/sst=8", "batch_size/qqp=8", "batch_size/sts=4")
MIDDLE = ("batch_size/sst=8", "batch_size/qqp=16", "batch_size/sts=8")
STS_WEIGHT = ("taper/sts/weight=0.45",)
WARMUP = ("optimizer/schedule/warmup_share=0.05",)
NO_ATTENTION = ("dropout/attention=0",)
NO_HIDDEN = ("dropout/hidden=0",)
ROBIN = ("mixing/kind=round_robin",)
LARGE_ROBIN = (*ROBIN, "batch_size/sst=32", "batch_size/qqp=64", "batch_size/sts=32")
QUERY_VALUE = ("adapter/kind=lora", "adapter/targets=query+value")
ALL_LINEAR = ("adapter/kind=lora", "adapter/targets=query+key+value+output+up+down")
PAL = ("adapter/kind=pal", "adapter/encoder=trained")
FROZEN_PAL = ("adapter/kind=pal", "adapter/encoder=frozen")
ALL = (*MEAN, *STS_WEIGHT, *WARMUP, *NO_ATTENTION, *NO_HIDDEN)

OLD_CASES: dict[str, tuple[str, ...]] = {
    "old default": (),
    "mean pooling, batches 8/8/4, STS weight 0.45, warm-up 5 %, no attention dropout":
        (*MEAN, *SMALL, *STS_WEIGHT, *WARMUP, *NO_ATTENTION),
    "mean pooling": MEAN,
    "batches 8/8/4": SMALL,
    "batches 8/16/8": MIDDLE,
    "STS weight 0.45": STS_WEIGHT,
    "warm-up 5 %": WARMUP,
    "no attention dropout": NO_ATTENTION,
    "no dropout in the encoder": (*NO_ATTENTION, *NO_HIDDEN),
    "round robin": ROBIN,
    "mean pooling, batches 8/8/4, STS weight 0.45, warm-up 5 %, no dropout in the encoder":
        (*MEAN, *SMALL, *STS_WEIGHT, *WARMUP, *NO_ATTENTION, *NO_HIDDEN),
    "mean pooling, batches 8/16/8, STS weight 0.45, warm-up 5 %, no attention dropout":
        (*MEAN, *MIDDLE, *STS_WEIGHT, *WARMUP, *NO_ATTENTION),
    "round robin, mean pooling, batches 16/16/8, no dropout in the encoder":
        (*ROBIN, *MEAN, "batch_size/qqp=16", "batch_size/sts=8", *NO_ATTENTION, *NO_HIDDEN),
    "all but batches": ALL,
    "all but batches, rate 2e-4": (*ALL, "optimizer/encoder_lr=2e-4"),
    "all, batches 8/16/8": (*ALL, *MIDDLE),
    "all, batches 8/16/8, rate 2e-4": (*ALL, *MIDDLE, "optimizer/encoder_lr=2e-4"),
    "all but batches, round robin": (*ALL, *ROBIN),
    "all but batches, round robin, rate 2e-4": (*ALL, *ROBIN, "optimizer/encoder_lr=2e-4"),
    "all, batches 16/16/8, rate 2e-4":
        (*ALL, "batch_size/qqp=16", "batch_size/sts=8", "optimizer/encoder_lr=2e-4"),
    "all, batches 24/24/12, rate 2e-4":
        (*ALL, "batch_size/sst=24", "batch_size/qqp=24", "batch_size/sts=12", "optimizer/encoder_lr=2e-4"),
    "all, batches 8/16/8, head rate 2e-3": (*ALL, *MIDDLE, "optimizer/head_lr=2e-3"),
}  # fmt: skip
"""Name -> settings that change the old default."""

NEW_CASES: dict[str, tuple[str, ...]] = {
    "new default": (),
    "new default, averaged weights": ("average/kind=exponential",),
    "new default, round robin, batches 32/64/32": LARGE_ROBIN,
    "new default, LoRA in query and value, rate 1e-3": (*QUERY_VALUE, "optimizer/adapter_lr=1e-3"),
    "new default, LoRA in query and value, rate 3e-3": (*QUERY_VALUE, "optimizer/adapter_lr=3e-3"),
    "new default, LoRA in all linear layers, rate 1e-3": (*ALL_LINEAR, "optimizer/adapter_lr=1e-3"),
    "new default, LoRA in all linear layers, rate 2e-3": (*ALL_LINEAR, "optimizer/adapter_lr=2e-3"),
    "new default, PAL beside a frozen encoder, rate 1e-3": (*FROZEN_PAL, "optimizer/adapter_lr=1e-3"),
    "new default, PAL beside a frozen encoder, rate 4e-3": (*FROZEN_PAL, "optimizer/adapter_lr=4e-3"),
    "new default, PAL of rank 16 beside a frozen encoder, rate 2e-3":
        (*FROZEN_PAL, "adapter/rank=16", "optimizer/adapter_lr=2e-3"),
    "new default, PAL beside a trained encoder, rate 1e-3": (*PAL, "optimizer/adapter_lr=1e-3"),
    "new default, PAL beside a trained encoder, rate 2e-3": (*PAL, "optimizer/adapter_lr=2e-3"),
}
"""Name -> settings that change the present default."""

CASES = OLD_CASES | NEW_CASES


def run_one(case: str, seed: int, data: str, budget: int) -> dict[str, Any]:
    """Train and score one case; returns its measurements."""
    from minbert.config import Config
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base

    opened = open_data(data, find_base())
    start = Config.from_dict(OLD if case in OLD_CASES else {}, opened.tasks)
    milestones = (budget // 9, budget // 3, budget)
    trained = train_and_score(start.changed(CASES[case], opened.tasks), opened, seed, milestones, SEARCH, HELD)
    return {
        "scores": trained.scores,
        "overall": trained.overall,
        "search": [report.overall for report in trained.reports],
        "examples": trained.reports[-1].examples,
        "examples_per_cpu_second": trained.examples_per_cpu_second,
        "arithmetic": trained.arithmetic,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table of one budget: one line for each case, differences from the old default by seed."""
    by_case = by_case_and_seed(rows)
    old = by_case.get("old default", {})
    lines = []
    for case in CASES:
        by_seed = by_case.get(case, {})
        if not by_seed:
            continue
        seeds = sorted(by_seed)
        shared = [seed for seed in seeds if seed in old]
        gains = [by_seed[seed]["overall"] - old[seed]["overall"] for seed in shared]
        timed = [seed for seed in shared if by_seed[seed]["examples_per_cpu_second"] is not None]
        speeds = [by_seed[seed]["examples_per_cpu_second"] / old[seed]["examples_per_cpu_second"] for seed in timed]
        chosen = [by_seed[seed] for seed in seeds]
        lines.append([
            case,
            str(len(seeds)),
            *(f"{mean([row['search'][index] for row in chosen]):.3f}" for index in range(3)),
            f"{mean([row['overall'] for row in chosen]):.4f}",
            f"{mean(gains):+.4f}{interval(gains)}" if gains and case != "old default" else "",
            *(f"{mean([row['scores'][task] for row in chosen]):.3f}" for task in TASKS),
            f"{mean(speeds):.2f}" if speeds else "",
        ])  # fmt: skip
    columns = ("case", "seeds", "search at 1/9", "at 1/3", "at the end", "held", "held against old", *TASKS,
               "examples/CPU s against old")  # fmt: skip
    return markdown(columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder in the class format")
    parser.add_argument("--out", type=Path, default=OUT, help="file of results, one JSON line for each run")
    parser.add_argument("--budget", type=int, default=20000, help="training examples of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", action="append", help="run this case alone; may be repeated")
    parser.add_argument("--table", action="store_true", help="print the table of the stored runs of --budget")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(run_one(options.one, options.seed, options.data, options.budget)))
    elif options.table:
        print(table([row for row in read_lines(options.out) if row["budget"] == options.budget]))
    else:
        data = str(Path(options.data).expanduser().absolute())

        def command(job: dict[str, Any]) -> list[str]:
            return python("benchmarks.defaults", "--data", data, "--budget", str(options.budget),
                          "--one", job["case"], "--seed", str(job["seed"]))  # fmt: skip

        jobs = [{"case": case, "seed": seed, "budget": options.budget}
                for seed in range(options.seeds) for case in options.only or CASES]  # fmt: skip
        run_all(jobs, command, options.out.absolute(), options.processes)


if __name__ == "__main__":
    main()
