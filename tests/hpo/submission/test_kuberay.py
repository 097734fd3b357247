"""KubeRay's manifest: its schema, its quoting, and what its scripts do."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hpo.submission.command import SubmissionError, SweepCommand
from hpo.submission.kuberay import MODES, KubeRayJob, manifest, to_yaml
from tests.hpo.submission.nasty import texts
from tests.hpo.submission.test_slurm import command, read_back

SCHEMA = json.loads((Path(__file__).parent / "ray_io_v1.json").read_text())


def job(**changes: Any) -> KubeRayJob:
    return KubeRayJob(
        **{"name": "hpo-mine", "image": "registry.example.org/minbert-hpo:1", "store_claim": "sweeps", **changes}
    )


JOBS = {
    "least": job(),
    "gpus": job(workers=4, gpus_per_worker=1, data_claim="corpora", namespace="team-a", token_secret="ray-token"),
    "autoscaling": job(max_workers=16),
    **{mode: job(submission_mode=mode) for mode in MODES},
}


def documents(asked: KubeRayJob, words: SweepCommand | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    scripts, runs = yaml.safe_load_all(manifest(asked, words or command("full"), "/data"))
    return scripts, runs


def cluster_of(runs: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = runs["spec"] if runs["kind"] == "RayCluster" else runs["spec"]["rayClusterSpec"]
    return spec


def pods(runs: dict[str, Any]) -> list[dict[str, Any]]:
    spec = cluster_of(runs)
    return [group["template"]["spec"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]


@pytest.mark.parametrize("asked", JOBS.values(), ids=JOBS)
def test_documents_follow_the_schema(asked: KubeRayJob) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for document in documents(asked):
        jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_the_schema_refuses_what_kubernetes_would() -> None:
    _, runs = documents(job())
    runs["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(runs, SCHEMA)
    _, runs = documents(job())
    runs["spec"]["backofLimit"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(runs, SCHEMA)


@pytest.mark.parametrize("asked", JOBS.values(), ids=JOBS)
def test_built_in_kinds_follow_the_schema_of_kubernetes(asked: KubeRayJob) -> None:
    """117 MB, so it belongs to no extra: `pip install kubernetes-validate` runs this."""
    validate = pytest.importorskip("kubernetes_validate")
    scripts, runs = documents(asked)
    validate.validate(scripts, validate.latest_version(), strict=True)
    for spec in pods(runs):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        validate.validate(pod, validate.latest_version(), strict=True)


@pytest.mark.parametrize("asked", JOBS.values(), ids=JOBS)
def test_a_head_without_cpus_a_token_and_time_to_pause(asked: KubeRayJob) -> None:
    _, runs = documents(asked)
    spec = cluster_of(runs)
    assert spec["authOptions"]["mode"] == "token"
    parameters = spec["headGroupSpec"]["rayStartParams"]
    assert (parameters["num-cpus"], parameters["num-gpus"]) == ("0", "0")
    head, worker = pods(runs)
    for pod, script in ((head, "pause.sh"), (worker, "linger.sh")):
        assert pod["terminationGracePeriodSeconds"] == 180
        assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["bash", f"/etc/hpo/{script}"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert {volume["name"] for volume in pod["volumes"]} == set(mounts)
        assert mounts["store"] == "/store"


def test_options_reach_the_manifest() -> None:
    _, runs = documents(JOBS["gpus"])
    _, worker = pods(runs)
    assert worker["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert worker["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert worker["volumes"][2]["persistentVolumeClaim"] == {"claimName": "corpora", "readOnly": True}
    assert runs["metadata"]["namespace"] == "team-a"
    assert cluster_of(runs)["authOptions"]["secretName"] == "ray-token"
    group = cluster_of(documents(JOBS["autoscaling"])[1])["workerGroupSpecs"][0]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (1, 1, 16)
    assert cluster_of(documents(JOBS["autoscaling"])[1])["enableInTreeAutoscaling"] is True
    assert "enableInTreeAutoscaling" not in cluster_of(runs)


def test_modes() -> None:
    for mode in MODES:
        _, runs = documents(JOBS[mode])
        assert runs["kind"] == ("RayCluster" if mode == "RayCluster" else "RayJob")
        if runs["kind"] == "RayJob":
            assert runs["spec"]["submissionMode"] == mode
            assert runs["spec"]["entrypoint"] == "bash /etc/hpo/sweep.sh"


def test_no_words_of_the_user_stand_outside_the_script() -> None:
    """The entrypoint is read by three programs with three ways of quoting."""
    generator = random.Random(2)
    plain_scripts, plain_runs = documents(job())
    for _ in range(10):
        words = texts(generator, 20)
        asked = SweepCommand("mine", "/store", ("hpo", "run", *words), ("hpo", "resume", *words[::-1]))
        scripts, runs = documents(job(), asked)
        assert runs == plain_runs
        script = scripts["data"]["sweep.sh"]
        arrays, _, rest = script.partition("\n\n# Sets")
        assert rest == plain_scripts["data"]["sweep.sh"].partition("\n\n# Sets")[2]
        assert read_back(arrays, "start") == ["hpo", "run", *words]
        assert read_back(arrays, "again") == ["hpo", "resume", *words[::-1]]


def test_any_text_survives_yaml() -> None:
    for text in texts(random.Random(3), 300):
        written = to_yaml({"key": text, "list": [text], "inner": {"key": f"{text}\n{text}"}})
        assert yaml.safe_load(written) == {"key": text, "list": [text], "inner": {"key": f"{text}\n{text}"}}
        assert written.isprintable() or set(written) - set(map(chr, range(32, 127))) <= {"\n"}
    # A YAML 1.2 parser would read these bare words as a number, a flag or nothing.
    for text in ("1e3", "NO", "y", "0o17", "null", "~", "12:00:00", "0x1F", ""):
        assert to_yaml({"key": text}) == f'key: "{text}"\n'


WRONG: dict[str, list[Any]] = {
    "name": ["", "Mine", "a_b", "-a", "a-", "a\n", "a" * 48, "a: b"],
    "namespace": ["A", "a.b", "a/b"],
    "image": ["", "a b", '"', "a\nb", "-a", "a$b"],
    "store_claim": ["", "A", "a_b", "a\n"],
    "store_secret": ["A", "a b"],
    "data_claim": ["a b"],
    "token_secret": ["a b"],
    "workers": [0, 1.5, True],
    "max_workers": [0],
    "gpus_per_worker": [-1],
    "cpus_per_worker": [0],
    "head_cpus": [0],
    "retries": [-1],
    "grace": [29],
    "memory_per_worker": ["", "0", "lots", "16 Gi", "16", "16gb"],
    "head_memory": ["16gb"],
    "submission_mode": ["", "k8sjobmode", "InteractiveMode"],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_what_no_manifest_could_have_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(SubmissionError, match=f"`{field}`"):
        job(**{field: value})


def test_a_store_on_s3_needs_no_volume_and_brings_its_secret() -> None:
    asked, words = job(store_claim=None, store_secret="aws"), command("full", store="s3://bucket/runs")
    scripts, runs = documents(asked, words)
    for document in (scripts, runs):
        jsonschema.validate(document, SCHEMA)
    assert "s3://bucket/runs" in scripts["data"]["sweep.sh"]
    for pod in pods(runs):
        assert [volume["name"] for volume in pod["volumes"]] == ["scripts"]
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "aws"}}]
    with pytest.raises(SubmissionError, match="`store_claim` must be .* absent for one on S3"):
        manifest(job(), words)
    with pytest.raises(SubmissionError, match="`store_claim` must be the volume claim of a store that is a folder"):
        manifest(job(store_claim=None), command("full"))


@pytest.mark.parametrize("folder", ["", "/", "runs", "~/runs", "/a/../b", "/a:b", "file://bucket"])
def test_a_folder_that_pods_cannot_mount_is_refused(folder: str) -> None:
    with pytest.raises(SubmissionError, match="`store` must be an absolute path"):
        manifest(job(), command("full", store=folder))
    with pytest.raises(SubmissionError, match="`data` must be an absolute path"):
        manifest(job(data_claim="data"), command("full"), folder)


def test_the_sweeps_script_starts_or_resumes_as_the_head_s_driver(tmp_path: Path) -> None:
    script = documents(job(), command("full", "a b"))[0]["data"]["sweep.sh"]
    script = script.replace("/tmp/hpo-driver", str(tmp_path / "driver"))
    program = tmp_path / "hpo"
    log, exists = tmp_path / "log", tmp_path / "exists"
    program.write_text(
        f'#!/bin/bash\nif [ "$1" = status ]; then [ -e {exists} ]; exit; fi\n'
        f'echo "$$" "$@" >{log}\ncmp <(echo $$) {tmp_path}/driver\n'
    )
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    for words in (
        "run --address auto --name mine --store /store full a b",
        "resume --address auto mine --store /store",
    ):
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert log.read_text().split(" ", 1)[1].strip() == words
        exists.touch()


def test_the_heads_script_asks_the_driver_to_pause_and_waits(tmp_path: Path) -> None:
    script = documents(job())[0]["data"]["pause.sh"].replace("/tmp/hpo-driver", str(tmp_path / "driver"))
    asked = tmp_path / "asked"
    (tmp_path / "hpo").write_text(f'#!/bin/bash\necho "$@" >{asked}\n')
    (tmp_path / "hpo").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

    def pause() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, check=True, timeout=30)

    pause()
    assert not asked.exists(), "no driver"
    code = (
        "import os, pathlib, sys, time\nprint('ready', flush=True)\n"
        f"while not os.path.exists({str(asked)!r}): time.sleep(0.1)\n"
        f"time.sleep(0.5); pathlib.Path({str(tmp_path / 'paused')!r}).touch()"
    )
    # A driver whose parent waits for it, as Ray's job supervisor does.
    parent = subprocess.Popen(
        ["bash", "-c", f'"$0" -c "$1" & echo $! >{tmp_path}/driver; wait', sys.executable, code], stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    pause()
    assert asked.read_text() == "stop mine --store /store\n"
    assert (tmp_path / "paused").exists()
    assert parent.wait(10) == 0


@pytest.mark.parametrize("first", ["node", "head"])
def test_a_worker_tells_ray_that_it_goes_and_waits_for_the_end_of_its_node(tmp_path: Path, first: str) -> None:
    """Or for the end of the head: then nobody can pause its trials."""
    script = documents(job(grace=60))[0]["data"]["linger.sh"].replace("/proc/", f"{tmp_path}/proc/")
    node = tmp_path / "proc" / "77" / "cmdline"
    node.parent.mkdir(parents=True)
    node.write_bytes(b"/ray/raylet\0--node_port=0\0--node_id=12ab\0--agent=python agent.py --node_id=56\0")
    (tmp_path / "ray").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >{tmp_path}/asked\n')
    (tmp_path / "ray").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
        environment = {**os.environ, "FQ_RAY_IP": "127.0.0.1", "RAY_PORT": str(port)}
        environment["PATH"] = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        lingering = subprocess.Popen(["bash", "-c", script], env=environment)
        try:
            time.sleep(1.5)
            assert lingering.poll() is None
            if first == "node":
                node.unlink()
            else:
                head.close()
            assert lingering.wait(20) == 0
        finally:
            lingering.kill()
    assert (tmp_path / "asked").read_text().splitlines() == [
        "drain-node",
        f"--address=127.0.0.1:{port}",
        "--node-id=12ab",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=its pod ends",
        "--deadline-remaining-seconds=45",
    ]
