"""The store's contract, in every place where a store may lie."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from results.rows import fitting, to_table
from results.schemas import TABLES, VERSION, find
from results.store import Store, StoreError, SweepExists, SweepMissing
from tests.results.places import Place
from tests.results.samples import META, end, report, seqs, start


@pytest.fixture
def store(place: Place) -> Store:
    return place.store()


def test_rows_are_read_as_they_were_written(store: Store) -> None:
    folder = store.create("one", META)
    with folder.writer() as writer:
        writer.append("trials", start(0, params={"adapter.lora/rank": 8}, seed=3))
        writer.append("reports", report(0, 100, math.nan, flags=["constant:sts"], examples_per_task={"sst": 5}))
        writer.append("trials", end(0, "diverged", reason="loss"))
    first, second, third = store.open("one").events()
    assert [first["table"], second["table"], third["table"]] == ["trials", "reports", "trials"]
    assert json.loads(first["params"]) == {"adapter.lora/rank": 8}
    assert first["generation"] == 1
    assert first["time"] == pytest.approx(time.time(), abs=60)
    assert math.isnan(second["overall"])
    assert second["flags"] == ["constant:sts"]
    assert second["examples_per_task"] == {"sst": 5}
    assert second["losses"] is None
    assert third["reason"] == "loss"


def test_seq_is_one_strictly_increasing_counter(store: Store) -> None:
    folder = store.create("one", META)
    numbers = []
    for generation in (1, 2, 3):
        with folder.writer() as writer:
            assert writer.generation == generation
            numbers.append(writer.append("trials", start(generation)))
            numbers.append(writer.append("reports", report(generation, 1, 0.1)))
    assert numbers == [1, 2, 3, 4, 5, 6]
    assert seqs(folder) == numbers


def test_repeated_rows_count_once(store: Store) -> None:
    folder = store.create("one", META)
    with folder.writer() as writer:
        for value in (0.4, 0.9):
            writer.append("trials", start(0))
            writer.append("reports", report(0, 100, value))
        writer.append("reports", report(0, 100, 0.7, attempt=1))
    assert [row["overall"] for row in folder.events() if row["table"] == "reports"] == [0.4, 0.7]
    assert len(folder.read("trials")) == 1


def test_kept_weights_may_be_deleted_and_kept_again(store: Store) -> None:
    folder = store.create("one", META)
    with folder.writer() as writer:
        for checkpoint in ("a", None, None, "a"):
            writer.append("trials", end(0, "complete", checkpoint=checkpoint))
    assert [row["checkpoint"] for row in folder.events()] == ["a", None, "a"]


def test_two_generations_are_fenced(store: Store) -> None:
    folder = store.create("one", META)
    old = folder.writer(period=60)
    old.append("trials", start(0))
    old.barrier()
    new = folder.writer(period=60)
    old.append("trials", start(98))
    with pytest.raises(StoreError, match="Generation 2 of .* has begun"):
        old.barrier()
    assert new.append("trials", start(1)) == 2
    new.barrier()
    assert [(row["seq"], row["trial"]) for row in folder.events()] == [(1, 0), (2, 1)]
    assert folder.generation == 2
    new.close()


def test_writing_a_key_again_changes_nothing(store: Store) -> None:
    folder = store.create("one", META)
    row = {"task": "a", "split": "held", "row": 0, "id": "x", "label": None, "place": None}
    assert folder.write_table("examples", [row], "f")
    assert not folder.write_table("examples", [row | {"id": "other"}], "f")
    assert folder.read("examples").to_pylist() == [row]
    assert folder.read("examples", keys=["g"]).num_rows == 0
    assert folder.has("examples", "f")
    assert folder.keys("examples") == ["f"]


def test_names_cannot_leave_the_store(store: Store) -> None:
    assert store.sweeps() == []
    for name in ("b", "a.1-x_y", "A"):
        store.create(name, META)
    assert store.sweeps() == ["A", "a.1-x_y", "b"]
    for bad in ("", ".", "..", "../x", "a/b", "/etc", ".hidden", "a\n", "a b", "-x", "é", "x" * 129):
        for use in (store.open, store.remove, lambda name: store.create(name, {})):
            with pytest.raises(StoreError, match="is not allowed"):
                use(bad)
    with pytest.raises(StoreError, match="is not allowed"):
        store.open("b").write_table("examples", [], "../../escaped")


def test_exists_missing_and_removed(store: Store) -> None:
    store.create("night", META).writer().close()
    with pytest.raises(SweepExists, match="Sweep `night` exists already"):
        store.create("night", {})
    with pytest.raises(SweepMissing, match="Did you mean `night`"):
        store.open("nigth")
    assert store.open("night").meta == {"name": "night", **META}
    store.remove("night")
    assert store.sweeps() == []
    store.create("night", META)


VALUES: list[Any] = [
    None, 0, -1, 2**63, -(2**63) - 1, True, 0.5, 3.0, math.nan, "x", "\u00e9", "\ud800", b"x", [], ["x"], ["\ud800"],
    [1], {}, {"a": 0.5}, {"a": 1}, {"a": None}, {"a": "x"}, {1: 0.5}, {"a": 2**63}, [("a", 1.0)], [("a", 2)],
    [("a",)], [("a", "x")], [["a", 1.0]], np.int64(3), np.float32(0.1), np.array([1.0]), ("x",), {"x"}, object(),
]  # fmt: skip
"""Values of all kinds for every column: some fit, some do not. Not `[None]`: as a map it makes Arrow abort."""


@pytest.mark.parametrize("table", ["trials", "reports"])
def test_a_row_fits_exactly_if_a_table_of_it_can_be_made_and_makes_the_same(table: str) -> None:
    first = {"seq": 1, "generation": 1, "trial": 0, "attempt": 0, "event": "start", "step": 1}
    names = find(table).schema.names
    for name in names:
        for value in VALUES:
            row = {key: part for key, part in first.items() if key in names} | {name: value}
            try:
                expected: Any = to_table(table, [row])
            except (StoreError, TypeError) as error:
                with pytest.raises(type(error), match=re.escape(str(error))):
                    fitting(table, row)
            else:
                assert str(to_table(table, [fitting(table, row)]).to_pylist()) == str(expected.to_pylist())


def test_a_row_does_not_change_after_it_was_appended(store: Store) -> None:
    row = report(0, 1, 0.5, flags=["a"])
    folder = store.create("one", META)
    with folder.writer(period=60) as writer:
        writer.append("reports", row)
        row["flags"].append("b")
        row["scores"]["colour"] = 0.0
        writer.append("trials", start(0))
    [stored] = folder.read("reports").to_pylist()
    assert stored["flags"] == ["a"]
    assert dict(stored["scores"])["colour"] == 0.5


def test_rows_that_do_not_fit_are_refused_at_once(store: Store) -> None:
    with store.create("one", META).writer() as writer:
        with pytest.raises(StoreError, match="Unknown column `stat` of table `trials`. Did you mean `state`"):
            writer.append("trials", start(0) | {"stat": "x"})
        with pytest.raises(StoreError, match="`trial` of table `reports` must be given"):
            writer.append("reports", {"attempt": 0, "step": 1})
        with pytest.raises(StoreError, match="`overall` of table `reports` takes double; found 'high'"):
            writer.append("reports", report(0, 1, 0.5) | {"overall": "high"})
        with pytest.raises(StoreError, match="write_table"):
            writer.append("examples", {})
        assert writer.append("trials", start(0)) == 1
    with pytest.raises(StoreError, match="closed"):
        writer.append("trials", start(1))
    with pytest.raises(StoreError, match="Unknown table `trial`"):
        store.open("one").read("trial")


def test_group_commit_makes_rows_durable_without_a_barrier(store: Store) -> None:
    folder = store.create("one", META)
    writer = folder.writer(period=0.02)
    seq = writer.append("trials", start(0))
    deadline = time.monotonic() + 10
    while writer.durable_seq < seq and time.monotonic() < deadline:
        time.sleep(0.01)
    assert writer.durable_seq == seq
    assert seqs(folder) == [seq]
    writer.close()


@pytest.mark.parametrize("name", TABLES)
def test_every_column_says_what_it_means(name: str) -> None:
    schema = TABLES[name].schema
    assert schema.metadata[b"schema_version"] == str(VERSION).encode()
    for field in schema:
        assert field.metadata[b"meaning"], field.name
        assert b"unit" in field.metadata
    for column in (*TABLES[name].key, *TABLES[name].news):
        assert column in schema.names


def test_unknown_uri_is_named() -> None:
    for uri in ("gopher://x", "s3://", "s3://bucket/../other", "s3://bucket//x", "S3://bucket/x"):
        with pytest.raises(StoreError, match=uri.replace(".", "[.]")):
            Store(uri)


def test_a_file_uri_is_a_path(tmp_path: Path) -> None:
    Store(tmp_path / "runs").create("one", META)
    assert Store(f"file://{tmp_path}/runs").open("one").path == tmp_path / "runs" / "one"


def test_older_and_newer_schemas_are_read(store: Store) -> None:
    from results.reading import encode

    folder = store.create("one", META)
    row = {"task": "a", "split": "held", "row": 0, "id": "x", "from_the_future": 3}
    folder.folder.child("examples").write("f.parquet", encode("examples", pa.Table.from_pylist([row])))
    missing = {"label": None, "place": None}
    assert folder.read("examples").to_pylist() == [{"task": "a", "split": "held", "row": 0, "id": "x", **missing}]
    assert folder.warnings == []
