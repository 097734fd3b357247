"""Sweeps in other tools, read back from what these wrote; `make test-bridges` runs the tests of all tools."""

from __future__ import annotations

import json
import struct
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo.driver.study import study_of
from hpo.exports import dashboard
from hpo.exports.trackers import LOSS, runs_of, write
from results.store import Store, SweepFolder
from tests.bridges import tool
from tests.hpo.cli import answer, hpo, refused


@pytest.fixture
def folder(two_sweeps: Path) -> SweepFolder:
    return Store(two_sweeps).open("a")


def records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length (8 bytes), its checksum (4), content, its checksum (4)."""
    content = path.read_bytes()
    place = 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        yield content[place + 12 : place + 12 + length]
        place += 16 + length


def log_records(path: Path) -> Iterator[bytes]:
    """The records of a log of LevelDB after a header of 7 bytes: blocks of 32 KiB, in them pieces of records, each with
    its checksum (4 bytes), length (2) and kind (1: whole, 2: first, 3: middle, 4: last)."""
    content, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:  # the rest of a block is padding
            place += 2**15 - place % 2**15
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_runs_hold_what_the_rows_say(folder: SweepFolder) -> None:
    runs = runs_of(folder)
    assert [run.trial for run in runs] == sorted({row["trial"] for row in folder.events()})
    reports = [row for row in folder.events() if row["table"] == "reports"]
    points = [
        (run.trial, step, values["overall"], values["sst"], values[LOSS + "sst"])
        for run in runs
        for step, _, values in run.points
    ]
    told = [(r["trial"], r["step"], r["overall"], r["scores"]["sst"], r["losses"]["sst"]) for r in reports]
    assert sorted(points) == sorted(told)
    start = next(row for row in folder.events() if row.get("event") == "start" and row["trial"] == 3)
    assert runs[3].config["optimizer/encoder_lr"] == json.loads(start["config"])["optimizer"]["encoder_lr"]


def test_tensorboard(folder: SweepFolder, two_sweeps: Path, tmp_path: Path) -> None:
    event_pb2 = tool("tensorboardX.proto.event_pb2")
    out = tmp_path / "tracked"
    done = hpo("log", "a", "--to", "tensorboard", "--out", out, store=two_sweeps)
    assert done.exit_code == 0, done.output
    assert "8 runs in" in done.output and done.output.endswith(": 7 trials, 1 repeat\n"), done.output
    for run in runs_of(folder):
        scalars: list[tuple[str, int, float]] = []
        for path in (out / f"a-{run.trial}").glob("events*"):
            for record in records(path):
                event = event_pb2.Event.FromString(record)
                scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        expected = [(name, step, value) for step, _, values in run.points for name, value in values.items()]
        assert [(tag, step) for tag, step, _ in scalars] == [(tag, step) for tag, step, _ in expected]
        assert [value for _, _, value in scalars] == pytest.approx([value for _, _, value in expected], rel=1e-6)
        assert list((out / f"a-{run.trial}" / "hparams").glob("events*"))
    assert "holds something already" in refused(hpo("log", "a", "--to", "tensorboard", "--out", out, store=two_sweeps))
    assert "Expected one of: tensorboard, wandb, mlflow" in refused(
        hpo("log", "a", "--to", "mlfow", "--out", out, store=two_sweeps)
    )


def test_tensorboard_reads_what_was_written(folder: SweepFolder, two_sweeps: Path, tmp_path: Path) -> None:
    accumulator = tool("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "tracked"
    facts = answer("log", "a", "--to", "tensorboard", "--out", out, store=two_sweeps)
    assert facts == {"directory": str(out), "tracker": "tensorboard", "trials": 7, "repeats": 1}
    for run in runs_of(folder):
        read = accumulator.EventAccumulator(str(out / f"a-{run.trial}")).Reload()
        assert sorted(read.Tags()["scalars"]) == sorted(run.points[0][2])
        for name in run.points[0][2]:
            points = [(step, pytest.approx(values[name], rel=1e-6)) for step, _, values in run.points]
            assert [(each.step, each.value) for each in read.Scalars(name)] == points


def test_wandb(folder: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb_internal_pb2 = tool("wandb.proto.wandb_internal_pb2")
    monkeypatch.setattr("hpo.exports.trackers.runs_of", lambda folder: runs_of(folder)[:2])
    assert len(write(folder, "wandb", tmp_path / "out")) == 2
    found: dict[str, list[tuple[int, float]]] = {}
    for path in (tmp_path / "out").rglob("*.wandb"):
        name = ""
        for data in log_records(path):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                name = record.run.display_name or name
                assert record.run.run_group == "a"
            if record.WhichOneof("record_type") == "history":
                values: dict[str, Any] = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item
                }
                found.setdefault(name, []).append((record.history.step.num, values["overall"]))
    expected = {
        f"a-{run.trial}": [(step, values["overall"]) for step, _, values in run.points] for run in runs_of(folder)[:2]
    }
    assert found == expected


@pytest.mark.slow("MLflow makes its tables step by step")
def test_mlflow(folder: SweepFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = tool("mlflow")
    monkeypatch.setattr("hpo.exports.trackers.runs_of", lambda folder: runs_of(folder)[:3])
    assert len(write(folder, "mlflow", tmp_path / "out")) == 3
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("a")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == {"a-0", "a-1", "a-2"}
    for run in runs_of(folder)[:3]:
        stored = found[f"a-{run.trial}"]
        times = [round(1000 * time) for _, time, _ in run.points]
        assert (stored.info.start_time, stored.info.end_time) == (round(1000 * run.begin), times[-1])
        assert stored.info.start_time < times[0], "a trial begins before its first report"
        assert stored.data.params == {path: str(value) for path, value in run.config.items()}
        tags = {name: stored.data.tags[name] for name in ("state", "seed", "origin")}
        assert tags == {"state": run.state, "seed": str(run.seed), "origin": run.origin}
        for name in run.points[0][2]:
            history = client.get_metric_history(stored.info.run_id, name)
            points = [(step, round(1000 * time), values[name]) for step, time, values in run.points]
            assert sorted((each.step, each.timestamp, each.value) for each in history) == points


def test_dashboard(folder: SweepFolder) -> None:
    tool("optuna_dashboard")
    server = dashboard.server(study_of(folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        root = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{root}/api/studies", timeout=60) as answer:
            [study] = json.load(answer)["study_summaries"]
        assert study["study_name"] == "a"
        with urllib.request.urlopen(f"{root}/api/studies/{study['study_id']}?after=0", timeout=60) as answer:
            trials = json.load(answer)["trials"]
        assert len(trials) == 7
        with pytest.raises(dashboard.DashboardError, match="cannot listen"):
            dashboard.server(study_of(folder), server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_missing_tool_is_named(two_sweeps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'minbert-hpo[dashboard]'" in refused(hpo("dashboard", "a", store=two_sweeps))
    assert "pip install wandb" in refused(hpo("log", "a", "--to", "wandb", "--out", tmp_path / "x", store=two_sweeps))
