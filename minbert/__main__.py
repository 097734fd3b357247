"""`python -m minbert train`: one configuration, without a search.

Exit codes: 0 done, 2 bad input, 3 stopped and resumable.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

DONE, BAD_INPUT, STOPPED = 0, 2, 3

EXAMPLE = """examples:
  python -m minbert train
  python -m minbert train --data ../shared/data/cs224n --budget 20000 --set adapter/kind=lora --set adapter/rank=8
  python -m minbert train --out runs/one --resume
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m minbert", description=__doc__, epilog=EXAMPLE)
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train one configuration and print its dev scores", epilog=EXAMPLE)
    train.formatter_class = argparse.RawDescriptionHelpFormatter
    train.add_argument(
        "--data", help="folder in the class format (default: the sample corpus that the package carries)"
    )
    train.add_argument("--checkpoint", help="base encoder: minilm (default), tiny, a BERT directory or a hub id")
    train.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="a parameter; may be repeated")
    train.add_argument("--budget", type=int, default=3000, help="training examples (default %(default)s)")
    train.add_argument("--reports", type=int, default=3, help="dev evaluations on the way (default %(default)s)")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--out", type=Path, default=Path("runs/single"), help="folder of its checkpoints")
    train.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    train.add_argument("--threads", type=int, help="CPU threads (default: one for each CPU this process may use)")
    train.add_argument("--json", action="store_true", help="print the final scores as JSON")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors in the input are one line."""
    options = parser().parse_args(arguments)
    try:
        return _train(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT


def _train(options: argparse.Namespace) -> int:
    import torch  # here, so that --help answers at once

    from minbert.base import find_base
    from minbert.checkpoints import newest
    from minbert.config import Config, merge, settings
    from minbert.data import open_data
    from minbert.evaluation import search_sizes
    from minbert.files import read_corpus
    from minbert.train import State, train

    console = Console(stderr=True)
    if options.budget < 1 or not 1 <= options.reports <= options.budget:
        raise ValueError(
            f"`--budget` and `--reports` must be at least 1 and reports at most the budget, "
            f"found {options.budget} and {options.reports}."
        )
    torch.set_num_threads(options.threads or len(os.sched_getaffinity(0)))
    milestones = tuple(options.budget * part // options.reports for part in range(1, options.reports + 1))
    checkpoint = newest(options.out) if options.resume else None
    if options.resume and checkpoint is None:
        raise ValueError(f"`--resume` needs a complete checkpoint in `--out`, found none in {options.out}.")
    if not options.resume and newest(options.out):
        raise ValueError(f"`--out` {options.out} holds a checkpoint already; add --resume or name another folder.")
    config = Config.from_dict(merge(_stored(checkpoint) or Config().to_dict(), settings(options.set)))
    base = find_base(options.checkpoint)
    corpus = read_corpus(options.data)
    for problem in corpus.problems:
        console.print(f"[yellow]data[/] {problem}", highlight=False)
    sizes, _ = search_sizes({task.name: corpus.size(task.name, "search") for task in corpus.tasks}, milestones)
    data = open_data(options.data, base, search_sizes=sizes, corpus=corpus)
    state = (
        State.resume(checkpoint, milestones, options.out, int(checkpoint.name.partition("-")[0]) + 1)
        if checkpoint
        else State.fresh(options.seed, milestones, options.out)
    )
    stop = _listen()
    with _bar(console) as bar:
        line = bar.add_task("training", total=options.budget)
        for report in train(config, data, state, stop, on_step=lambda examples: bar.update(line, completed=examples)):
            scores = "  ".join(f"{task} {value:.3f}" for task, value in report.scores.items())
            if report.paused:
                console.print(f"stopped at {report.examples} examples; continue with --out {options.out} --resume")
                return STOPPED
            console.print(f"{report.examples:>8} examples  overall {report.overall:.3f}  {scores}", highlight=False)
            if report.diverged:
                console.print("[red]diverged[/]: a loss or score is not finite; lower the learning rates")
                return BAD_INPUT
    _show(options, newest(options.out))
    return DONE


def _stored(checkpoint: Path | None) -> dict[str, object] | None:
    """The configuration of the checkpoint that is continued."""
    if checkpoint is None:
        return None
    from minbert.checkpoints import read_trial

    return dict(read_trial(checkpoint)[0]["config"])


def _listen() -> _Flag:
    flag = _Flag()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, flag.raise_)
    return flag


class _Flag:
    """Asked for a pause by the first signal; the second one ends the process as usual."""

    raised = False

    def __call__(self) -> bool:
        return self.raised

    def raise_(self, number: int, frame: object) -> None:
        self.raised = True
        signal.signal(number, signal.SIG_DFL)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("examples"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _show(options: argparse.Namespace, checkpoint: Path | None) -> None:
    """Score the final weights on both parts of the dev set and on all of it."""
    from minbert.base import find_base
    from minbert.data import open_data
    from minbert.evaluation import evaluate
    from minbert.predict import load_model

    assert checkpoint is not None
    data = open_data(options.data, find_base(options.checkpoint))
    model = load_model(checkpoint, data)
    columns = {"search": "search", "held out": "held", "full dev (selected on)": "labelled"}
    scores = {title: evaluate(model, data, split) for title, split in columns.items()}
    if options.json:
        print(json.dumps({title: {"overall": s.overall, **s.tasks} for title, s in scores.items()}))
        return
    table = Table(title=f"dev scores of {checkpoint}")
    table.add_column("part")
    for name in ("overall", *data.tasks):
        table.add_column(name, justify="right")
    for title, score in scores.items():
        table.add_row(title, f"{score.overall:.4f}", *(f"{value:.4f}" for value in score.tasks.values()))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
