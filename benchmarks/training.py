"""Training speed against the loop that users of `transformers` write, in one run.

    python benchmarks/training.py --data ../shared/data/cs224n

The rival is `BertForSequenceClassification` from the same weights, with AdamW, dynamic padding, shuffled batches and
its default dropouts, in float32 as it comes; ours has the same batch sizes and dropouts, and the arithmetic that it
chooses on this machine. Two processes of one thread each train at the same time, as two trials share a machine; sides
alternate, and what counts is the ratio of examples per second within a round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from minbert.files import SAMPLE

CASES = {"SST, batch 16": ("sst", 16), "QQP pairs, batch 32": ("qqp", 32)}
WARM_UP = 3
"""Steps before the clock starts: allocations, caches, the optimiser's state."""


def ours(task: str, batch: int, data: str, steps: int) -> dict[str, Any]:
    """Examples per second of a trial of ours that trains one task."""
    import torch

    from minbert.base import find_base
    from minbert.config import Config, merge, settings
    from minbert.data import open_data
    from minbert.report import State
    from minbert.train import default_device
    from minbert.trial import Trial

    torch.set_num_threads(1)
    pairs = ["mixing/kind=single", f"mixing/task={task}", f"batch_size/{task}={batch}"]
    config = Config.from_dict(merge(Config().to_dict(), settings(pairs)))
    with tempfile.TemporaryDirectory() as folder:
        state = State.fresh(0, ((WARM_UP + steps) * batch,), Path(folder))
        trial = Trial(config, open_data(data, find_base()), state, default_device())
        for _ in range(WARM_UP):
            trial.step()
        begun = time.perf_counter()
        for _ in range(steps):
            trial.step()
        seconds = time.perf_counter() - begun
    return {"rate": steps * batch / seconds, "arithmetic": str(trial.model.dtype).removeprefix("torch.")}


def rival(task: str, batch: int, data: str, steps: int) -> dict[str, Any]:
    """Examples per second of the plain loop on `transformers`."""
    import torch
    from torch.utils.data import DataLoader
    from transformers import BertForSequenceClassification, BertTokenizerFast, DataCollatorWithPadding

    from minbert.base import find_base
    from minbert.files import read_file
    from minbert.tasks import TASKS

    torch.set_num_threads(1)
    torch.manual_seed(0)
    path, declared = find_base().path, TASKS[task]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, _ = read_file(Path(data) / declared.files["train"], declared, labelled=True)
    tokenizer = BertTokenizerFast.from_pretrained(path)
    columns = list(zip(*rows.texts, strict=True))
    encoded = tokenizer(*(list(column) for column in columns), truncation=True, max_length=128)
    labels = [int(label) for label in rows.labels]
    examples: Any = [{name: encoded[name][row] for name in encoded} | {"labels": one} for row, one in enumerate(labels)]
    loader = DataLoader(examples, batch_size=batch, shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer))
    model = BertForSequenceClassification.from_pretrained(path, num_labels=declared.classes).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    begun = 0.0
    for step, inputs in enumerate(loader):
        if step == WARM_UP:
            begun = time.perf_counter()
        if step == WARM_UP + steps:
            break
        loss = model(**inputs.to(device)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return {"rate": steps * batch / (time.perf_counter() - begun), "arithmetic": "float32"}


SIDES = {"ours": ours, "rival": rival}


def side(name: str, case: str, options: argparse.Namespace) -> float:
    """Examples per second of two processes together."""
    command = [sys.executable, __file__, "--data", options.data, "--steps", str(options.steps), "--one", name, case]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(options.processes)]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    rates = " + ".join(f"{one['rate']:.1f}" for one in found)
    print(f"{case}, {name}: {rates} examples/s in {found[0]['arithmetic']}", file=sys.stderr, flush=True)
    return float(sum(one["rate"] for one in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(SAMPLE), help="folder in the class format; default: the sample corpus")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, case = options.one
        print(json.dumps(SIDES[name](*CASES[case], options.data, options.steps)))
        return
    columns = ("what", "ours, examples/s", "rival, examples/s", "ratio by round", "median")
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    for case in CASES:
        rounds = [(side("ours", case, options), side("rival", case, options)) for _ in range(options.rounds)]
        ratios = [mine / theirs for mine, theirs in rounds]
        mine, theirs = (statistics.median(values) for values in zip(*rounds, strict=True))
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {case} | {mine:.1f} | {theirs:.1f} | {shown} | {statistics.median(ratios):.2f} x |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
