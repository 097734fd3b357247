"""Precision: do bf16 and packing lower scores? Padded float32, packed float32 and packed bf16 on SST, QQP and STS.

    python -m benchmarks.precision --data ../shared/data/cs224n --out benchmarks/precision.jsonl
    python -m benchmarks.precision --out benchmarks/precision.jsonl --table

All arms train MiniLM on one task and are scored on rows of `held`. They train on the same rows in the same order, with
the same initial weights of the head and the same optimiser. Arm `padded` has the encoder of `transformers` instead of
ours (`padded.py`). Its dropout masks differ from those of the other arms; this is the noise of the comparison.

On a CPU without native bf16 matrix products, a product converts its bf16 inputs to float32, sums in float32 and rounds
once to bf16, as bf16 units do. The rest of the bf16 path is unchanged. Such a run does not measure speed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import configuration, interval, markdown, mean, python, read_lines, run_all

TASKS_HERE = ("sst", "qqp", "sts")
SIZES = dict.fromkeys(TASKS_HERE, 16)
ARMS = ("padded", "packed", "bf16")
HELD = 2000
"""Largest number of `held` rows that are scored."""


def trained(task: str, seed: int, data: str, budget: int, precision: str) -> float:
    """Train one trial; returns its score on `held`."""
    import numpy as np

    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base
    from minbert.metrics import score
    from minbert.tasks import choose_tasks
    from minbert.training.evaluation import predict_rows
    from minbert.training.predict import load_model
    from minbert.training.train import State, train

    chosen = choose_tasks(task)
    config = configuration(
        "mixing/kind=single", f"mixing/task={task}", f"batch_size/{task}={SIZES[task]}", f"precision={precision}",
        f"encoding/{task}/pooling=pooler", tasks=chosen,
    )  # fmt: skip
    opened = open_data(data, find_base(), tasks=chosen)
    with tempfile.TemporaryDirectory() as folder:
        *_, last = train(config, opened, State.fresh(seed, (budget,), Path(folder), report_rows=[{task: 100}]))
        model = load_model(Path(last.checkpoint), opened)
        rows = np.asarray(opened.parts[task, "held"])[:HELD]
        values = predict_rows(model, opened, task, "dev", rows).values
    return score(opened.tasks[task].metric, values, opened.file(task, "dev").labels[rows])


def as_units_do() -> contextlib.AbstractContextManager[Any]:
    """A context for bf16 matrix products with float32 sums on a CPU without native ones; else it does nothing."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from minbert.training.model import native_bf16

    products = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default,
                torch.ops.aten.baddbmm.default}  # fmt: skip

    def widened(value: Any) -> Any:
        return value.float() if isinstance(value, torch.Tensor) else value

    class Products(TorchDispatchMode):
        def __torch_dispatch__(  # type: ignore[no-untyped-def]
            self, func, types, args=(), kwargs: Mapping[str, Any] | None = None
        ):
            if func in products and args[0].dtype == torch.bfloat16:
                return func(*map(widened, args), **(kwargs or {})).bfloat16()
            return func(*args, **(kwargs or {}))

    return contextlib.nullcontext() if native_bf16(torch.device("cpu")) else Products()


def run_one(arm: str, task: str, seed: int, data: str, budget: int) -> dict[str, Any]:
    """Run one arm; returns its score on `held`."""
    import torch

    from benchmarks.padded import in_place_of_ours

    torch.set_num_threads(1)
    torch.manual_seed(seed)  # for the dropout masks of the padded encoder
    contexts: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
        "padded": in_place_of_ours, "packed": contextlib.nullcontext, "bf16": as_units_do
    }  # fmt: skip
    with contexts[arm]():
        return {"score": trained(task, seed, data, budget, "bf16" if arm == "bf16" else "float32")}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A row for each task and arm: the mean over seeds, and the mean gain over `padded` by seed, with intervals."""
    scores: dict[tuple[str, str], dict[int, float]] = {}
    for row in rows:
        scores.setdefault((row["task"], row["arm"]), {})[row["seed"]] = row["score"]
    cells = []
    for task in TASKS_HERE:
        padded = scores.get((task, "padded"), {})
        for arm in ARMS:
            by_seed = scores.get((task, arm), {})
            gains = [score - padded[seed] for seed, score in by_seed.items() if seed in padded]
            gain = "" if arm == "padded" or not gains else f"{mean(gains):+.4f}{interval(gains)}"
            if by_seed:
                values = list(by_seed.values())
                listed = ", ".join(f"{value:.4f}" for value in values)
                cells.append([task, arm, listed, f"{mean(values):.4f}{interval(values)}", gain])
    return markdown(("task", "", "score by seed", "mean", "against padded"), cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", help="folder in the class format")
    parser.add_argument("--out", type=Path, required=True, help="file of results, one JSON line for each run")
    parser.add_argument("--budget", type=int, default=1600, help="training examples of each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the table of the stored results")
    parser.add_argument("--one", nargs=3, metavar=("ARM", "TASK", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        arm, task, seed = options.one
        print(json.dumps(run_one(arm, task, int(seed), options.data, options.budget)))
    elif options.table:
        print(table(read_lines(options.out)))
    else:
        data, out = str(Path(options.data).expanduser().absolute()), options.out.absolute()
        command: Callable[[dict[str, Any]], list[str]] = lambda job: python(  # noqa: E731
            "benchmarks.precision", "--data", data, "--out", str(out), "--budget", str(options.budget),
            "--one", job["arm"], job["task"], str(job["seed"]),
        )  # fmt: skip
        jobs = [{"arm": arm, "task": task, "seed": seed, "budget": options.budget}
                for seed in range(options.seeds) for task in TASKS_HERE for arm in ARMS]  # fmt: skip
        run_all(jobs, command, out, options.processes)


if __name__ == "__main__":
    main()
