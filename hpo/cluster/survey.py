"""Survey of a cluster before any trial starts: every node looks at itself (`hpo.cluster.probe`).

A launch on a running cluster keeps its trials away from nodes that cannot run them (`hpo.cluster.verdict`); `hpo
doctor` shows all that is wrong.
"""

from __future__ import annotations

import contextlib
import importlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.cluster.probe import Facts, look, reply_name, token_name
from hpo.cluster.processes import host
from hpo.cluster.resources import NoAnswerError, ResourceError, Resources
from hpo.cluster.verdict import Answer, Finding, Node, judge

if TYPE_CHECKING:
    from results.files import Folder

KINDS = ("CPU", "GPU")
"""Ray's names of what a node has."""
PATIENCE = 300.0
"""Seconds that all nodes together have to answer. A machine that loads torch from a cold network file system, and then
this project's code, takes minutes."""
TICK = 10.0
"""Seconds between two messages about nodes that have not answered."""
SHOWN = 5
"""Number of nodes that a message names."""

Say = Callable[[str], None]
"""Receives what the survey waits for."""


@dataclass(frozen=True)
class Check:
    """Which nodes may run trials."""

    closed: Mapping[Node, str]
    """Nodes that cannot run trials -> why, as a part of a sentence."""
    warnings: list[str]


def check_nodes(store: str, data: str | None, base: str | None, resources: Resources, say: Say) -> Check:
    """Which nodes can run trials with these resources.

    Raises ResourceError if none can, and NoAnswerError if a later try may find one.
    """
    head, answers = survey(store, data, base, say)
    judged = {answer.node: judge(answer, head, resources.gpus_per_trial) for answer in answers}
    problems = {node: [finding for finding in found if finding.refuses] for node, found in judged.items()}
    closed = {node: found for node, found in problems.items() if found}
    able = [node for node in judged if node not in closed and resources.fits([(node.cpus, node.gpus)])]
    if closed and not able:
        raise _refusal(closed)
    causes = {node: ", ".join(finding.what.rstrip(".") for finding in found) for node, found in closed.items()}
    warnings = [
        f"{node.name} gets no trials in this launch: it {causes[node]}. To do: {_remedies(found)}"
        for node, found in closed.items()
    ]
    others = [(node, finding) for node, found in judged.items() if node not in closed for finding in found]
    return Check(causes, warnings + [f"{node.name} {finding.what}: {finding.remedy}" for node, finding in others])


def _refusal(closed: Mapping[Node, Sequence[Finding]]) -> ResourceError:
    """The error about a cluster of which no node can run trials."""
    nodes: dict[str, list[str]] = {}
    for node, found in closed.items():
        for finding in found:
            nodes.setdefault(finding.what, []).append(node.name)
    findings = [finding for found in closed.values() for finding in found]
    kind = NoAnswerError if any(finding.may_pass for finding in findings) else ResourceError
    problems = "; ".join(f"{_listed(names)} {what}" for what, names in nodes.items())
    return kind(
        f"no machine of the cluster can run trials: {problems}. To do: {_remedies(findings)}. `hpo doctor` checks all "
        "machines."
    )


def _remedies(found: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(finding.remedy for finding in found))


