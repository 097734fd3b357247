"""What all commands share: `--store` and `--json`, the way a mistake is told, the consoles.

A ValueError that one of the four packages defines or raises (StoreError, ConfigError, SpaceError, ...) is a caller's
mistake or a broken file: told as one message without a traceback, exit code 2. So is the value of an option or argument
that has another type or is out of range, and an OSError that only the person at the terminal can mend: no permission, a
read-only file system, a full disk. Anything else, a ValueError from inside a library too, is a bug of ours and keeps
its traceback.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hpo.display.messages import tell, warn

if TYPE_CHECKING:
    from rich.console import Console

    from results.store import Store, SweepFolder

DONE, BAD_INPUT, STOPPED = 0, 2, 3
"""Exit codes: done; bad input; stopped and resumable."""

OURS = {"hpo", "minbert", "results", "search_spaces"}

REMEDIES = {
    errno.EACCES: "let this user read and write it, or choose another place (--store, --data, --out)",
    errno.EROFS: "mount it writable, or choose another place (--store, --out)",
    errno.ENOSPC: "free some space; what was recorded is kept, and `hpo resume` goes on with a sweep",
    errno.EDQUOT: "free some of your quota; what was recorded is kept, and `hpo resume` goes on with a sweep",
}
"""What to do about an OSError that is not ours to mend, by its number."""

UNWRAPPED = 10_000
"""Columns of a console that is no terminal: a file or pipe gets whole lines."""

StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="HPO_STORE", metavar="DIR", help="Where sweeps are kept.", show_envvar=True),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="Name of the sweep (see `hpo list`).")]
TrialArgument = Annotated[int, typer.Argument(metavar="TRIAL", help="Number of the trial (see `hpo top`).", min=0)]


NUMBERS = {int: "an integer", float: "a number"}
"""Types of options and arguments, in words."""


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
        except typer.BadParameter as error:
            tell(wrong_value(error))
            raise typer.Exit(BAD_INPUT) from error
        except OSError as error:
            if (message := mendable(error)) is None:
                raise
            tell(message)
            raise typer.Exit(BAD_INPUT) from error


def wrong_value(error: typer.BadParameter) -> str:
    """Why the value of an option or argument is refused: `--trials` must be an integer of at least 1, not 'many'."""
    option: Any = error.param
    declared = getattr(option, "type_descriptor", None)
    if declared is None or not error.message:  # an empty message: the value is missing
        see = "" if error.ctx is None else f" See: hpo {error.ctx.info_name} --help"
        return f"{error.format_message()}{see}"
    name = option.metavar if option.param_type_name == "argument" else max(option.opts, key=len)
    details = getattr(error.__cause__, "errors", None)  # typer reads values with pydantic
    if declared.annotation not in NUMBERS or details is None:
        return f"`{name}`: {error.message}"
    low, high = declared.parameter_info.min, declared.parameter_info.max
    bounds = "" if low is None else f" of at least {low:g}" if high is None else f" from {low:g} to {high:g}"
    return f"`{name}` must be {NUMBERS[declared.annotation]}{bounds}, not {_shown(details()[0]['input'])}."


def _shown(text: str) -> str:
    """A number as it was typed, anything else in quotes."""
    try:
        float(text)
    except ValueError:
        return repr(text)
    return text


def mendable(error: OSError) -> str | None:
    """The message about an OSError that the person at the terminal can mend; None for a bug, which needs its traceback.

    EPERM counts for files only: without a path it comes from processes or devices.
    """
    number = errno.EACCES if error.errno == errno.EPERM and error.filename else error.errno
    if number not in REMEDIES:
        return None
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror or error}; {REMEDIES[number]}"


def ours(error: ValueError) -> bool:
    """Whether one of the four packages defines the error's class or raised it."""
    if type(error).__module__.split(".")[0] in OURS:
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").split(".")[0] in OURS


@contextmanager
def warned(source: Store | SweepFolder) -> Iterator[None]:
    """Tell what could not be read of the source after the work, and also after its failure: it may be the reason."""
    try:
        yield
    finally:
        warn(source.warnings)


def console() -> Console:
    """Standard output: as wide as the terminal, or unwrapped where there is none."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else UNWRAPPED
    return Console(highlight=False, emoji=False, markup=False, width=width)


def print_json(value: Any) -> None:
    """For programs: strict JSON, nothing else on standard output."""
    from hpo.display.tables import to_json

    sys.stdout.write(f"{to_json(value)}\n")


def open_store(uri: str) -> Store:
    from results.store import Store

    return Store(uri)


def open_sweep(uri: str, name: str) -> SweepFolder:
    return open_store(uri).open(name)
