"""Messages for the person at the terminal: standard error, so that `--json` stays clean."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def tell(message: str) -> None:
    """One message."""
    sys.stderr.write(f"hpo: {message}\n")


def warn(messages: list[str]) -> None:
    for message in messages:
        tell(f"warning: {message}")


def busy(activity: str) -> AbstractContextManager[Any]:
    """On a terminal a line with a moving sign while something takes its time; gone afterwards. Elsewhere nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status(f"{activity} ...") if console.is_terminal else nullcontext()
