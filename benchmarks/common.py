"""What benchmarks share: configurations from settings, tables, JSON lines, and this interpreter in another process."""

from __future__ import annotations

import compileall
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minbert.config import Config

ROOT = Path(__file__).resolve().parent.parent
"""The repository: other processes start there, so that `benchmarks` is found without being installed."""

PACKAGES = ("benchmarks", "hpo", "minbert", "results", "search_spaces")


def configuration(*pairs: str) -> Config:
    """The default configuration with `path=value` settings laid over it. Raises ConfigError."""
    from minbert.config import Config, merge, settings

    return Config.from_dict(merge(Config().to_dict(), settings(pairs)))


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar inside a cell would end it."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def compile_bytecode() -> None:
    """Compile our packages: otherwise the first process of a round pays for what later ones find."""
    for name in PACKAGES:
        compileall.compile_dir(ROOT / name, quiet=2)


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this repository; start it in ROOT."""
    return [sys.executable, "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's variables and more."""
    return {**os.environ, **more}
