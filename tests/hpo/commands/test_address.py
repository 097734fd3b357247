"""One rule for the cluster's address: in Python and for every command that takes one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpo as package
from hpo.cluster.address import cluster_address
from hpo.cluster.resources import ResourceError
from tests.hpo import stored
from tests.hpo.cli import SWEEP, hpo, refused
from tests.hpo.conftest import launch

JOB = "10.0.0.1:6379"
"""What `ray job submit` sets for its program."""


class ReachedError(Exception):
    """A launch has come to this address."""


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def connect(address: str | None) -> Iterator[None]:
        raise ReachedError(address)
        yield

    monkeypatch.setattr("hpo.cluster.connection.connect", connect)
    monkeypatch.setattr("hpo.driver.session.connect", connect)


@pytest.mark.parametrize(
    ("asked", "variable", "address"),
    [
        (None, None, None),
        (None, "", None),
        (None, JOB, JOB),
        (None, "auto", "auto"),
        (None, "local", None),
        ("10.0.0.2:6379", JOB, "10.0.0.2:6379"),
        ("10.0.0.2:6379", "http://head:8265", "10.0.0.2:6379"),
        ("auto", JOB, "auto"),  # Ray itself reads the variable
        ("local", JOB, None),
    ],
)
def test_what_was_asked_for_comes_before_the_variable(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, variable: str | None, address: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert cluster_address(asked) == address


@pytest.mark.parametrize("asked", [None, "auto"])
def test_a_dashboard_in_the_variable_is_refused_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, asked: str | None
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(ResourceError, match="`RAY_ADDRESS` .*, not 'http://head:8265': .* --address head:6379; "):
        cluster_address(asked)


COMMANDS = {
    "run": ("run", "quickstart", "--base", "tiny"),
    "resume": ("resume", SWEEP),
    "extend": ("extend", SWEEP, "--trials", "99"),
    "doctor": ("doctor",),
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_uses_the_cluster_of_its_job(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: None
) -> None:
    stored.make(tmp_path)
    monkeypatch.setattr("hpo.launch.relaunch.check_same", lambda *_: None)
    monkeypatch.setattr("hpo.driver.resumption.is_done", lambda *_: False)
    monkeypatch.setenv("RAY_ADDRESS", JOB)
    done = hpo(*command, store=tmp_path)
    assert isinstance(done.exception, ReachedError), done.output
    assert done.exception.args == (JOB,)
    for address, reason in (("ray://head:10001", "Ray Client cannot run"), ("http://head:8265", "the dashboard")):
        answer = refused(hpo(*command, "--address", address, store=tmp_path))
        assert "`address` must be host:port of a cluster's head node (port 6379, if none was chosen), auto" in answer
        assert f"not {address!r}: " in answer
        assert reason in answer


def test_python_uses_the_cluster_of_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: None) -> None:
    monkeypatch.setenv("RAY_ADDRESS", JOB)
    with pytest.raises(ReachedError, match=JOB):
        package.run(launch(tmp_path), progress=False)
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(ResourceError, match="`RAY_ADDRESS` must be host:port"):
        package.run(launch(tmp_path), progress=False)
