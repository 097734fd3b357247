"""A running Ray cluster of several nodes on this machine, which tests change: `python -m tests.hpo.machines`.

It prints the cluster's address, then obeys lines on its standard input and answers each with `done`: `add CPUS GPUS
NAME=VALUE ...` adds a node with these environment variables, `remove N` kills the N-th and waits until the head knows.
The end of the input ends the cluster. The head runs no trials.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Machines:
    """The cluster of another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.address = self._read()

    def __call__(self, line: str) -> None:
        """Obey a line; returns when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert self._read() == "done", f"after {line!r}"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def machines() -> Iterator[Machines]:
    """A cluster that has only a head yet."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    environment["RAY_worker_niceness"] = "0"  # beside other processes, workers with Ray's 15 get no time
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hpo.machines"], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield Machines(process)
    finally:
        process.communicate()
        assert process.returncode == 0


def living(address: str) -> set[str]:
    """The nodes that the head takes for alive."""
    from ray._raylet import GcsClient

    nodes = GcsClient(address=address).get_all_node_info().values()
    return {node.node_id.hex() for node in nodes if node.state == node.ALIVE}


def main() -> None:
    from ray.cluster_utils import Cluster

    from hpo.cluster.processes import scratch

    with scratch() as folder:
        head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "temp_dir": str(folder / "r")}
        cluster = Cluster(initialize_head=True, head_node_args=head)  # type: ignore[no-untyped-call]
        print(cluster.address, flush=True)
        nodes = []
        for line in sys.stdin:
            action, *numbers = line.split()
            if action == "add":
                cpus, gpus, *variables = numbers
                environment = dict(variable.split("=", 1) for variable in variables)
                nodes.append(cluster.add_node(num_cpus=int(cpus), num_gpus=int(gpus), env_vars=environment))
            else:
                node = nodes[int(numbers[0])]
                cluster.remove_node(node, allow_graceful=False)
                while node.node_id in living(cluster.address):
                    time.sleep(0.2)
            print("done", flush=True)
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
