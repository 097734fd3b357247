"""Nodes of a cluster that cannot run trials are named before any trial starts."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo.cluster import probe, survey
from hpo.cluster.connection import Cluster
from hpo.cluster.devices import Gpu
from hpo.cluster.probe import Facts, look, token_name
from hpo.cluster.resources import ResourceError
from hpo.cluster.verdict import Answer, Node, judge
from hpo.display import nodes
from tests.hpo.cli import hpo

pytestmark = pytest.mark.timeout(400)

H100 = Gpu("NVIDIA H100 80GB HBM3", 81559 * 2**20, "550.54.15")

HEAD = Facts(
    lacks=[],
    data={"ids-sst-train.csv": 10, "sts-train.csv": 20},
    base="ab" * 32,
    cache="",
    versions={"python": "3.11.7", "minbert-hpo": "0.1.0", "ray": "2.60.0", "torch": "2.13.0"},
    code="cd" * 32,
    cpus=8,
    gpus=[H100, H100],
    gpu_error="",
    cuda="CUDA 13.0",
    mps=False,
    token=True,
    store_free=2**40,
    temporary_free=2**40,
    time=0.0,
)


def judged(
    gpus_per_trial: float | None = None, clock: float = 0.0, node: Node | None = None, **changes: Any
) -> list[tuple[str, bool]]:
    """What is wrong with a node that differs in some facts from the driver's machine, and whether it refuses a
    launch."""
    answer = Answer(node or Node("n1", 8.0, 2.0), dataclasses.replace(HEAD, **changes), clock=clock)
    return [(finding.what, finding.refuses) for finding in judge(answer, HEAD, gpus_per_trial)]


def test_a_node_like_the_drivers_machine_has_no_finding() -> None:
    assert judged() == []
    assert judged(clock=29.0) == judged(clock=-29.0) == []


@pytest.mark.parametrize(
    ("changes", "what", "refuses"),
    [
        ({"lacks": ["cannot use the store /runs: Read-only file system"]}, "cannot use the store", True),
        ({"data": {"ids-sst-train.csv": 9, "sts-train.csv": 20}}, "has another ids-sst-train.csv in its data", True),
        ({"data": {"sts-train.csv": 20}}, r"another ids-sst-train.csv in its data \(none, here 10 bytes\)", True),
        ({"base": "00" * 32}, r"other base weights \(SHA-256 00000000, here abababab\)", True),
        ({"versions": HEAD.versions | {"ray": "2.59.1"}}, r"has ray 2.59.1 \(here 2.60.0\)", True),
        ({"versions": HEAD.versions | {"torch": "2.9.0"}}, r"has torch 2.9.0 \(here 2.13.0\)", False),
        ({"versions": {"python": "3.11.7", "minbert-hpo": "0.1.0", "ray": "2.60.0"}}, "has torch absent", False),
        ({"code": "00" * 32}, "has other code of this project", True),
        ({"clock": 300.0}, "has a clock 300 s ahead of", False),
        ({"clock": -300.0}, "has a clock 300 s behind", False),
        ({"gpus": [], "gpu_error": "there is no NVIDIA driver"}, "2 GPUs by Ray's count, but there is no NVIDIA", True),
        ({"gpus": [H100]}, "2 GPUs by Ray's count, but the driver lists 1", False),
        ({"cuda": ""}, "has a torch for CPUs alone", True),
        ({"gpus_per_trial": 0.25}, "lets 4 trials share each GPU without MPS", False),
        ({"node": Node("n1", 16.0, 2.0)}, "16 CPUs by Ray's count, but a process there may use 8", False),
        ({"store_free": 2**30}, "has 1 GiB free for the store", False),
        ({"temporary_free": 2**29}, "has 0.5 GiB free for temporary files", False),
        ({"cache": "`MINBERT_CACHE` needs a folder"}, "cannot keep tokenised data and features", False),
        ({"token": False}, "runs Ray without a token", False),
    ],
)
def test_what_is_wrong_with_a_node_is_named(changes: dict[str, Any], what: str, refuses: bool) -> None:
    found = judged(**changes)
    assert [refuses for _, refuses in found] == [refuses], found
    assert re.search(what, found[0][0]), found


@pytest.mark.parametrize(
    "changes",
    [
        {"gpus": [], "gpu_error": "nvidia-smi fails: no devices", "gpus_per_trial": 0.0},  # the trials take none
        {"gpus": [], "node": Node("n1", 8.0, 0.0), "cuda": ""},  # a node without GPUs
        {"gpus": None},  # nothing there can list them, yet the driver is loaded
        {"gpus": [], "gpu_error": "there is no NVIDIA driver", "cuda": "ROCm 7.0"},
        {"gpus_per_trial": 0.25, "mps": True},
        {"gpus_per_trial": 0.6},  # one trial on each GPU
        {"data": {}, "lacks": []},  # the sample corpus
        {"token": False, "node": Node("head", 0.0, 0.0)},  # the driver's machine: the nodes say it
    ],
)
def test_what_does_not_matter_is_not_named(changes: dict[str, Any]) -> None:
    assert judged(**changes) == []


def test_a_node_without_an_answer_is_named_in_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    good = Answer(Node("n1", 8.0, 2.0), HEAD)
    silent = Answer(Node("n2", 4.0, 0.0), None, "gives no answer within 60 s")
    both = [(answer, judge(answer, HEAD)) for answer in (good, silent)]
    nodes.show(both, {"CPU": 6.0}, Console(width=200))
    text = capsys.readouterr().out
    assert "2 NVIDIA H100 80GB HBM3 (79.6 GiB)" in text
    assert "problem: n2 gives no answer within 60 s" in text
    assert "free now: 6 of 12 CPUs, 0 of 2 GPUs; trials wait for the others" in text
    assert "sweeps cannot run here" in text
    known = json.loads(json.dumps(nodes.to_json(both, {"CPU": 6.0})))
    assert (known["ready"], [machine["ready"] for machine in known["machines"]]) == (False, [True, False])
    assert nodes.ready(both[:1])
    assert not nodes.ready([(Answer(Node("head", 0.0, 0.0), HEAD), [])]), "no machine runs trials"


def test_gpus_come_from_the_drivers_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpo.cluster import devices

    command = tmp_path / "nvidia-smi"
    command.write_text(
        "#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 550.54.15'; echo 'Other, GPU, [N/A], 550.54.15'\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert devices.gpus() == ([H100, Gpu("Other, GPU", None, "550.54.15")], "")
    command.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n")
    assert devices.gpus() == ([], "nvidia-smi fails: Failed to initialize NVML: Driver/library version mismatch")
    command.unlink()
    monkeypatch.setattr(devices, "DRIVER", tmp_path / "absent")
    assert devices.gpus() == ([], "there is no NVIDIA driver")
    monkeypatch.setattr(devices, "DRIVER", tmp_path)
    assert devices.gpus() == (None, "")
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not devices.mps()
    (tmp_path / "control").touch()
    assert devices.mps()


def test_a_node_that_can_use_all_files_is_accepted_and_no_file_is_left(ray_cluster: Cluster, tmp_path: Path) -> None:
    # The tests' GPUs are numbers, which no trial may ask for here.
    survey.check_nodes(str(tmp_path / "runs"), str(tmp_path), "tiny", gpus_per_trial=0.0)
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
    with pytest.raises(ResourceError, match=rf"must be able to run trials, but .* {message}.*put --store, --data"):
        survey.check_nodes(str(tmp_path), data, base)
    assert list(tmp_path.iterdir()) == []


def another_disk(store: str, secret: str, node: str, data: str | None, base: str | None) -> dict[str, Any]:
    """A node without the store's folder."""
    here = "driver" in node
    return look(store if here else "/nowhere", secret, node, data, base)


