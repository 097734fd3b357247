"""The options of `hpo run`, `hpo resume` and `hpo extend`: name, limits, help text, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hpo.display.units import parse_duration

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


_ENCODER = "Encoder: a directory, a hub id or `tiny`; without it the packaged MiniLM."
_BUDGET = "Most examples of a trial; three epochs, up to 20,000, if left out."
_GRACE = "No trial is stopped before; budget / 27 if left out, but at least one step."

Space = Annotated[str, typer.Argument(metavar="SPACE", help="A search space (`hpo spaces` lists them) or a .py file.")]
Data = Annotated[
    str | None, _searched("--data", metavar="DIR", help="Folder with the tasks' files; without it the sample corpus.")
]
Tasks = Annotated[
    str | None, _searched("--tasks", metavar="NAMES", help="Such as sst,qqp or cfimdb; sst,qqp,sts if left out.")
]
Checkpoint = Annotated[str | None, _searched("--checkpoint", metavar="MODEL", help=_ENCODER)]
Trials = Annotated[int, _searched("--trials", min=1, help="Trials in all.")]
Budget = Annotated[int | None, _searched("--budget", min=1, metavar="EXAMPLES", help=_BUDGET)]
Seed = Annotated[int, _searched("--seed", min=0, help="Of draws and of training.")]
Name = Annotated[str | None, _searched("--name", help="Of the sweep; SPACE-N if left out.")]
Settings = Annotated[
    list[str] | None,
    _searched("--set", metavar="PATH=VALUE", help="Pin a parameter, such as adapter/rank=8; may be repeated."),
]
Start = Annotated[
    list[Path] | None, _searched("--start", metavar="FILE", help="JSON configuration to try first; may be repeated.")
]
Eta = Annotated[int, _searched("--eta", min=2, help="Of so many trials at a rung about one goes on.")]
Grace = Annotated[int | None, _searched("--grace", min=1, metavar="EXAMPLES", help=_GRACE)]

Time = Annotated[
    float | None,
    _used("--time", parser=_seconds, metavar="TIME", help="Stop this launch after so long, resumable: 90s, 15m, 2h."),
]
Address = Annotated[str | None, _used("--address", help="A running Ray cluster; without it one on this machine.")]
Workers = Annotated[
    int | None, _used("--workers", min=1, help="Trials at the same time; as many as fit if left out.")
]
CpusPerTrial = Annotated[int, _used("--cpus-per-trial", min=1, help="Cores, and threads, of a trial.")]
GpusPerTrial = Annotated[
    float | None, _used("--gpus-per-trial", min=0, help="May be a fraction; 1 where there are GPUs if left out.")
]
DataNow = Annotated[
    str | None, _used("--data", metavar="DIR", help="Where the same data lies now; as before if left out.")
]
CpusNow = Annotated[
    int | None, _used("--cpus-per-trial", min=1, help="Cores, and threads, of a trial; as before if left out.")
]
GpusNow = Annotated[
    float | None, _used("--gpus-per-trial", min=0, help="May be a fraction; as before if left out.")
]
Keep = Annotated[int, _used("--keep", min=1, help="Trials whose weights stay.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would run, and run nothing.")]
Takeover = Annotated[
    bool, typer.Option("--takeover", help="Go on although another driver seems to be at work; that one will leave.")
]
MoreTrials = Annotated[int, typer.Option("--trials", min=1, help="How many trials the sweep shall have in all.")]
