"""The faults: which kinds there are, in which order they come, and what each does to the cluster.

The order, and the fractions by which a fault chooses its victim and its length, are drawn from a seed. What it then
meets depends on the moment, as in life. Faults do not aim at a trial that was interrupted twice: a trial that loses
three places in a row fails by rule, and here no healthy trial may fail.
"""

from __future__ import annotations

import math
import os
import random
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hpo.search.endings import LOSSES
from tests.chaos import control
from tests.chaos.hosts import HEAD
from tests.results.places import Fault, Proxy

if TYPE_CHECKING:
    from tests.chaos.operator import Operator


class Draw(NamedTuple):
    """One fault, as drawn."""

    kind: str
    victim: float
    """In [0, 1): which of the possible victims."""
    length: float
    """In [0, 1): how long, between the shortest and the longest time of its kind."""


def draw(seed: int, number: int, kinds: Iterable[str]) -> list[Draw]:
    """`number` faults in random order, of each kind as many as of any other, or one more."""
    source = random.Random(seed)
    deck = sorted(kinds)
    order = [kind for _ in range(math.ceil(number / len(deck))) for kind in source.sample(deck, len(deck))]
    return [Draw(kind, source.random(), source.random()) for kind in order[:number]]


@dataclass
class Cluster:
    """What a fault can meet."""

    hosts: Any
    operator: Operator
    store: Path
    """Folder of the store, or where one would be."""
    network: Proxy | None
    """The network before a store on S3; None: the store is a folder."""
    heal_later: Callable[[float, Callable[[], object]], None]
    """Calls a function after so many seconds."""

    def trainers(self, hosts: Iterable[str] | None = None) -> list[tuple[str, int]]:
        """Host and process of every worker that trains now, sorted by host."""
        return sorted(
            (host, pid)
            for host in (self.hosts.workers if hosts is None else hosts)
            for pid, line in self.hosts.processes(host).items()
            if line.startswith("ray::Worker")
        )

    def possible_victims(self) -> list[tuple[str, int]]:
        """The trainers whose trial was interrupted less than twice."""
        begun = control.notes("begun")
        return [(host, pid) for host, pid in self.trainers() if attempt_of(host, pid, begun) < LOSSES - 1]

    def possible_hosts(self) -> list[str]:
        """The hosts of workers without those where a trial trains that was interrupted twice."""
        spared = {host for host, _ in set(self.trainers()) - set(self.possible_victims())}
        return [host for host in self.hosts.workers if host not in spared]


def attempt_of(host: str, pid: int, begun: Iterable[Mapping[str, Any]]) -> int:
    """The attempt that a worker trains, by its last note; 0 if it has none yet.

    Workers note the number of their process in their namespace, and the name of their host. Where hosts are processes
    beside each other, that is the name of this machine.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0
    inner = int(next(line for line in lines if line.startswith("NSpid:")).split()[-1])
    names = {host, socket.gethostname()}
    attempts = [note["attempt"] for note in begun if note["pid"] == inner and note["host"] in names]
    return int(attempts[-1]) if attempts else 0


Begin = Callable[[Cluster, Draw], str | None]
"""Begins a fault; returns what it hit, or None: there is no victim at this moment."""


def chosen(victims: list[Any], draw: Draw) -> Any:
    return victims[int(draw.victim * len(victims))] if victims else None


def seconds(draw: Draw, shortest: float, longest: float) -> float:
    return shortest + draw.length * (longest - shortest)


def signal_worker(cluster: Cluster, draw: Draw, number: signal.Signals) -> str | None:
    if (victim := chosen(cluster.possible_victims(), draw)) is None:
        return None
    with suppress(ProcessLookupError):
        os.kill(victim[1], number)
    return str(victim[0])


def kill_worker(cluster: Cluster, draw: Draw) -> str | None:
    return signal_worker(cluster, draw, signal.SIGKILL)


def replace_host(cluster: Cluster, host: str, wait: float = 0.0) -> None:
    """Kill a host; another one joins after so many seconds."""
    if host in cluster.hosts.workers:
        cluster.hosts.kill(host)
        cluster.heal_later(wait, cluster.hosts.join)


def kill_host(cluster: Cluster, draw: Draw) -> str | None:
    host = chosen(cluster.possible_hosts(), draw)
    if host is not None:
        replace_host(cluster, host, seconds(draw, 0, 10))
    return host


def send_host_away(cluster: Cluster, draw: Draw) -> str | None:
    """A host is told to go, as a spot machine is, and comes back as another node once its trial has a checkpoint."""
    if (host := chosen(cluster.hosts.workers, draw)) is None:
        return None
    for pid, line in cluster.hosts.processes(host).items():
        if " start " in line and "--block" in line and not line.startswith("sh "):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    return str(host)


def cut_host(cluster: Cluster, draw: Draw) -> str | None:
    """Short cuts are survived; in a long one Ray gives the host up, and another one takes its place."""
    if (host := chosen(cluster.possible_hosts(), draw)) is None:
        return None
    length = seconds(draw, 2, 12) if draw.victim * 7 % 1 < 0.5 else seconds(draw, 40, 70)
    cluster.hosts.cut(host)
    cluster.operator.cut_off(host)
    cluster.heal_later(length, lambda: (cluster.hosts.connect(host), cluster.operator.connected(host)))
    return f"{host} for {length:.0f} s"


def kill_driver(cluster: Cluster, draw: Draw) -> str | None:
    return cluster.operator.kill_driver()


def exhaust_memory(cluster: Cluster, draw: Draw) -> str | None:
    """Ray's memory monitor kills what runs on the host."""
    if (victim := chosen(cluster.possible_victims(), draw)) is None:
        return None
    host = victim[0]
    cluster.hosts.leave_memory(host, 0.01)
    cluster.heal_later(3, lambda: cluster.hosts.leave_memory(host, None))
    return str(host)


