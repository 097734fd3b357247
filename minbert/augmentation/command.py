"""`python -m minbert data augment`: a file of new training sentences, made before training.

Exit codes: 0 done, 2 bad input, 3 stopped and resumable.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from minbert.augmentation.chat import Chat
    from minbert.augmentation.job import NewRow, Plan, Tally

DONE, BAD_INPUT, STOPPED = 0, 2, 3


def run(options: argparse.Namespace) -> int:
    """Carry out `data augment`; errors in the input are ValueErrors, what is wrong with the endpoint is printed."""
    from rich.console import Console

    from minbert.augmentation.chat import ChatError

    console = Console(stderr=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: stop, keep what is finished
    try:
        return _augment(options, console)
    except ChatError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.passing:
            print("finished batches are kept; go on with the same command and --resume", file=sys.stderr)
        return STOPPED if error.passing else BAD_INPUT
    except OSError as error:  # a full disk, a folder that has gone
        print(f"error: {error.filename or options.out} cannot be written: {error.strerror}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("stopped; finished batches are kept; go on with the same command and --resume", file=sys.stderr)
        return STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)


def _augment(options: argparse.Namespace, console: Console) -> int:
    from minbert.augmentation.job import assemble, augmented_name, header_of, write
    from minbert.augmentation.journal import Journal
    from minbert.data.files import SAMPLE

    plan, chat, dropped = _plan(options)
    out = options.out / augmented_name(plan.task) if options.out.is_dir() or not options.out.suffix else options.out
    progress = out.with_name(f"{out.name}.progress")
    if out.exists() and not progress.exists():
        if options.resume:
            console.print(f"{out} is there and complete; nothing is left to do", highlight=False, markup=False)
            return DONE
        raise ValueError(f"`--out` {out} is there already; name another file or delete it.")
    _writable(out.parent)
    _tell(plan, chat, dropped, console)
    settings = plan.settings(chat.model if chat else "")
    with Journal(progress, settings, resume=options.resume) as journal:
        results = _work(plan, chat, journal, console)
        rows, tallies = assemble(plan, results)
        train = (SAMPLE if options.data is None else Path(options.data)) / plan.task.files["train"]
        write(out, header_of(train), plan.task, rows)
        journal.remove()
    _show(options, out, rows, tallies)
    return DONE


def _plan(options: argparse.Namespace) -> tuple[Plan, Chat | None, list[str]]:
    """Everything checked before the first request; and the paper's techniques that are left out without an endpoint."""
    from minbert.augmentation.augmentations import PAPER, REMOTE, shares
    from minbert.augmentation.job import Plan
    from minbert.augmentation.thesaurus import find_thesaurus
    from minbert.data.files import SAMPLE, read_file

    _between("--amount", options.amount, 0, 100, above=True)
    _between("--batch", options.batch, 1, 1000)
    _between("--timeout", options.timeout, 0, 86400, above=True)
    _between("--tries", options.tries, 1, 100)
    _between("--temperature-low", options.temperature_low, 0, 2)
    _between("--temperature-high", options.temperature_high, options.temperature_low, 2)
    weights = parse_techniques(options.techniques) if options.techniques else PAPER
    remote = [name for name, weight in weights.items() if weight and name in REMOTE]
    dropped = []
    if remote and not options.endpoint:
        if options.techniques:
            raise ValueError(f"`--techniques` names {', '.join(remote)}, which need --endpoint URL and --model NAME.")
        weights, dropped = {name: weight for name, weight in weights.items() if name not in remote}, remote
    probabilities = shares(weights)
    if options.endpoint and not remote:
        raise ValueError(
            "`--endpoint` is given, but none of the techniques asks a model: add backtranslate or rewrite."
        )
    chat = _chat(options) if remote and options.endpoint else None
    task = _task(options.task)
    folder = SAMPLE if options.data is None else Path(options.data)
    rows, _ = read_file(folder / task.files["train"], task, labelled=True)
    plan = Plan(
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
        raise ValueError(f"`--amount` {options.amount} of {len(rows.ids)} training rows is less than one new row.")
    return plan, chat, dropped


def parse_techniques(pairs: Sequence[str]) -> dict[str, float]:
    """`synonym=0.3` and so on to weights by name. Raises ValueError."""
    found: dict[str, float] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        try:
            if not sign:
                raise ValueError
            weight = float(value)
        except ValueError:
            raise ValueError(f"`--techniques` takes NAME=PROBABILITY such as synonym=0.3, found {pair!r}.") from None
        if name in found:
            raise ValueError(f"`--techniques` names `{name}` twice.")
        found[name] = weight
    from minbert.augmentation.augmentations import shares

    shares(found)  # checks names and values
    return found


def _between(name: str, value: float, low: float, high: float, *, above: bool = False) -> None:
    if not low <= value <= high or (above and value == low):
        accepted = f"above {low:g} and at most {high:g}" if above else f"from {low:g} to {high:g}"
        raise ValueError(f"`{name}` must be {accepted}, found {value:g}.")


def _task(name: str) -> Any:
    from minbert.fields import unknown
    from minbert.tasks import TASKS

    fit = [task.name for task in TASKS.values() if task.kind == "classification" and not task.is_pair]
    if name not in TASKS:
        raise unknown("task", name, fit)
    if name not in fit:
        raise ValueError(
            f"`--task` must classify single sentences, `{name}` does not. Expected one of: {', '.join(fit)}."
        )
    return TASKS[name]


def _chat(options: argparse.Namespace) -> Chat:
    from minbert.augmentation.chat import Chat, completions_url, key_from

    if not options.model:
        raise ValueError("`--endpoint` needs --model NAME, the model that is asked.")
    return Chat(
        completions_url(options.endpoint), options.model, key_from(options.key_variable), options.timeout, options.tries
    )


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"`--out` must be in a folder that can be written, {folder} is not: {error.strerror}."
        ) from error


def _tell(plan: Plan, chat: Chat | None, dropped: Sequence[str], console: Console) -> None:
    """Say what is used before it begins."""
    jobs = sum(len(batch.jobs) for batch in plan.batches())
    used = "  ".join(f"{name} {value:.3f}" for name, value in plan.probabilities.items())
    lines = [
        f"{plan.task.name}: {jobs} sentences from {len(plan.rows.ids)} training rows, in batches of {plan.size}",
        f"techniques  {used}",
        f"synonyms    {plan.thesaurus.name}, {len(plan.thesaurus.entries)} lemmas",
    ]
    if dropped:
        lines.insert(2, f"            left out: {', '.join(dropped)} (needs --endpoint); the others' shares are raised")
    if chat:
        low, high = plan.temperatures
        lines.append(f"endpoint    {chat.model} at {chat.url}, temperature {low:g} to {high:g}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _work(plan: Plan, chat: Chat | None, journal: Any, console: Console) -> list[list[str | None]]:
    """Make what is missing, with a progress bar; the endpoint is looked for only if it is still needed."""
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
    if chat and any(one.technique in REMOTE and one.number not in finished for one in batches):
        try:
            chat.check()
        except ChatError as error:
            if finished:
                raise
            raise ValueError(str(error)) from error  # nothing was done that could be gone on with
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("sentences"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bar:
        line = bar.add_task("augmenting", total=sum(len(batch.jobs) for batch in batches))
        return work(plan, chat, journal.records, journal.append, lambda batch, texts: bar.advance(line, len(texts)))


def _show(options: argparse.Namespace, out: Path, rows: Sequence[NewRow], tallies: Mapping[str, Tally]) -> None:
    """The summary: sentences by technique and what became of them."""
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
