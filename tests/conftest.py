"""Setup of all tests: one thread for each process, no telemetry, the folder of real data, one process for each file."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# Set before torch or Ray is imported. Several test processes share few cores, so each uses one thread; bitwise
# comparisons also need sums in the same order. Without the last line Ray sends usage statistics.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = ROOT.parent / "shared" / "data" / "cs224n"


def pytest_configure() -> None:
    """Handle Ctrl-C: a background shell makes the tests ignore it, and the processes that they start inherit this."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of one file in one process, because they share fixtures.

    A test may name another `xdist_group`, as tests do that share a Ray cluster across files. The longest test begins
    first; at the end it would run alone.
    """
    items.sort(key=lambda item: "test_every_command_of_the_readme" not in item.nodeid)
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Set one thread in torch too: a plugin may have imported torch before OMP_NUM_THREADS was set here."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real SST, QQP and STS files, ../shared/data/cs224n; the files may not be committed."""
    if not (REAL_DATA / "ids-sst-train.csv").is_file():
        pytest.skip(f"no real data: {REAL_DATA} is absent (see the README of the data for what belongs there)")
    return REAL_DATA
