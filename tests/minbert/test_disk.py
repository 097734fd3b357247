"""Durable folders: every new name on the way is synced into the folder that holds it. Sizes are read from text."""

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


def test_sizes_are_powers_of_1024() -> None:
    assert [disk.parse_size(text) for text in ("0", "20k", "1.5G", "7T")] == [0, 20_480, 1_610_612_736, 7 * 2**40]