def _listed(names: Iterable[str]) -> str:
    """`n1, n2 and 3 more`."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"


def diagnosis(
    store: str,
    data: str | None,
    base: str | None,
    gpus_per_trial: float | None,
    say: Say,
    *,
    driver: bool,
) -> tuple[list[tuple[Answer, list[Finding]]], dict[str, float]]:
    """Each node's answer with all findings, and the CPUs and GPUs of the cluster that nothing takes now. `driver`: with
    this machine as the driver's, which runs no trials; leave it out where it is the cluster's only node."""
    ray: Any = importlib.import_module("ray")
    free = ray.available_resources()
    head, answers = survey(store, data, base, say)
    if driver:
        answers.insert(0, Answer(Node(f"{host()} (driver)", 0.0, 0.0), head))
    return [(answer, judge(answer, head, gpus_per_trial)) for answer in answers], free


def survey(store: str, data: str | None, base: str | None, say: Say) -> tuple[Facts, list[Answer]]:
    """What this machine found, and the answers of all nodes with CPUs; needs a connection to the cluster. A node that
    leaves the cluster meanwhile is left out.

    This process writes a token file into the store. Each node compares its content and writes a reply file beside it.
    Raises OSError if this machine cannot write the store.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray: Any = importlib.import_module("ray")
    nodes = able_nodes(ray.nodes())
    say("checking that every machine can run trials")
    with _token(store, [*nodes, "driver"]) as (folder, secret):
        head = Facts.of(look(folder.path, secret, "driver", data, base))  # first: afterwards only the answers take time
        task = ray.remote(num_cpus=0, max_retries=0)(look)
        references = {}
        for node in nodes:
            on_node = NodeAffinitySchedulingStrategy(node, soft=False)
            reference = task.options(scheduling_strategy=on_node).remote(folder.path, secret, node, data, base)
            references[reference] = node
        names = {node: nodes[node].name for node in nodes}
        answers = {node: _answer(nodes[node], reference) for node, reference in _arriving(references, names, say)}
        for node, answer in answers.items():
            if answer.facts is not None and not answer.facts.lacks and not folder.exists(reply_name(secret, node)):
                answer.facts.lacks.append(f"writes into another {folder.path}")
    staying = able_nodes(ray.nodes())
    return head, [answers[node] for node in nodes if node in staying]


@contextlib.contextmanager
def _token(store: str, replies: Sequence[str]) -> Iterator[tuple[Folder, str]]:
    """The store's folder and the content of a token file in it, removed at the end with the replies."""
    from results.places import locate

    folder = locate(store)
    folder.make()
    secret = uuid.uuid4().hex
    try:
        folder.write(token_name(secret), secret.encode())
        yield folder, secret
    finally:
        for name in (token_name(secret), *(reply_name(secret, node) for node in replies)):
            folder.delete(name)


def able_nodes(nodes: Sequence[dict[str, Any]]) -> dict[str, Node]:
    """The living nodes with CPUs by their id, from `ray.nodes()`; a head without CPUs runs no trials."""
    able = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0]
    hosts = Counter(node["NodeManagerHostname"] for node in able)
    addresses = Counter(node["NodeManagerAddress"] for node in able)

    def name(node: dict[str, Any]) -> str:
        host, address = node["NodeManagerHostname"], node["NodeManagerAddress"]
        if hosts[host] == 1:
            return str(host)
        return f"{host} ({address if addresses[address] == 1 else node['NodeID'][:6]})"

    able.sort(key=name)
    found = {}
    for node in able:
        cpus, gpus = (node["Resources"].get(kind, 0.0) for kind in KINDS)
        found[node["NodeID"]] = Node(name(node), cpus, gpus, node["NodeID"])
    return found


def _arriving(references: dict[Any, str], names: Mapping[str, str], say: Say) -> Iterator[tuple[str, Any]]:
    """Nodes and their references, each when its answer arrives; after PATIENCE, those without an answer."""
    ray: Any = importlib.import_module("ray")
    pending, end = list(references), time.monotonic() + PATIENCE
    while pending and (left := end - time.monotonic()) > 0:
        ready, pending = ray.wait(pending, num_returns=1, timeout=min(TICK, left))
        for reference in ready:
            yield references[reference], reference
        if not ready:
            waits_for = _listed(names[references[reference]] for reference in pending)
            say(f"waiting until {waits_for} can load the packages, the data and the encoder, at most {left:.0f} s more")
    for reference in pending:
        yield references[reference], reference


def _answer(node: Node, reference: Any) -> Answer:
    """The result of `look` on a node, or why there is none. Call it when the result has just arrived."""
    import ray

    now = time.time()
    try:
        facts = Facts.of(ray.get(reference, timeout=0))
    except ray.exceptions.GetTimeoutError:
        return Answer(node, None, f"gives no answer within {PATIENCE:g} s")
    except Exception as error:  # noqa: BLE001  any error on the node is the answer
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        return Answer(node, None, f"cannot run this project: {reason}")
    return Answer(node, facts, clock=facts.time - now)
