"""Launch sweeps and go on with them: `hpo run`, `hpo resume`, `hpo extend`. Thin over `hpo.driver.session`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hpo.commands import options
from hpo.commands.common import STOPPED, InputError, StoreOption, SweepArgument, console, open_sweep
from hpo.display.messages import busy, tell
from hpo.display.units import plural

if TYPE_CHECKING:
    from hpo.driver.session import Outcome
    from hpo.launch.plan import Plan
    from hpo.search.snapshot import Snapshot


def run(
    space: options.Space,
    data: options.Data = None,
    tasks: options.Tasks = None,
    checkpoint: options.Checkpoint = None,
    trials: options.Trials = 24,
    budget: options.Budget = None,
    time: options.Time = None,
    seed: options.Seed = 0,
    name: options.Name = None,
    settings: options.Settings = None,
    start: options.Start = None,
    address: options.Address = None,
    workers: options.Workers = None,
    cpus_per_trial: options.CpusPerTrial = 1,
    gpus_per_trial: options.GpusPerTrial = None,
    keep: options.Keep = 20,
    eta: options.Eta = 3,
    grace: options.Grace = None,
    dry_run: options.DryRun = False,
    store: StoreOption = "runs",
) -> None:
    """Search a space: train many configurations, stop the weak ones early, keep the best, build an ensemble.

    Example: hpo run quickstart --data ../shared/data/cs224n --trials 24 --set precision=float32
    """
    from hpo.launch.prepare import prepare
    from hpo.launch.request import Launch

    launch = Launch(
        space=space, data=data, tasks=tasks, checkpoint=checkpoint, store=store, name=name, trials=trials,
        budget=budget, time=time, seed=seed, settings=tuple(settings or ()), start=tuple(start or ()),
        address=address, workers=workers, cpus_per_trial=cpus_per_trial, gpus_per_trial=gpus_per_trial, keep=keep,
        eta=eta, grace=grace,
    )  # fmt: skip
    with busy("reading the data"):
        plan = prepare(launch, estimate=dry_run)
    if dry_run:
        from hpo.display.dry_run import show_plan

        show_plan(plan, console())
        return
    _tell_plan(plan)
    _watched(store, "loading Ray", lambda driver, observer: driver.run(plan, observer))


def resume(
    sweep: SweepArgument,
    takeover: options.Takeover = False,
    time: options.Time = None,
    address: options.Address = None,
    workers: options.Workers = None,
    cpus_per_trial: options.CpusNow = None,
    gpus_per_trial: options.GpusNow = None,
    data: options.DataNow = None,
    store: StoreOption = "runs",
) -> None:
    """Go on with a sweep that was stopped, or whose driver died. Finished trials do not run again.

    Example: hpo resume quickstart-1
    """
    _go_on(
        store, sweep, takeover=takeover, time=time, address=address, workers=workers, cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial, data=data,
    )  # fmt: skip


def extend(
    sweep: SweepArgument,
    trials: options.MoreTrials,
    time: options.Time = None,
    address: options.Address = None,
    workers: options.Workers = None,
    cpus_per_trial: options.CpusNow = None,
    gpus_per_trial: options.GpusNow = None,
    data: options.DataNow = None,
    store: StoreOption = "runs",
) -> None:
    """Give a sweep more trials, and go on with it.

    Example: hpo extend quickstart-1 --trials 48
    """
    _go_on(
        store, sweep, trials=trials, time=time, address=address, workers=workers, cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial, data=data,
    )  # fmt: skip


def _go_on(store: str, sweep: str, **changes: Any) -> None:
    from hpo.driver.generations import active

    folder = open_sweep(store, sweep)
    # Both mistakes would be found later too, but only after Ray has started.
    if not changes.get("takeover") and (driver := active(Path(folder.path))):
        raise InputError(
            f"sweep {sweep!r} is being worked on by process {driver.pid} on {driver.host}. Wait for its end, stop it "
            f"with `hpo stop {sweep}`, or, if you know that it is dead, use: hpo resume {sweep} --takeover"
        )
    activity = "loading Ray, then reading the data"
    _watched(store, activity, lambda driver, observer: driver.resume(store, sweep, observer=observer, **changes))


def _tell_plan(plan: Plan) -> None:
    where = plan.data or "the sample corpus"
    tell(f"sweep {plan.name}: {plural(plan.trials, 'trial')} of at most {plan.budget:,} examples on {where}")
    for line in plan.notes:
        tell(f"note: {line}")
    if plan.problems:
        notes = plural(len(plan.problems), "note")
        tell(f"{notes} on the data, the first: {plan.problems[0]} (see them by --dry-run)")


def _watched(store: str, activity: str, work: Callable[[Any, Callable[[Snapshot], None]], Outcome]) -> None:
    """Do the work with the display that fits, then show how it ended. `activity`: what happens first."""
    from hpo.display import live, summary

    with live.observer(activity=activity) as observer:
        from hpo.driver import session as driver  # needs Ray: imported when the display already stands

        outcome = work(driver, observer)
    if outcome.state == "stopped":
        summary.stopped(outcome, store, console())
        raise typer.Exit(STOPPED)
    summary.closing(outcome, store, console())


COMMANDS: Mapping[str, Callable[..., Any]] = {"run": run, "resume": resume, "extend": extend}
