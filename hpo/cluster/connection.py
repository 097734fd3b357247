"""Connection to the Ray cluster of a sweep: a cluster of our own on the loopback address, or a running one.

A cluster of our own starts with `address="local"` (a bare `ray.init()` joins any cluster of this machine). It listens
for processes of this machine only, requires a token that only this user can read, has no dashboard, and removes its
temporary files at the end. To a running one the project's code travels with the job: its machines need the third-party
packages alone. The resources of a sweep are compared with the cluster's before the first task: Ray waits
for ever for resources that a cluster does not have.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.cluster.faults import PREEMPTED
from hpo.cluster.machines import living_nodes
from hpo.cluster.memory import available_memory
from hpo.cluster.processes import scratch
from hpo.cluster.resources import NodeResources, ResourceError, Resources, local_cpus, local_gpus
from hpo.cluster.versions import code_folders

SETTINGS: Mapping[str, tuple[str, str]] = {
    "RAY_AIR_NEW_OUTPUT": ("0", "Tune's newer output engine prints even if it is set to be silent"),
    "RAY_USAGE_STATS_ENABLED": ("0", "no usage statistics leave this machine"),
    "RAY_CHDIR_TO_TRIAL_DIR": ("0", "workers keep the driver's directory, so that relative paths mean one thing"),
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": ("1", "the store keeps the results; Tune's loggers write five files a trial"),
    "TUNE_DISABLE_SIGINT_HANDLER": ("1", "the driver handles Ctrl-C: Tune's handler writes no checkpoints"),
    "TUNE_PRINT_ALL_TRIAL_ERRORS": ("0", "a trial's error is recorded, not printed across the display"),
    "TUNE_GLOBAL_CHECKPOINT_S": ("3600", "Tune's own state is never read, so it need not be written every few seconds"),
    "TUNE_FORCE_TRIAL_CLEANUP_S": ("30", "seconds until a worker that does not stop is killed; the default is 600"),
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": ("0", "see TUNE_GLOBAL_CHECKPOINT_S"),
}
"""Environment variable -> (value, reason). Set before Ray is imported, unless the user has set another value."""

OWN_SETTINGS: Mapping[str, tuple[str, str]] = {
    "RAY_memory_monitor_refresh_ms": ("0", "the monitor's kill ends a whole Tune run; a limit per worker replaces it"),
    "RAY_worker_niceness": ("0", "with Ray's 15, trials get no time beside other processes; use `nice hpo run`"),
    "RAY_AUTH_MODE": ("token", "without it any local process can run code on the cluster"),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": ("0", "Ray replaces 127.0.0.1 by a reachable address, except in this mode"),
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": ("0", "workers run in this process's interpreter, also under `uv run`"),
}
"""Environment variable -> (value, reason), for clusters of our own only: a running cluster keeps its own settings."""

log = logging.getLogger("hpo")

OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of a cluster of our own. Ray's default, 30 % of the machine's memory, would be wasted: data and weights
are mapped from files, and results are small."""


PROBE = 5.0
"""Seconds to wait for an answer of the head node of a running cluster."""

LEAST_MEMORY = 2**31
"""Least data in bytes that a worker may hold, however many share the machine. A lower limit would stop Python and Ray
themselves: they reserve 1.4 GB of it before any training, of which they use 0.2. If so much is too much together, Ray's
memory monitor kills a worker, which costs one attempt."""

STARTS = 3
"""Attempts to start a cluster. Ray gives its processes 30 seconds to start, fixed in its code, which can be too little
on a machine under load."""


def quiet() -> None:
    """Set the environment variables of SETTINGS. Call this before the first import of ray."""
    for name, (value, _) in SETTINGS.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True)
