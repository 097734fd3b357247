"""Techniques: each one compared with the same short run without it, on real data, with several seeds.

    python -m benchmarks.techniques --data ../shared/data/cs224n --out benchmarks/techniques.jsonl
    python -m benchmarks.techniques --out benchmarks/techniques.jsonl --table docs/techniques.md

Each run is a separate process with one thread; two run at a time. Results are appended line by line, and stored runs
are not repeated. A run trains `--budget` examples with batches of 8 rows of each task, and is scored on rows of `held`,
which nothing else uses. The runs show that a technique does what it claims. They do not show which technique is best: a
few hundred steps of one small encoder cannot decide that.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import (
    by_case_and_seed,
    configuration,
    interval,
    mean,
    python,
    read_lines,
    run_all,
    train_and_score,
)
from minbert.migrations import CONFIG_VERSION

MARK, END = "<!-- measured: begin -->", "<!-- measured: end -->"

BASE = [f"batch_size/{task}=8" for task in ("sst", "qqp", "sts")]
BI = [f"encoding/{task}/{part}" for task in ("qqp", "sts") for part in ("kind=bi", "head/kind=linear")]
LORA = ["adapter/kind=lora"]
SMART = "regularizer/sst/kind=smart"
DROPOUT = ["dropout/hidden=0.1", "dropout/attention=0.1"]

WITHOUT_CASE = {
    "adapter/dropout": "dropout of a frozen encoder: the default has no dropout in the encoder",
    "adapter/layers/dropout": "dropout below the adapted layers: the default has none there",
    "batch_size": "batches of 8 keep 3,000 examples at 125 steps; `defaults.py` compares batch sizes",
    "mixing/order": "one order shows what training in turn does; another one only changes which task is last",
    "optimizer/encoder_lr": "rates: `defaults.py` compares them over longer runs",
    "optimizer/head_lr": "rates: `defaults.py` compares them over longer runs",
}
"""Parameters of the space `full` that have no case, or not one for each of their choices -> the reason."""


@dataclass(frozen=True)
class Case:
    """One technique: its settings, and the case that it is compared with."""

    name: str
    settings: list[str]
    against: str = "baseline"
    """Name of the case without the technique."""


def cases() -> list[Case]:
    """All cases: the baselines first, then every technique by family."""

    def case(name: str, *settings: str, against: str = "baseline") -> Case:
        return Case(name, [*settings], against)

    return [
        case("baseline"),
        case("pairs apart, [u;v]", *BI),
        # What is trained
        case("heads alone", "adapter/kind=frozen", "adapter/dropout=on"),
        case("LoRA r=8 query+value", *LORA, "adapter/targets=query+value"),
        case("LoRA query+key", *LORA, "adapter/targets=query+key"),
        case("LoRA query+key+value", *LORA, "adapter/targets=query+key+value"),
        case("LoRA all linear", *LORA, "adapter/targets=query+key+value+output+up+down"),
        case("LoRA with heads", *LORA, "adapter/heads=lora", against="LoRA all linear"),
        case("LoRA with adapted biases", *LORA, "adapter/bias=adapted", against="LoRA all linear"),
        case("LoRA with all biases", *LORA, "adapter/bias=all", against="LoRA all linear"),
        case("LoRA, the rest trained", *LORA, "adapter/rest=trained", against="LoRA all linear"),
        case("LoRA in the top layer", *LORA, "adapter/layers/kind=top", against="LoRA all linear"),
        case("DoRA all linear", "adapter/kind=dora", against="LoRA all linear"),
        case("PAL-LoRA r=8, encoder frozen", "adapter/kind=pal", "adapter/rank=8", "adapter/encoder=frozen"),
        case("PAL-LoRA r=8, encoder trained", "adapter/kind=pal", "adapter/rank=8", "adapter/encoder=trained"),
        *(case(f"one task: {task}", "mixing/kind=single", f"mixing/task={task}") for task in ("sst", "qqp", "sts")),
        # Heads and encodings
        *(
            case(f"pooling {pooling}", *(f"encoding/{task}/pooling={pooling}" for task in ("sst", "qqp", "sts")))
            for pooling in ("cls", "pooler", "max")
        ),
        *(
            case(f"features {name}", *BI, *(f"encoding/{task}/head/features={name}" for task in ("qqp", "sts")),
                 against="pairs apart, [u;v]")
            for name in ("sum", "product", "difference", "cosine")
        ),
        case("QQP with added cosine", *BI, "encoding/qqp/head/cosine=added", against="pairs apart, [u;v]"),
        *(
            case(f"STS cosine, {name}", *BI, "encoding/sts/head/kind=cosine", f"encoding/sts/head/transform={name}",
                 against="pairs apart, [u;v]")
            for name in ("relu", "shift", "sigmoid", "learned_sigmoid")
        ),
        case("STS cosine, relu, no layer", *BI, "encoding/sts/head/kind=cosine", "encoding/sts/head/transform=relu",
             "encoding/sts/head/layer=none", against="STS cosine, relu"),
        case("STS cosine-embedding loss", *BI, "encoding/sts/head/kind=cosine_embedding",
             against="pairs apart, [u;v]"),
        case("shared layer", *BI, "shared_head/kind=linear", against="pairs apart, [u;v]"),
        # Mixing
        case("epochs of the smallest task", "mixing/multiplier=1"),
        case("three times the iterations", "mixing/multiplier=3"),
        case("round robin", "mixing/kind=round_robin"),
        case("alpha 0.5", "mixing/kind=alpha", "mixing/alpha=0.5"),
        case("alpha 1", "mixing/kind=alpha", "mixing/alpha=1"),
        case("alpha 0.5, SST and STS x 4", "mixing/kind=alpha", "mixing/upweight/sst=4", "mixing/upweight/sts=4",
             against="alpha 0.5"),
        case("annealed", "mixing/kind=annealed"),
        case("one task after the other", "mixing/kind=sequential"),
        case("loss of STS in label units", "regression_loss=raw"),
        case("tapered losses", "taper/sst/kind=inverse", "taper/sts/kind=logarithmic"),
        case("PCGrad", "mixing/combine/kind=pcgrad"),
        case("GSE", "mixing/combine/kind=gse"),
        case("uncertainty weighting", "mixing/balance/kind=uncertainty"),
        case("GradNorm", "mixing/balance/kind=gradnorm"),
        # Regularisation
        case("SMART on SST", SMART),
        case("SMART on SST, radius 0", SMART, "regularizer/sst/radius=0", against="SMART on SST"),
        case("SMART on all tasks", *(f"regularizer/{task}/kind=smart" for task in ("sst", "qqp", "sts"))),
        case("FGM on SST", "regularizer/sst/kind=fgm"),
        case("Bregman", "proximal/kind=bregman"),
        case("dropout 0.1 in the encoder", *DROPOUT),
        # Without dropout both passes of R-Drop are one.
        case("R-Drop on SST", *DROPOUT, "regularizer/sst/kind=rdrop", against="dropout 0.1 in the encoder"),
        case("dropout 0.3", *(f"dropout/{part}=0.3" for part in ("hidden", "attention", "head"))),
        case("no dropout", *(f"dropout/{part}=0" for part in ("hidden", "attention", "head"))),
        # Stages
        case("MLM, 3,000 texts", "stages/mlm/kind=mlm", "stages/mlm/epochs=0.0174"),
        case("NLI, 3,000 pairs", "stages/nli/kind=nli", "stages/nli/epochs=0.0362", "stages/nli/lr=2e-5"),
        case("MNRL, 3,000 pairs", "stages/mnrl/kind=mnrl", "stages/mnrl/epochs=0.1036"),
        # Augmentation, optimisation
        case("augmented SST (edits)", "augmentation/kind=edit"),
        case("averaged weights", "average/kind=exponential"),
        case("no warm-up", "optimizer/schedule/warmup_steps=0"),
        case("constant rate", "optimizer/schedule/kind=constant"),
        case("cosine schedule", "optimizer/schedule/kind=cosine"),
        case("layer-wise decay 0.8", "optimizer/layer_decay=0.8"),
        case("accumulation 4", "optimizer/accumulation=4"),
        case("clipping at 0.1", "optimizer/clip_norm=0.1"),
        case("weight decay 0.1", "optimizer/weight_decay=0.1"),
        case("best of three reports", "selection=best"),
    ]  # fmt: skip


SEARCH = 100
"""Largest number of a task's `search` rows that a report is scored on."""
HELD = 2000
"""Largest number of a task's `held` rows that are scored."""


