"""Faults of many kinds on a cluster of several hosts while a sweep of quick trials runs.

    python -m tests.chaos --trials 200 --faults 50 --seed 0

The sweep is real: driver, Ray, store, training of a tiny encoder on the sample corpus. Faults come as the sweep gets
on, in an order drawn from the seed. At the end every promise of the driver is checked; exit code 1: one is broken.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos import control, hosts
from tests.chaos.driver import NAME
from tests.chaos.faults import KINDS, NEED_DISK, NEED_REAL_HOSTS, NEED_S3, Cluster, Draw, draw
from tests.chaos.operator import Operator
from tests.chaos.promises import PROMISES, Evidence
from tests.results.places import BUCKET, Proxy

PATIENCE = 300.0
"""Seconds without a new row in the store after which something waits for ever."""
TURN = 0.3


def count(text: str) -> int:
    """A number of trials, faults or hosts."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer of at least 1, not {text!r}")
    return int(text)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--trials", type=count, default=200, help="number of trials (default 200)")
    add("--faults", type=count, default=50, help="number of faults (default 50)")
    add("--hosts", type=count, default=3, help="number of hosts that run trials, one at a time each (default 3)")
    add("--minutes", type=float, default=60.0, help="after so many minutes no more faults come (default 60)")
    add("--seed", type=int, default=0, help="seed of the faults and of the sweep (default 0)")
    add("--s3", action="store_true", help="the store lies on S3 (moto's server) and not on a disk; needs real hosts")
    add("--plain", action="store_true", help="no namespaces: hosts are processes beside each other, fewer kinds")
    add("--logs", type=Path, help="folder that gets the hosts' logs and the notes")
    options = parser.parse_args(arguments)
    if options.s3 and options.plain:
        parser.error("--s3 needs hosts with a network of their own; leave out --plain.")
    return options


class Trouble:
    """Brings the faults, and heals them."""

    def __init__(self, draws: list[Draw], cluster: Cluster, trials: int) -> None:
        self._draws, self._cluster, self._trials = draws, cluster, trials
        self._heal: list[tuple[float, Callable[[], object]]] = []
        cluster.heal_later = self._later
        self.brought: Counter[str] = Counter()
        self._began = time.monotonic()

    def _later(self, seconds: float, heal: Callable[[], object]) -> None:
        self._heal.append((time.monotonic() + seconds, heal))

    def turn(self, ended: int) -> None:
        """Heal what is due, and bring the next fault if `ended` trials have ended by now."""
        now = time.monotonic()
        due = [heal for at, heal in self._heal if at <= now]
        self._heal = [entry for entry in self._heal if entry[0] > now]
        for heal in due:
            heal()
        number = self.brought.total()
        if number < len(self._draws) and ended >= (number + 1) * self._trials / (len(self._draws) + 1):
            fault = self._draws[number]
            victim = KINDS[fault.kind](self._cluster, fault)
            if victim is not None:
                self.brought[fault.kind] += 1
                say(f"{now - self._began:6.0f} s  {ended:4d} ended  fault {number + 1:3d}  {fault.kind}: {victim}")


def say(text: str) -> None:
    print(text, flush=True)


def ended_trials() -> tuple[int, int]:
    """Number of trials that have ended, and of rows that were noted."""
    rows = control.notes("appended")
    ended = {row["trial"] for row in rows if row["state"] in ("complete", "pruned", "diverged", "failed")}
    return len(ended), len(rows)


