"""Versions of this machine: Python, the packages that a result depends on, and this project's own code.

Two checkouts of one version may differ, so the project's code is also known by the SHA-256 of its files.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
from pathlib import Path

PACKAGES = (
    "minbert-hpo", "torch", "ray", "optuna", "pyarrow", "obstore", "pandas", "numpy", "scipy", "tokenizers",
    "safetensors", "huggingface_hub",
)  # fmt: skip
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


def code_folders() -> list[Path]:
    """The folders of this project's code. On a machine that got them from the driver they lie apart."""
    origins = [importlib.util.find_spec(name) for name in OWN]
    return [Path(spec.origin).resolve().parent for spec in origins if spec is not None and spec.origin]


@functools.cache
def code_sha256() -> str:
    """SHA-256 of this project's Python files, as they were at the first call."""
    sha256 = hashlib.sha256()
    for folder in code_folders():
        for path in sorted(folder.rglob("*.py")):
            sha256.update(f"{path.relative_to(folder.parent).as_posix()}\n".encode() + path.read_bytes())
    return sha256.hexdigest()
