"""What differs between the places of a store: remembered listings and lost answers (NFS), requests that fail (S3)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from results import files
from results.files import Disk
from results.places import locate
from results.query import query
from results.store import Store, StoreError, Superseded
from tests.results.places import BUCKET, Fault, Place, Proxy, upload
from tests.results.samples import META, fill, predict, report, seqs, start, sweep

# --- every place ---


def test_one_of_many_writers_of_a_name_succeeds(place: Place) -> None:
    folder = place.store()._folder
    folder.make()
    together = threading.Barrier(8)

    def write(number: int) -> bool:
        together.wait()
        try:
            locate(place.uri).write("claim", b"", new=True)
        except FileExistsError:
            return False
        return True

    for _ in range(3):
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(write, range(8))) == 1
        folder.delete("claim")


def test_a_folder_answers_for_what_is_there_and_for_what_is_not(place: Place) -> None:
    folder = place.store()._folder.child("a")
    assert (folder.names(), folder.folders(), folder.exists("x"), folder.age("x", 5.0)) == ([], [], False, 0.0)
    with pytest.raises(FileNotFoundError):
        folder.read("x")
    folder.delete("x")
    folder.child("inner").make()
    folder.child("inner").write("y", b"1")
    content = bytes(range(256)) * 5000
    folder.write("x", b"old")
    folder.write("x", content)
    assert (folder.names(), folder.folders(), folder.exists("x")) == (["x"], ["inner"], True)
    assert folder.read("x") == content
    with folder.open("x") as stream:
        stream.seek(len(content) - 3)
        assert (stream.read(10), stream.size()) == (content[-3:], len(content))
    with pytest.raises(FileExistsError):
        folder.write("x", b"new", new=True)
    assert folder.read("x") == content
    assert folder.age("x", time.time() + 100) == pytest.approx(100, abs=60)
    assert list(folder.map(lambda name: len(folder.child("inner").read(name)), ["y", "y"])) == [1, 1]
    assert (folder.size("x") >= len(content), folder.size("inner") >= 1, folder.size("nothing")) == (True, True, 0)
    folder.remove()
    assert (place.store()._folder.folders(), folder.names()) == ([], [])


def test_files_travel_to_this_machine_and_back(place: Place, tmp_path: Path) -> None:
    folder, here = place.store()._folder.child("a"), tmp_path / "here"
    folder.make()
    content = os.urandom(6_000_000)  # an object store takes it in parts
    here.write_bytes(content)
    folder.upload("x", here)
    assert folder.read("x") == content
    folder.download("x", tmp_path / "there")
    assert (tmp_path / "there").read_bytes() == content
    with pytest.raises(FileNotFoundError):
        folder.download("y", tmp_path / "nothing")


def test_ages_go_by_the_clock_that_stamps_the_files(place: Place) -> None:
    folder = place.store()._folder.child("a")
    folder.make()
    folder.write("x", b"1")
    first = folder.changed("x")
    assert first <= folder.clock() < first + 60
    time.sleep(1.1)  # an object store counts seconds
    folder.touch("x")
    assert (folder.changed("x") > first, folder.read("x"), folder.names()) == (True, b"1", ["x"])
    for missing in (folder.changed, folder.touch):
        with pytest.raises(FileNotFoundError):
            missing("y")


def test_a_folder_or_file_is_discarded_with_all_in_it(place: Place) -> None:
    folder = place.store()._folder.child("a")
    folder.child("inner").make()
    folder.child("inner").write("y", b"1")
    folder.write("inner-too", b"1")
    folder.write("x", b"1")
    for name in ("x", "inner", "nothing"):
        folder.discard(name)
    assert (folder.names(), folder.folders()) == (["inner-too"], [])


# --- NFS ---


def test_a_remembered_listing_hides_no_claim_from_a_writer(tmp_path: Path) -> None:
    place = Place("nfs", str(tmp_path / "runs"))
    here, there = place.store().create("one", META), place.store().open("one")
    old = here.writer(period=60)
    old.append("trials", start(0))
    old.barrier()
    assert here.generation == 1
    new = there.writer(period=60)
    assert here.generation == 1, "this machine remembers the old listing"
    old.append("trials", start(1))
    with pytest.raises(Superseded):
        old.barrier()
    new.append("trials", start(2))
    new.barrier()
    assert [row["trial"] for row in place.store().open("one").events()] == [0, 2]


def test_a_new_generation_fences_off_no_row_that_its_machine_has_not_seen(tmp_path: Path) -> None:
    place = Place("nfs", str(tmp_path / "runs"))
    here, there = place.store().create("one", META), place.store().open("one")
    assert there.events() == []
    writer = here.writer(period=60)
    fill(writer, 2)
    assert there.events() == [], "this machine remembers the old listing"
    new = there.writer(period=60)
    assert new.continued_from == writer.durable_seq == 4
    assert seqs(there) == [1, 2, 3, 4]


def test_a_link_whose_answer_was_lost_has_succeeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = os.link

    def twice(source: str, target: str) -> None:
        genuine(source, target)
        genuine(source, target)

    monkeypatch.setattr(files.os, "link", twice)
    folder = Disk(str(tmp_path))
    folder.write("claim", b"mine", new=True)
    with pytest.raises(FileExistsError):
        folder.write("claim", b"other", new=True)
    assert (folder.read("claim"), os.listdir(tmp_path)) == (b"mine", ["claim"])


def test_every_new_directory_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(files, "_sync", synced.append)
    Disk(f"{tmp_path}/a/b/c").make()
    assert synced == [str(tmp_path), f"{tmp_path}/a", f"{tmp_path}/a/b"]
    Disk(f"{tmp_path}/a/b/c").make()
    assert len(synced) == 3, "what is there already costs nothing"


# --- S3 ---


def puts(part: str) -> Callable[[str, str], bool]:
    return lambda method, path: method == "PUT" and part in path


LOST = {
    "5xx before": {"forward": False, "status": 503},
    "5xx after": {"forward": True, "status": 500},
    "cut before": {"forward": False},
    "cut after": {"forward": True},
    "slow": {"forward": True, "status": 200, "wait": 1.5},
}
"""Faults of a request: it did or did not reach the store, and the client cannot know."""


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_a_request_whose_answer_is_lost_is_repeated_and_counts_once(
    s3: Place, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr("results.objects.TIMEOUT", 0.8)
    for part in ("sweep.json", "/trials/", "/reports/", "generations/000001.json", "fences/000001.json"):
        proxy.faults.append(Fault(puts(part), **fault))
    proxy.faults.append(Fault(lambda method, path: method == "GET" and "/trials/0" in path, **fault))
    folder = s3.store().create("one", META)
    with folder.writer(period=60) as writer:
        fill(writer, 2)
        assert writer.durable_seq == 4
    assert seqs(s3.store().open("one")) == [1, 2, 3, 4]
    assert not any(fault.times for fault in proxy.faults), "each fault has happened"
    for table in ("trials", "reports"):
        assert len(folder.folder.child(table).names()) == 2
    assert [folder.folder.child(name).names() for name in ("generations", "fences")] == [["000001.json"]] * 2


def test_a_rival_s_object_is_not_taken_for_ones_own(s3: Place, proxy: Proxy) -> None:
    folder = s3.store()._folder
    folder.write("claim", b"", new=True)
    proxy.faults.append(Fault(puts("claim"), forward=True))
    with pytest.raises(FileExistsError):
        folder.write("claim", b"", new=True)
    proxy.faults.append(Fault(puts("other"), forward=True, status=500, times=8))
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(folder.write, "other", b"", new=True) for _ in range(8)]
    assert sum(future.exception() is None for future in done) == 1


def test_a_store_that_is_gone_is_named_and_nothing_acknowledged_is_lost(
    s3: Place, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("results.objects.PATIENCE", 0.5)
    folder = s3.store().create("one", META)
    writer = folder.writer(period=60)
    fill(writer, 2)
    proxy.faults.append(Fault(lambda *_: True, forward=False, status=503, times=10_000))
    waiting = writer.append("trials", start(2))
    with pytest.raises(StoreError, match=rf"Cannot write to `{s3.uri}/one/trials`: .*503"):
        writer.barrier()
    with pytest.raises(StoreError, match="503"):
        writer.append("trials", start(3))
    assert writer.durable_seq == 4
    proxy.faults.clear()
    assert writer.barrier() == waiting
    writer.close()
    assert seqs(s3.store().open("one")) == [1, 2, 3, 4, 5]


def test_a_bucket_that_is_missing_is_named(s3: Place) -> None:
    with pytest.raises(StoreError, match="nosuchbucket"):
        Store("s3://nosuchbucket/runs").create("one", META)
    with pytest.raises(StoreError, match="nosuchbucket"):
        Store("s3://nosuchbucket/runs").open("one")


def test_a_listing_is_linear_in_the_objects(s3: Place, proxy: Proxy) -> None:
    from moto.s3.models import s3_backends

    folder = s3.store().create("one", META)
    predict(folder, [0.5])
    predictions = folder.folder.child("predictions")
    [content] = [predictions.read(name) for name in predictions.names()]
    [bucket] = [backend["aws"] for backend in s3_backends.values() if BUCKET in backend["aws"].buckets]
    for trial in range(1, 3000):
        bucket.put_object(BUCKET, f"{predictions.prefix}/{trial}-0.parquet", content)
    proxy.requests.clear()
    assert len(predictions.names()) == 3000
    assert len(proxy.requests) == 3, "1,000 names an answer"
    proxy.requests.clear()
    assert folder.read("predictions", keys=["7-0"]).num_rows == 130
    assert len(proxy.requests) == 7, "two listings that agree, and one object"


def test_objects_are_read_side_by_side(s3: Place, proxy: Proxy) -> None:
    with s3.store().create("one", META).writer(period=60) as writer:
        fill(writer, 16)
    together = threading.Barrier(8, timeout=30)
    genuine = proxy.fault

    def wait(method: str, path: str) -> Fault | None:
        if ".parquet" in path:
            together.wait()  # goes on only if eight requests wait here
        return genuine(method, path)

    proxy.fault = wait  # type: ignore[method-assign]
    assert len(seqs(s3.store().open("one"))) == 32


def test_other_tools_markers_are_no_files_and_impossible_keys_are_named(s3: Place) -> None:
    import boto3

    folder = s3.store().create("one", META)
    with folder.writer() as writer:
        fill(writer, 1)
    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    prefix = f"{s3.uri.removeprefix(f's3://{BUCKET}/')}/one/trials/"
    client.put_object(Bucket=BUCKET, Key=prefix, Body=b"")
    fresh = s3.store().open("one")
    assert seqs(fresh) == [1, 2]
    assert fresh.warnings == []
    client.put_object(Bucket=BUCKET, Key=f"{prefix}../x", Body=b"")
    with pytest.raises(StoreError, match=r"one/trials.*[.][.]"):
        s3.store().open("one").events()


def test_a_store_copied_to_s3_answers_as_on_the_disk(tmp_path: Path, s3: Place) -> None:
    local = sweep(tmp_path)
    with local.writer() as writer:
        fill(writer, 3)
        writer.append("reports", report(0, 300, 0.9))
    local.compact()
    predict(local, [0.2, 0.9])
    upload(tmp_path / "runs", s3.store())
    for statement in (
        "SELECT trial, state, overall FROM trials ORDER BY trial",
        "SELECT trial, step, scores['colour'] AS colour FROM reports ORDER BY trial, step",
        "SELECT task, split, count(*) AS n, avg(value) AS mean FROM predictions GROUP BY ALL ORDER BY ALL",
        "SELECT sweep, seed, budget FROM sweeps",
    ):
        here, there = (query(store, statement) for store in (Store(tmp_path / "runs"), s3.store()))
        assert len(here) > 0
        pd.testing.assert_frame_equal(here, there, rtol=1e-12)  # DuckDB's threads add in any order
    assert local.rows("reports", [2, 7]).equals(s3.store().open("one").rows("reports", [2, 7]))
    with pytest.raises(StoreError, match="lies in an object store, s3://"):
        _ = s3.store().open("one").path
