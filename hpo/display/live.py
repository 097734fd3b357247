"""The live display of a sweep: a pure function from a Snapshot to a picture that rich can print.

    header    name, phase, what the driver does, time since the launch, time left
    bars      examples used, of the largest possible number; trials closed, of all
    best      the best trials (furthest rung first, then score) with their scores there, overall and per task
    rungs     for each milestone: reports, stopped trials, cutoff (the next score must be higher), best score
    running   progress of every running trial, in training or in the stages before it

Without a terminal `PlainDisplay` (`hpo/display/plain.py`) writes one line for each event instead, easy to grep.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo.display.notebook import NotebookDisplay
from hpo.display.plain import PlainDisplay
from hpo.display.units import OVER, TRAINING, amount, duration, plural, rate, score
from hpo.search.states import CLOSED

if TYPE_CHECKING:
    from hpo.search.snapshot import Snapshot

WIDE = 140
"""Width of the picture in columns where there is no terminal."""
LEADERS = 5
"""Largest number of rows of the table of best trials."""
OPEN = 8
"""Largest number of rows of the table of running trials."""
STAGES = 4
"""Largest number of lines of trials in stages before training."""
MESSAGES = 3
"""Number of latest messages shown."""

STATE_WORDS = {
    "running": ("running", "cyan"),
    "complete": ("finished", "green"),
    "pruned": ("stopped", "yellow"),
    "diverged": ("diverged", "magenta"),
    "failed": ("failed", "red"),
}
"""State of a trial -> the word shown, its colour. A pruned trial was stopped at a rung."""

PHASES = {
    "starting": "blue",
    "searching": "cyan",
    "repeating": "cyan",
    "stopping": "yellow",
    "stopped": "yellow",
    "interrupted": "red",
    "finalising": "blue",
    "done": "green",
}
"""Phase of a sweep -> its colour."""


def most_examples(snapshot: Snapshot) -> int:
    """Examples that the sweep would use if no trial were stopped early: trials and repeats x the highest milestone."""
    return (snapshot.trials_total + snapshot.repeats_total) * max((row.step for row in snapshot.rungs), default=0)


def tasks_of(snapshot: Snapshot) -> list[str]:
    """Task names, in the order in which the scores hold them."""
    names = dict.fromkeys(snapshot.best_per_task)
    for leader in snapshot.best:
        names |= dict.fromkeys(leader.scores)
    return list(names)


def table() -> Table:
    """A table without lines: the whole picture must fit into 24 rows and 80 columns."""
    return Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0))


def titled(title: str, content: RenderableType) -> Group:
    return Group(Text(title, style="bold", no_wrap=True), content)


def header(snapshot: Snapshot) -> Table:
    line = Table.grid(expand=True)
    line.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    phase = f"{snapshot.phase}: {snapshot.activity}" if snapshot.activity else snapshot.phase
    name = Text.assemble((snapshot.name, "bold"), "  ", (phase, PHASES.get(snapshot.phase, "white")))
    passed = f"{duration(snapshot.elapsed)} passed"
    show_left = snapshot.time_left is not None and snapshot.phase in TRAINING
    left = f", about {duration(snapshot.time_left)} left" if show_left else ""
    line.add_row(name, Text(passed + left))
    return line


def bar(done: float, total: float, style: str) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=min(done, total), complete_style=style, finished_style=style)


def bars(snapshot: Snapshot) -> Table:
    """Budget and trials, each as a bar with its numbers."""
    rows = Table.grid(padding=(0, 1), expand=True)
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column(ratio=1, min_width=10, max_width=40)
    rows.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
    used, most = snapshot.budget_examples_used, most_examples(snapshot)
    budget = f"{amount(used)} of at most {amount(most)} examples, {rate(snapshot.examples_per_second)}/s"
    rows.add_row("budget", bar(used, most, "blue"), budget)
    closed = sum(snapshot.counts.get(state, 0) for state in CLOSED)
    repeats = f", {snapshot.repeats_ended} of {plural(snapshot.repeats_total, 'repeat')}" * bool(snapshot.repeats_total)
    rows.add_row(
        "trials", bar(closed, snapshot.trials_total, "green"), f"{closed} of {snapshot.trials_total} closed{repeats}"
    )
    return rows


def states(snapshot: Snapshot) -> Text:
    """`2 running   5 finished   9 stopped   0 diverged   0 failed   7 to come`; zeros dimmed."""
    parts: list[tuple[str, str]] = []
    for state, (word, style) in STATE_WORDS.items():
        number = snapshot.counts.get(state, 0)
        parts.append((f"{number} {word}", style if number else "dim"))
    waiting = snapshot.counts.get("waiting", 0)
    if waiting:
        parts.append((f"{waiting} interrupted", "yellow"))
    parts.append((f"{max(0, snapshot.trials_total - sum(snapshot.counts.values()))} to come", "dim"))
    return Text("   ").join(Text(part, style=style) for part, style in parts)


def objectives(snapshot: Snapshot) -> list[Text]:
    """`ranked by overall; further objectives: -seconds`, where there are any."""
    first, *further = snapshot.objectives or ("",)
    if not further:
        return []
    return [Text(f"ranked by {first}; further objectives: {', '.join(further)}", no_wrap=True, overflow="ellipsis")]


def best_table(snapshot: Snapshot) -> Table:
    """The best trials with their scores on `search` in the last report of each; the last row has the best score of
    every task and its trial."""
    names = tasks_of(snapshot)
    out = table()
    out.add_column("trial", justify="right")
    for name in ("at", "overall", *names):
        out.add_column(name, justify="right")
    leaders = snapshot.best[:LEADERS]
    for place, leader in enumerate(leaders):
        cells = [str(leader.trial), amount(leader.step), score(leader.overall)]
        out.add_row(*cells, *(score(leader.scores.get(name)) for name in names), style="" if place else "bold")
    if snapshot.best_per_task:
        per_task = (snapshot.best_per_task.get(name) for name in names)
        tasks = ("-" if best is None else f"{score(best.score)} #{best.trial}" for best in per_task)
        out.add_row("any", "", "", *tasks, style="dim")
    if not leaders:
        out.add_row("-", "", "no report yet")
    return out


def rung_table(snapshot: Snapshot) -> Table:
    """One row a milestone, the highest first, with the columns of the sweep's scheduler."""
    out = table()
    for name in ("examples", *snapshot.rung_columns):
        out.add_column(name, justify="right")
    for row in sorted(snapshot.rungs, key=lambda row: -row.step):
        cells = (rung_cell(name, getattr(row, name)) for name in snapshot.rung_columns)
        out.add_row(amount(row.step), *cells, style="" if row.reports else "dim")
    return out


