"""Whether bf16 and packing cost scores: padded float32, packed float32 and packed bf16 on SST, QQP and STS.

    python -m benchmarks.precision --data ../shared/data/cs224n --out benchmarks/precision.jsonl
    python -m benchmarks.precision --out benchmarks/precision.jsonl --table

All arms train MiniLM on one task and are scored on rows of `held`: the same rows in the same order, heads that begin
with the same weights, the same optimiser. `padded` has the encoder of `transformers` in place of ours (`padded.py`);
its dropout masks differ from the others', which is what the comparison's noise is.

Where no bf16 matrix product is native, the products take their bf16 inputs to float32, add up there and round once to
bf16, as units for bf16 do; all else of the bf16 path runs as it is. That says nothing about speed.
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
"""Rows of `held` that are scored, at most."""


def trained(task: str, seed: int, data: str, budget: int, precision: str) -> float:
    """Held-out score of one trial."""
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
    opened = open_data(data, find_base(), tasks=chosen, search_sizes={task: 100})
    with tempfile.TemporaryDirectory() as folder:
        *_, last = train(config, opened, State.fresh(seed, (budget,), Path(folder)))
        model = load_model(Path(last.checkpoint), opened)
        rows = np.asarray(opened.parts[task, "held"])[:HELD]
        values = predict_rows(model, opened, task, "dev", rows).values
    return score(opened.tasks[task].metric, values, opened.file(task, "dev").labels[rows])


def as_units_do() -> contextlib.AbstractContextManager[Any]:
    """bf16 matrix products with float32 sums, where the CPU has none; nothing where it has."""
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
    """The held-out score of one run."""
    import torch

    from benchmarks.padded import in_place_of_ours

    torch.set_num_threads(1)
    torch.manual_seed(seed)  # for the padded encoder's masks
    around = {"padded": in_place_of_ours, "packed": contextlib.nullcontext, "bf16": as_units_do}[arm]
    with around():
        return {"score": trained(task, seed, data, budget, "bf16" if arm == "bf16" else "float32")}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a task and arm: the mean over seeds, and the difference from `padded` paired by seed, with intervals."""
    found = {(row["task"], row["arm"], row["seed"]): row["score"] for row in rows}
    lines = []
    for task in TASKS_HERE:
        for arm in ARMS:
            scores = [value for (one, which, _), value in found.items() if (one, which) == (task, arm)]
            pairs = [(task, "padded", seed) for one, which, seed in found if (one, which) == (task, arm)]
            gains = [found[task, arm, base[2]] - found[base] for base in pairs if base in found]
            shown = "" if arm == "padded" or not gains else f"{mean(gains):+.4f}{interval(gains)}"
            if scores:
                each = ", ".join(f"{value:.4f}" for value in scores)
                lines.append([task, arm, each, f"{mean(scores):.4f}{interval(scores)}", shown])
    return markdown(("task", "", "score by seed", "mean", "against padded"), lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.precision", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", help="folder in the class format")
    parser.add_argument("--out", type=Path, required=True, help="results, one JSON line a run")
    parser.add_argument("--budget", type=int, default=1600, help="training examples of a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the table of what is there")
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