def stop_worker(cluster: Cluster, draw: Draw) -> str | None:
    """A process that no longer runs, as one that waits for a dead file server."""
    return signal_worker(cluster, draw, signal.SIGSTOP)


def poison_trial(cluster: Cluster, draw: Draw) -> str | None:
    (control.folder() / f"{control.NAN}-{len(list(control.folder().glob(f'{control.NAN}-*'))):04d}").touch()
    return "the next trial"


def break_device(cluster: Cluster, draw: Draw) -> str | None:
    """Every trial on the host fails, until the host is replaced."""
    if (victim := chosen(cluster.possible_victims(), draw)) is None:
        return None
    host = victim[0]
    (control.folder() / f"{control.BROKEN}{host}").touch()
    cluster.heal_later(seconds(draw, 10, 25), lambda: replace_host(cluster, host))
    return str(host)


def fill_disk(cluster: Cluster, draw: Draw) -> str | None:
    ballast = cluster.store / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    cluster.heal_later(seconds(draw, 3, 8), lambda: ballast.unlink(missing_ok=True))
    return "the store"


def slow_disk(cluster: Cluster, draw: Draw) -> str | None:
    delay, length = seconds(draw, 0.2, 1.0), seconds(draw, 10, 20)
    path = control.folder() / control.SLOW
    path.write_text(str(delay))
    cluster.heal_later(length, lambda: path.unlink(missing_ok=True))
    return f"{delay:.1f} s an fsync, for {length:.0f} s"


def jump_clock(cluster: Cluster, draw: Draw) -> str | None:
    """The clock of a host, that of the driver too, is wrong by up to an hour, then right again."""
    if (host := chosen([HEAD, *cluster.hosts.workers], draw)) is None:
        return None
    path = control.folder() / f"{control.CLOCK}{host}"
    path.write_text(str(seconds(draw, -3600, 3600)))
    cluster.heal_later(seconds(draw, 20, 40), lambda: path.unlink(missing_ok=True))
    return f"{host} by {seconds(draw, -3600, 3600):+.0f} s"


def refuse_requests(cluster: Cluster, draw: Draw) -> str | None:
    """A third of all requests fail: an error, or a connection that breaks before or after the store has acted."""
    assert cluster.network is not None
    source, share, length = random.Random(draw.victim), 1 / 9, seconds(draw, 5, 15)
    answers: tuple[dict[str, Any], ...] = ({"forward": False, "status": 503}, {"forward": False}, {})
    faults = [Fault(lambda *_: source.random() < share, times=10**9, **answer) for answer in answers]
    network = cluster.network
    network.faults += faults
    cluster.heal_later(length, lambda: [network.faults.remove(fault) for fault in faults])
    return f"for {length:.0f} s"


def slow_requests(cluster: Cluster, draw: Draw) -> str | None:
    assert cluster.network is not None
    network, delay, length = cluster.network, seconds(draw, 0.1, 0.5), seconds(draw, 10, 20)
    network.delay = delay
    cluster.heal_later(length, lambda: setattr(network, "delay", 0.0))
    return f"{delay:.1f} s a request, for {length:.0f} s"


KINDS: Mapping[str, Begin] = {
    "worker killed": kill_worker,
    "host killed": kill_host,
    "host told to go": send_host_away,
    "host cut off": cut_host,
    "driver killed": kill_driver,
    "memory kill": exhaust_memory,
    "worker hangs": stop_worker,
    "NaN loss": poison_trial,
    "device error": break_device,
    "disk full": fill_disk,
    "slow disk": slow_disk,
    "S3 fails": refuse_requests,
    "S3 is slow": slow_requests,
    "clock jumps": jump_clock,
}
"""Kind of fault -> what begins it."""
NEED_REAL_HOSTS = frozenset({"host told to go", "host cut off", "memory kill", "device error", "clock jumps"})
"""Kinds that need hosts with a network, a memory and a name of their own."""
NEED_DISK, NEED_S3 = frozenset({"disk full", "slow disk"}), frozenset({"S3 fails", "S3 is slow"})
"""Kinds that need a store of one kind."""
