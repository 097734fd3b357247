"""Setup of all tests: one thread for each process, no telemetry, the longest files first. As fixtures: the folder of
real data, and the places of stores."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Set before torch or Ray is imported. Several test processes share few cores, so each uses one thread; bitwise
# comparisons also need sums in the same order. Without the last line Ray sends usage statistics.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import pytest

from tests.results.places import BUCKET, KINDS, Place, Proxy

ROOT = Path(__file__).resolve().parent.parent
REAL_DATA = ROOT.parent / "shared" / "data" / "cs224n"
NUMBERS = itertools.count()
LONGEST = tuple(
    f"tests/{name}.py"
    for name in ("test_readme", "hpo/driver/test_session", "hpo/driver/test_interruptions", "test_composition")
)
"""Files that begin first. `make test` gives whole files to two processes: a long one at the end would run alone."""


def pytest_configure() -> None:
    """Handle Ctrl-C: a background shell makes the tests ignore it, and the processes that they start inherit this."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, in the order of LONGEST."""
    places = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(LONGEST)))


@pytest.hookimpl(tryfirst=True)  # before the fixtures of any scope
def pytest_runtest_setup() -> None:
    """Set one thread in torch too, for each test: a plugin may have imported torch before OMP_NUM_THREADS was set here,
    and a command that a test calls in this process takes all CPUs."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real SST, QQP and STS files, ../shared/data/cs224n; the files may not be committed."""
    if not (REAL_DATA / "ids-sst-train.csv").is_file():
        pytest.skip(f"no real data: {REAL_DATA} is absent (see the README of the data for what belongs there)")
    return REAL_DATA


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of an S3 server in this process, with one bucket."""
    pytest.importorskip("moto", reason="moto, the S3 server of the tests, is in the extra `witness`")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", **keys).create_bucket(Bucket=BUCKET)
    yield host, port
    server.stop()


@pytest.fixture
def s3(s3_server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty prefix of the bucket. Child processes reach it too."""
    _reach(f"http://{s3_server[0]}:{s3_server[1]}", monkeypatch)
    return Place("s3", f"s3://{BUCKET}/{next(NUMBERS)}/runs")


@pytest.fixture
def proxy(s3_server: tuple[str, int], s3: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The network before the S3 server: stores that are opened from now on go through it."""
    network = Proxy(*s3_server)
    _reach(network.url, monkeypatch)
    yield network
    network.shutdown()
    network.server_close()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place of each kind."""
    if request.param == "s3":
        found: Place = request.getfixturevalue("s3")
        return found
    return Place(request.param, str(tmp_path / "runs"))


def _reach(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("AWS_ENDPOINT_URL", url),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "y"),
        ("AWS_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
