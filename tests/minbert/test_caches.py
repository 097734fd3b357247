"""Caches on disk: every kind of entry is found, what was not used for longest goes first, what is used stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from minbert import caches
from minbert.caches import UNFINISHED, cache_folder, entries, evict, leftovers
from minbert.data.tokens import open_data
from minbert.encoder.base import find_base
from minbert.stages.cache import CacheEntry, Done, Partial
from minbert.training.feature_cache import CachedRows
from tests.minbert.conftest import make_corpus

TOKENS, STAGES, FEATURES, CHECKPOINTS = caches.HOLDERS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one entry of each kind, as their owners write them; nothing holds them."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("MINBERT_CACHE", str(folder))
    assert cache_folder() == folder
    open_data(make_corpus(tmp_path / "data", train=8, dev=4), find_base("tiny"))
    tensors = {"weight": torch.ones(1000)}
    with (stage := CacheEntry(folder / "stages", "a" * 64)).lock():
        stage.publish(tensors, Done("", 1.0, 1, 0.0, 0))
    with (unfinished := CacheEntry(folder / "stages", "b" * 64)).lock():
        unfinished.save_partial(Partial(tensors, {}))
    rows = CachedRows(folder / "features" / "c", np.full(1_000, 100), 384)  # 147 MiB of holes
    rows.fetch(np.array([5]), lambda missing: {row: np.ones((100, 384), np.float32) for row in missing})
    (copy := folder / "checkpoints" / "d").mkdir(parents=True)
    (copy / "done.json").write_text("{}")
    release()
    return folder


def release() -> None:
    """What the end of this process would do."""
    for descriptor in caches._held.values():
        os.close(descriptor)
    caches._held.clear()


def kinds(cached: list[caches.Cached]) -> set[str]:
    return {entry.kind for entry in cached}


def test_entries_of_every_kind_are_found_with_their_bytes(folder: Path) -> None:
    found = {entry.kind: entry for entry in entries(folder)}
    assert found.keys() == {TOKENS, STAGES, FEATURES, CHECKPOINTS, UNFINISHED}
    assert len(entries(folder)) == 5
    assert 100 * 384 * 4 <= found[FEATURES].size < 2**20, "holes take no bytes"
    disk = int(subprocess.run(["du", "-sB1", found[TOKENS].path], capture_output=True, text=True).stdout.split()[0])
    assert found[TOKENS].size == disk


def test_the_least_recently_used_go_until_the_rest_fits(folder: Path) -> None:
    order = [FEATURES, TOKENS, UNFINISHED, STAGES, CHECKPOINTS]
    for age, kind in enumerate(reversed(order)):
        entry = next(entry for entry in entries(folder) if entry.kind == kind)
        os.utime(entry.path if kind == UNFINISHED else entry.holder, (1e9 - age, 1e9 - age))
    cached = entries(folder)
    assert [entry.kind for entry in cached] == order
    limit = sum(entry.size for entry in cached[2:])
    assert evict(folder, sum(entry.size for entry in cached)) == []
    assert evict(folder, limit, dry_run=True) == cached[:2]
    assert entries(folder) == cached, "a dry run deletes nothing"
    assert evict(folder, limit) == cached[:2]
    assert entries(folder) == cached[2:]
    assert not list(folder.rglob("*.evicted"))


def test_opening_an_entry_makes_it_the_last_to_go(folder: Path, tmp_path: Path) -> None:
    for entry in entries(folder):
        os.utime(entry.holder, (1e9, 1e9))
    open_data(tmp_path / "data", find_base("tiny"))
    assert CacheEntry(folder / "stages", "a" * 64).load() is not None
    CachedRows(folder / "features" / "c", np.full(1_000, 100), 384)
    caches.hold(folder / "checkpoints" / "d" / "done.json")
    assert all(entry.used > 1e9 for entry in entries(folder))


def test_what_this_process_uses_stays(folder: Path, tmp_path: Path) -> None:
    open_data(tmp_path / "data", find_base("tiny"))
    with CacheEntry(folder / "stages", "b" * 64).lock():  # as while it is computed
        assert kinds(evict(folder, 0)) == {STAGES, FEATURES, CHECKPOINTS}
    release()
    assert kinds(evict(folder, 0)) == {TOKENS, UNFINISHED}


def test_what_another_process_uses_stays_until_it_is_killed(folder: Path) -> None:
    holder = folder / "stages" / ("a" * 64) / "done.json"
    code = "import pathlib, sys, minbert.caches as c; c.hold(pathlib.Path(sys.argv[1])); print('held'); input()"
    command = [sys.executable, "-uc", code, str(holder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        evict(folder, 0)
        assert kinds(entries(folder)) == {STAGES}
        process.kill()
    assert kinds(evict(folder, 0)) == {STAGES}


def test_an_evicted_entry_is_computed_again(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("*/*.npy")}
    evict(folder, 0)
    data = open_data(tmp_path / "data", find_base("tiny"))
    assert data.sizes("train")
    assert {path.name: path.read_bytes() for path in folder.glob("*/*.npy")} == before
    assert CacheEntry(folder / "stages", "a" * 64).load() is None


def test_a_process_holds_a_bounded_number_of_files(tmp_path: Path) -> None:
    for number in range(caches.MOST_HELD + 5):
        (tmp_path / str(number)).touch()
        caches.hold(tmp_path / str(number))
    assert len(caches._held) == caches.MOST_HELD
    release()
    caches.hold(tmp_path / "absent")
    assert not caches._held


def test_what_killed_processes_left_is_found_after_an_hour(folder: Path) -> None:
    building = folder / ".building-x"
    building.mkdir()
    (building / "part").touch()
    now = building.stat().st_mtime
    assert leftovers(folder, now + 3500) == []
    assert leftovers(folder, now + 3700) == [building]
