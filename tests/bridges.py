"""The tools that only some tests need. Where one is missing the test is skipped; under `make test-bridges`, whose
environment has them all, it fails."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

REQUIRED = "MINBERT_BRIDGES"
"""Environment variable that `make test-bridges` sets."""


def tool(name: str) -> Any:
    """The module of this name."""
    if os.environ.get(REQUIRED):
        return importlib.import_module(name)
    return pytest.importorskip(name, reason=f"{name} is not installed; `make test-bridges` runs this test")
