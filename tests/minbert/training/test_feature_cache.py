"""Cached rows are read back, shared by processes, and correct after torn and failed writes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from minbert.training import feature_cache
from minbert.training.feature_cache import CachedRows

WIDTH = 6
LENGTHS = {"single": np.ones(9, dtype=np.int64), "several": np.array([3, 1, 4, 1, 5, 9, 2, 6, 5])}
ROWS = np.array([5, 0, 8, 3])


def value(row: int, length: int) -> NDArray[np.float32]:
    return np.random.default_rng(row).normal(size=(length, WIDTH)).astype(np.float32)


class Source:
    """Source of rows: computes them and records which were requested."""

    def __init__(self, lengths: NDArray[np.int64], beside: int = 0) -> None:
        self.lengths, self.beside, self.requested = lengths, beside, list[int]()

    def __call__(self, rows: list[int]) -> Mapping[int, NDArray[np.float32]]:
        self.requested += rows
        every = {near for row in rows for near in range(row, min(row + self.beside + 1, len(self.lengths)))}
        return {row: value(row, self.lengths[row]) for row in every}

    def plain(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.concatenate([value(row, self.lengths[row]) for row in rows.tolist()])


def assert_fetched(rows: CachedRows, source: Source, numbers: NDArray[np.int64], requested: list[int]) -> None:
    source.requested.clear()
    values = rows.fetch(numbers, source)
    assert values.dtype == np.float32 and np.array_equal(values, source.plain(numbers))
    assert source.requested == requested


@pytest.fixture(params=LENGTHS)
def source(request: pytest.FixtureRequest) -> Source:
    return Source(LENGTHS[request.param])


@pytest.mark.parametrize("named", [True, False])
def test_rows_are_computed_once_in_any_order(named: bool, source: Source, tmp_path: Path) -> None:
    rows = CachedRows(tmp_path / "key" if named else None, source.lengths, WIDTH, tmp_path)
    assert_fetched(rows, source, ROWS, [0, 3, 5, 8])
    assert_fetched(rows, source, ROWS[::-1], [])
    assert_fetched(rows, source, np.array([3, 3, 7, 3, 7]), [7])
    again = CachedRows(tmp_path / "key" if named else None, source.lengths, WIDTH, tmp_path)
    assert_fetched(again, source, np.arange(9), [1, 2, 4, 6] if named else list(range(9)))


def test_an_unnamed_file_leaves_nothing(source: Source, tmp_path: Path) -> None:
    rows = CachedRows(None, source.lengths, WIDTH, tmp_path)
    rows.fetch(ROWS, source)
    assert list(tmp_path.iterdir()) == []


def test_rows_computed_with_the_missing_ones_are_cached_too(source: Source, tmp_path: Path) -> None:
    rows, source.beside = CachedRows(tmp_path, source.lengths, WIDTH), 2
    assert_fetched(rows, source, np.array([1]), [1])
    assert_fetched(rows, source, np.array([3, 1, 2]), [])


@pytest.mark.parametrize("torn", ["values", "crc", "cut", "holes"])
def test_a_torn_row_is_computed_again(torn: str, source: Source, tmp_path: Path) -> None:
    CachedRows(tmp_path, source.lengths, WIDTH).fetch(ROWS, source)
    begin = int(source.lengths[:8].sum()) * WIDTH * 4
    path = tmp_path / ("crc" if torn == "crc" else "values")
    data = bytearray(path.read_bytes())
    if torn == "values":
        data[begin + 5] ^= 1  # row 8
    elif torn == "crc":
        data[4 * 8 + 2] ^= 1
    elif torn == "cut":  # a file shorter than it should be grows again, with a hole
        del data[begin:]
    else:
        data[begin:] = bytes(len(data) - begin)  # what a power cut leaves: the CRC without its row
    path.write_bytes(data)
    assert_fetched(CachedRows(tmp_path, source.lengths, WIDTH), source, ROWS, [8])
    assert_fetched(CachedRows(tmp_path, source.lengths, WIDTH), source, ROWS, [])


def test_a_row_whose_crc_was_not_yet_written_is_absent(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 between the two writes."""
    rows, write = CachedRows(tmp_path, source.lengths, WIDTH), feature_cache._write

    def killed(file: object, data: bytes, offset: int) -> None:
        if len(data) == 4:
            raise KeyboardInterrupt
        write(file, data, offset)  # type: ignore[arg-type]

    monkeypatch.setattr(feature_cache, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        rows.fetch(np.array([4]), source)
    monkeypatch.undo()
    assert_fetched(CachedRows(tmp_path, source.lengths, WIDTH), source, np.array([4]), [4])


@pytest.mark.parametrize("fault", ["full", "reserve", "folder"])
def test_rows_that_cannot_be_cached_are_computed_each_time_with_one_warning(
    fault: str, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feature_cache._warn.cache_clear()
    if fault == "folder":
        (tmp_path / "key").write_text("a file where a folder should be")
    rows = CachedRows(tmp_path / "key", source.lengths, WIDTH)
    if fault != "folder":
        assert_fetched(rows, source, np.array([2]), [2])
    if fault == "full":
        monkeypatch.setattr(feature_cache.os, "pwrite", lambda *arguments: 1)
    elif fault == "reserve":
        monkeypatch.setattr(feature_cache, "RESERVE", 1 << 62)
    for _ in range(2):
        assert_fetched(rows, source, ROWS, [0, 3, 5, 8])
        assert_fetched(rows, source, np.array([2, 0, 2]), [0, 2] if fault == "folder" else [0])
    assert len([record for record in caplog.records if "cannot be cached" in record.message]) == 1


def fill(folder: Path, order: int, barrier: object) -> None:
    source = Source(LENGTHS["several"])
    rows = CachedRows(folder, source.lengths, WIDTH)
    barrier.wait()  # type: ignore[attr-defined]
    for row in np.random.default_rng(order).permutation(9).tolist():
        assert_fetched_somehow(rows, source, row)


def assert_fetched_somehow(rows: CachedRows, source: Source, row: int) -> None:
    numbers = np.array([row])
    assert np.array_equal(rows.fetch(numbers, source), source.plain(numbers))


def test_two_processes_may_fill_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=fill, args=(tmp_path, order, barrier)) for order in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    source = Source(LENGTHS["several"])
    assert_fetched(CachedRows(tmp_path, source.lengths, WIDTH), source, np.arange(9), [])
