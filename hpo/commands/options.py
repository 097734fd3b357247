"""The options of `hpo run`, `hpo resume` and `hpo extend`: flag, limits and help text of each, declared once.

`LAUNCH` and `GOING_ON` map each field of a request to its option; `takes` turns such a table into the parameters of a
command. An option's default is the default of its field.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Annotated, Any

import typer

from hpo.commands.common import StoreOption
from hpo.display.units import parse_duration
from hpo.launch import file
from hpo.launch.request import Request, default_of, from_options

SEARCH, RESOURCES = "Search", "Resources"
"""Panels of the help text."""
TIMES = ("time", "trial_timeout", "pause_timeout")
"""Fields that are seconds, and options that take a unit."""


def _search(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=SEARCH, **settings)


def _resource(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=RESOURCES, **settings)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _take_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make the options of a file the defaults of the command."""
    if path is not None:
        values = file.read(path)
        times = {name: str(values[name]) for name in TIMES if name in values}
        context.default_map = values | times  # times are read as the command line gives them, with or without a unit
    return path


_DATA = "Folder with the files of the tasks. Default: the packaged sample corpus."
_TASKS = "Tasks to train, such as sst,qqp or cfimdb. Default: sst,qqp,sts."
_BASE = (
    "Pretrained encoder that trials begin from: a directory, a hub id or `tiny`. Default: the packaged MiniLM. "
    "`--checkpoint` is another name of this option."
)
_TRIALS = "Total number of trials, including the default configuration."
_BUDGET = "Largest number of training examples of one trial. Default: three epochs of all tasks, at most 20,000."
_SEED = "Seed of the random draws and of training."
_NAME = "Name of the sweep. Default: SPACE-N with the next free number N."
_SET = "Fix a parameter, such as adapter/rank=8. Repeatable."
_START = "JSON file with a configuration to try right after the default one. Repeatable."
_START_FULL = "As --start, and early stopping spares the trial, as it spares the default one. Repeatable."
_WARM_START = (
    "Sweep of the same store with equal base, data and tasks, to begin from: its best trials are changed as the "
    "default one is, and priors move to the best. Repeatable."
)
_SEARCHER = (
    "How configurations are drawn. changes: few parameters of the default changed, later of the best trials, and every "
    "third trial by TPE weighed by the priors. tpe: Optuna's TPE. random: draws from the priors. grid: every "
    "configuration of a finite space once. gp: a Gaussian process, for spaces of numbers without choices. nsga2: "
    "NSGA-II over complete trials, for several objectives; the others optimise the first one alone."
)
_OBJECTIVE = (
    "Objectives, after a minus those that are minimised, such as overall,-trainable_parameters,-seconds. The first, "
    "overall, decides rungs, ranks and the answer; `hpo top --pareto` shows the trials that no other beats."
)
_SCHEDULER = (
    "Scheduler: asha stops weak trials early, hyperband does so from different milestones on, median stops those below "
    "the median of the others, none lets every trial use its full budget."
)
_ETA = "Reduction factor of asha and hyperband: about 1 in ETA trials passes each rung. Default: 3."
_GRACE = (
    "Number of examples before which no trial is stopped. Default: as many as the default configuration needs to learn "
    "(100 steps, twice its warm-up), at most budget / 9."
)
_REPEATS = (
    "Further replicates of the best three configurations and the default after the search, within a fifth of the "
    "sweep's examples; 0: none."
)
_TIME = "Time limit of this launch, such as 90s, 15m, 2h. The sweep can be resumed after it. Default: no limit."
_TRIAL_TIMEOUT = (
    "Time without a sign of life after which a worker is killed and its trial issued again. Default: 20 times the "
    "longest time between two signs so far, from 10 minutes to an hour; at least 30 minutes for a worker that starts."
)
_PAUSE_TIMEOUT = "Time that a stop waits for running trials to write checkpoints. Default: 2m."
_RETRY_FAILED = "Try failed trials again."
_ADDRESS = (
    "Address of a running Ray cluster, host:port or auto; local starts Ray on this machine. Default: RAY_ADDRESS, else "
    "local."
)
_WORKERS = (
    "Number of trials that run at the same time; at most, on a running cluster, whose machines may join and leave. "
    "Default: as many as fit. On resume: as before, as far as they fit."
)
_CPUS = (
    "CPU cores of one trial, which are also its threads. Default: a machine's cores divided by its GPUs, 1 without "
    "GPUs. On resume: the number given before, if there was one and a machine has so many."
)
_GPUS = (
    "GPUs of one trial; a fraction lets trials share a GPU. Default: 1 where there are GPUs, else 0. A running cluster "
    "whose GPUs are asleep or gone is waited for, unless this is 0. On resume: as before."
)
_KEEP = (
    "Number of best trials whose weights are kept. Those of trial 0 and of repeats are too, and those of at most as "
    "many members of an ensemble."
)
_DATA_NOW = "Folder that holds the same data now. Default: as before."
_TAKEOVER = "Resume although another driver seems to work on the sweep. That driver will stop."
_DRY_RUN = "Check everything, show the plan and its expected cost, and start no trial."

_CONFIG = "TOML file with options of this command, as --save writes it; those on the command line win."
_SAVE = "With --dry-run: write the options to this TOML file, for --config."

