"""The disk: durable files, folders that can be written, bytes that files take, sizes read from text."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, from the system's buffers to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make(folder: Path) -> None:
    """Create a folder with its parents, so that all of them survive a power cut; an existing folder is no error."""
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync(path.parent)


def check_writable(folder: Path, option: str) -> None:
    """Create the folder of a command-line option and check that files can be written in it. Raises ValueError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"`{option}` needs a folder that can be written; {folder} cannot: {reason}.") from error


def bytes_on_disk(path: Path) -> int:
    """Bytes that a file, or a folder with all in it, takes on the disk; holes of sparse files take none. 0 if it has
    gone."""
    try:
        own = path.lstat().st_blocks * 512
        if path.is_symlink() or not path.is_dir():
            return own
        return own + sum(bytes_on_disk(inner) for inner in path.iterdir())
    except FileNotFoundError:
        return 0


def parse_size(text: str) -> int:
    """Bytes in `0`, `500M`, `20G` or `1.5T` (powers of 1,024); raises ValueError for any other text."""
    number, unit = (text[:-1], text[-1:]) if text[-1:].isalpha() else (text, "")
    scale = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}.get(unit.lower())
    try:
        count = float(number) * (scale or math.nan)
    except ValueError:
        count = math.nan
    if not (math.isfinite(count) and count >= 0):
        raise ValueError(f"a size must be a number of bytes, or such as 500M, 20G, 1.5T, not {text!r}")
    return int(count)


def remove(path: Path) -> None:
    """Delete a file, or a folder with all in it; what has gone already is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def age(path: Path, now: float) -> float:
    """Seconds from the last change of a file, or of a folder and the files in it, until `now`; 0 if it has gone."""
    try:
        inner = path.iterdir() if path.is_dir() else ()
        changed: list[float] = [file.stat().st_mtime for file in (path, *inner)]
    except FileNotFoundError:
        return 0.0
    return now - max(changed)