def rung_title(snapshot: Snapshot) -> str:
    """`rungs (1 trial exempt)`: reports and best score are also those of exempt trials, stopped and cutoff are not."""
    exempt = max((row.exempt for row in snapshot.rungs), default=0)
    return f"rungs ({plural(exempt, 'trial')} exempt)" if exempt else "rungs"


def rung_cell(column: str, value: float | None) -> str:
    """Text of a cell: a count as it is, any other value as a score."""
    if column in ("cutoff", "best"):
        return score(value)
    return str(value) if value or column == "reports" else "-"


def running_table(snapshot: Snapshot) -> Table:
    """Running trials in training: their last report, with its examples, share of the budget and score."""
    most = max((row.step for row in snapshot.rungs), default=0)
    out = table()
    out.add_column("trial", justify="right")
    out.add_column("examples", justify="right")
    out.add_column("progress", width=8)
    out.add_column("overall", justify="right")
    training = [running for running in snapshot.running if running.trial not in snapshot.stages]
    for running in training[:OPEN]:
        progress = bar(running.examples, most, "cyan")
        of = "" if running.repeat_of is None else f" (again {running.repeat_of})"
        out.add_row(f"{running.trial}{of}", amount(running.examples), progress, score(running.overall))
    if len(training) > OPEN:
        out.add_row("...", f"{len(training) - OPEN} more", "", "", style="dim")
    if not training:
        out.add_row("-", "-", "", "-")
    return out


