"""The command line `hpo`: one table of commands, grouped as people use them.

`python -m hpo` and the installed script `hpo` are the same. Exit codes: 0 done, 2 bad input, 3 stopped and resumable.
Nothing heavy is imported here or at the top of a command's file, so that `hpo --help` answers at once.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from hpo.commands.ask import COMMANDS as ASK
from hpo.commands.common import BAD_INPUT, DONE, Commands
from hpo.commands.run import COMMANDS as LAUNCH
from hpo.commands.select import COMMANDS as SELECT
from hpo.commands.spaces import COMMANDS as SPACES
from hpo.commands.watch import COMMANDS as WATCH

EPILOG = """Start with: hpo run quickstart

Exit codes: 0 done, 2 bad input, 3 stopped, resumable by: hpo resume SWEEP"""

PACKAGES = ("hpo", "minbert", "results", "search_spaces")

GROUPS = {
    "Launch": LAUNCH,
    "Watch and steer": WATCH,
    "Ask": ASK,
    "Select": SELECT,
    "Around it": SPACES,
}
"""Panel of the help text -> its commands by name."""


def _print_versions(asked: bool) -> None:
    """Our own version, then those of Python and the packages that a result depends on; none of them is imported."""
    if asked:
        from hpo.launch.record import versions

        for name, version in sorted(versions().items(), key=lambda item: item[0] != "minbert-hpo"):
            sys.stdout.write(f"{name} {version}\n")
        raise typer.Exit(DONE)


def build() -> typer.Typer:
    """The application with every command of the table."""
    app = typer.Typer(
        cls=Commands,
        help="Hyperparameter search for one shared multitask BERT: sweeps, their best trials, ensembles of them.",
        epilog=EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(common_options)
    for panel, commands in GROUPS.items():
        for name, command in commands.items():
            app.command(name, rich_help_panel=panel)(command)
    return app


def common_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="Show the versions of all packages."),
    ] = False,
) -> None:
    """The options of `hpo` itself."""


def shadowed(home: Path) -> list[str]:
    """One sentence for each of the four packages that is not imported from `home`."""
    sentences = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        where = None if spec is None else next(iter(spec.submodule_search_locations or []), spec.origin)
        if where is None:
            sentences.append(f"`{name}` is not there: expected {home / name}")
        elif Path(where).resolve() != home / name:
            sentences.append(f"`{name}` is shadowed: Python finds {where}, expected {home / name}")
    return sentences


def main() -> None:
    """Entry point. `results` and `hpo` are generic names: another package of that name would give odd errors later."""
    sentences = shadowed(Path(__file__).resolve().parent.parent)
    if sentences:
        advice = "Run from another folder, or take the other package off PYTHONPATH and out of the environment."
        sys.exit(_refuse("\n".join([*sentences, advice])))
    build()(prog_name="hpo")


def _refuse(message: str) -> int:
    sys.stderr.write(f"hpo: {message}\n")
    return BAD_INPUT


if __name__ == "__main__":
    main()
