"""Hours: sweeps of `full` of about an hour on real data, against the default trained alone for the same minutes.

    python -m benchmarks.hours --data ../shared/data/cs224n --store runs/hours
    python -m benchmarks.hours --table

Four sweeps with seeds 0 to 3, fixed in advance: `hpo run full --trials 24 --budget 20000`, whatever it costs. Then the
default alone, with other seeds, each as a sweep of one trial. Two processes train at a time. A sweep that was
interrupted is resumed; what `hours.jsonl` holds is not run again, so that one machine after another may go on.

Compared are, on the rows of `held` on which headlines are estimated:

    answer     the sweep's answer, a mean over its runs (0.0000 against the default where the default is the answer)
    default    the default's runs in the sweep, a mean
    alone      of as many runs of the default alone as fit into the sweep's minutes, the one that is best on `search`

Minutes are those of a worker at work, so that they leave out starts and interruptions.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import ROOT, interval, markdown, mean, python, read_lines

if TYPE_CHECKING:
    from results.store import SweepFolder

OUT = Path(__file__).with_name("hours.jsonl")
SWEEPS = range(4)
"""Seeds of the sweeps."""
ALONE = range(100, 124)
"""Seeds of the runs of the default alone."""
BUDGET, TRIALS, WORKERS = 20_000, 24, 2


def launch(name: str, store: Path, *options: str) -> None:
    """Run a sweep to its end, or resume it. Raises CalledProcessError."""
    known = (store / name / "sweep.json").exists()
    command = ["resume", name] if known else ["run", *options, "--budget", str(BUDGET), "--name", name]
    subprocess.run(python("hpo", *command, "--store", str(store)), cwd=ROOT, check=True)


def busy_minutes(folder: SweepFolder) -> float:
    """Minutes that all workers together spent on trials, until each one's last row."""
    from results.rows import to_rows

    begun: dict[tuple[int, int], float] = {}
    last: dict[tuple[int, int], float] = {}
    for row in sorted([*to_rows(folder.read("trials")), *to_rows(folder.read("reports"))], key=lambda row: row["time"]):
        attempt = row["trial"], row["attempt"]
        begun.setdefault(attempt, row["time"])
        if row.get("event") != "weights":
            last[attempt] = row["time"]
    return sum(last[attempt] - begun[attempt] for attempt in begun) / 60


def held_scores(folder: SweepFolder, runs: tuple[int, ...]) -> list[float]:
    """Overall of each run on the rows of `held` on which headlines are estimated."""
    from hpo.driver.jury import scoring
    from results.choice import labels_of
    from results.predictions import common_rows, headline

    score = scoring(folder)
    members = [headline(folder, run) for run in runs]
    rows = common_rows(members)
    judge = score.judge(labels_of(folder, score, ("held",), rows))
    return [judge({task: prediction.values for task, prediction in member.items()}) for member in members]


def swept(store: Path, name: str) -> dict[str, Any]:
    """What a finished sweep found."""
    from hpo.driver.answer import of_sweep
    from results.store import Store

    folder = Store(str(store)).open(name)
    decision = of_sweep(folder)
    assert decision is not None, f"sweep {name} has not ended"
    answer, held = decision.answer, decision.held
    assert held is not None, f"sweep {name} has no comparison on `held`"
    return {
        "answer": answer.trial,
        "nearest": held.trial,
        "probability": answer.judged[0].probability,
        "noise": answer.noise,
        "held": held_scores(folder, held.runs),
        "default_held": held_scores(folder, held.default_runs),
        "difference": held.difference.to_dict(),
        "minutes": busy_minutes(folder) / WORKERS,
    }


def trained_alone(store: Path, name: str) -> dict[str, Any]:
    """What a run of the default alone reached."""
    from results.rows import to_rows
    from results.store import Store

    folder = Store(str(store)).open(name)
    last = max(to_rows(folder.read("reports")), key=lambda row: row["step"])
    return {"search": last["overall"], "held": held_scores(folder, (0,))[0], "minutes": busy_minutes(folder)}


def measure(data: str, store: Path, out: Path) -> None:
    """Run what `out` does not hold yet."""

    def keep(row: dict[str, Any]) -> None:
        with out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def alone(seed: int) -> None:
        name = f"default-{seed}"
        launch(name, store, "quickstart", "--data", data, "--trials", "1", "--workers", "1", "--seed", str(seed))
        keep({"kind": "alone", "seed": seed, **trained_alone(store, name)})

    done = {(row["kind"], row["seed"]) for row in read_lines(out)}
    for seed in SWEEPS:
        if ("sweep", seed) not in done:
            name = f"full-{seed}"
            launch(name, store, "full", "--data", data, "--trials", str(TRIALS), "--workers", str(WORKERS),
                   "--seed", str(seed))  # fmt: skip
            keep({"kind": "sweep", "seed": seed, **swept(store, name)})
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(alone, (seed for seed in ALONE if ("alone", seed) not in done)))


def best_alone(runs: list[dict[str, Any]], minutes: float) -> dict[str, Any] | None:
    """The run that is best on `search` of the first ones that fit into the minutes on WORKERS workers; None: no run."""
    left, chosen = minutes * WORKERS, []
    for run in sorted(runs, key=lambda run: run["seed"]):
        left -= run["minutes"]
        if left < 0:
            break
        chosen.append(run)
    return max(chosen, key=lambda run: run["search"]) | {"runs": len(chosen)} if chosen else None


def table(rows: list[dict[str, Any]]) -> str:
    """The Markdown table: one line for each sweep, then the means over sweeps with their intervals."""
    alone = [row for row in rows if row["kind"] == "alone"]
    lines, gains, against_alone = [], [], []
    for row in sorted((row for row in rows if row["kind"] == "sweep"), key=lambda row: row["seed"]):
        default = row["answer"] == 0
        value = mean(row["default_held"] if default else row["held"])
        best, held = best_alone(alone, row["minutes"]), row["difference"]
        gains.append(0.0 if default else held["value"])
        if best is not None:
            against_alone.append(value - best["held"])
        lines.append([
            f"seed {row['seed']}",
            f"{row['minutes']:.0f}",
            "the default" if default else f"trial {row['answer']}",
            f"{row['probability']:.2f} (trial {row['nearest']})",
            f"{value:.4f}",
            f"{gains[-1]:+.4f}",
            f"{held['value']:+.4f} ({held['low']:+.4f} .. {held['high']:+.4f})",
            "" if best is None else f"{best['held']:.4f} ({best['runs']})",
            "" if best is None else f"{against_alone[-1]:+.4f}",
        ])  # fmt: skip
    pooled = [f"{mean(values):+.4f}{interval(values)}" if values else "" for values in (gains, against_alone)]
    lines.append(["mean", "", "", "", "", pooled[0], "", "", pooled[1]])
    columns = ("sweep", "minutes", "answer", "probability of the nearest", "answer on held", "gain over the default",
               "nearest against default", "default alone (runs)", "against it")  # fmt: skip
    return markdown(columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder in the class format")
    parser.add_argument("--store", type=Path, help="store of the sweeps, some GB")
    parser.add_argument("--out", type=Path, default=OUT, help="file of results, one JSON line for each sweep or run")
    parser.add_argument("--table", action="store_true", help="print the table of the stored results")
    options = parser.parse_args()
    if options.table:
        print(table(read_lines(options.out)))
    elif options.data is None or options.store is None:
        sys.exit("--data and --store are needed to measure")
    else:
        data = str(Path(options.data).expanduser().absolute())
        measure(data, options.store.absolute(), options.out.absolute())


if __name__ == "__main__":
    main()