def stage_lines(snapshot: Snapshot) -> list[Text]:
    """The running trials in stages before training, one line each: `   14  MLM 120/900`."""
    lines = [Text(f"{trial:>5}  {stage}", no_wrap=True) for trial, stage in sorted(snapshot.stages.items())]
    more = len(lines) - STAGES
    return lines if more <= 0 else [*lines[:STAGES], Text(f"  ...  {more} more", style="dim")]


def tables(snapshot: Snapshot, width: int) -> RenderableType:
    """The tables side by side if `width` columns hold them, else below each other."""
    best = titled("best: furthest rung, then score on `search`", best_table(snapshot))
    rungs = titled(rung_title(snapshot), rung_table(snapshot))
    running = titled("running", Group(running_table(snapshot), *stage_lines(snapshot)))
    row = grid(best, rungs, running)
    if Console(file=StringIO(), width=10 * WIDE).measure(row).maximum <= width:
        return row
    return Group(best, Text(""), grid(rungs, running))


def grid(*parts: RenderableType) -> Table:
    row = Table.grid(padding=(0, 3, 0, 0))
    row.add_row(*parts)
    return row


def messages(snapshot: Snapshot) -> list[Text]:
    """The latest messages, each on one line."""
    latest = (" ".join(line.split()) for line in snapshot.messages[-MESSAGES:])
    return [Text(f"! {line}", style="yellow", no_wrap=True, overflow="ellipsis") for line in latest]


def picture(snapshot: Snapshot, width: int) -> RenderableType:
    """The whole display for a terminal of `width` columns."""
    rows = plural(snapshot.durable_rows, "row")
    foot = Text(f"{rows} safe in the store", style="dim")
    top = Group(header(snapshot), bars(snapshot), states(snapshot), *objectives(snapshot), Text(""))
    return Group(top, tables(snapshot, width), Text(""), *messages(snapshot), foot)


def observer(console: Console | None = None, activity: str = "") -> LiveDisplay | NotebookDisplay | PlainDisplay:
    """The display that fits the output: a picture on a terminal or in a notebook, lines elsewhere. `activity`: what the
    picture shows before the first snapshot."""
    console = console or Console()
    if console.is_jupyter:
        return NotebookDisplay(picture, activity)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveDisplay(console, activity=activity)
    return PlainDisplay(console.file)


class ResizableLive(Live):
    """A rich Live that clears the screen when the terminal's width changes. The terminal wraps the lines drawn before,
    so the cursor would go back too few of them."""

    def start(self, refresh: bool = False) -> None:
        self.width = self.console.width
        super().start(refresh)

    def refresh(self) -> None:
        if self.console.width != self.width:
            self.width = self.console.width
            self.console.control(Control.home(), Control.clear())
        super().refresh()


class LiveDisplay:
    """Observer of a sweep that draws the picture on a terminal. Its clock runs on between two snapshots. `activity`:
    what the driver does before the first snapshot, in words."""

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic, activity: str = ""
    ) -> None:
        self.console = console or Console()
        self.clock = clock
        self.activity = activity
        self.snapshot: Snapshot | None = None
        self.received = clock()
        self.live = ResizableLive(self, console=self.console, refresh_per_second=4, transient=True)

    def __call__(self, snapshot: Snapshot) -> None:
        self.snapshot, self.received = snapshot, self.clock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.snapshot is None:
            activity = f"starting: {self.activity}" if self.activity else "starting"
            yield Text(f"{activity} ... {duration(self.clock() - self.received)}", style="dim")
        else:
            yield picture(self.now(self.snapshot), options.max_width)

    def now(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with its times moved on to the present, unless no driver works on the sweep any more."""
        if snapshot.phase in OVER:
            return snapshot
        since = self.clock() - self.received
        left = None if snapshot.time_left is None else max(0.0, snapshot.time_left - since)
        return replace(snapshot, elapsed=snapshot.elapsed + since, time_left=left)

    def __enter__(self) -> LiveDisplay:
        self.live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
