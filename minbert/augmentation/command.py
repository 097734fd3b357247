"""The command `python -m minbert data augment`: writes a file of new training sentences before training.

Exit codes: 0 done, 2 bad input, 3 stopped and resumable.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from minbert.augmentation.chat import Chat
    from minbert.augmentation.job import AugmentationPlan, NewRow, Tally
    from minbert.augmentation.journal import Journal
    from minbert.tasks import Task

DONE, BAD_INPUT, STOPPED = 0, 2, 3


def run(options: argparse.Namespace) -> int:
    """Run `data augment` and return its exit code; prints errors of the endpoint. Raises ValueError for bad input."""
    from rich.console import Console

    from minbert.augmentation.chat import ChatError

    console = Console(stderr=True)
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as at Ctrl-C, keep finished batches
    try:
        return _augment(options, console)
    except ChatError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.passing:
            print("finished batches are kept; continue with the same command and --resume", file=sys.stderr)
        return STOPPED if error.passing else BAD_INPUT
    except OSError as error:  # a full disk, a deleted folder
        print(f"error: {error.filename or options.out} cannot be written: {error.strerror}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("stopped; finished batches are kept; continue with the same command and --resume", file=sys.stderr)
        return STOPPED
    finally:
        signal.signal(signal.SIGTERM, handler)


def _augment(options: argparse.Namespace, console: Console) -> int:
    from minbert.augmentation.job import assemble, augmented_name, header_of, write
    from minbert.augmentation.journal import Journal
    from minbert.disk import check_writable

    plan, chat, dropped = _plan(options)
    out = options.out / augmented_name(plan.task) if options.out.is_dir() or not options.out.suffix else options.out
    progress = out.with_name(f"{out.name}.progress")
    if out.exists() and not progress.exists():
        if options.resume:
            console.print(f"{out} exists and is complete; nothing is left to do", highlight=False, markup=False)
            return DONE
        raise ValueError(f"`--out` must name a new file; {out} exists. Name another file or delete it.")
    check_writable(out.parent, "--out")
    _show_plan(plan, chat, dropped, console)
    settings = plan.settings(chat.model if chat else "")
    with Journal(progress, settings, resume=options.resume) as journal:
        results = _work(plan, chat, journal, console)
        rows, tallies = assemble(plan, results)
        write(out, header_of(_training_file(options, plan.task)), plan.task, rows)
        journal.remove()
    _show_summary(options, out, rows, tallies)
    return DONE


def _plan(options: argparse.Namespace) -> tuple[AugmentationPlan, Chat | None, list[str]]:
    """Check the options and read the data: (plan, client of the endpoint, techniques left out without an endpoint)."""
    from minbert.augmentation.augmentations import shares
    from minbert.augmentation.job import AugmentationPlan
    from minbert.augmentation.thesaurus import find_thesaurus
    from minbert.data.files import read_file

    _check_ranges(options)
    weights, remote, dropped = _weights(options)
    probabilities = shares(weights)
    if options.endpoint and not remote:
        raise ValueError(
            "`--endpoint` needs a technique that asks a model, and none is chosen: add backtranslate or rewrite."
        )
    chat = _chat(options) if remote and options.endpoint else None
    task = _task(options.task)
    rows, _ = read_file(_training_file(options, task), task, labelled=True)
    plan = AugmentationPlan(
        task,
        rows,
        probabilities,
        find_thesaurus(options.synonyms, options.data),
        options.seed,
        options.amount,
        options.batch,
        (options.temperature_low, options.temperature_high),
        tuple(options.languages),
    )
    if not plan.batches():
        raise ValueError(
            f"`--amount` must give at least one new row; {options.amount} for each of {len(rows.ids)} training rows "
            "gives none."
        )
    return plan, chat, dropped


def _check_ranges(options: argparse.Namespace) -> None:
    """Check the numbers among the options. Raises ValueError."""
    _between("--amount", options.amount, 0, 100, above=True)
    _between("--batch", options.batch, 1, 1000)
    _between("--timeout", options.timeout, 0, 86400, above=True)
    _between("--tries", options.tries, 1, 100)
    _between("--temperature-low", options.temperature_low, 0, 2)
    _between("--temperature-high", options.temperature_high, options.temperature_low, 2)


def _weights(options: argparse.Namespace) -> tuple[Mapping[str, float], list[str], list[str]]:
    """(weight of each technique, techniques that need a model, techniques left out without an endpoint).

    Raises ValueError.
    """
    from minbert.augmentation.augmentations import PAPER, REMOTE

    weights = parse_techniques(options.techniques) if options.techniques else PAPER
    remote = [name for name, weight in weights.items() if weight and name in REMOTE]
    if not remote or options.endpoint:
        return weights, remote, []
    if options.techniques:
        raise ValueError(f"`--techniques` names {', '.join(remote)}, which need --endpoint URL and --model NAME.")
    return {name: weight for name, weight in weights.items() if name not in remote}, remote, remote


def _training_file(options: argparse.Namespace, task: Task) -> Path:
    """Path of the task's training file in `--data`, or in the sample corpus."""
    from minbert.data.files import SAMPLE

    return (SAMPLE if options.data is None else Path(options.data)) / task.files["train"]


