"""Train one multitask BERT with one configuration, without a search, predict with it, or make training data.

Exit codes: 0 done, 2 bad input or a diverged training, 3 stopped and resumable.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from minbert.augmentation import command as data_command
from minbert.augmentation import options as data_options
from minbert.training import predict_command

if TYPE_CHECKING:
    from minbert.config import Config
    from minbert.data.problems import Problem
    from minbert.data.tokens import Data
    from minbert.tasks import Task
    from minbert.training.train import State

DONE, BAD_INPUT, STOPPED = 0, 2, 3

USUAL_OUT = Path("trained/single")
"""Default of `--out`; not in `runs`, the store of sweeps."""

PROBLEMS = 20
"""Most notes on the data that are printed; the others are counted."""

EXAMPLE = """examples:
  python -m minbert train
  python -m minbert train --data ../shared/data/cs224n --budget 20000 --set adapter/kind=lora --set adapter/rank=8
  python -m minbert train --data ../shared/data/cs224n --tasks cfimdb --out trained/reviews
  python -m minbert train --out trained/one --resume
  echo "a good film" | python -m minbert predict trained/one --task sst
"""


def parser() -> argparse.ArgumentParser:
    """Build the command-line parser of `python -m minbert`."""
    top = argparse.ArgumentParser(prog="python -m minbert", description=__doc__, epilog=EXAMPLE, allow_abbrev=False)
    top.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = top.add_subparsers(dest="command", required=True)
    train = commands.add_parser(
        "train", help="train one configuration and print its dev scores", epilog=EXAMPLE, allow_abbrev=False
    )
    train.formatter_class = argparse.RawDescriptionHelpFormatter
    _add_train_options(train)
    predict_command.add_parser(commands)
    data_options.add_parser(commands)
    return top


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", metavar="DIR", help="folder with the tasks' files (default: the sample corpus of the package)")
    add("--tasks", metavar="NAMES", help="tasks to train, such as sst,qqp or cfimdb (default sst,qqp,sts)")
    base = (
        "pretrained encoder to begin from: minilm (default), tiny, a BERT directory or a Hugging Face id; "
        "--checkpoint is the same option"
    )
    add("--base", "--checkpoint", dest="base", metavar="MODEL", help=base)
    setting = "value of a parameter of the configuration, such as adapter/kind=lora; may be repeated"
    add("--set", action="append", default=[], metavar="PATH=VALUE", help=setting)
    add("--budget", type=int, metavar="N", help="training examples in total (default 3000)")
    add("--reports", type=int, metavar="N", help="evaluations on dev data, evenly spaced over the budget (default 3)")
    milestones = "examples at which it is evaluated, such as 100,300,900; the last is the budget (default: --reports)"
    add("--milestones", metavar="LIST", help=milestones)
    add("--seed", type=int, metavar="N", help="random seed of weights, row order and dropout (default 0)")
    add("--out", type=Path, default=USUAL_OUT, metavar="DIR", help=f"folder for checkpoints (default {USUAL_OUT})")
    add("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    add("--threads", type=int, metavar="N", help="CPU threads (default: all CPUs that this process may use)")
    add("--json", action="store_true", help="print the final scores, details and cost as JSON instead of tables")


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; prints an error in the input as one line."""
    options = parser().parse_args(arguments)
    try:
        return {"train": _train, "predict": _predict, "data": data_command.run}[options.command](options)
    except (ValueError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped before the first step; start again with the same command", file=sys.stderr)
        return STOPPED


def _predict(options: argparse.Namespace) -> int:
    import torch  # imported here, so that --help is fast

    torch.set_num_threads(_threads(options.threads))
    predict_command.run(options)
    return DONE


def _train(options: argparse.Namespace) -> int:
    import torch  # imported here, so that --help is fast

    from minbert import requirements
    from minbert.config import Config
    from minbert.data.files import read_corpus
    from minbert.data.tokens import open_data
    from minbert.disk import check_writable
    from minbert.encoder.base import find_base
    from minbert.fields import unusual
    from minbert.training.checkpoints import newest, read_trial
    from minbert.training.milestones import report_rows
    from minbert.training.train import State

    console = Console(stderr=True)
    torch.set_num_threads(_threads(options.threads))
    checkpoint = newest(options.out) if options.resume else None
    if options.resume and checkpoint is None:
        if not options.out.is_dir():
            raise ValueError(f"`--resume` needs the folder of an earlier run; `--out` {options.out} is not a folder.")
        console.print(f"no checkpoint in {options.out} yet: the training begins anew; its stages continue")
    stored = read_trial(checkpoint)[0] if checkpoint else {}
    tasks = _tasks(options, stored)
    base = find_base(options.base)
    config = Config.from_dict(stored.get("config", {}), tasks, base.traits).changed(options.set, tasks, base.traits)
    milestones = _milestones(options, stored)
    if not options.resume and newest(options.out):
        raise ValueError(f"`--out` {options.out} already holds a checkpoint; add --resume or name another folder.")
    corpus = read_corpus(options.data, tasks)
    requirements.check(config, corpus, base)
    check_writable(options.out, "--out")
    for sentence in unusual(config).values():
        console.print(f"[yellow]note[/] {sentence}", highlight=False)
    _show_problems(corpus.problems, console)
    data = open_data(options.data, base, corpus=corpus)
    rows = report_rows(data.sizes("search"), milestones)
    state = (
        State.resume(checkpoint, milestones, options.out, int(checkpoint.name.partition("-")[0]) + 1)
        if checkpoint
        else State.fresh(options.seed or 0, milestones, options.out, report_rows=rows)
    )
    code = _run(config, data, state, console)
    if code == DONE:
        _show_outcome(options, newest(options.out), tasks)
    return code


def _run(config: Config, data: Data, state: State, console: Console) -> int:
    """Train under a progress bar, print every report, and return the exit code."""
    from minbert.training.train import train

    should_pause = _pause_on_signals()
    with _bar(console) as bar:
        line = _ProgressLine(console, bar, state.milestones[-1])
        for report in train(config, data, state, should_pause, on_step=line.step, on_stage=line.stage):
            scores = "  ".join(f"{task} {value:.3f}" for task, value in report.scores.items())
            if report.paused:
                how = "and --resume" if report.checkpoint else "(the work of its stages is kept)"
                console.print(f"stopped at {report.examples} examples; continue with the same command {how}")
                return STOPPED
            console.print(f"{report.examples:>8} examples  overall {report.overall:.3f}  {scores}", highlight=False)
            if report.diverged:
                console.print("[red]diverged[/]: a loss or score is not finite; lower the learning rates")
                return BAD_INPUT
    return DONE


def _show_problems(problems: Sequence[Problem], console: Console) -> None:
    """Print the first notes on the data, one line each, and the number of the others."""
    for problem in problems[:PROBLEMS]:
        console.print("[yellow]data[/]", escape(str(problem)), highlight=False, soft_wrap=True)
    if len(problems) > PROBLEMS:
        console.print(f"[yellow]data[/] and {len(problems) - PROBLEMS} more", highlight=False)


def _tasks(options: argparse.Namespace, stored: dict[str, Any]) -> dict[str, Task]:
    """The run's tasks: those of `--tasks` or of the continued checkpoint. Raises ValueError where the two differ."""
    from minbert.tasks import choose_tasks

    stored_tasks = choose_tasks(stored["consumed"]) if stored else None
    tasks = choose_tasks(stored_tasks if options.tasks is None else options.tasks)
    if stored_tasks not in (None, tasks):
        raise ValueError(
            f"`--tasks` must be those of the run that is continued, {','.join(stored['consumed'])}; "
            f"found {options.tasks}."
        )
    return tasks


def _milestones(options: argparse.Namespace, stored: dict[str, Any]) -> tuple[int, ...]:
    """Examples at which the trial reports: from the options, or those of the checkpoint that is continued.

    `State.resume` refuses other milestones than the checkpoint's. Raises ValueError.
    """
    if options.milestones is not None:
        milestones = _listed(options)
    elif stored and options.budget is None and options.reports is None:
        milestones = tuple(stored["milestones"])
    else:
        budget = 3000 if options.budget is None else options.budget
        reports = min(3, budget) if options.reports is None else options.reports
        if budget < 1:
            raise ValueError(f"`--budget` must be at least 1 training example, found {budget}.")
        if not 1 <= reports <= budget:
            raise ValueError(f"`--reports` must be from 1 to the budget of {budget}, found {reports}.")
        milestones = tuple(budget * part // reports for part in range(1, reports + 1))
    if stored and options.seed not in (None, stored["seed"]):
        raise ValueError(f"`--seed` must be that of the run that is continued, {stored['seed']}; found {options.seed}.")
    return milestones


def _listed(options: argparse.Namespace) -> tuple[int, ...]:
    """The milestones of `--milestones`. Raises ValueError."""
    for name in ("budget", "reports"):
        if getattr(options, name) is not None:
            raise ValueError(f"`--milestones` already says when to report; leave out `--{name}`.")
    words = options.milestones.split(",")
    milestones = tuple(int(word) for word in words if word.strip().isdecimal())
    if len(milestones) != len(words) or milestones[0] < 1 or list(milestones) != sorted(set(milestones)):
        raise ValueError(
            f"`--milestones` must be ascending numbers of examples, such as 100,300,900, found {options.milestones!r}."
        )
    return milestones


def _threads(threads: int | None) -> int:
    """CPU threads of the option, or one for each CPU that this process may use. Raises ValueError."""
    if threads is not None and threads < 1:
        raise ValueError(f"`--threads` must be at least 1, found {threads}.")
    return threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _pause_on_signals() -> _PauseFlag:
    """A flag that SIGINT and SIGTERM raise."""
    flag = _PauseFlag()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, flag.raise_)
    return flag


class _PauseFlag:
    """Whether a pause was requested: the first signal requests one, the second ends the process as usual."""

    raised = False

    def __call__(self) -> bool:
        return self.raised

    def raise_(self, number: int, frame: object) -> None:
        self.raised = True
        signal.signal(number, signal.SIG_DFL)


def _bar(console: Console) -> Progress:
    """A progress bar with a count, a unit and times."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


class _ProgressLine:
    """Line of the progress bar: steps of a stage, then examples of the training.

    Without a terminal it prints the beginning and the end of each stage instead.
    """

    def __init__(self, console: Console, bar: Progress, budget: int) -> None:
        self.console, self.bar, self.budget = console, bar, budget
        self.phase = ""
        self.task = bar.add_task("training", total=budget, unit="examples")

    def step(self, examples: int) -> None:
        """Show the examples trained on so far."""
        self._update("training", examples, self.budget, "examples")

    def stage(self, kind: str, done: int, total: int) -> None:
        """Show the steps of a stage; a total of 0 means that another process computes it."""
        name = kind.upper()
        phase = f"stage {name}" if total else f"stage {name}, which another process computes"
        self._update(phase, done, total, "steps")

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


def _show_outcome(options: argparse.Namespace, checkpoint: Path | None, tasks: dict[str, Task]) -> None:
    """Score the final weights on search, held and the whole dev set, and print the scores."""
    from minbert.data.tokens import open_data
    from minbert.encoder.base import find_base
    from minbert.training.outcome import outcome, show

    assert checkpoint is not None
    summary = outcome(checkpoint, open_data(options.data, find_base(options.base), tasks=tasks))
    if options.json:
        print(json.dumps(summary))
    else:
        show(summary, str(checkpoint), Console())


if __name__ == "__main__":
    sys.exit(main())
