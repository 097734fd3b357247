"""Places of stores as fixtures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.results.places import BUCKET, KINDS, Place, Proxy

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, int]]:
    """Host and port of an S3 server in this process, with one bucket."""
    pytest.importorskip("moto", reason="moto, the S3 server of the tests, is in the extra `witness`")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
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