def run(options: argparse.Namespace, scratch: Path) -> int:
    store, uri = scratch / "store", f"s3://{BUCKET}/store" if options.s3 else str(scratch / "store")
    (scratch / "tmp").mkdir(exist_ok=True)
    store.mkdir()
    (scratch / "token").write_text(secrets.token_hex(32))
    (scratch / "token").chmod(0o600)
    os.environ |= {
        control.FOLDER: str(scratch), "TMPDIR": str(scratch / "tmp"), "MINBERT_CACHE": str(scratch / "cache"),
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(scratch / "token"),
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }  # fmt: skip
    tempfile.tempdir = None
    real = not options.plain
    if real:
        hosts.run(f"mount -t tmpfs -o size={hosts.STORE_BYTES} none {store}")
    environment, network = {**os.environ, **hosts.SETTINGS}, None
    machines = hosts.Namespaces(scratch, environment) if real else hosts.Nodes(scratch, environment)
    if options.s3:
        network = serve_s3()
        environment["AWS_ENDPOINT_URL"] = network.url
    for _ in range(options.hosts):
        machines.join()
    if real:
        hosts.wait_until(lambda: len(machines.workers) == options.hosts, 300, "the start of all hosts")
    operator = Operator(machines, uri, options.trials, options.seed)
    without = NEED_DISK if options.s3 else NEED_S3 if real else NEED_S3 | NEED_REAL_HOSTS | {"disk full"}
    cluster = Cluster(machines, operator, store, network, lambda seconds, heal: None)
    kinds = [kind for kind in KINDS if kind not in without]
    trouble = Trouble(draw(options.seed, options.faults, kinds), cluster, options.trials)
    began = time.monotonic()
    stalled = ""
    last, since = 0, began
    try:
        while not operator.done:
            operator.turn()
            ended, rows = ended_trials()
            if time.monotonic() - began < options.minutes * 60:
                trouble.turn(ended)
            if rows != last:
                last, since = rows, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                stalled = f"nothing has happened for {PATIENCE:.0f} s, with {ended} of {options.trials} trials ended"
                break
            time.sleep(TURN)
    finally:
        operator.close()
        if options.logs:
            save(scratch, options.logs)
    return judge(options, uri, operator, trouble, stalled, time.monotonic() - began)


def serve_s3() -> Proxy:
    """Start an S3 server, and a network before it in which requests may fail. This process does without the network."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=hosts.GATEWAY, port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server.start()
    address, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://{address}:{port}"
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=BUCKET)
    return Proxy(address, port, hosts.GATEWAY)


def save(scratch: Path, target: Path) -> None:
    """Copy logs and notes out of the file system in memory."""
    target.mkdir(parents=True, exist_ok=True)
    for path in [*scratch.glob("*.jsonl"), *scratch.glob("h*/ray/session_2*/logs/*"), *scratch.glob("store/*/*.json")]:
        if path.is_file():
            to = target / path.relative_to(scratch)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)


def judge(
    options: argparse.Namespace, store: str, operator: Operator, trouble: Trouble, stalled: str, seconds: float
) -> int:
    from results.store import Store

    folder = Store(store).open(NAME)
    evidence = Evidence(
        folder, options.trials, folder.events(), control.notes("appended"), control.notes("acknowledged"),
        control.notes("begun"), frozenset(control.poisoned_trials()),
    )  # fmt: skip
    say(f"\n{seconds / 60:.1f} minutes, {operator.launches} launches, {len(evidence.rows)} rows")
    states = Counter(ends[-1]["state"] for ends in evidence.ends().values())
    say("trials: " + ", ".join(f"{count} {state}" for state, count in states.most_common()))
    say("\nfaults")
    for kind in KINDS:
        say(f"  {trouble.brought[kind]:4d}  {kind}")
    say("\nends of drivers")
    for end, count in operator.ends.most_common():
        say(f"  {count:4d}  {end[:200]}")
    say("\npromises")
    findings = {"nothing waits for ever": [stalled] if stalled else [], "no driver falls over": operator.crashes}
    findings |= {promise: check(evidence) for promise, check in PROMISES.items()}
    for promise, broken in findings.items():
        say(f"  {'BROKEN' if broken else 'kept  '}  {promise}")
        for line in broken[:10]:
            say(f"            {line}")
    return 1 if any(findings.values()) else 0


def main() -> int:
    options = parse()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.plain:
        with tempfile.TemporaryDirectory() as scratch:
            return run(options, Path(scratch))
    if not os.environ.get(hosts.ISOLATED):
        if not hosts.permitted():
            if options.s3:
                say("--s3 needs hosts with a network of their own. Namespaces are not permitted here (root has them).")
                return 2
            say(
                "Namespaces are not permitted here (root has them): hosts are processes beside each other, and "
                f"these kinds are left out: {', '.join(sorted(NEED_REAL_HOSTS))}, disk full."
            )
            options.plain = True
            with tempfile.TemporaryDirectory() as scratch:
                return run(options, Path(scratch))
        hosts.isolate("tests.chaos", sys.argv[1:])
    hosts.run(f"mount -t tmpfs none {hosts.SCRATCH}")
    return run(options, hosts.SCRATCH)


if __name__ == "__main__":
    sys.exit(main())
