"""Run, resume and extend sweeps: `hpo run`, `hpo resume`, `hpo extend`. The work is done in `hpo.driver.session`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpo.commands import options
from hpo.commands.common import STOPPED, InputError, StoreOption, SweepArgument, console, open_sweep, warned
from hpo.display.messages import busy, tell
from hpo.display.units import plural
from hpo.launch import file
from hpo.launch.request import Launch, Relaunch

if TYPE_CHECKING:
    from hpo.driver.session import Outcome
    from hpo.launch.plan import Plan
    from hpo.search.snapshot import Snapshot


@options.takes(Launch, options.LAUNCH)
def run(
    launch: Launch, config: options.Config = None, dry_run: options.DryRun = False, save: options.Save = None
) -> None:
    """Run a new sweep: train many configurations, stop weak ones early, build an ensemble of the best.

    Example: hpo run quickstart --data ../shared/data/cs224n --trials 24 --set precision=float32

    Example: hpo run full --dry-run --save full.toml, then: hpo run --config full.toml
    """
    from hpo.launch.prepare import prepare

    if save is not None:
        _check_save(save, dry_run)
    with busy("reading the data"):
        plan = prepare(launch, estimate=dry_run)
    if dry_run:
        from hpo.display.dry_run import show_plan

        if save is not None:
            save.write_text(file.text_of(launch), encoding="utf-8")
            tell(f"options written; run the sweep with: hpo run --config {save}")
        show_plan(plan, console())
        return
    _print_plan(plan)
    _watched(launch.store, "loading Ray", lambda driver, observer: driver.run(plan, observer))


def _check_save(save: Path, dry_run: bool) -> None:
    """Raise InputError where the options cannot be written, before the data are read."""
    if not dry_run:
        raise InputError("`--save` writes what --dry-run has checked: add --dry-run.")
    if save.exists():
        raise InputError(f"`--save`: {save} exists already. Remove it, or name another file.")


@options.takes(Relaunch, options.GOING_ON)
def resume(
    relaunch: Relaunch,
    sweep: SweepArgument,
    takeover: options.Takeover = False,
    retry_failed: options.RetryFailed = False,
    store: StoreOption = "runs",
) -> None:
    """Resume a sweep that was stopped, or whose driver died. Trials that have ended do not run again.

    Example: hpo resume quickstart-1
    """
    _launch_again(store, sweep, replace(relaunch, takeover=takeover, retry_failed=retry_failed))


@options.takes(Relaunch, options.GOING_ON)
def extend(relaunch: Relaunch, sweep: SweepArgument, trials: options.MoreTrials, store: StoreOption = "runs") -> None:
    """Give a sweep more trials and resume it.

    Example: hpo extend quickstart-1 --trials 48
    """
    _launch_again(store, sweep, replace(relaunch, trials=trials))


def _launch_again(store: str, sweep: str, relaunch: Relaunch) -> None:
    """Resume a sweep. Before Ray starts, refuse if another driver works on it, and return if nothing is left to do."""
    from hpo.display.summary import command
    from hpo.driver.resumption import resumption

    folder = open_sweep(store, sweep)
    with warned(folder):
        _, trials, done = resumption(folder, relaunch)
    if done:
        extend_command = command("extend", sweep, "--trials", str(2 * trials), store=store)
        tell(
            f"{sweep} is done: its {plural(trials, 'trial')} have ended and the chosen ones have predicted. See: "
            f"{command('top', sweep, store=store)}; give it more trials: {extend_command}"
        )
        return
    activity = "loading Ray, then reading the data"
    _watched(store, activity, lambda driver, observer: driver.resume(store, sweep, relaunch, observer))


def _print_plan(plan: Plan) -> None:
    record, preview = plan.record, plan.preview
    trials = plural(plan.trials, "trial")
    tell(f"sweep {plan.name}: {trials} of at most {record.budget:,} examples on {record.data.place}")
    for note in preview.notes:
        tell(f"note: {note}")
    if preview.problems:
        notes = plural(len(preview.problems), "note")
        tell(f"{notes} on the data, the first: {preview.problems[0]} (--dry-run lists them)")


def _watched(store: str, activity: str, work: Callable[[Any, Callable[[Snapshot], None]], Outcome]) -> None:
    """Launch a sweep under the display that fits the output, then show how it ended. `activity`: what the driver does
    first, in words."""
    from hpo.display import live, summary

    with live.observer(activity=activity) as observer:
        from hpo.driver import session as driver  # imports Ray, which takes seconds: the display is up by then

        outcome = work(driver, observer)
    if outcome.state == "stopped":
        summary.stopped(outcome, store, console())
        raise typer.Exit(STOPPED)
    summary.closing(outcome, store, console())


COMMANDS: Mapping[str, Callable[..., Any]] = {"run": run, "resume": resume, "extend": extend}
