"""Cost: what `minbert.training.cost` predicts for a configuration against what its training takes.

    python -m benchmarks.cost
    python -m benchmarks.cost --data ../shared/data/cs224n --draws 24

The first command prints the ratio of predicted to measured seconds an example, for every stored run: those of
`techniques.jsonl` and `defaults.jsonl` against the run of the same seed without the technique (median over seeds), and
those of `cost.jsonl` against the default. The second trains draws of the space `full` and appends them to `cost.jsonl`:
their steps and those of the default take turns in one process on one thread, so that whatever else runs on the machine
slows both. Stages are left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import defaults, techniques
from benchmarks.common import by_case_and_seed, configuration, markdown, read_lines
from minbert.config import Config
from minbert.tasks import choose_tasks
from minbert.training.cost import Workload, work

if TYPE_CHECKING:
    from minbert.data.tokens import Data

HERE = Path(__file__).parent
OUT = HERE / "cost.jsonl"
TASKS = choose_tasks()
CLASS_DATA = Workload(
    TASKS, {"sst": 8544, "qqp": 76113, "sts": 6040}, {"sst": 25.0, "qqp": 30.5, "sts": 28.4}
)  # fmt: skip
"""The class data, on which all stored runs trained."""
STEPS, SECONDS = 5, 1.5
"""Fewest timed steps of a configuration, and fewest CPU seconds."""


@dataclass(frozen=True)
class Run:
    """One configuration that was trained."""

    source: str
    name: str
    predicted: float
    """Work of an example against the run that it is compared with."""
    measured: float
    """CPU seconds of an example, likewise."""

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


def of_version_5(pairs: list[str]) -> Config:
    """The default of configuration version 5, changed by settings; an encoding that they name pools [CLS] as then."""
    kinds = [pair.partition("/kind=")[0] for pair in pairs if pair.startswith("encoding/") and pair.count("/") == 2]
    pooled = [f"{path}/pooling=cls" for path in kinds if "=" not in path]
    return Config.from_dict(defaults.OLD, TASKS).changed([*pooled, *pairs], TASKS)


def compared(path: Path, source: str, configs: Mapping[str, Config], baseline: str, budget: int) -> Iterator[Run]:
    """Stored runs of some cases against the baseline of the same seeds."""
    stored = by_case_and_seed(
        row
        for row in read_lines(path)
        if row["budget"] == budget and row.get("config_version") is None and row["examples_per_cpu_second"] is not None
    )
    for name, config in configs.items():
        if name == baseline or name not in stored:
            continue
        pairs = [(stored[baseline][seed], row) for seed, row in stored[name].items() if seed in stored[baseline]]
        measured = statistics.median(
            plain["examples_per_cpu_second"] / row["examples_per_cpu_second"] for plain, row in pairs
        )
        yield Run(source, name, work(config, CLASS_DATA) / work(configs[baseline], CLASS_DATA), measured)


def stored_runs() -> Iterator[Run]:
    """Every stored run that has no stage."""
    cases = [case for case in techniques.cases() if not any("stages/" in pair for pair in case.settings)]
    configs = {case.name: of_version_5([*techniques.BASE, *case.settings]) for case in cases}
    yield from compared(HERE / "techniques.jsonl", "techniques", configs, "baseline", 3_000)
    configs = {name: of_version_5([*settings]) for name, settings in defaults.OLD_CASES.items()}
    configs |= {name: configuration(*settings) for name, settings in defaults.NEW_CASES.items()}
    yield from compared(defaults.OUT, "defaults", configs, "old default", 20_000)
    for row in read_lines(OUT):
        config = Config.from_dict(row["config"], TASKS)
        predicted = work(config, CLASS_DATA) / CLASS_DATA.unit
        yield Run("draws of full" if row["case"].startswith("draw") else "default with", row["case"], predicted,
                  row["seconds"] / row["default"])  # fmt: skip


def draws(count: int, skip: int) -> Iterator[tuple[str, Config]]:
    """Draws of `full` by number, without stages and without those that the configuration refuses."""
    from hpo.launch.plan import complete_for
    from hpo.space.build import build
    from hpo.space.tree import compose
    from minbert.stages.stages import Stages

    space, complete = build("full", list(TASKS), ()).space, complete_for(TASKS)
    for number in range(skip, skip + count):
        source = random.Random(number)
        nested, _ = compose(space.leaves, lambda leaf, source=source: leaf.random(source))  # type: ignore[misc]
        try:
            config = Config.from_dict(space.apply(nested, complete), TASKS)
        except ValueError:
            continue
        yield f"draw {number}", replace(config, stages=Stages())


def measure(config: Config, data: Data) -> dict[str, Any]:
    """CPU seconds of an example of the default and of a configuration, whose steps take turns."""
    from benchmarks.speed.ours import trial

    trials = {"default": trial(configuration(), data, 0), "seconds": trial(config, data, 0)}
    for _, each in itertools.product(range(2), trials.values()):
        each.step()
    begun, used, steps = {name: each.examples for name, each in trials.items()}, dict.fromkeys(trials, 0.0), 0
    while steps < STEPS or used["seconds"] < SECONDS:
        for name, each in trials.items():
            start = time.process_time()
            each.step()
            used[name] += time.process_time() - start
        steps += 1
    return {name: used[name] / (each.examples - begun[name]) for name, each in trials.items()} | {"steps": steps}


def train(folder: str, count: int) -> None:
    """Measure further draws and append them to OUT."""
    import torch

    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base

    torch.set_num_threads(1)
    data = open_data(folder, find_base())
    done = [int(row["case"].split()[1]) for row in read_lines(OUT) if row["case"].startswith("draw ")]
    for name, config in draws(count, max(done, default=-1) + 1):
        row = {"case": name, **measure(config, data), "config": config.to_dict()}
        with OUT.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        print(f"{name}: {row['seconds'] / row['default']:.2f}", flush=True)


def summary(runs: list[Run]) -> str:
    """The Markdown table of all runs, one line a source."""
    rows = []
    for source in dict.fromkeys(run.source for run in runs):
        ratios = [run.ratio for run in runs if run.source == source]
        near, far = (sum(1 / bound <= ratio <= bound for ratio in ratios) for bound in (1.25, 2.0))
        error = math.exp(statistics.fmean(abs(math.log(ratio)) for ratio in ratios)) - 1
        rows.append([source, str(len(ratios)), str(near), str(far), f"{min(ratios):.2f} to {max(ratios):.2f}",
                     f"{error:.0%}"])  # fmt: skip
    return markdown(["runs", "number", "within 25 %", "within 2 x", "predicted / measured", "mean error"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder in the class format; measures draws of `full`")
    parser.add_argument("--draws", type=int, default=24, help="draws to measure")
    options = parser.parse_args()
    if options.data:
        train(options.data, options.draws)
    runs = list(stored_runs())
    rows = [[run.source, run.name, f"{run.predicted:.2f}", f"{run.measured:.2f}", f"{run.ratio:.2f}"] for run in runs]
    print(markdown(["runs", "case", "predicted", "measured", "predicted / measured"], rows))
    print()
    print(summary(runs))


if __name__ == "__main__":
    main()
