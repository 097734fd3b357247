"""Machines of a cluster that do not reach a sweep's files are named before any trial starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster import shared_files
from hpo.cluster.connection import Cluster
from hpo.cluster.resources import ResourceError

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(400)]


def test_a_machine_that_reaches_everything_is_fine_and_nothing_stays(ray_cluster: Cluster, tmp_path: Path) -> None:
    shared_files.check_nodes(str(tmp_path / "runs"), str(tmp_path), "tiny")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "base", "told"),
    [
        ("/nowhere/data", "tiny", "has no folder /nowhere/data"),
        (None, "./nowhere", "lacks the base encoder: .*names no directory"),
    ],
)
def test_what_a_machine_lacks_is_said(
    ray_cluster: Cluster, tmp_path: Path, data: str | None, base: str, told: str
) -> None:
    with pytest.raises(ResourceError, match=rf"must reach the same files, but .* {told}.*--store and --data"):
        shared_files.check_nodes(str(tmp_path), data, base)
    assert list(tmp_path.iterdir()) == []


def another_disk(token: str, word: str, node: str, data: str | None, base: str | None) -> str | None:
    """A machine on which the store's folder is not there."""
    return shared_files.problem(f"/nowhere/{Path(token).name}", word, node, data, base)


def a_copy(token: str, word: str, node: str, data: str | None, base: str | None) -> str | None:
    """A machine whose folder holds the same, on a disk of its own."""
    return None


def broken(*_: Any) -> str | None:
    raise ModuleNotFoundError("No module named 'optuna'")


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (another_disk, "cannot use the store /nowhere: No such file or directory"),
        (a_copy, "writes into another "),
        (broken, "cannot run this project: ModuleNotFoundError: No module named 'optuna'"),
    ],
)
def test_another_file_system_is_noticed(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Callable[..., Any], told: str
) -> None:
    monkeypatch.setattr(shared_files, "problem", machine)
    with pytest.raises(ResourceError, match=told):
        shared_files.check_nodes(str(tmp_path), None, "tiny")
    assert list(tmp_path.iterdir()) == []