class Cluster:
    """A connection to a cluster."""

    own: bool
    """Whether this process started the cluster, and stops it."""
    cpus: float
    gpus: float
    memory_limit: int | None
    """Bytes of data that all workers of an own cluster may hold together; None: the cluster has its own rules."""
    nodes: tuple[NodeResources, ...] = ()
    """Its living nodes."""

    def memory_per_worker(self, workers: int) -> int | None:
        """Bytes of data that one of so many workers may hold; None: no limit."""
        return None if self.memory_limit is None else max(LEAST_MEMORY, self.memory_limit // workers)

    def check(self, resources: Resources) -> None:
        """Raise ResourceError unless the trials fit into the cluster at once."""
        where = "this machine" if self.own else "the cluster"
        resources.check(self.cpus, self.gpus, where)
        if self.nodes:
            resources.check_nodes(self.nodes, where)


@contextlib.contextmanager
def connect(address: str | None = None, *, cpus: int | None = None, gpus: int | None = None) -> Iterator[Cluster]:
    """Start a cluster of our own (no address) or join a running one, for the duration of the context.

    If the process is connected already, by a `ray.init` elsewhere, that cluster is used and left running.
    """
    quiet()
    import ray

    survive_lost_workers()
    if ray.is_initialized():
        yield _describe(own=_started_here)
        return
    if address is not None:
        _join(address)
        try:
            yield _describe(own=False)
        finally:
            ray.shutdown()
        return
    with own_cluster(local_cpus() if cpus is None else cpus, local_gpus() if gpus is None else gpus) as cluster:
        yield cluster


_started_here = False
"""Whether this process is connected to a cluster that `own_cluster` started."""


@contextlib.contextmanager
def own_cluster(cpus: int, gpus: int = 0) -> Iterator[Cluster]:
    """A cluster for this process alone, stopped at the end and its files removed. Ray stops it if this process dies."""
    global _started_here
    quiet()
    import ray

    with scratch() as folder:
        restore = _set_own_environment(folder)
        try:
            _start(folder, cpus, gpus)
            _started_here = True
            _hush()
            yield _describe(own=True)
        finally:
            _started_here = False
            ray.shutdown()
            restore()


def _start(folder: Path, cpus: int, gpus: int) -> None:
    import ray

    for attempt in range(1, STARTS + 1):
        try:
            with _own_process_groups():
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    num_gpus=gpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    configure_logging=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(folder / "r"),  # everybody can read it by Ray's mode, but not the folder above it
                    _node_ip_address="127.0.0.1",
                )
            return
        except Exception as error:
            ray.shutdown()
            if attempt == STARTS or "timed out during startup" not in str(error):
                raise


@contextlib.contextmanager
def _own_process_groups() -> Iterator[None]:
    """Ray's processes, workers included, start in their own process groups within this context.

    `timeout`, Slurm and containers send SIGTERM to the driver's whole group. Ray's processes block SIGINT but not
    SIGTERM, and a driver without its cluster cannot pause trials. They still end with the driver, because the kernel
    kills them at its death. A contract test checks the private parts of Ray that this needs.
    """
    import ray._private.services as services

    original = services.ConsolePopen
    setattr(services, "ConsolePopen", functools.partial(original, process_group=0))  # noqa: B010  as below
    try:
        yield
    finally:
        setattr(services, "ConsolePopen", original)  # noqa: B010


def _set_own_environment(folder: Path) -> Callable[[], None]:
    """Set the variables of an own cluster and write its token, readable by this user only.

    Returns a function that restores the variables.
    """
    path = folder / "token"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    values = {name: value for name, (value, _) in OWN_SETTINGS.items()} | {"RAY_AUTH_TOKEN_PATH": str(path)}
    before = {name: os.environ.get(name) for name in [*values, "RAY_AUTH_TOKEN"]}
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would override RAY_AUTH_TOKEN_PATH
    os.environ.update(values)
    _reread_environment()

    def restore() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _reread_environment()

    return restore


