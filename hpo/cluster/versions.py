"""Versions of this machine: Python, the packages that a result depends on, and this project's own code.

Two checkouts of one version may differ, so the project's code is also known by the SHA-256 of its files.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

PACKAGES = ("minbert-hpo", "torch", "ray", "optuna", "pyarrow", "numpy", "scipy", "tokenizers", "safetensors")
"""Packages whose versions are recorded; a resume under another version shows a warning."""

OWN = ("hpo", "minbert", "results", "search_spaces")
"""Folders of this project's code."""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed[name] = "not installed as a package"
    return installed


@functools.cache
def code_sha256() -> str:
    """SHA-256 of this project's Python files, as they were at the first call."""
    root, sha256 = Path(__file__).resolve().parents[2], hashlib.sha256()
    for path in sorted(path for folder in OWN for path in (root / folder).rglob("*.py")):
        sha256.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return sha256.hexdigest()
