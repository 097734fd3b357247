"""A KubeRay manifest for a sweep: a RayJob that runs it, or a RayCluster that waits for it (API ray.io/v1).

The sweep's command goes into a script in a ConfigMap. A RayJob's own `entrypoint` would be read by the shell of the
submitter's pod, by `ray job submit` and by the shell of the head, each with its own quoting; so it names that script
and nothing else. KubeRay makes the cluster's token and its Secret (`authOptions`), so this file holds no secret.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hpo.cluster.connection import OBJECT_STORE_BYTES
from hpo.submission.command import (
    GRACE,
    SHORTEST,
    SubmissionError,
    SweepCommand,
    check_least,
    check_text,
    patience,
    script,
)

CLUSTER = "RayCluster"
MODES: Mapping[str, str] = {
    "K8sJobMode": "a pod of its own submits the sweep",
    "SidecarMode": "a container beside the head submits the sweep",
    "HTTPMode": "the operator submits the sweep itself",
    CLUSTER: "nothing is submitted: a cluster that stays, for `kubectl exec`",
}
"""How the sweep is submitted -> what that means: KubeRay's `submissionMode`, or a cluster without a job."""

SCRIPTS = "/etc/hpo"
"""Folder of the scripts in every pod."""
USER = 1000
"""User and group of the image (`Dockerfile`); volumes belong to this group."""
LONGEST_NAME = 47
"""Characters: KubeRay makes longer names of it, and those of Kubernetes end at 63."""
KEPT = 300
"""Seconds that a cluster stays after its job, for a look at its logs."""
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
NAMES = re.compile(rf"{LABEL.pattern}(\.{LABEL.pattern})*")
IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
MEMORY = re.compile(r"[1-9]\d*[KMGT]i?")


@dataclass(frozen=True)
class KubeRayJob:
    """What a sweep asks of Kubernetes. Raises SubmissionError for a value that no manifest could have."""

    name: str
    """Name of the RayJob or RayCluster."""
    image: str
    """Image of head and workers, which holds this project (`Dockerfile`)."""
    store_claim: str | None = None
    """PersistentVolumeClaim of the store (ReadWriteMany), mounted at the command's `--store`; None: it is on S3."""
    store_secret: str | None = None
    """Secret with the AWS_... variables of a store on S3; None: the pods' role gives access."""
    data_claim: str | None = None
    """PersistentVolumeClaim of the data, mounted read-only at the command's `--data`; None: the store's volume or the
    image holds it."""
    namespace: str | None = None
    """None: that of `kubectl`."""
    workers: int = 1
    """Number of worker pods; with `max_workers`, the least number."""
    max_workers: int | None = None
    """Most worker pods: Ray's autoscaler adds and removes them; None: there are always `workers`."""
    gpus_per_worker: int = 0
    cpus_per_worker: int = 4
    memory_per_worker: str = "16Gi"
    """Memory of a worker pod, such as 16Gi."""
    head_cpus: int = 2
    """CPUs of the head pod, for Ray and the driver; trials get none of them."""
    head_memory: str = "8Gi"
    """Memory of the head pod."""
    submission_mode: str = "K8sJobMode"
    """A key of MODES."""
    token_secret: str | None = None
    """Secret with the key `auth_token`; None: KubeRay makes one."""
    grace: int = GRACE
    """Seconds between the signal to a pod and its end."""
    retries: int = 5
    """Most times that the job starts again, each on a new cluster."""

    def __post_init__(self) -> None:
        lowest = {"workers": 1, "gpus_per_worker": 0, "cpus_per_worker": 1, "head_cpus": 1, "retries": 0}
        for field, least in lowest.items():
            check_least(field, getattr(self, field), least)
        check_least("grace", self.grace, SHORTEST)
        check_least("max_workers", self.max_workers, self.workers)
        self._check("name", LABEL, "lowercase letters, digits and dashes")
        if len(self.name) > LONGEST_NAME:
            raise SubmissionError(f"`name` must have at most {LONGEST_NAME} characters, {self.name} has more.")
        self._check("namespace", LABEL, "lowercase letters, digits and dashes")
        for field in ("store_claim", "store_secret", "data_claim", "token_secret"):
            self._check(field, NAMES, "lowercase letters, digits, dashes and dots")
        self._check("image", IMAGE, "letters, digits and any of ._:/@-, such as registry.example.org/minbert-hpo:1")
        for field in ("memory_per_worker", "head_memory"):
            self._check(field, MEMORY, "a number and a unit, such as 16Gi")
        if self.submission_mode not in MODES:
            known = ", ".join(MODES)
            raise SubmissionError(f"Unknown `submission_mode` {self.submission_mode!r}. Expected one of: {known}.")

    def _check(self, field: str, rule: re.Pattern[str], words: str) -> None:
        text = getattr(self, field)
        if text is not None and not rule.fullmatch(text):
            raise SubmissionError(f"`{field}` must be {words}, not {text!r}.")


