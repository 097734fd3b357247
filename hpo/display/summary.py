"""How a launch ends on the screen: best trials, the ensemble's honest estimate, where all is, what next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hpo.display import ensemble, tables
from hpo.display.live import STATES
from hpo.display.messages import tell, warn
from hpo.display.trials import score_rows, trial_records
from hpo.display.units import duration, plural, score

if TYPE_CHECKING:
    from hpo.driver.session import Outcome
    from results.store import SweepFolder

BEST = 5
"""Rows of the table of best trials."""
MESSAGES = 5
"""Latest messages of the driver that are repeated."""


def closing(outcome: Outcome, store: str, console: Console) -> None:
    """The screen after a sweep that is done."""
    from results import views
    from results.predictions import predicted
    from results.store import Store, StoreError

    folder = Store(store).open(outcome.name)
    headline(outcome, console)
    show_messages(outcome, console)
    rows = trial_records(views.top(folder, BEST, scoring=ensemble.scoring(folder)))
    scores = score_rows(rows, list(folder.meta["tasks"]))
    console.print()
    title = "best trials (scores on `search`, which chose them)"
    tables.show(scores, console, title=title, empty="no trial has a score")
    name = None
    if predicted(folder):
        try:
            record = ensemble.choose(folder)
        except StoreError as error:  # damaged predictions, a full disk: the sweep is finished all the same
            again = command("ensemble", outcome.name, store=store)
            tell(f"warning: no ensemble was chosen: {error} Once that is mended: {again}")
        else:
            name = str(record["name"])
            console.print()
            show_ensemble(record, console)
    warn(folder.warnings)
    best = int(rows[0]["trial"]) if rows else None
    console.print()
    show_next(next_commands(outcome.name, store, best, name), folder, console)


def stopped(outcome: Outcome, store: str, console: Console) -> None:
    """The screen after a stop: what is recorded, and how to go on."""
    headline(outcome, console)
    if outcome.snapshot.best:
        best = outcome.snapshot.best[0]
        console.print(f"Best so far: trial {best.trial} with {score(best.overall)} on `search`.")
    show_messages(outcome, console)
    console.print(f"\nGo on with: {command('resume', outcome.name, store=store)}", soft_wrap=True)


def headline(outcome: Outcome, console: Console) -> None:
    """`quickstart-1 is done after 3m 12s: 5 finished, 6 stopped early, 1 failed.`"""
    snapshot = outcome.snapshot
    told = [f"{snapshot.counts[state]} {word}" for state, (word, _) in STATES.items() if snapshot.counts.get(state)]
    cut, to_come = snapshot.counts.get("waiting", 0), snapshot.trials_total - sum(snapshot.counts.values())
    told += [f"{cut} interrupted"] * bool(cut) + [f"{to_come} to come"] * (to_come > 0)
    how = "done" if outcome.state == "done" else "stopped, resumable,"
    words = f"{outcome.name} is {how} after {duration(snapshot.elapsed)}: {', '.join(told) or 'nothing ran'}"
    console.print(f"{words}, {snapshot.budget_examples_used:,} examples.", style="bold", soft_wrap=True)


def show_messages(outcome: Outcome, console: Console) -> None:
    """What the driver had to say last; the live display that showed it is gone."""
    for message in outcome.snapshot.messages[-MESSAGES:]:
        console.print(f"! {' '.join(message.split())}", style="yellow", soft_wrap=True)


def show_ensemble(record: Mapping[str, Any], console: Console) -> None:
    """Members, then the estimates, the held-out ones first."""
    chosen = plural(len(record["members"]), "member")
    about = f"{record['method']}, {chosen} of {plural(len(record['candidates']), 'candidate')}"
    console.print(f"ensemble {record['name']} ({about}): trials {ensemble.members(record)}", style="bold")
    for part, words in ensemble.PARTS.items():
        console.print(f"\n{words} ({ensemble.size_of(record, part)})")
        tables.show(ensemble.estimate_rows(record, part), console)
    console.print(f"\n{ensemble.gain(record)}")
    for line in record["skipped"]:
        console.print(f"left out: {line}", style="yellow")


def command(name: str, *arguments: str, store: str) -> str:
    """A command line that can be pasted."""
    where = [] if store == "runs" else ["--store", store]
    return shlex.join(["hpo", name, *arguments, *where])


def next_commands(sweep: str, store: str, best: int | None, name: str | None) -> list[tuple[str, str]]:
    """Three commands worth trying now, each with what it does."""
    more = (command("top", sweep, "-n", "10", store=store), "more trials, with their parameters")
    if best is None:
        why = (command("query", "SELECT trial, state, error FROM trials", store=store), "what went wrong")
        return [more, why, (command("status", sweep, store=store), "how far it came")]
    show = (command("show", sweep, str(best), store=store), "the best trial's configuration and reports")
    source = ("--trial", str(best)) if name is None else ("--ensemble", name)
    predict = (command("predict", sweep, *source, "--out", "predictions", store=store), "files for the leaderboard")
    return [more, show, predict]


def show_next(commands: list[tuple[str, str]], folder: SweepFolder, console: Console) -> None:
    console.print(f"Everything is in {folder.path}. Next, for example:", soft_wrap=True)
    width = max(len(line) for line, _ in commands)
    for line, does in commands:
        whole = f"  {line:<{width}}   # {does}"
        console.print(whole if len(whole) <= console.width else f"  {line}", soft_wrap=True)
