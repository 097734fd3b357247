"""Durable folders: every new name on the way is synced into the folder that holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from minbert import disk


def test_every_new_folder_is_synced_into_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(disk, "sync", synced.append)
    disk.make(tmp_path / "checkpoints" / "7" / "0-900")
    assert synced == [tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "7"]
    synced.clear()
    disk.make(tmp_path / "checkpoints" / "7" / "0-900")
    assert synced == []