def manifest(job: KubeRayJob, command: SweepCommand, data: str | None = None) -> str:
    """The text of a file for `kubectl apply -f`. `data`: folder of the data in the pods, None: the sample corpus."""
    mounts = _mounts(job, command, data)
    described: dict[str, Any] = {"name": job.name}
    if job.namespace is not None:
        described["namespace"] = job.namespace
    scripts = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**described, "name": f"{job.name}-sweep"},
        "data": {
            "sweep.sh": f"#!/bin/bash\n{command.shell()}\n{script('begin.sh', 'sweep.sh')}",
            "pause.sh": f"#!/bin/bash\n{command.shell()}\n{script('pause.sh')}",
            "linger.sh": f"#!/bin/bash\nseconds={patience(job.grace)}\n{script('linger.sh')}",
        },
    }
    cluster = _cluster(job, mounts)
    if job.submission_mode == CLUSTER:
        runs = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": described, "spec": cluster}
    else:
        spec = {
            "entrypoint": f"bash {SCRIPTS}/sweep.sh",
            "submissionMode": job.submission_mode,
            "backoffLimit": job.retries,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEPT,
            "rayClusterSpec": cluster,
        }
        runs = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": described, "spec": spec}
    title = f"# The sweep {command.name} on Kubernetes with KubeRay 1.5.1 or newer, written by `hpo launch kuberay`.\n"
    return title + to_yaml(scripts, runs)


def _mounts(job: KubeRayJob, command: SweepCommand, data: str | None) -> dict[str, dict[str, Any]]:
    """Volume -> how a container mounts it. Raises SubmissionError for folders that pods cannot mount."""
    if (job.store_claim is None) != command.store.startswith("s3://"):
        raise SubmissionError(
            "`store_claim` must be the volume claim of a store that is a folder, and absent for one on S3; the store "
            f"is {command.store}, the claim {job.store_claim}."
        )
    places = {} if job.store_claim is None else {"store": command.store}
    places |= {} if job.data_claim is None else {"data": data or ""}
    for name, folder in places.items():
        check_text(name, folder)
        if not folder.startswith("/") or ":" in folder or ".." in folder.split("/") or not folder.strip("/"):
            raise SubmissionError(
                f"`{name}` must be an absolute path in the pods, at which the volume of `{name}_claim` is mounted, "
                f"without a colon and without '..', not {folder!r}."
            )
    mounts: dict[str, dict[str, Any]] = {"scripts": {"name": "scripts", "mountPath": SCRIPTS, "readOnly": True}}
    if job.store_claim is not None:
        mounts["store"] = {"name": "store", "mountPath": command.store}
    if job.data_claim is not None:
        mounts["data"] = {"name": "data", "mountPath": data, "readOnly": True}
    return mounts


