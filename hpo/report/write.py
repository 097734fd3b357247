"""The page as a file: written whole or not at all, and never over a file that is not a page of ours."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.report.facts import facts_of
from hpo.report.page import GENERATOR, content_of, page

if TYPE_CHECKING:
    from results.store import SweepFolder

HEAD = 2000
"""Number of bytes at the beginning of a page that name its generator."""


class ReportError(ValueError):
    """The page cannot be written to this file."""


def write_page(folders: Sequence[SweepFolder], path: Path) -> Path:
    """Write the page of these sweeps; returns its path. Raises ReportError, StoreError, RecordError."""
    check_out(path)
    write(path, page(content_of([facts_of(folder) for folder in folders])))
    return path


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
