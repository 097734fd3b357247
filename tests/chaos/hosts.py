"""Hosts of a Ray cluster, all on this machine.

`Namespaces` gives each host a network, a name, processes and mounts of its own (Linux namespaces), joined by a bridge.
The whole test runs inside further namespaces (`isolate`), so the kernel removes every process, network and mount of it
with its last process, however that ends. Where namespaces are not permitted, `Nodes` are processes beside each other on
one host: they can be killed and can join, but no network can be cut and no memory can run out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

ISOLATED = "CHAOS_ISOLATED"
HEAD = "h1"
"""The host of the cluster's head, which runs no trials."""
NETWORK = "10.77.0"
GATEWAY = f"{NETWORK}.254"
"""Address of this process, where all hosts reach what it serves."""
SCRATCH = Path("/var/tmp")
"""Where the test keeps its files: a file system in memory, which only the test sees. Ray needs a short path."""
STORE_BYTES = 48 * 2**20
"""Size of the file system of the store: small, so that it can be filled."""
OBJECT_STORE_BYTES = 80 * 2**20
"""Shared memory of a host; Ray accepts no less than 75 MiB."""
READY = "This command will now block"
"""Part of Ray's log once a host is up."""
SETTINGS = {
    "RAY_health_check_period_ms": "2000", "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "4",  # a lost host is noticed within half a minute
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_DOCKER_CPU_WARNING": "1", "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
}  # fmt: skip
"""Environment of all hosts."""


