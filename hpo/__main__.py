"""The command line `hpo`: one table of commands, grouped as people use them.

`python -m hpo` and the installed script `hpo` are the same. Exit codes: 0 done, 2 bad input, 3 stopped and resumable.
Nothing heavy is imported here or at the top of a command's file, so that `hpo --help` answers at once.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import typer

from hpo.commands.ask import COMMANDS as ASK
from hpo.commands.common import BAD_INPUT, Commands
from hpo.commands.run import COMMANDS as LAUNCH
from hpo.commands.select import COMMANDS as SELECT
from hpo.commands.spaces import COMMANDS as SPACES
from hpo.commands.watch import COMMANDS as WATCH

PACKAGES = ("hpo", "minbert", "results", "search_spaces")

GROUPS = {
    "Launch": LAUNCH,
    "Watch and steer": WATCH,
    "Ask": ASK,
    "Select": SELECT,
    "Around it": SPACES,
}
"""Panel of the help text -> its commands by name."""


def build() -> typer.Typer:
    """The application with every command of the table."""
    app = typer.Typer(
        cls=Commands,
        help="Hyperparameter search for one shared multitask BERT: sweeps, their best trials, ensembles of them.",
        epilog="Start with: hpo run quickstart",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    for panel, commands in GROUPS.items():
        for name, command in commands.items():
            app.command(name, rich_help_panel=panel)(command)
    return app


def shadowed(home: Path) -> list[str]:
    """What stands in the way: one sentence for each of the four packages that is not imported from `home`."""
    found = []
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        where = None if spec is None else next(iter(spec.submodule_search_locations or []), spec.origin)
        if where is None:
            found.append(f"`{name}` is not there: expected {home / name}")
        elif Path(where).resolve() != home / name:
            found.append(f"`{name}` is shadowed: Python finds {where}, expected {home / name}")
    return found


def main() -> None:
    """Entry point. `results` and `hpo` are generic names: another package of that name would give odd errors later."""
    wrong = shadowed(Path(__file__).resolve().parent.parent)
    if wrong:
        advice = "Run from another folder, or take the other one off PYTHONPATH and out of the environment."
        sys.exit(_refuse("\n".join([*wrong, advice])))
    build()(prog_name="hpo")


def _refuse(message: str) -> int:
    sys.stderr.write(f"hpo: {message}\n")
    return BAD_INPUT


if __name__ == "__main__":
    main()