def _cluster(job: KubeRayJob, mounts: Mapping[str, Any]) -> dict[str, Any]:
    """A RayCluster's `spec`: a head without CPUs for trials, and one group of workers."""
    auth = {"mode": "token"} | ({} if job.token_secret is None else {"secretName": job.token_secret})
    start = {"object-store-memory": str(OBJECT_STORE_BYTES), "disable-usage-stats": "true"}
    head = _resources(job.head_cpus, job.head_memory, 0)
    worker = _resources(job.cpus_per_worker, job.memory_per_worker, job.gpus_per_worker)
    # `ray job stop` and a deleted RayJob wait this long for the sweep to pause; Ray's default is 3 s.
    stop = [{"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": str(job.grace)}]
    most = job.workers if job.max_workers is None else job.max_workers
    spec: dict[str, Any] = {
        "rayVersion": importlib.metadata.version("ray"),
        "authOptions": auth,
        "headGroupSpec": {
            "rayStartParams": {**start, "num-cpus": "0", "num-gpus": "0"},
            "template": _pod(job, "ray-head", head, mounts, "pause.sh", stop),
        },
        "workerGroupSpecs": [
            {
                "groupName": "workers",
                "replicas": job.workers,
                "minReplicas": job.workers,
                "maxReplicas": most,
                "rayStartParams": start,
                "template": _pod(job, "ray-worker", worker, mounts, "linger.sh", []),
            }
        ],
    }
    if job.max_workers is not None:
        spec |= {"enableInTreeAutoscaling": True, "autoscalerOptions": {"idleTimeoutSeconds": KEPT}}
    return spec


def _resources(cpus: int, memory: str, gpus: int) -> dict[str, Any]:
    """Requests equal limits, so that Kubernetes evicts these pods last."""
    amounts = {"cpu": str(cpus), "memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {"requests": dict(amounts), "limits": amounts}


def _pod(
    job: KubeRayJob,
    container: str,
    resources: Mapping[str, Any],
    mounts: Mapping[str, Any],
    before_end: str,
    environment: list[dict[str, str]],
) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "scripts", "configMap": {"name": f"{job.name}-sweep"}}]
    if job.store_claim is not None:
        volumes.append({"name": "store", "persistentVolumeClaim": {"claimName": job.store_claim}})
    if job.data_claim is not None:
        claim = {"claimName": job.data_claim, "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": claim})
    spec: dict[str, Any] = {
        # A head that starts again in its pod would be an empty cluster under the old name: a new pod is made instead.
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.grace,
        "securityContext": {"runAsUser": USER, "fsGroup": USER, "fsGroupChangePolicy": "OnRootMismatch"},
        "containers": [
            {
                "name": container,
                "image": job.image,
                **({"env": environment} if environment else {}),
                **({"envFrom": [{"secretRef": {"name": job.store_secret}}]} if job.store_secret else {}),
                "resources": resources,
                "lifecycle": {"preStop": {"exec": {"command": ["bash", f"{SCRIPTS}/{before_end}"]}}},
                "volumeMounts": list(mounts.values()),
            }
        ],
        "volumes": volumes,
    }
    if "nvidia.com/gpu" in resources["limits"]:  # machines with GPUs are often kept free of other pods by this taint
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"spec": spec}


def to_yaml(*documents: Mapping[str, Any]) -> str:
    """Documents as YAML. Every text value stands in double quotes or in a block, since the parsers of Kubernetes and of
    Python disagree on what a bare word such as 1e3 or NO is."""
    import yaml

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]  # yaml has no types
        def ignore_aliases(self, data: Any) -> bool:
            return True  # Kubernetes reads anchors, people do not

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else '"')

    def mapping(dumper: Any, value: Mapping[str, Any]) -> Any:
        node = dumper.represent_mapping("tag:yaml.org,2002:map", value.items())
        for key, _ in node.value:
            key.style = None  # keys are ours: plain words
        return node

    Dumper.add_representer(str, text)
    Dumper.add_representer(dict, mapping)
    result: str = yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=10**9, allow_unicode=False)
    return result