def run_one(case: str, seed: int, data: str, budget: int) -> dict[str, Any]:
    """Train and score one case; returns its measurements."""
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base

    technique = next(candidate for candidate in cases() if candidate.name == case)
    config = configuration(*BASE, *technique.settings)
    milestones = (budget // 3, 2 * budget // 3, budget)
    trained = train_and_score(config, open_data(data, find_base()), seed, milestones, SEARCH, HELD)
    last = trained.reports[-1]
    return {
        "scores": trained.scores,
        "overall": trained.overall,
        "flags": list(last.flags),
        "losses": [report.losses for report in trained.reports],
        "examples": last.examples,
        "examples_per_cpu_second": trained.examples_per_cpu_second,
        "examples_per_task": last.examples_per_task,
        "stage_seconds": last.stage_seconds,
        "trainable": last.trainable_parameters,
        "total": last.total_parameters,
        "peak_memory_bytes": last.peak_memory_bytes,
    }


def measure(options: argparse.Namespace) -> None:
    """Run all cases, seed by seed, each in its own process; runs that the file holds are not repeated."""
    if any(row["budget"] != options.budget for row in read_lines(options.out)):
        sys.exit(f"{options.out} holds runs with another --budget than {options.budget}; name another file with --out")

    def command(job: dict[str, Any]) -> list[str]:
        return python("benchmarks.techniques", "--data", options.data, "--budget", str(options.budget),
                      "--one", job["case"], "--seed", str(job["seed"]))  # fmt: skip

    # A later version of the configuration has other defaults: its runs are others.
    version = {"config_version": CONFIG_VERSION}
    jobs = [{"case": case.name, "seed": seed, **version} for seed in range(options.seeds) for case in cases()]
    jobs = [job for job in jobs if not options.only or options.only in job["case"]]
    run_all(({**job, "budget": options.budget} for job in jobs), command, options.out, options.processes)


def mechanics(rows: list[dict[str, Any]]) -> str:
    """What the technique did, by its own measures, in the first and the last third of the run."""
    first, last = rows[0]["losses"][0], rows[0]["losses"][-1]
    notes = []
    if "pairs" in last:
        notes.append(f"conflicts {first['conflicts']:.2f} -> {last['conflicts']:.2f} of {last['pairs']:.0f} pairs")
    notes += [f"{name} {first.get(name, float('nan')):.3g} -> {last[name]:.3g}" for name in last if "/" in name]
    if rows[0]["stage_seconds"]:
        notes.append(f"stage {rows[0]['stage_seconds']:.0f} s, once")
    notes.extend(rows[0]["flags"])
    shares = rows[0]["examples_per_task"]
    if len(set(shares.values())) > 1:
        notes.append("rows " + "/".join(str(value) for value in shares.values()))
    return "; ".join(notes)


def table(options: argparse.Namespace) -> str:
    """The Markdown table: one line for each technique, differences by seed."""
    present = (row for row in read_lines(options.out) if row.get("config_version") == CONFIG_VERSION)
    by_case = by_case_and_seed(present)
    columns = ("technique", "seeds", "overall", "against its baseline", "sst", "qqp", "sts", "trained",
               "examples/CPU s", "peak MiB", "what it did")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    for case in cases():
        by_seed = by_case.get(case.name, {})
        if not by_seed:
            continue
        rows, baseline = [by_seed[seed] for seed in sorted(by_seed)], by_case.get(case.against, {})
        gains = [by_seed[seed]["overall"] - baseline[seed]["overall"] for seed in sorted(by_seed) if seed in baseline]
        gain = ""
        if gains and case.name != "baseline":
            gain = f"{mean(gains):+.4f}{interval(gains)} ({case.against})"
        overall = [row["overall"] for row in rows]
        cells = [
            case.name,
            str(len(rows)),
            f"{mean(overall):.4f}{interval(overall)}",
            gain,
            *(f"{mean([row['scores'][task] for row in rows]):.3f}" for task in ("sst", "qqp", "sts")),
            f"{100 * rows[0]['trainable'] / rows[0]['total']:.2f} %",
            f"{mean([row['examples_per_cpu_second'] for row in rows]):.1f}",
            f"{max(row['peak_memory_bytes'] for row in rows) / 2**20:.0f}",
            mechanics(rows),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder in the class format")
    parser.add_argument("--out", type=Path, help="file of results, one JSON line for each run")
    parser.add_argument("--budget", type=int, default=3000, help="training examples of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", help="run only cases whose name contains this text")
    parser.add_argument("--table", type=Path, help="Markdown file in which the table is replaced")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(run_one(options.one, options.seed, options.data, options.budget)))
    elif options.table:
        text = options.table.read_text()
        before, after = text.partition(MARK)[0], text.partition(END)[2]
        options.table.write_text(f"{before}{MARK}\n{table(options)}\n{END}{after}")
    else:
        options.data = str(Path(options.data).expanduser().absolute())
        options.out = options.out.absolute()
        measure(options)


if __name__ == "__main__":
    main()
