"""Calling the command line in a test: the result, its JSON, or the one message with which it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from hpo.__main__ import build

SWEEP = "small-1"
"""The sweep that `tests.hpo.stored` makes."""


def hpo(*arguments: str | Path, store: Path | None = None, typed: str | None = None) -> Result:
    where = [] if store is None else ["--store", str(store)]
    return CliRunner().invoke(build(), [*map(str, arguments), *where], input=typed)


def answer(*arguments: str | Path, store: Path) -> Any:
    """What a command says as JSON."""
    done = hpo(*arguments, "--json", store=store)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(done: Result) -> str:
    """The message of a command that refused: exit code 2, one message, nothing on standard output, no traceback."""
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())