class Hosts(Protocol):
    """The hosts of a cluster; the first one is the head, which runs no trials."""

    address: str
    """Of the cluster's head, as a driver needs it."""
    real: bool
    """Whether a host is more than a process: it has a network and a memory of its own."""

    @property
    def workers(self) -> list[str]:
        """Names of the hosts that run trials and are up."""
        ...

    def join(self) -> str:
        """Start another host that runs trials; returns its name."""
        ...

    def kill(self, name: str) -> None:
        """End all processes of a host at once."""
        ...

    def start(self, host: str, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a command on a host; its output is captured."""
        ...

    def processes(self, host: str) -> dict[int, str]:
        """Processes of a host, by the number that this process sees, with their command lines."""
        ...


def permitted() -> bool:
    """Whether this process may make namespaces and networks."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    trial = "ip link add bridge type bridge; ip link add h1 type veth peer name h2; mount -t tmpfs none /var/tmp"
    command = ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "sh", "-ec", trial]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def isolate(module: str, arguments: Sequence[str]) -> None:
    """Start this program anew as the first process of namespaces of its own; does not return."""
    command = ["unshare", "--net", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
    os.environ[ISOLATED] = "1"
    os.execvp(command[0], [*command, sys.executable, "-m", module, *arguments])


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


BOOT = """
set -e
until ip link show eth0 >/dev/null 2>&1; do sleep 0.1; done
ip address add {address}/24 dev eth0; ip link set eth0 up; ip link set lo up
hostname {name}
mount --bind {folder}/meminfo /proc/meminfo
mount -t tmpfs none /sys/fs/cgroup
set +e
while true; do
  {ray} start {role} --node-ip-address={address} --object-store-memory={memory} --temp-dir={folder}/ray \
    --disable-usage-stats --block >>{folder}/log 2>&1
  sleep 1
done
"""
"""What a host does when it starts. It joins again when the head has given it up. It reads its memory from a file of its
own, so that the test decides how much is left; the limits of a control group would hide that."""


class Namespaces:
    """Hosts in namespaces."""

    real = True

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._hosts: dict[str, subprocess.Popen[str]] = {}
        names = [f"{NETWORK}.{number} h{number}\n" for number in range(1, 255)]
        (folder / "names").write_text("127.0.0.1 localhost\n" + "".join(names))
        run(f"mount --bind {folder}/names /etc/hosts; mount --bind /dev/null /etc/resolv.conf")  # nobody else answers
        run("ip link add bridge type bridge; ip link set bridge up; ip link set lo up")
        run(f"ip address add {GATEWAY}/24 dev bridge")
        self._started = 0
        self._boot("--head --port=6379 --num-cpus=0 --num-gpus=0 --include-dashboard=false")
        self.address = f"{NETWORK}.1:6379"
        wait_until(lambda: self._up(HEAD), 300, "the start of the head")

    @property
    def workers(self) -> list[str]:
        return [
            name for name, process in self._hosts.items() if name != HEAD and process.poll() is None and self._up(name)
        ]

    def _up(self, name: str) -> bool:
        with suppress(OSError):
            return READY in (self.folder_of(name) / "log").read_text()
        return False

    def join(self) -> str:
        return self._boot(f"--address={self.address} --num-cpus=1 --num-gpus=0")

    def _boot(self, role: str) -> str:
        self._started += 1
        number = self._started
        name, folder = f"h{number}", self.folder_of(f"h{number}")
        folder.mkdir()
        shutil.copyfile("/proc/meminfo", folder / "meminfo")
        script = BOOT.format(
            address=f"{NETWORK}.{number}", name=name, folder=folder, role=role, memory=OBJECT_STORE_BYTES,
            ray=Path(sys.executable).with_name("ray"),
        )  # fmt: skip
        command = ["unshare", "--net", "--uts", "--pid", "--mount", "--mount-proc", "--fork", "--kill-child"]
        self._hosts[name] = subprocess.Popen(
            [*command, "sh", "-c", script],
            env=dict(self._environment),
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        pid, ours = self._hosts[name].pid, os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{pid}/ns/net") != ours, 60, f"a network for {name}")
        run(f"ip link add {name} type veth peer name eth0 netns {pid}; ip link set {name} master bridge up")
        return name

    def folder_of(self, host: str) -> Path:
        return self._folder / host

    def kill(self, name: str) -> None:
        for pid in children(self._hosts[name].pid):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)  # the first process of a namespace takes all others with it
        self._hosts[name].wait()

    def cut(self, name: str) -> None:
        """Cut a host off the network."""
        run(f"ip link set {name} down")

    def connect(self, name: str) -> None:
        """Connect a host again."""
        if self._hosts[name].poll() is None:
            run(f"ip link set {name} up")

    def leave_memory(self, name: str, share: float | None) -> None:
        """Let a host have only this share of its memory left; None: as much as this machine."""
        lines = Path("/proc/meminfo").read_text().splitlines()
        total = int(lines[0].split()[1])
        if share is not None:
            left = {"MemFree:", "MemAvailable:", "Buffers:", "Cached:", "SReclaimable:"}
            lines = [
                f"{line.split()[0]} {int(total * share)} kB" if line.split()[0] in left else line for line in lines
            ]
        with (self.folder_of(name) / "meminfo").open("r+") as file:  # the mount is of this file, so it stays
            file.write("\n".join(lines) + "\n")
            file.truncate()

    def start(self, host: str, command: Sequence[str]) -> subprocess.Popen[str]:
        first = children(self._hosts[host].pid)
        enter = ["nsenter", "--target", str(first[0]), "--net", "--uts", "--pid", "--mount"] if first else ["false"]
        return subprocess.Popen(
            [*enter, *command], env=dict(self._environment), text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def processes(self, host: str) -> dict[int, str]:
        first = children(self._hosts[host].pid)
        if not first:
            return {}
        its_own = namespace_of(first[0])
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return {pid: command_line(pid) for pid in pids if its_own and namespace_of(pid) == its_own}


def namespace_of(pid: int) -> str:
    """Namespace of the process numbers that a process has."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition; an OSError counts as not yet. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if condition():
                return
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def run(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True)


class Nodes:
    """Hosts that are processes on this host (`ray.cluster_utils`)."""

    real = False

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        from ray.cluster_utils import Cluster

        os.environ.update(environment)
        self._environment = environment
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0, **self._arguments})
        self._nodes: dict[str, Any] = {}
        self._started = 1
        self.address = self._cluster.address

    @property
    def _arguments(self) -> dict[str, Any]:
        return {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}

    @property
    def workers(self) -> list[str]:
        return list(self._nodes)

    def join(self) -> str:
        self._started += 1
        name = f"h{self._started}"
        self._nodes[name] = self._cluster.add_node(num_cpus=1, num_gpus=0, **self._arguments)
        return name

    def kill(self, name: str) -> None:
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def start(self, host: str, command: Sequence[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, env=dict(self._environment), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def processes(self, host: str) -> dict[int, str]:
        if host not in self._nodes:
            return {}
        found = {}
        for info in self._nodes[host].all_processes.get("raylet", []):
            found |= {pid: command_line(pid) for pid in children(info.process.pid)}
        return found

    def close(self) -> None:
        self._cluster.shutdown()
