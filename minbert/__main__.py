"""`python -m minbert train`: one configuration, without a search.

Exit codes: 0 done, 2 bad input, 3 stopped and resumable.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from minbert.augmentation import command as data_command
from minbert.augmentation import options as data_options

if TYPE_CHECKING:
    from minbert.data.problems import Problem
    from minbert.tasks import Task

DONE, BAD_INPUT, STOPPED = 0, 2, 3

USUAL_OUT = Path("trained/single")
"""Not in `runs`: that is the search's store, which holds sweeps and nothing else."""

PROBLEMS = 20
"""Notes on the data that are shown; the rest is counted."""

EXAMPLE = """examples:
  python -m minbert train
  python -m minbert train --data ../shared/data/cs224n --budget 20000 --set adapter/kind=lora --set adapter/rank=8
  python -m minbert train --data ../shared/data/cs224n --tasks cfimdb --out trained/reviews
  python -m minbert train --out trained/one --resume
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
    train.add_argument("--tasks", metavar="NAMES", help="such as sst,qqp or cfimdb (default sst,qqp,sts)")
    base = "base encoder: minilm (default), tiny, a BERT directory or a hub id; --checkpoint is the same"
    train.add_argument("--base", "--checkpoint", dest="base", metavar="MODEL", help=base)
    train.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="a parameter; may be repeated")
    train.add_argument("--budget", type=int, help="training examples (default 3000)")
    train.add_argument("--reports", type=int, help="dev evaluations on the way (default 3)")
    train.add_argument("--seed", type=int, help="of weights, order and dropout (default 0)")
    train.add_argument("--out", type=Path, default=USUAL_OUT, help=f"folder of its checkpoints (default {USUAL_OUT})")
    train.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    train.add_argument("--threads", type=int, help="CPU threads (default: one for each CPU this process may use)")
    train.add_argument("--json", action="store_true", help="print the final scores, details and cost as JSON")
    data_options.add_parser(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command; errors in the input are one line."""
    options = parser().parse_args(arguments)
    try:
        return data_command.run(options) if options.command == "data" else _train(options)
    except (ValueError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped before the first step; go on with the same command", file=sys.stderr)
        return STOPPED


def _train(options: argparse.Namespace) -> int:
    import torch  # here, so that --help answers at once

    from minbert import requirements
    from minbert.config import Config
    from minbert.data.files import read_corpus
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base
    from minbert.fields import unusual
    from minbert.training.checkpoints import newest, read_trial
    from minbert.training.evaluation import search_sizes
    from minbert.training.train import State, train

    console = Console(stderr=True)
    torch.set_num_threads(_threads(options.threads))
    checkpoint = newest(options.out) if options.resume else None
    if options.resume and checkpoint is None:
        if not options.out.is_dir():
            raise ValueError(f"`--resume` needs a folder that was trained in, and `--out` {options.out} is none.")
        console.print(f"no checkpoint in {options.out} yet: from the beginning, with what its stages have done")
    if not options.resume and newest(options.out):
        raise ValueError(f"`--out` {options.out} holds a checkpoint already; add --resume or name another folder.")
    stored = read_trial(checkpoint)[0] if checkpoint else {}
    tasks = _tasks(options, stored)
    config = Config.from_dict(stored.get("config", {}), tasks).changed(options.set, tasks)
    milestones = _milestones(options, stored)
    corpus = read_corpus(options.data, tasks)
    base = find_base(options.base)
    requirements.check(config, corpus, base)
    _writable(options.out)
    for sentence in unusual(config).values():
        console.print(f"[yellow]note[/] {sentence}", highlight=False)
    _tell_problems(corpus.problems, console)
    sizes, _ = search_sizes({name: corpus.size(name, "search") for name in corpus.tasks}, milestones)
    data = open_data(options.data, base, search_sizes=sizes, corpus=corpus)
    state = (
        State.resume(checkpoint, milestones, options.out, int(checkpoint.name.partition("-")[0]) + 1)
        if checkpoint
        else State.fresh(options.seed or 0, milestones, options.out)
    )
    stop = _listen()
    with _bar(console) as bar:
        line = _Line(console, bar, milestones[-1])
        for report in train(config, data, state, stop, on_step=line.step, on_stage=line.stage):
            scores = "  ".join(f"{task} {value:.3f}" for task, value in report.scores.items())
            if report.paused:
                how = "and --resume" if report.checkpoint else "(what its stages have done is kept)"
                console.print(f"stopped at {report.examples} examples; go on with the same command {how}")
                return STOPPED
            console.print(f"{report.examples:>8} examples  overall {report.overall:.3f}  {scores}", highlight=False)
            if report.diverged:
                console.print("[red]diverged[/]: a loss or score is not finite; lower the learning rates")
                return BAD_INPUT
    _show(options, newest(options.out), tasks)
    return DONE


def _tell_problems(problems: Sequence[Problem], console: Console) -> None:
    """What is odd in the data, one line each; the first ones, and how many more."""
    for problem in problems[:PROBLEMS]:
        console.print("[yellow]data[/]", escape(str(problem)), highlight=False, soft_wrap=True)
    if len(problems) > PROBLEMS:
        console.print(f"[yellow]data[/] and {len(problems) - PROBLEMS} more", highlight=False)


def _tasks(options: argparse.Namespace, stored: dict[str, Any]) -> dict[str, Task]:
    """The run's tasks; those of the checkpoint that is continued, which options may not contradict."""
    from minbert.tasks import choose_tasks

    begun = choose_tasks(stored["consumed"]) if stored else None
    tasks = choose_tasks(begun if options.tasks is None else options.tasks)
    if begun not in (None, tasks):
        raise ValueError(
            f"`--tasks` {options.tasks} are not those of the run that is continued: {','.join(stored['consumed'])}."
        )
    return tasks


def _milestones(options: argparse.Namespace, stored: dict[str, Any]) -> tuple[int, ...]:
    """Examples at which it reports; those of the checkpoint that is continued, which options may not contradict."""
    if stored and options.budget is None and options.reports is None:
        found = tuple(stored["milestones"])
    else:
        budget = 3000 if options.budget is None else options.budget
        reports = min(3, budget) if options.reports is None else options.reports
        if budget < 1:
            raise ValueError(f"`--budget` must be at least 1 training example, found {budget}.")
        if not 1 <= reports <= budget:
            raise ValueError(f"`--reports` must be from 1 to the budget of {budget}, found {reports}.")
        found = tuple(budget * part // reports for part in range(1, reports + 1))
    if stored and options.seed not in (None, stored["seed"]):
        raise ValueError(f"`--seed` {options.seed} is not the seed of the run that is continued: {stored['seed']}.")
    return found


def _threads(asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise ValueError(f"`--threads` must be at least 1, found {asked}.")
    return asked or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _writable(out: Path) -> None:
    """Raise before any training where checkpoints could not be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(f"`--out` must be a folder that can be written, {out} is not: {error.strerror}.") from error


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
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class _Line:
    """The bar's one line: the steps of a stage, then the examples of training.

    Without a terminal nothing can be updated: it says where a stage begins and ends.
    """

    def __init__(self, console: Console, bar: Progress, budget: int) -> None:
        self.console, self.bar, self.budget = console, bar, budget
        self.phase = ""
        self.task = bar.add_task("training", total=budget, unit="examples")

    def step(self, examples: int) -> None:
        self._update("training", examples, self.budget, "examples")

    def stage(self, kind: str, done: int, total: int) -> None:
        name = kind.upper()
        what = f"stage {name}" if total else f"stage {name}, which another process computes"
        self._update(what, done, total, "steps")

    def _update(self, phase: str, done: int, total: int, unit: str) -> None:
        if phase == self.phase:
            self.bar.update(self.task, completed=done)
            return
        if not self.console.is_terminal:
            if self.phase not in ("", "training"):
                self.console.print(f"{self.phase}: over", highlight=False)
            if phase != "training":
                self.console.print(f"{phase}: {f'{total} steps' if total else 'waiting'}", highlight=False)
        self.phase = phase
        self.bar.reset(self.task, description=phase, completed=done, total=max(total, 1), unit=unit)


def _show(options: argparse.Namespace, checkpoint: Path | None, tasks: dict[str, Task]) -> None:
    """Score the final weights on both parts of the dev set and on all of it."""
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base
    from minbert.training.outcome import outcome, show

    assert checkpoint is not None
    found = outcome(checkpoint, open_data(options.data, find_base(options.base), tasks=tasks))
    if options.json:
        print(json.dumps(found))
    else:
        show(found, str(checkpoint), Console())


if __name__ == "__main__":
    sys.exit(main())
