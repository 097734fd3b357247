"""The options of `hpo run`, `hpo resume` and `hpo extend`: flag, limits, help text, each said once.

`LAUNCH` and `GOING_ON` give each field of a request its option; `takes` turns such a table into the parameters of a
command. Defaults are those of the request's fields.
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
from hpo.launch.request import Request, default_of, from_options

SEARCHED, USED = "What is searched", "What it may use"
"""Panels of the help text."""


def _searched(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=SEARCHED, **settings)


def _used(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=USED, **settings)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


_BASE = "Base encoder: a directory, a hub id or `tiny`; without it the packaged MiniLM. `--checkpoint` is the same."
_BUDGET = "Most examples of a trial; three epochs, up to 20,000, if left out."
_ETA = "Reduction factor of asha: about 1 in ETA trials passes each rung; 3 if left out."
_GRACE = "Examples before which no trial is stopped; budget / 27 if left out, but at least one step."

Space = Annotated[str, typer.Argument(metavar="SPACE", help="A search space (`hpo spaces` lists them) or a .py file.")]
Data = Annotated[
    str | None, _searched("--data", metavar="DIR", help="Folder with the tasks' files; without it the sample corpus.")
]
Tasks = Annotated[
    str | None, _searched("--tasks", metavar="NAMES", help="Tasks, such as sst,qqp or cfimdb; sst,qqp,sts if left out.")
]
Base = Annotated[str | None, _searched("--base", "--checkpoint", metavar="MODEL", help=_BASE)]
Trials = Annotated[int, _searched("--trials", min=1, help="Trials in all.")]
Budget = Annotated[int | None, _searched("--budget", min=1, metavar="EXAMPLES", help=_BUDGET)]
Seed = Annotated[int, _searched("--seed", min=0, help="Seed of draws and of training.")]
Name = Annotated[str | None, _searched("--name", help="Name of the sweep; SPACE-N if left out.")]
Settings = Annotated[
    list[str], _searched("--set", metavar="PATH=VALUE", help="Pin a parameter, such as adapter/rank=8; repeatable.")
]
Start = Annotated[list[Path], _searched("--start", metavar="FILE", help="JSON configuration to try first; repeatable.")]
Searcher = Annotated[
    str, _searched("--searcher", metavar="NAME", help="How configurations are drawn: tpe or random.")
]
Scheduler = Annotated[
    str, _searched("--scheduler", metavar="NAME", help="How weak trials are stopped early: asha, or none.")
]
Eta = Annotated[int | None, _searched("--eta", min=2, help=_ETA)]
Grace = Annotated[int | None, _searched("--grace", min=1, metavar="EXAMPLES", help=_GRACE)]

Time = Annotated[
    float | None,
    _used("--time", parser=_seconds, metavar="TIME", help="Stop this launch after so long, resumable: 90s, 15m, 2h."),
]
Address = Annotated[str | None, _used("--address", help="A running Ray cluster; without it one on this machine.")]
Workers = Annotated[
    int | None, _used("--workers", min=1, help="Trials at the same time; as many as fit if left out, later as before.")
]
CpusPerTrial = Annotated[
    int | None, _used("--cpus-per-trial", min=1, help="Cores, and threads, of a trial; 1 if left out, later as before.")
]
GpusPerTrial = Annotated[
    float | None,
    _used(
        "--gpus-per-trial",
        min=0,
        help="GPUs of a trial, may be a fraction; 1 where there are GPUs if left out, later as before.",
    ),
]
Keep = Annotated[int, _used("--keep", min=1, help="Trials whose weights stay.")]
DataNow = Annotated[
    str | None, _used("--data", metavar="DIR", help="Folder where the same data lies now; as before if left out.")
]
Takeover = Annotated[
    bool, typer.Option("--takeover", help="Go on although another driver seems to be at work; that one will leave.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")]
MoreTrials = Annotated[int, typer.Option("--trials", min=1, help="Trials that the sweep shall have in all.")]

_MACHINES: Mapping[str, Any] = {
    "address": Address,
    "workers": Workers,
    "cpus_per_trial": CpusPerTrial,
    "gpus_per_trial": GpusPerTrial,
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
    "searcher": Searcher,
    "scheduler": Scheduler,
    "eta": Eta,
    "grace": Grace,
    "time": Time,
    **_MACHINES,
    "keep": Keep,
    "store": StoreOption,
}
"""Fields of `Launch`, and of the request for resources in it, by their options."""
GOING_ON: Mapping[str, Any] = {"time": Time, **_MACHINES, "data": DataNow}
"""Fields of `Relaunch` that every command which goes on with a sweep may change."""


def takes(kind: type[Request], options: Mapping[str, Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The command takes these options beside its own parameters, and gets them as one request, its first argument."""

    def wrapped(command: Callable[..., None]) -> Callable[..., None]:
        own: list[inspect.Parameter] = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        parameters = [*own, *(_parameter(kind, name, option) for name, option in options.items())]

        def call(**values: Any) -> None:
            asked = {name: values.pop(name) for name in options}
            request = from_options(kind, {n: tuple(v) if isinstance(v, list) else v for n, v in asked.items()})
            command(request, **values)

        call.__doc__ = command.__doc__
        call.__name__ = command.__name__
        call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        setattr(call, "__signature__", inspect.Signature(parameters))  # noqa: B010  functions have none by their type
        return call

    return wrapped


def _parameter(kind: type[Request], name: str, option: Any) -> inspect.Parameter:
    """An option as the parameter of a function."""
    default = default_of(kind, name)
    if default is MISSING:
        default = inspect.Parameter.empty
    default = list(default) if isinstance(default, tuple) else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option)
