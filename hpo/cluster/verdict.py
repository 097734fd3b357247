"""Verdict on a node of a cluster: whether it can run trials, and what is wrong with it. Pure functions.

A finding keeps trials away from the node, or is worth a warning. On a node without the shared file system trials would
find other data or none, and write their checkpoints to a folder that the driver does not see.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hpo.cluster.probe import Facts

CLOCK = 30.0
"""Seconds by which clocks may differ. A busy machine delays its answer by some seconds, which looks like a
difference."""
ROOM = 2 * 2**30
"""Free bytes below which a disk gets a warning: it fills with the checkpoints of a few trials."""
OWN = "minbert-hpo"
"""This project: what a node has installed does not matter, since the code that runs there is compared."""
TOGETHER = frozenset({"ray"})
"""Packages whose versions must be equal for a driver and its workers to understand each other; Ray itself refuses
another Python."""

SHARE = "put --store, --data and --base on a file system that all machines share"
INSTALL = "install the same packages on all machines (constraints.txt names the versions)"
LOOK = "look at that machine and at Ray's logs there"
MISSING = re.compile(r"\b(ModuleNotFoundError|ImportError)\b")
"""Errors of a machine without a package. Ray hands some of them on as text alone."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, as Ray counts it."""

    name: str
    cpus: float
    """0: it runs no trials."""
    gpus: float
    id: str = ""
    """Ray's id."""


@dataclass(frozen=True)
class Answer:
    """What a node said."""

    node: Node
    facts: Facts | None
    silence: str = ""
    """Why there are no facts, as a part of a sentence."""
    clock: float = 0.0
    """Seconds by which its clock is ahead of the driver's."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a node."""

    what: str
    """A part of a sentence, after the node's name."""
    remedy: str
    """What to do about it."""
    refuses: bool = False
    """Whether the node cannot run trials because of it."""
    may_pass: bool = False
    """Whether it may be gone at a later try."""


def judge(answer: Answer, head: Facts, gpus_per_trial: float | None = None) -> list[Finding]:
    """All that is wrong with a node. `head` is what the driver's machine found; `gpus_per_trial` is what a trial takes
    (None: one GPU where there are some)."""
    facts, node = answer.facts, answer.node
    if facts is None:
        missing = bool(MISSING.search(answer.silence))
        return [Finding(answer.silence, INSTALL if missing else LOOK, refuses=True, may_pass=not missing)]
    return [
        *(Finding(lack, SHARE, refuses=True) for lack in facts.lacks),
        *_other_files(facts, head),
        *_other_versions(facts, head),
        *(_gpus(facts, node, gpus_per_trial) if node.gpus and gpus_per_trial != 0 else ()),
        *_machine(facts, node, answer.clock),
    ]


def _other_files(facts: Facts, head: Facts) -> Iterator[Finding]:
    """Data and base weights must be those of the driver's machine; what cannot be read has been named already."""
    if facts.data and head.data and facts.data != head.data:
        name = min(name for name in facts.data.keys() | head.data.keys() if facts.data.get(name) != head.data.get(name))
        sizes = [f"{files[name]:,} bytes" if name in files else "none" for files in (facts.data, head.data)]
        yield Finding(f"has another {name} in its data ({sizes[0]}, here {sizes[1]})", SHARE, refuses=True)
    if facts.base and head.base and facts.base != head.base:
        yield Finding(f"has other base weights (SHA-256 {facts.base[:8]}, here {head.base[:8]})", SHARE, refuses=True)


def _other_versions(facts: Facts, head: Facts) -> Iterator[Finding]:
    different = {name: facts.versions.get(name, "absent") for name in head.versions if name != OWN}
    different = {name: version for name, version in different.items() if version != head.versions[name]}
    for strict in (True, False):
        names = [name for name in different if (name in TOGETHER) == strict]
        if names:
            listed = ", ".join(f"{name} {different[name]} (here {head.versions[name]})" for name in names)
            yield Finding(f"has {listed}", INSTALL, refuses=strict)
    if facts.code != head.code:
        what = f"has other code of this project (SHA-256 {facts.code[:8]}, here {head.code[:8]})"
        yield Finding(what, "bring it to the same commit on all machines, and start Ray there again", refuses=True)


def _gpus(facts: Facts, node: Node, gpus_per_trial: float | None) -> Iterator[Finding]:
    if not facts.cuda:
        yield Finding(
            "has a torch for CPUs alone", "install torch for its GPUs, or give --gpus-per-trial 0", refuses=True
        )
    listed = None if facts.gpus is None or facts.cuda.startswith("ROCm") else len(facts.gpus)
    if listed is not None and listed < node.gpus:
        why = facts.gpu_error or f"the driver lists {listed}"
        remedy = "repair the driver, or start Ray there with --num-gpus of what works; MIG slices may be more"
        what = f"has {_count(node.gpus, 'GPU')} by Ray's count, but {why}"
        yield Finding(what, remedy, refuses=not listed)  # slices of a GPU are not listed
    if gpus_per_trial and gpus_per_trial < 1 and not facts.mps and (together := trials_of_gpu(gpus_per_trial)) > 1:
        what = f"lets {together} trials share each GPU without MPS, so that they take turns"
        yield Finding(what, "run `nvidia-cuda-mps-control -d` there before `ray start`, or give --gpus-per-trial 1")


def trials_of_gpu(gpus_per_trial: float) -> int:
    """Number of trials that share a GPU."""
    return int(1 / gpus_per_trial)


def _machine(facts: Facts, node: Node, clock: float) -> Iterator[Finding]:
    if node.cpus > facts.cpus:
        what = f"has {_count(node.cpus, 'CPU')} by Ray's count, but a process there may use {facts.cpus}"
        yield Finding(what, "start Ray there with --num-cpus of at most that")
    if abs(clock) > CLOCK:
        side = "ahead of" if clock > 0 else "behind"
        what = f"has a clock {abs(clock):.0f} s {side} this machine's"
        yield Finding(what, "set the clocks of all machines (NTP): times of rows and logs cannot be compared")
    for use, free in (("the store", facts.store_free), ("temporary files", facts.temporary_free)):
        if free is not None and free < ROOM:
            what = f"has {free / 2**30:.2g} GiB free for {use}"
            yield Finding(what, "free some disk; `hpo gc` deletes what no sweep needs")
    if facts.cache:
        what = f"cannot keep tokenised data and features: {facts.cache.rstrip('.')}"
        yield Finding(what, "set MINBERT_CACHE or MINBERT_CACHE_SIZE there, before `ray start`")
    if node.cpus and not facts.token:
        what = "runs Ray without a token: whoever reaches its ports can run code there"
        yield Finding(what, "start Ray with a token, as docs/clusters.md shows")


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{number:g} {noun}s"
