"""Closing screen of a launch: best trials, the answer, the ensemble with its held-out estimate, the next commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hpo.display import answer, ensemble, tables
from hpo.display.live import STATE_WORDS
from hpo.display.messages import busy, tell, warn
from hpo.display.trials import RANKED, score_rows, trial_records
from hpo.display.units import duration, plural, score

if TYPE_CHECKING:
    from hpo.driver.answer import Decision
    from hpo.driver.session import Outcome
    from results.store import SweepFolder

BEST = 5
"""Largest number of rows of the table of best trials."""
MESSAGES = 5
"""Number of latest messages of the driver that are repeated."""


def closing(outcome: Outcome, store: str, console: Console) -> None:
    """Print the screen of a launch whose sweep is done."""
    from hpo.driver.answer import best_trial, of_sweep
    from hpo.driver.ledger import Ledger
    from hpo.driver.selection import conclude, settled
    from results import views
    from results.store import Store, StoreError

    folder = Store(store).open(outcome.name)
    headline(outcome, console)
    show_messages(outcome, console)
    rows = trial_records(views.top(folder, BEST))
    scores = score_rows(rows, list(folder.tasks))
    console.print()
    title = f"best trials ({RANKED}, which chose them)"
    tables.show(scores, console, title=title, empty="no trial has a score")
    name, decision = None, None
    if rows:
        with busy("deciding the answer"):
            decision = of_sweep(folder)
        if decision is not None:
            console.print()
            show_answer(decision, console)
        try:
            with busy("choosing an ensemble and estimating its score"):
                ledger = Ledger.of(folder)
                record = conclude(folder, ledger, settled(folder, ledger))
        except StoreError as error:  # damaged predictions or a full disk: the sweep is done all the same
            retry = command("ensemble", outcome.name, store=store)
            tell(f"warning: no ensemble was chosen: {error} After fixing that, run: {retry}")
        else:
            name = str(record["name"])
            console.print()
            show_ensemble(record, console)
    warn(folder.warnings)
    best = best_trial(folder, decision) if rows else None
    console.print()
    show_next(next_commands(outcome.name, store, best, name), folder, console)


def stopped(outcome: Outcome, store: str, console: Console) -> None:
    """Print the screen of a launch that stopped: what is recorded, and how to resume."""
    headline(outcome, console)
    if outcome.snapshot.best:
        best = outcome.snapshot.best[0]
        console.print(
            f"Best so far ({RANKED}): trial {best.trial} with {score(best.overall)} at {best.step:,} examples."
        )
    show_messages(outcome, console)
    console.print(f"\nGo on with: {command('resume', outcome.name, store=store)}", soft_wrap=True)


def headline(outcome: Outcome, console: Console) -> None:
    """`quickstart-1 is done after 3m 12s: 5 finished, 6 stopped, 1 failed, 41,230 examples.`"""
    snapshot = outcome.snapshot
    counts = snapshot.counts
    parts = [f"{counts[state]} {word}" for state, (word, _) in STATE_WORDS.items() if counts.get(state)]
    interrupted, to_come = counts.get("waiting", 0), snapshot.trials_total - sum(counts.values())
    parts += [f"{snapshot.repeats_ended} of {plural(snapshot.repeats_total, 'repeat')}"] * bool(snapshot.repeats_total)
    parts += [f"{interrupted} interrupted"] * bool(interrupted) + [f"{to_come} to come"] * (to_come > 0)
    state = "done" if outcome.state == "done" else "stopped, resumable,"
    text = f"{outcome.name} is {state} after {duration(snapshot.elapsed)}: {', '.join(parts) or 'nothing ran'}"
    console.print(f"{text}, {snapshot.budget_examples_used:,} examples.", style="bold", soft_wrap=True)


def show_messages(outcome: Outcome, console: Console) -> None:
    """Repeat the driver's latest messages, since the live display that showed them is gone, and name the places that
    got no more trials."""
    for message in outcome.snapshot.messages[-MESSAGES:]:
        console.print(f"! {' '.join(message.split())}", style="yellow", soft_wrap=True)
    for place, reason in outcome.quarantined.items():
        console.print(f"! in quarantine: {place}: {' '.join(reason.split())}", style="yellow", soft_wrap=True)


def show_answer(decision: Decision, console: Console) -> None:
    """Print the answer in bold, then the reasons."""
    first, *others = answer.sentences(decision)
    console.print(first, style="bold", soft_wrap=True)
    for line in others:
        console.print(line, soft_wrap=True)


def show_ensemble(
    record: Mapping[str, Any], console: Console, soups: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Print the members, then the estimates, held-out ones first. `soups`: records of the saved soups; they and all
    methods that were tried stand before, None: without them."""
    if soups is not None:
        title = "methods by cross-validation on `search`"
        tables.show(ensemble.compared_rows(record), console, title=title, empty="too few rows for cross-validation")
        console.print()
        tables.show(ensemble.soup_rows(soups, record), console, title="saved soups", empty=ensemble.NO_SOUP)
        console.print(ensemble.NOT_VALIDATED, style="dim", soft_wrap=True)
        console.print()
    if (sentence := ensemble.alone(record)) is not None:
        console.print(sentence, style="bold", soft_wrap=True)
    members = plural(len(record["members"]), "member")
    method = f"{record['method']}, {members} of {plural(len(record['candidates']), 'candidate')}"
    tables.show(ensemble.member_rows(record), console, title=f"ensemble {record['name']} ({method})")
    console.print(ensemble.cost(record), soft_wrap=True)
    if (optimism := ensemble.optimism(record)) is not None:
        console.print(optimism, soft_wrap=True)
    for part, title in ensemble.PARTS.items():
        if rows := ensemble.estimate_rows(record, part):
            console.print(f"\n{title} ({ensemble.size_of(record, part)})")
            tables.show(rows, console)
    console.print()
    for line in [*ensemble.gains(record), ensemble.looks(record)]:
        console.print(line, soft_wrap=True)
    for problem in record["skipped"]:
        console.print(f"left out: {problem}", style="yellow")


def command(name: str, *arguments: str, store: str) -> str:
    """A command line, quoted for a shell."""
    option = [] if store == "runs" else ["--store", store]
    return shlex.join(["hpo", name, *arguments, *option])


def next_commands(sweep: str, store: str, best: int | None, name: str | None) -> list[tuple[str, str]]:
    """Three commands to try next, each with its purpose."""
    top = (command("top", sweep, "-n", "10", store=store), "more trials, with their parameters")
    if best is None:
        errors = (command("query", "SELECT trial, state, error FROM trials", store=store), "what went wrong")
        return [top, errors, (command("status", sweep, store=store), "how far it came")]
    show = (command("show", sweep, str(best), store=store), "the answer's configuration and reports")
    source = ("--trial", str(best)) if name is None else ("--ensemble", name)
    predict = (command("predict", sweep, *source, "--out", "predictions", store=store), "files for the leaderboard")
    return [top, show, predict]


def show_next(commands: list[tuple[str, str]], folder: SweepFolder, console: Console) -> None:
    console.print(f"Everything is in {folder.folder.path}. Next, for example:", soft_wrap=True)
    width = max(len(line) for line, _ in commands)
    for line, purpose in commands:
        commented = f"  {line:<{width}}   # {purpose}"
        console.print(commented if len(commented) <= console.width else f"  {line}", soft_wrap=True)