Space = Annotated[str, typer.Argument(metavar="SPACE", help="A search space (`hpo spaces` lists them) or a .py file.")]
Data = Annotated[str | None, _search("--data", metavar="DIR", help=_DATA)]
Tasks = Annotated[str | None, _search("--tasks", metavar="NAMES", help=_TASKS)]
Base = Annotated[str | None, _search("--base", "--checkpoint", metavar="MODEL", help=_BASE)]
Trials = Annotated[int, _search("--trials", min=1, help=_TRIALS)]
Budget = Annotated[int | None, _search("--budget", min=1, metavar="EXAMPLES", help=_BUDGET)]
Seed = Annotated[int, _search("--seed", min=0, help=_SEED)]
Name = Annotated[str | None, _search("--name", help=_NAME)]
Settings = Annotated[list[str], _search("--set", metavar="PATH=VALUE", help=_SET)]
Start = Annotated[list[Path], _search("--start", metavar="FILE", help=_START)]
StartFull = Annotated[list[Path], _search("--start-full", metavar="FILE", help=_START_FULL)]
WarmStart = Annotated[list[str], _search("--warm-start", metavar="SWEEP", help=_WARM_START)]
Searcher = Annotated[str, _search("--searcher", metavar="NAME", help=_SEARCHER)]
Scheduler = Annotated[str, _search("--scheduler", metavar="NAME", help=_SCHEDULER)]
Objective = Annotated[str, _search("--objective", metavar="NAMES", help=_OBJECTIVE)]
Eta = Annotated[int | None, _search("--eta", min=2, help=_ETA)]
Grace = Annotated[int | None, _search("--grace", min=1, metavar="EXAMPLES", help=_GRACE)]
Repeats = Annotated[int, _search("--repeats", min=0, metavar="N", help=_REPEATS)]

Time = Annotated[float | None, _resource("--time", parser=_seconds, metavar="TIME", help=_TIME)]
TrialTimeout = Annotated[
    float | None, _resource("--trial-timeout", parser=_seconds, metavar="TIME", help=_TRIAL_TIMEOUT)
]
PauseTimeout = Annotated[
    float | None, _resource("--pause-timeout", parser=_seconds, metavar="TIME", help=_PAUSE_TIMEOUT)
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help=_RETRY_FAILED)]
Address = Annotated[str | None, _resource("--address", help=_ADDRESS)]
Workers = Annotated[int | None, _resource("--workers", min=1, help=_WORKERS)]
CpusPerTrial = Annotated[int | None, _resource("--cpus-per-trial", min=1, help=_CPUS)]
GpusPerTrial = Annotated[float | None, _resource("--gpus-per-trial", min=0, help=_GPUS)]
Keep = Annotated[int, _resource("--keep", min=1, help=_KEEP)]
DataNow = Annotated[str | None, _resource("--data", metavar="DIR", help=_DATA_NOW)]
Takeover = Annotated[bool, typer.Option("--takeover", help=_TAKEOVER)]
DryRun = Annotated[bool, typer.Option("--dry-run", help=_DRY_RUN)]
Save = Annotated[Path | None, typer.Option("--save", metavar="FILE", help=_SAVE)]
Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", is_eager=True, callback=_take_file, help=_CONFIG)
]
MoreTrials = Annotated[int, typer.Option("--trials", min=1, help="New total number of trials of the sweep.")]

_MACHINES: Mapping[str, Any] = {
    "address": Address,
    "workers": Workers,
    "cpus_per_trial": CpusPerTrial,
    "gpus_per_trial": GpusPerTrial,
    "trial_timeout": TrialTimeout,
    "pause_timeout": PauseTimeout,
}
LAUNCH: Mapping[str, Any] = {
    "space": Space,
    "data": Data,
    "tasks": Tasks,
    "base": Base,
    "trials": Trials,
    "budget": Budget,
    "seed": Seed,
    "name": Name,
    "settings": Settings,
    "start": Start,
    "start_full": StartFull,
    "warm_start": WarmStart,
    "searcher": Searcher,
    "scheduler": Scheduler,
    "objective": Objective,
    "eta": Eta,
    "grace": Grace,
    "repeats": Repeats,
    "time": Time,
    **_MACHINES,
    "keep": Keep,
    "store": StoreOption,
}
"""Field of `Launch`, or of the `ResourceRequest` in it -> its option."""
GOING_ON: Mapping[str, Any] = {"time": Time, **_MACHINES, "data": DataNow}
"""Field of `Relaunch`, or of the `ResourceRequest` in it -> its option in `hpo resume` and `hpo extend`."""


def takes(kind: type[Request], options: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: give a command these options beside its own parameters. Their values reach it as one request, its
    first argument."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own: list[inspect.Parameter] = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        parameters = [*own, *(_parameter(kind, name, option) for name, option in options.items())]

        def call(**values: Any) -> None:
            chosen = {name: values.pop(name) for name in options}
            settings = {name: tuple(value) if isinstance(value, list) else value for name, value in chosen.items()}
            request = from_options(kind, settings)
            command(request, **values)

        call.__doc__ = command.__doc__
        call.__name__ = command.__name__
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        setattr(call, "__signature__", inspect.Signature(parameters))  # noqa: B010  the type of functions declares no __signature__
        return call

    return decorate


def _parameter(kind: type[Request], name: str, option: Any) -> inspect.Parameter:
    """An option as a keyword-only parameter of a function."""
    default = default_of(kind, name)
    if default is MISSING:
        default = inspect.Parameter.empty
    default = list(default) if isinstance(default, tuple) else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
