"""Hours: sweeps of `full` of an hour on real data, against the default trained alone for the same minutes.

    python -m benchmarks.hours --data ../shared/data/cs224n --store runs/hours
    python -m benchmarks.hours --table

Four sweeps with seeds 0 to 3, fixed in advance: `hpo run full --trials 24 --budget 20000`, stopped after an hour
(`--minutes`). A sweep that was stopped is answered by the trials that reached the full budget until then; repeats come
after the search, so it may have none. Beside each sweep the old default, that of configuration version 5, is trained
with the seed of the sweep's own default. Then the default alone, with other seeds, each as a sweep of one trial. Two
processes train at a time. A sweep that was interrupted is resumed for the rest of its minutes; what `hours.jsonl` holds
is not run again, so that one machine after another may go on.

Compared are, on the rows of `held` on which headlines are estimated:

    answer     the sweep's answer, a mean over its runs (0.0000 against the default where the default is the answer)
    default    the default's runs in the sweep, a mean
    old        the old default; the interval of a sweep's difference is that of other rows, the mean's that of seeds
    alone      of as many runs of the default alone as fit into the sweep's minutes, the one that is best on `search`

Minutes are those of a worker at work, so that they leave out starts and interruptions.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import ROOT, interval, markdown, mean, python, read_lines
from benchmarks.defaults import OLD
from hpo.search.states import DEFAULT

if TYPE_CHECKING:
    from hpo.search.answer import Answer
    from results.store import SweepFolder

OUT = Path(__file__).with_name("hours.jsonl")
SWEEPS = range(4)
"""Seeds of the sweeps."""
ALONE = range(100, 124)
"""Seeds of the runs of the default alone."""
BUDGET, TRIALS, WORKERS = 20_000, 24, 2
LEAST_MINUTES = 1.0
"""A sweep that has fewer minutes left is not resumed: its trials would hardly train."""


def launch(name: str, store: Path, *options: str, minutes: float | None = None) -> None:
    """Run a sweep, or resume it, until its end or until its workers have been busy for `minutes` (None: no limit).

    Raises CalledProcessError.
    """
    from hpo.driver.stopping import RESUMABLE
    from results.store import Store

    known = (store / name / "sweep.json").exists()
    command = ["resume", name] if known else ["run", *options, "--budget", str(BUDGET), "--name", name]
    if minutes is not None:
        left = minutes - (busy_minutes(Store(str(store)).open(name)) / WORKERS if known else 0.0)
        if left < LEAST_MINUTES:
            return
        command += ["--time", f"{60 * left:.0f}s"]
    finished = subprocess.run(python("hpo", *command, "--store", str(store)), cwd=ROOT, check=False)
    if finished.returncode != (RESUMABLE if minutes is not None else 0):
        finished.check_returncode()


def old_settings() -> list[str]:
    """Settings that make the old default of the present one, as `--set` takes them."""
    from minbert.config import Config
    from minbert.tasks import run_tasks

    tasks = run_tasks(None)
    old, new = (dict(_flat(Config.from_dict(record, tasks).to_dict())) for record in (OLD, {}))
    return [f"{path}={value if isinstance(value, str) else json.dumps(value)}"
            for path, value in old.items() if new.get(path) != value]  # fmt: skip


def _flat(nested: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(nested, dict):
        yield path, nested
        return
    for key, value in nested.items():
        yield from _flat(value, f"{path}/{key}" if path else key)


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


def answered(folder: SweepFolder) -> tuple[Answer, dict[int, tuple[int, ...]]]:
    """The answer by the trials at full budget, whether the sweep has ended or was stopped; and the runs, which have
    predicted `held`, of the default and of the configuration that comes nearest to it or beats it."""
    from hpo.driver.answer import compared, decided, runs_at_full_budget
    from hpo.driver.finalise import asked, finalise_here
    from hpo.driver.ledger import Ledger
    from results.predictions import HELD, predicted

    ledger = Ledger.of(folder)
    answer = decided(folder, ledger, BUDGET)
    assert answer.default is not None, f"the default of sweep {folder.name} has not reached its full budget"
    problems = finalise_here(folder, asked(folder, ledger, compared(ledger, answer, BUDGET), [HELD]), print)
    assert not problems, problems
    there, runs = predicted(folder, HELD), runs_at_full_budget(ledger, BUDGET)
    trials = (DEFAULT, *(judged.trial for judged in answer.judged[:1]))
    return answer, {trial: tuple(run for run in runs[trial] if run in there) for trial in trials}


def swept(store: Path, name: str, old: str) -> dict[str, Any]:
    """What a sweep found, against its own default and against the one trial of the sweep `old`."""
    from hpo.driver.answer import difference_on_held, of_sweep
    from results.store import Store

    folder, beside = (Store(str(store)).open(each) for each in (name, old))
    answer, runs = answered(folder)
    nearest = max(runs)  # the default's number is the lowest
    assert answer.trial is not None
    difference = difference_on_held((folder, runs[nearest]), (folder, runs[DEFAULT]))
    against_old = difference_on_held((folder, runs[answer.trial]), (beside, (DEFAULT,)))
    assert difference is not None, f"sweep {name} has no comparison on `held`"
    assert against_old is not None, f"sweep {old} has not predicted `held`"
    return {
        "answer": answer.trial,
        "nearest": nearest,
        "probability": answer.judged[0].probability if answer.judged else 0.0,
        "noise": answer.noise,
        "held": held_scores(folder, runs[nearest]),
        "default_held": held_scores(folder, runs[DEFAULT]),
        "old_held": held_scores(beside, (DEFAULT,)),
        "difference": difference[2].to_dict(),
        "against_old": against_old[2].to_dict(),
        "ended": of_sweep(folder) is not None,
        "minutes": busy_minutes(folder) / WORKERS,
    }


def trained_alone(store: Path, name: str) -> dict[str, Any]:
    """What a run of the default alone reached."""
    from results.rows import to_rows
    from results.store import Store

    folder = Store(str(store)).open(name)
    last = max(to_rows(folder.read("reports")), key=lambda row: row["step"])
    return {"search": last["overall"], "held": held_scores(folder, (0,))[0], "minutes": busy_minutes(folder)}


def measure(data: str, store: Path, out: Path, minutes: float) -> None:
    """Run what `out` does not hold yet."""

    def keep(row: dict[str, Any]) -> None:
        with out.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def single(name: str, seed: int, settings: Iterable[str] = ()) -> None:
        pins = [argument for setting in settings for argument in ("--set", setting)]
        launch(name, store, "quickstart", "--data", data, "--trials", "1", "--workers", "1", "--seed", str(seed), *pins)

    def alone(seed: int) -> None:
        name = f"default-{seed}"
        single(name, seed)
        keep({"kind": "alone", "seed": seed, **trained_alone(store, name)})

    done = {(row["kind"], row["seed"]) for row in read_lines(out)}
    for seed in SWEEPS:
        if ("sweep", seed) not in done:
            name, old = f"full-{seed}", f"old-{seed}"
            launch(name, store, "full", "--data", data, "--trials", str(TRIALS), "--workers", str(WORKERS),
                   "--seed", str(seed), minutes=minutes)  # fmt: skip
            single(old, seed, old_settings())
            keep({"kind": "sweep", "seed": seed, **swept(store, name, old)})
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
    lines, gains, against_old, against_alone = [], [], [], []
    for row in sorted((row for row in rows if row["kind"] == "sweep"), key=lambda row: row["seed"]):
        default = row["answer"] == DEFAULT
        value = mean(row["default_held"] if default else row["held"])
        best, held, old = best_alone(alone, row["minutes"]), row["difference"], row["against_old"]
        gains.append(0.0 if default else held["value"])
        against_old.append(old["value"])
        if best is not None:
            against_alone.append(value - best["held"])
        lines.append([
            f"seed {row['seed']}",
            f"{row['minutes']:.0f}" + ", stopped" * (not row["ended"]),
            "the default" if default else f"trial {row['answer']}",
            f"{row['probability']:.2f} (trial {row['nearest']})",
            f"{value:.4f}",
            f"{gains[-1]:+.4f}",
            difference(held),
            difference(old),
            "" if best is None else f"{best['held']:.4f} ({best['runs']})",
            "" if best is None else f"{against_alone[-1]:+.4f}",
        ])  # fmt: skip
    pooled = [f"{mean(values):+.4f}{interval(values)}" if values else ""
              for values in (gains, against_old, against_alone)]  # fmt: skip
    lines.append(["mean", "", "", "", "", pooled[0], "", pooled[1], "", pooled[2]])
    columns = ("sweep", "minutes", "answer", "probability of the nearest", "answer on held", "gain over the default",
               "nearest against default", "answer against the old default", "default alone (runs)",
               "against it")  # fmt: skip
    return markdown(columns, lines)


def difference(stored: Mapping[str, float]) -> str:
    """A difference on `held` with its interval."""
    return f"{stored['value']:+.4f} ({stored['low']:+.4f} .. {stored['high']:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder in the class format")
    parser.add_argument("--store", type=Path, help="store of the sweeps, some GB")
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit of each sweep")
    parser.add_argument("--out", type=Path, default=OUT, help="file of results, one JSON line for each sweep or run")
    parser.add_argument("--table", action="store_true", help="print the table of the stored results")
    options = parser.parse_args()
    if options.table:
        print(table(read_lines(options.out)))
    elif options.data is None or options.store is None:
        sys.exit("--data and --store are needed to measure")
    else:
        data = str(Path(options.data).expanduser().absolute())
        measure(data, options.store.absolute(), options.out.absolute(), options.minutes)


if __name__ == "__main__":
    main()
