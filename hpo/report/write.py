"""The page as a file: written whole or not at all, and never over a file that is not a page of ours."""

from __future__ import annotations

import os
from pathlib import Path

from hpo.report.page import GENERATOR

HEAD = 2000
"""Number of bytes at the beginning of a page that name its generator."""


class ReportError(ValueError):
    """The page cannot be written to this file."""


def check_out(path: Path) -> None:
    """Raise ReportError if `path` is a folder, or a file that is not a page of ours."""
    if path.is_dir():
        raise ReportError(f"`--out`: {path} is a folder; name a file in it, such as {path / 'report.html'}")
    if path.exists():
        with path.open("rb") as file:
            if f'content="{GENERATOR}"'.encode() not in file.read(HEAD):
                raise ReportError(f"`--out`: {path} exists and is not a report; name another file, or remove it")


def write(path: Path, text: str) -> None:
    """Write the page. Raises ReportError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ReportError(f"`--out`: cannot write {path}: {error.strerror}") from error
