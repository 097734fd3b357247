"""What all tests share: one thread each, no telemetry, the folder of real data, and files that stay on one process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Before torch or Ray is imported. Several test processes share few cores, so each takes one; sums in one order also
# make bitwise comparisons fair. Ray would otherwise send usage statistics.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = ROOT.parent / "shared" / "data" / "cs224n"


def pytest_configure() -> None:
    """Hear Ctrl-C: a shell that runs the tests in the background has them ignore it, and what they start inherits."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of one file on one process (they share fixtures), unless a test names an `xdist_group` of its own,
    as those that share a Ray cluster across files do. The longest begins first: at the end it would run alone."""
    items.sort(key=lambda item: "test_every_command_of_the_readme" not in item.nodeid)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """OMP_NUM_THREADS is read once, at import: a plugin may have imported torch before this file."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real SST, QQP and STS files, which may not be committed: ../shared/data/cs224n beside the checkout."""
    if not (REAL_DATA / "ids-sst-train.csv").is_file():
        pytest.skip(f"no real data: {REAL_DATA} is absent (see the README of the data for what belongs there)")
    return REAL_DATA