def parse_techniques(pairs: Sequence[str]) -> dict[str, float]:
    """Weights by technique from `synonym=0.3` and so on. Raises ValueError."""
    weights: dict[str, float] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        try:
            if not sign:
                raise ValueError
            weight = float(value)
        except ValueError:
            raise ValueError(f"`--techniques` must be NAME=PROBABILITY such as synonym=0.3, found {pair!r}.") from None
        if name in weights:
            raise ValueError(f"`--techniques` names `{name}` twice; give each technique once.")
        weights[name] = weight
    from minbert.augmentation.augmentations import shares

    shares(weights)  # checks names and values
    return weights


def _between(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    """Check that an option lies in [low, high], or in (low, high] with `above`. Raises ValueError."""
    if not low <= value <= high or (above and value == low):
        accepted = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise ValueError(f"`{name}` must be {accepted}, found {value:g}.")


def _task(name: str) -> Task:
    """A declared task that classifies single sentences. Raises ValueError."""
    from minbert.fields import unknown
    from minbert.tasks import TASKS

    suitable = [task.name for task in TASKS.values() if task.kind == "classification" and not task.is_pair]
    if name not in TASKS:
        raise unknown("task", name, suitable)
    if name not in suitable:
        raise ValueError(
            f"`--task` must classify single sentences, `{name}` does not. Expected one of: {', '.join(suitable)}."
        )
    return TASKS[name]


def _chat(options: argparse.Namespace) -> Chat:
    """Client of the endpoint that the options name. Raises ValueError."""
    from minbert.augmentation.chat import Chat, completions_url, key_from

    if not options.model:
        raise ValueError("`--endpoint` needs --model NAME, the name of the model behind it.")
    return Chat(
        completions_url(options.endpoint), options.model, key_from(options.key_variable), options.timeout, options.tries
    )


def _show_plan(plan: AugmentationPlan, chat: Chat | None, dropped: Sequence[str], console: Console) -> None:
    """Print the plan before the work begins: sentences, techniques, thesaurus, endpoint."""
    jobs = sum(len(batch.jobs) for batch in plan.batches())
    techniques = "  ".join(f"{name} {value:.3f}" for name, value in plan.probabilities.items())
    lines = [
        f"{plan.task.name}: {jobs} sentences from {len(plan.rows.ids)} training rows, in batches of {plan.size}",
        f"techniques  {techniques}",
        f"synonyms    {plan.thesaurus.name}, {len(plan.thesaurus.entries)} lemmas",
    ]
    if dropped:
        lines.insert(2, f"            left out: {', '.join(dropped)} (needs --endpoint); the others are scaled up")
    if chat:
        low, high = plan.temperatures
        lines.append(f"endpoint    {chat.model} at {chat.url}, temperature {low:g} to {high:g}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _work(plan: AugmentationPlan, chat: Chat | None, journal: Journal, console: Console) -> list[list[str | None]]:
    """Make the missing batches under a progress bar; checks the endpoint first if a batch needs it."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from minbert.augmentation.augmentations import REMOTE
    from minbert.augmentation.chat import ChatError
    from minbert.augmentation.job import work

    finished = {record["batch"] for record in journal.records}
    batches = plan.batches()
    if finished:
        console.print(f"{len(finished)} of {len(batches)} batches were finished before", highlight=False)
    if chat and any(batch.technique in REMOTE and batch.number not in finished for batch in batches):
        try:
            chat.check()
        except ChatError as error:
            if finished:
                raise
            raise ValueError(str(error)) from error  # no batch to resume from: bad input, not a stopped run
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("sentences"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        line = bar.add_task("augmenting", total=sum(len(batch.jobs) for batch in batches))
        return work(plan, chat, journal.records, journal.append, lambda batch, texts: bar.advance(line, len(texts)))


def _show_summary(
    options: argparse.Namespace, out: Path, rows: Sequence[NewRow], tallies: Mapping[str, Tally]
) -> None:
    """Print the summary: sentences of each technique by outcome."""
    from rich.console import Console
    from rich.table import Table

    if options.json:
        counts = {name: vars(tally) for name, tally in tallies.items()}
        print(json.dumps({"file": str(out), "rows": len(rows), "techniques": counts}))
        return
    table = Table(title=f"{len(rows)} new rows in {out}")
    table.add_column("technique")
    for name in ("sentences", "new rows", "duplicates", "not applicable", "failed"):
        table.add_column(name, justify="right")
    columns = [vars(tally).values() for tally in tallies.values()]
    for name, tally in tallies.items():
        table.add_row(name, *map(str, vars(tally).values()))
    if len(tallies) > 1:
        table.add_section()
        table.add_row("all", *(str(sum(values)) for values in zip(*columns, strict=True)))
    Console().print(table)
