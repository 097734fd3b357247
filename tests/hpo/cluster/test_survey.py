"""Nodes of a cluster that cannot run trials are named before any trial starts."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from hpo.cluster import probe, survey
from hpo.cluster.connection import Cluster
from hpo.cluster.devices import Gpu
from hpo.cluster.machines import demand
from hpo.cluster.probe import Facts, look, token_name
from hpo.cluster.resources import NoAnswerError, ResourceError, Resources
from hpo.cluster.verdict import LOOK, SHARE, Answer, Node, judge
from hpo.cluster.versions import versions
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


def test_versions_of_all_packages_are_compared_except_those_that_only_show_results() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=]", line)[0] for line in project["dependencies"]}
    assert names - versions().keys() == {"PyYAML", "duckdb", "plotly", "rich", "typer"}


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
    assert text.endswith("sweeps can run, without trials on n2\n")
    known = json.loads(json.dumps(nodes.to_json(both, {"CPU": 6.0})))
    assert (known["ready"], [machine["ready"] for machine in known["machines"]]) == (True, [True, False])
    assert not nodes.ready(both[1:])
    nodes.show(both[1:], {"CPU": 4.0}, Console(width=200))
    assert capsys.readouterr().out.endswith("sweeps cannot run here\n")
    head = Answer(Node("head", 0.0, 0.0), dataclasses.replace(HEAD, lacks=["has no folder /data"]))
    assert not nodes.ready([(head, judge(head, HEAD)), both[0]]), "the driver's machine cannot read the data"
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
    said: list[str] = []
    check = survey.check_nodes(str(tmp_path / "runs"), str(tmp_path), "tiny", Resources(2), said.append)
    assert check.closed == {}
    assert said[0] == "checking that every machine can run trials"
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
    with pytest.raises(ResourceError, match=rf"no machine .* trials: .* {message}.*put --store, --data") as error:
        survey.check_nodes(str(tmp_path), data, base, Resources(), [].append)
    assert not isinstance(error.value, NoAnswerError), "another try would find the same"
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
        (broken, "cannot run this project: ModuleNotFoundError: No module named 'optuna'. To do: install the"),
    ],
)
def test_another_file_system_is_noticed(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_node: Callable[..., Any], message: str
) -> None:
    monkeypatch.setattr(survey, "look", on_node)
    with pytest.raises(ResourceError, match=message):
        survey.check_nodes(str(tmp_path), None, "tiny", Resources(), [].append)
    assert [path.name for path in tmp_path.iterdir() if path.name != "copy"] == []


GOOD, OTHER = Node("n1", 4.0, 0.0, "id1"), Node("n2", 4.0, 0.0, "id2")
SILENT = Answer(OTHER, None, "gives no answer within 300 s")
WITHOUT_DATA = Answer(OTHER, dataclasses.replace(HEAD, lacks=["has no folder /data"]))


def checked(monkeypatch: pytest.MonkeyPatch, *answers: Answer, resources: Resources | None = None) -> survey.Check:
    """The check of nodes that gave these answers."""
    monkeypatch.setattr(survey, "survey", lambda *_: (HEAD, list(answers)))
    return survey.check_nodes("/runs", "/data", None, resources or Resources(), [].append)


@pytest.mark.parametrize(
    ("answer", "why", "remedy"),
    [
        (SILENT, "gives no answer within 300 s", LOOK),
        (WITHOUT_DATA, "has no folder /data", SHARE),
    ],
)
def test_one_node_of_two_that_cannot_run_trials_is_closed(
    monkeypatch: pytest.MonkeyPatch, answer: Answer, why: str, remedy: str
) -> None:
    check = checked(monkeypatch, Answer(GOOD, HEAD), answer)
    assert check.closed == {OTHER: why}
    assert check.warnings == [f"n2 gets no trials in this launch: it {why}. To do: {remedy}"]


def test_without_a_node_that_can_run_trials_the_launch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(WITHOUT_DATA, node=GOOD)
    with pytest.raises(ResourceError, match="trials: n1, n2 has no folder /data. To do: put .* share. `hpo") as error:
        checked(monkeypatch, wrong, WITHOUT_DATA)
    assert not isinstance(error.value, NoAnswerError), "another try would find the same"
    silent = dataclasses.replace(SILENT, node=GOOD)
    for answers in ([silent, SILENT], [wrong, SILENT]):
        with pytest.raises(NoAnswerError, match="n2 gives no answer within 300 s"):
            checked(monkeypatch, *answers)
    with pytest.raises(NoAnswerError):  # the good node is too small for a trial
        checked(monkeypatch, Answer(GOOD, HEAD), SILENT, resources=Resources(1, 8))
    assert checked(monkeypatch).closed == {}, "all nodes have left meanwhile: the launch waits for others"


def test_no_answer_has_an_exit_code_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object) -> None:
        raise NoAnswerError("no machine of the cluster can run trials: n1 gives no answer within 300 s")

    monkeypatch.setattr("hpo.cluster.connection.connect", silent)
    done = hpo("doctor", store=tmp_path)
    assert done.exit_code == 4, done.output
    assert "n1 gives no answer" in done.stderr


def test_a_node_that_does_not_answer_is_named_while_it_is_waited_for(
    ray_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*arguments: Any) -> dict[str, Any]:
        if "driver" not in arguments:
            time.sleep(0.6)
        return look(*arguments)

    monkeypatch.setattr(survey, "look", slow)
    monkeypatch.setattr(survey, "TICK", 0.1)
    said: list[str] = []
    survey.check_nodes(str(tmp_path), None, "tiny", Resources(), said.append)
    assert re.fullmatch(r"waiting until .+ can load the packages, .* at most 300 s more", said[1]), said
    monkeypatch.setattr(survey, "PATIENCE", 0.2)
    with pytest.raises(NoAnswerError, match="gives no answer within 0.2 s"):
        survey.check_nodes(str(tmp_path), None, "tiny", Resources(), said.append)


def test_contract_ray_starts_nothing_on_a_closed_node(ray_cluster: Cluster) -> None:
    from ray.util import placement_group_table

    [node] = survey.able_nodes(ray.nodes())
    other = "ab" * 28
    for closed, states in (((), {"CREATED"}), ((other, node), {"PENDING"})):
        with demand(Resources(1, 1, closed=closed)):
            deadline = time.monotonic() + (60.0 if not closed else 0.5)
            found: set[str] = set()
            while time.monotonic() < deadline and found != {"CREATED"}:
                groups = placement_group_table().values()
                found = {group["state"] for group in groups if group["state"] != "REMOVED"}
                time.sleep(0.05)
            assert found == states


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
    judged, free = survey.diagnosis(store, None, "tiny", None, lambda text: None, driver=True)
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
    environment["RAY_worker_niceness"] = "0"  # as in tests.hpo.machines
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
    assert known["ready"], "the other machine runs the trials"


def test_a_limit_of_the_caches_that_is_no_size_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINBERT_CACHE", str(tmp_path))
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "20G")
    assert probe._cache() == ""
    monkeypatch.setenv("MINBERT_CACHE_SIZE", "many")
    assert probe._cache().startswith("`MINBERT_CACHE_SIZE` is wrong: a size must be a number of bytes")
