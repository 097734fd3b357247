"""Nodes of a cluster that cannot use a sweep's files are named before any trial starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster import shared_files
from hpo.cluster.connection import Cluster
from hpo.cluster.resources import ResourceError

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.timeout(400)]


def test_a_node_that_can_use_all_files_is_accepted_and_no_file_is_left(ray_cluster: Cluster, tmp_path: Path) -> None:
    shared_files.check_nodes(str(tmp_path / "runs"), str(tmp_path), "tiny")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "base", "message"),
    [
        ("/nowhere/data", "tiny", "has no folder /nowhere/data"),
        (None, "./nowhere", "lacks the base encoder: .*names no directory"),
    ],
)
def test_the_error_names_what_a_node_lacks(
    ray_cluster: Cluster, tmp_path: Path, data: str | None, base: str, message: str
) -> None:
    with pytest.raises(ResourceError, match=rf"must reach the same files, but .* {message}.*--store and --data"):
        shared_files.check_nodes(str(tmp_path), data, base)
    assert list(tmp_path.iterdir()) == []


def another_disk(token: str, secret: str, node: str, data: str | None, base: str | None) -> str | None:
    """A node without the store's folder."""
    return shared_files.problem(f"/nowhere/{Path(token).name}", secret, node, data, base)


def a_copy(token: str, secret: str, node: str, data: str | None, base: str | None) -> str | None:
    """A node whose folder has the same content on a disk of its own."""
    return None


def broken(*_: Any) -> str | None:
    """A node without the project's packages."""
    raise ModuleNotFoundError("No module named 'optuna'")


@pytest.mark.parametrize(
    ("on_node", "message"),
    [
        (another_disk, "cannot use the store /nowhere: No such file or directory"),
        (a_copy, "writes into another "),
        (broken, "cannot run this project: ModuleNotFoundError: No module named 'optuna'"),
    ],
)
def test_another_file_system_is_noticed(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_node: Callable[..., Any], message: str
) -> None:
    monkeypatch.setattr(shared_files, "problem", on_node)
    with pytest.raises(ResourceError, match=message):
        shared_files.check_nodes(str(tmp_path), None, "tiny")
    assert list(tmp_path.iterdir()) == []
