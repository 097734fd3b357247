"""The command line in tests: the result of a command, its JSON output, or the message with which it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from hpo.__main__ import build

SWEEP = "small-1"
"""The sweep that `tests.hpo.stored` makes."""


def hpo(*arguments: str | Path, store: Path | None = None, typed: str | None = None) -> Result:
    """Run a command in this process. `typed`: its standard input."""
    option = [] if store is None else ["--store", str(store)]
    return CliRunner().invoke(build(), [*map(str, arguments), *option], input=typed)


def answer(*arguments: str | Path, store: Path) -> Any:
    """JSON output of a command that succeeds."""
    done = hpo(*arguments, "--json", store=store)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(done: Result) -> str:
    """Message of a command that refused its input: exit code 2, nothing on standard output, no traceback."""
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())
