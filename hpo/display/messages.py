"""Messages for the person at the terminal: standard error, so that `--json` stays clean."""

from __future__ import annotations

import sys


def tell(message: str) -> None:
    """One message."""
    sys.stderr.write(f"hpo: {message}\n")


def warn(messages: list[str]) -> None:
    for message in messages:
        tell(f"warning: {message}")
