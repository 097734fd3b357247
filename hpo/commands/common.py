"""What all commands share: `--store` and `--json`, the way a mistake is told, the consoles.

A ValueError that one of the four packages defines or raises (StoreError, ConfigError, SpaceError, ...) is a caller's
mistake or a broken file: told as one message without a traceback, exit code 2. Anything else, a ValueError from inside
a library too, is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

    from results.store import Store, SweepFolder

DONE, BAD_INPUT, STOPPED = 0, 2, 3
"""Exit codes: done; bad input; stopped and resumable."""

OURS = {"hpo", "minbert", "results", "search_spaces"}

UNWRAPPED = 10_000
"""Columns of a console that is no terminal: a file or pipe gets whole lines."""

StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="HPO_STORE", metavar="DIR", help="Where sweeps are kept.", show_envvar=True),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="Name of the sweep (see `hpo list`).")]
TrialArgument = Annotated[int, typer.Argument(metavar="TRIAL", help="Number of the trial (see `hpo top`).", min=0)]


class InputError(ValueError):
    """A command was asked for something that cannot be."""


class Commands(TyperGroup):
    """The group of all commands; it tells a caller's mistake in one message."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            if not ours(error):
                raise
            tell(str(error))
            raise typer.Exit(BAD_INPUT) from error


def ours(error: ValueError) -> bool:
    """Whether one of the four packages defines the error's class or raised it."""
    if type(error).__module__.split(".")[0] in OURS:
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").split(".")[0] in OURS


def tell(message: str) -> None:
    """A message for the person at the terminal: standard error, so that `--json` stays clean."""
    sys.stderr.write(f"hpo: {message}\n")


def warn(messages: list[str]) -> None:
    for message in messages:
        tell(f"warning: {message}")


def console() -> Console:
    """Standard output: as wide as the terminal, or unwrapped where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else UNWRAPPED
    return Console(highlight=False, emoji=False, markup=False, width=width)


def print_json(value: Any) -> None:
    """For programs: strict JSON, nothing else on standard output."""
    from hpo.tables import to_json

    sys.stdout.write(f"{to_json(value)}\n")


def open_store(uri: str) -> Store:
    from results.store import Store

    return Store(uri)


def open_sweep(uri: str, name: str) -> SweepFolder:
    return open_store(uri).open(name)
