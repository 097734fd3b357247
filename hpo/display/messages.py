"""Messages for the person at the terminal, on standard error: standard output stays valid with `--json`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def tell(message: str) -> None:
    """Print a message."""
    sys.stderr.write(f"hpo: {message}\n")


def warn(messages: list[str]) -> None:
    """Print warnings."""
    for message in messages:
        tell(f"warning: {message}")


def busy(activity: str) -> AbstractContextManager[Any]:
    """On a terminal, show a line with a spinner while the context lasts. Elsewhere, do nothing."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status(f"{activity} ...") if console.is_terminal else nullcontext()
