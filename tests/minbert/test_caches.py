"""Caches on disk: every kind of entry is found, what was not used for longest goes first, what is used stays."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from minbert import caches
from minbert.caches import UNFINISHED, cache_folder, entries, evict, leftovers, trim
from minbert.data.tokens import open_data
from minbert.encoder.base import find_base
from minbert.stages.cache import CacheEntry, Done, Partial
from minbert.training import feature_cache
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


def test_caches_are_shrunk_to_their_limit_except_what_is_used_or_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = [FEATURES, TOKENS, CHECKPOINTS, STAGES]
    entry = {entry.kind: entry for entry in entries(folder)}
    for age, kind in enumerate(reversed(order), start=1):
        os.utime(entry[kind].holder, (1e9 - age, 1e9 - age))
    monkeypatch.setenv("MINBERT_CACHE_SIZE", str(sum(found.size for found in entry.values()) - 1))
    assert trim(folder)
    assert FEATURES not in kinds(entries(folder))
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "0")
    descriptor = os.open(entry[TOKENS].holder, os.O_RDONLY)  # as another process would hold it
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    assert not trim(folder)
    assert kinds(entries(folder)) == {TOKENS, UNFINISHED}, "the unfinished stage is new"
    os.close(descriptor)
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    assert trim(folder), "another process does it"
    os.close(other)
    assert not trim(folder)
    assert kinds(entries(folder)) == {UNFINISHED}
    assert trim(folder / "absent")


def test_every_addition_to_a_cache_shrinks_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = folder / "checkpoints" / "old"

    def added(add: Callable[[], object]) -> None:
        old.mkdir()
        (old / "done.json").write_text("{}")
        os.utime(old / "done.json", (1e9, 1e9))
        add()
        assert not old.exists()
        release()

    monkeypatch.setenv("MINBERT_CACHE_SIZE", "1")
    added(lambda: open_data(tmp_path / "data", find_base("tiny")))
    added(lambda: CacheEntry(folder / "stages", "e" * 64).publish({"w": torch.ones(9)}, Done("", 1.0, 1, 0.0, 0)))
    rows = CachedRows(folder / "features" / "f", np.ones(9, np.int64), 4)
    added(lambda: rows.fetch(np.array([1]), lambda missing: {row: np.ones((1, 4), np.float32) for row in missing}))


def test_features_stop_growing_at_the_limit_and_stay_right(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feature_cache, "PART", 100 * 384 * 4)

    def compute(missing: list[int]) -> dict[int, NDArray[np.float32]]:
        return {row: np.full((100, 384), row, np.float32) for row in missing}

    rows = CachedRows(folder / "features" / "g", np.full(50, 100), 384)
    rows.fetch(np.array([1]), compute)
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "200k")
    for row in range(2, 50):
        assert (rows.fetch(np.array([1, row]), compute)[[0, 199], 0] == (1, row)).all()
    assert "see MINBERT_CACHE_SIZE" in caplog.text
    assert next(entry.size for entry in entries(folder) if entry.path.name == "g") < 2**19


def test_the_limit_is_given_or_a_quarter_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINBERT_CACHE_SIZE", raising=False)
    disk = os.statvfs(tmp_path)
    assert caches.largest(tmp_path) == disk.f_blocks * disk.f_frsize // 4
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "20G")
    assert caches.largest(tmp_path) == 20 * 2**30
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "many")
    with pytest.raises(ValueError, match="`MINBERT_CACHE_SIZE` is wrong: a size must be .* such as 500M.*'many'"):
        trim(tmp_path)


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