def a_copy(store: str, secret: str, node: str, data: str | None, base: str | None) -> dict[str, Any]:
    """A node whose folder has the same content on a disk of its own."""
    copy = Path(store) / "copy"
    if "driver" not in node:
        copy.mkdir(exist_ok=True)
        (copy / token_name(secret)).write_text(secret)
        return look(str(copy), secret, node, data, base)
    return look(store, secret, node, data, base)


def broken(store: str, secret: str, node: str, data: str | None, base: str | None) -> dict[str, Any]:
    """A node without the project's packages."""
    if "driver" not in node:
        raise ModuleNotFoundError("No module named 'optuna'")
    return look(store, secret, node, data, base)


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
    monkeypatch.setattr(survey, "look", on_node)
    with pytest.raises(ResourceError, match=message):
        survey.check_nodes(str(tmp_path), None, "tiny")
    assert [path.name for path in tmp_path.iterdir() if path.name != "copy"] == []


def test_doctor_says_what_is_there_and_exits_by_it(ray_cluster: Cluster, tmp_path: Path) -> None:
    command = ("doctor", "--base", "tiny", "--gpus-per-trial", "0", "--data", tmp_path)
    done = hpo(*command, store=tmp_path / "runs")
    assert done.exit_code == 0, done.output
    assert "sweeps can run" in done.stdout
    known = json.loads(hpo(*command, "--json", store=tmp_path / "runs").stdout)
    assert known["ready"]
    assert [machine["cpus"] for machine in known["machines"]] == [2.0]
    assert abs(known["machines"][0]["clock_seconds_ahead"]) < 30
    refused = hpo("doctor", "--base", "tiny", "--data", tmp_path / "absent", store=tmp_path / "runs")
    assert refused.exit_code == 2
    assert f"has no folder {tmp_path / 'absent'}" in refused.stdout