def _reread_environment() -> None:
    """Make Ray read its variables and its token again: it normally reads them only once, at its import."""
    from ray._private import ray_constants

    raylet: Any = importlib.import_module("ray._raylet")  # compiled, without types

    loopback_only = os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0"
    ray_constants.ENABLE_RAY_CLUSTER = not loopback_only and sys.platform == "linux"
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _join(address: str) -> None:
    import ray

    try:
        _probe(address)
        _check_loopback(address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            runtime_env={"py_modules": [str(folder) for folder in code_folders()]},  # about 3 MB, to each machine once
        )
    except ResourceError:
        raise
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"address {address!r}: no Ray cluster answers there ({error}). Give host:port of its head node, or 'auto' "
            "on one of its machines; a cluster with tokens needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here too"
        ) from error
    _hush()


def _probe(address: str) -> None:
    """Raise OSError if nothing listens at `host:port`; other addresses (`auto`) are left to Ray.

    Ray itself tries for minutes, and prints a line every five seconds.
    """
    host, port = _host_and_port(address)
    if port:
        socket.create_connection((host, port), PROBE).close()


def _check_loopback(address: str) -> None:
    """Raise ResourceError if Ray would replace 127.0.0.1, where a cluster listens, by an address where none does."""
    from ray._private import services

    host, port = _host_and_port(address)
    used = services.resolve_ip_for_localhost(host) if port else host
    if used == host:
        return
    try:
        _probe(f"{used}:{port}")
    except OSError as error:
        raise ResourceError(
            f"address {address!r}: the cluster listens on this machine's loopback address alone, and Ray replaces that "
            f"by {used}, where nothing answers. Type RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before the command, and Ray "
            "keeps the address"
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`; port 0 for any other address."""
    host, _, port = address.rpartition(":")
    return (host, int(port)) if host and "/" not in address and port.isdecimal() else (address, 0)


def _hush() -> None:
    """Keep Ray's and Tune's own messages out of the display; messages about a trial are recorded with it."""
    import ray._private.worker as worker

    for name in ("ray", "ray.tune", "ray.air", "ray.train", "ray._private"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # Ray prints the raylet's messages about a dead worker even with `log_to_driver=False`.
    worker.print_to_stdstream = lambda data, ignore_prefix: log.debug("%s", data)


def _describe(own: bool) -> Cluster:
    ray: Any = importlib.import_module("ray")
    total = ray.cluster_resources()
    limit = int(available_memory() * 0.9) if own else None  # a tenth is for the driver and Ray's own processes
    return Cluster(own, total.get("CPU", 0.0), total.get("GPU", 0.0), limit, living_nodes())


def survive_lost_workers() -> None:
    """Let Tune treat a worker that a cluster's memory monitor kills, and one in which Ray itself fails, like any other
    dead worker.

    Ray raises OutOfMemoryError for the first; a process without memory for Ray's messages answers every call with an
    error. Tune's actor manager handles two other errors only, and the wait for the first result of a trial that has not
    reported yet handles one, so the whole `fit` would end. Of the error of a preempted node Tune keeps only the text,
    so the text gets that fact. A contract test notices an upgrade of Ray that changes this.
    """
    import ray.air.execution._internal.actor_manager as manager
    from ray.exceptions import OutOfMemoryError, RayActorError, RayError
    from ray.tune.experiment import Trial

    original = manager.RayActorManager._actor_task_failed
    if getattr(original, "survives_lost_workers", False):
        return

    def patched(self: Any, tracked_actor_task: Any, exception: Exception) -> Any:
        if isinstance(exception, OutOfMemoryError):
            exception = RayActorError(error_msg=str(exception))
        elif isinstance(exception, RayActorError) and exception.preempted:
            exception = RayActorError(error_msg=f"{exception} ({PREEMPTED})")
        return original(self, tracked_actor_task, exception)

    first_result = Trial._get_default_result_or_future

    def patched_first_result(self: Any) -> Any:
        try:
            return first_result(self)
        except RayError:
            self._default_result_or_future = None
            return None

    patched.survives_lost_workers = True  # type: ignore[attr-defined]
    setattr(manager.RayActorManager, "_actor_task_failed", patched)  # noqa: B010  mypy forbids the plain form
    setattr(Trial, "_get_default_result_or_future", patched_first_result)  # noqa: B010
