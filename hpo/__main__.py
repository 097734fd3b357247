"""The command line `hpo`: one table of commands, in groups.

`python -m hpo` and the installed script `hpo` are the same. Exit codes: 0 done, 2 bad input, 3 stopped and resumable,
4 no machine of the cluster answered.
Nothing heavy is imported here or at the top of a command's file, so `hpo --help` answers at once.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hpo.cluster.versions import OWN, versions
from hpo.commands.answer import COMMANDS as ANSWER
from hpo.commands.ask import COMMANDS as ASK
from hpo.commands.common import BAD_INPUT, DONE, Commands
from hpo.commands.exports import COMMANDS as EXPORTS
from hpo.commands.launch import COMMANDS as FILES
from hpo.commands.machines import COMMANDS as MACHINES
from hpo.commands.report import COMMANDS as REPORT
from hpo.commands.run import COMMANDS as LAUNCH
from hpo.commands.select import COMMANDS as SELECT
from hpo.commands.spaces import COMMANDS as SPACES
from hpo.commands.track import COMMANDS as TRACK
from hpo.commands.watch import COMMANDS as WATCH

EPILOG = """Start with: hpo run quickstart

Exit codes: 0 done, 2 bad input, 3 stopped, resumable by: hpo resume SWEEP, 4 no machine of the cluster answers, try
again"""

GROUPS = {
    "Launch sweeps": LAUNCH,
    "Watch and control sweeps": WATCH,
    "Query results": {**ASK, **ANSWER, **REPORT},
    "Build ensembles, predict, export": {**SELECT, **EXPORTS},
    "Show sweeps in other tools": TRACK,
    "Search spaces": SPACES,
    "Check machines, free disks": MACHINES,
}
"""Panel of the help text -> its commands by name."""

LAUNCH_FILES = "launch"
"""Command with commands of its own: a file for each kind of cluster."""


def _print_versions(requested: bool) -> None:
    """Print the version of this package, then those of Python and of the packages that a result depends on. None of
    them is imported."""
    if requested:
        for name, version in sorted(versions().items(), key=lambda item: item[0] != "minbert-hpo"):
            sys.stdout.write(f"{name} {version}\n")
        raise typer.Exit(DONE)


def build() -> typer.Typer:
    """The application with every command of the table."""
    app = typer.Typer(
        cls=Commands,
        help="Hyperparameter search for one shared multitask BERT: run sweeps, query the best trials, build ensembles.",
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
    files = typer.Typer(help="Write a file that starts a sweep on a cluster: Slurm, KubeRay.", no_args_is_help=True)
    for name, command in FILES.items():
        files.command(name)(command)
    app.add_typer(files, name=LAUNCH_FILES, rich_help_panel="Launch sweeps")
    return app


def common_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_versions, is_eager=True, help="Show the versions of all packages."),
    ] = False,
) -> None:
    """The options of `hpo` itself."""


def shadowed(home: Path) -> list[str]:
    """Find the packages of ours that Python would import from another place than `home`: a sentence for each."""
    sentences = []
    for name in OWN:
        spec = importlib.util.find_spec(name)
        location = None if spec is None else next(iter(spec.submodule_search_locations or []), spec.origin)
        if location is None:
            sentences.append(f"`{name}` is missing: expected {home / name}")
        elif Path(location).resolve() != home / name:
            sentences.append(f"`{name}` is shadowed: Python finds {location}, expected {home / name}")
    return sentences


def main() -> None:
    """Run the command line. Refuse to start where another package named `results` or `hpo` hides ours: its errors would
    come later and be hard to read."""
    sentences = shadowed(Path(__file__).resolve().parent.parent)
    if sentences:
        advice = "Run from another folder, or remove the other package from PYTHONPATH or from the environment."
        sys.exit(_refuse("\n".join([*sentences, advice])))
    # Arrow's own allocator keeps pages that it has freed: 37 to 57 MB more in commands that read 10,000 trials.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    build()(prog_name="hpo")


def _refuse(message: str) -> int:
    sys.stderr.write(f"hpo: {message}\n")
    return BAD_INPUT


if __name__ == "__main__":
    main()