TWO_NODES = """
import json, os, signal, sys
from ray.cluster_utils import Cluster
from hpo.cluster import survey
from hpo.cluster.connection import connect, quiet
from hpo.display import nodes

quiet()
store, unwritable, other = sys.argv[1:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
cluster.add_node(num_cpus=2, env_vars={"MINBERT_CACHE": unwritable, "PYTHONPATH": other})
stuck = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
survey.PATIENCE = 45.0
with connect(cluster.address):
    os.kill(stuck.all_processes["raylet"][0].process.pid, signal.SIGSTOP)
    judged, free = survey.diagnosis(store, None, "tiny", driver=True)
    print(json.dumps(nodes.to_json(judged, free)))
os.kill(stuck.all_processes["raylet"][0].process.pid, signal.SIGCONT)
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_running_cluster_with_one_node_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    other = tmp_path / "other" / "hpo"  # it stands in for a machine without this project, whose code travels there
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise ImportError('another hpo')")
    paths = [tmp_path / "runs", tmp_path / "file" / "cache", other.parent]
    command = [sys.executable, "-c", TWO_NODES, *map(str, paths)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=390)
    assert done.returncode == 0, done.stderr[-3000:]
    known = json.loads(done.stdout.splitlines()[-1])
    driver, *machines = known["machines"]
    assert driver["ready"]
    assert driver["machine"].endswith("(driver)")
    assert len({machine["machine"] for machine in machines}) == 2, "two nodes of one host are told apart"
    found = {machine["cpus"]: [finding["what"] for finding in machine["findings"]] for machine in machines}
    assert len(found[2.0]) == 2
    assert "cannot keep tokenised data and features" in found[2.0][0]
    assert "runs Ray without a token" in found[2.0][1]
    assert found[1.0] == ["gives no answer within 45 s"]
    assert not known["ready"]


def test_a_limit_of_the_caches_that_is_no_size_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path))
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "20G")
    assert probe._cache() == ""
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "many")
    assert probe._cache().startswith("`MINBERT_CACHE_SIZE` is wrong: a size must be a number of bytes")
