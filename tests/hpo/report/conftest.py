"""Fixtures of the page's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hpo.report import sweeps


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests only read: `small-1`, done, and `evil`, whose texts are markup."""
    path = tmp_path_factory.mktemp("store")
    sweeps.small(path)
    sweeps.many(path, "evil", 30)
    return path
