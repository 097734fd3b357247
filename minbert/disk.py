"""Writing to the disk: durable files, and folders that can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, from the system's buffers to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(folder: Path, option: str) -> None:
    """Create the folder of a command-line option and check that files can be written in it. Raises ValueError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"`{option}` needs a folder that can be written; {folder} cannot: {reason}.") from error
