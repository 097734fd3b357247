"""What all commands share: options `--store` and `--json`, error messages with their exit codes, the console.

Three kinds of errors are the caller's to fix. They are printed as one message without a traceback, exit code 2:

- a ValueError that one of the four packages defines or raises (StoreError, ConfigError, SpaceError, ...): a mistake of
  the caller or a damaged file;
- an option or argument whose value has the wrong type or is out of range;
- an OSError that only the person at the terminal can fix: no permission, a read-only file system, a full disk.

A NoAnswerError, which another try may mend, is printed in the same way, exit code 4.

Any other error, such as a ValueError from inside a library, is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hpo.cluster.resources import NoAnswerError
from hpo.display.messages import tell, warn
from hpo.driver.stopping import RESUMABLE

if TYPE_CHECKING:
    from socketserver import BaseServer

    from rich.console import Console

    from results.store import Store, SweepFolder

DONE, BAD_INPUT, STOPPED, NO_ANSWER = 0, 2, RESUMABLE, 4
"""Exit codes: done; bad input; stopped and resumable; no machine of the cluster answered, try again."""

OURS = {"hpo", "minbert", "results", "search_spaces"}

REMEDIES = {
    errno.EACCES: "let this user read and write it, or choose another place (--store, --data, --out)",
    errno.EROFS: "mount it writable, or choose another place (--store, --out)",
    errno.ENOSPC: "free some space; what was recorded is kept, and `hpo resume` continues a sweep",
    errno.EDQUOT: "free some of your quota; what was recorded is kept, and `hpo resume` continues a sweep",
}
"""Number of an OSError that the caller can fix -> what to do about it."""

UNWRAPPED = 10_000
"""Width in columns of a console that is no terminal: lines in a file or pipe are not wrapped."""

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", envvar="HPO_STORE", metavar="DIR", help="Folder that holds all sweeps, or s3://BUCKET/DIR.",
        show_envvar=True,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SweepArgument = Annotated[str, typer.Argument(metavar="SWEEP", help="Name of the sweep (see `hpo list`).")]
TrialArgument = Annotated[int, typer.Argument(metavar="TRIAL", help="Number of the trial (see `hpo top`).", min=0)]


NUMBERS = {int: "an integer", float: "a number"}
"""Type of an option or argument -> its name in messages."""


class InputError(ValueError):
    """A command cannot do what its arguments ask for."""


class Commands(TyperGroup):
    """The group of all commands: prints an error that the caller can fix as one message, exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            if not is_ours(error):
                raise
            tell(str(error))
            raise typer.Exit(NO_ANSWER if isinstance(error, NoAnswerError) else BAD_INPUT) from error
        except typer.BadParameter as error:
            tell(wrong_value(error))
            raise typer.Exit(BAD_INPUT) from error
        except OSError as error:
            if (message := fixable(error)) is None:
                raise
            tell(message)
            raise typer.Exit(BAD_INPUT) from error


def wrong_value(error: typer.BadParameter) -> str:
    """The message about a refused value: `--trials` must be an integer of at least 1, not 'many'."""
    option: Any = error.param
    declared = getattr(option, "type_descriptor", None)
    if declared is None or not error.message:  # an empty message: the value is missing
        advice = "" if error.ctx is None else f" See: {_called(error.ctx)} --help"
        return f"{error.format_message()}{advice}"
    name = option.metavar if option.param_type_name == "argument" else max(option.opts, key=len)
    details = getattr(error.__cause__, "errors", None)  # typer reads values with pydantic
    if declared.annotation not in NUMBERS or details is None:
        return f"`{name}`: {error.message}"
    low, high = declared.parameter_info.min, declared.parameter_info.max
    bounds = "" if low is None else f" of at least {low:g}" if high is None else f" from {low:g} to {high:g}"
    return f"`{name}` must be {NUMBERS[declared.annotation]}{bounds}, not {_shown(details()[0]['input'])}."


def _called(context: Any) -> str:
    """A command as it is typed: `hpo top`, `hpo launch slurm`."""
    names = []
    while context.parent is not None:
        names.append(context.info_name)
        context = context.parent
    return " ".join(["hpo", *reversed(names)])


def _shown(text: str) -> str:
    """A number as it was typed, any other text in quotes."""
    try:
        float(text)
    except ValueError:
        return repr(text)
    return text


def fixable(error: OSError) -> str | None:
    """The message about an OSError that the person at the terminal can fix; None for a bug, which needs its traceback.

    EPERM counts as fixable only with a path: without one it comes from processes or devices.
    """
    number = errno.EACCES if error.errno == errno.EPERM and error.filename else error.errno
    if number not in REMEDIES:
        return None
    path = "" if error.filename is None else f"{error.filename}: "
    return f"{path}{error.strerror or error}; {REMEDIES[number]}"


def is_ours(error: ValueError) -> bool:
    """Whether one of the four packages defines the error's class or raised it."""
    if type(error).__module__.split(".")[0] in OURS:
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").split(".")[0] in OURS


@contextmanager
def warned(source: Store | SweepFolder) -> Iterator[None]:
    """Warn of the files that could not be read: after the work, and also after a failure, which they may explain."""
    try:
        yield
    finally:
        warn(source.warnings)


def serve(server: BaseServer) -> None:
    """Serve until Ctrl-C."""
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


def console() -> Console:
    """Standard output: as wide as the terminal; unwrapped where it is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else UNWRAPPED
    return Console(highlight=False, emoji=False, markup=False, width=width)


def print_json(value: Any) -> None:
    """Print strict JSON for programs, and nothing else, on standard output."""
    from hpo.display.tables import to_json

    sys.stdout.write(f"{to_json(value)}\n")


def open_store(uri: str) -> Store:
    from results.store import Store

    return Store(uri)


def open_sweep(uri: str, name: str) -> SweepFolder:
    return open_store(uri).open(name)
