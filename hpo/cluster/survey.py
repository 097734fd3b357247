"""Survey of a cluster before any trial starts: every node looks at itself (`hpo.cluster.probe`).

A launch on a running cluster refuses it where a node has a problem (`hpo.cluster.verdict`); `hpo doctor` shows all.
"""

from __future__ import annotations

import contextlib
import importlib
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hpo.cluster.probe import Facts, look, reply_name, token_name
from hpo.cluster.processes import host
from hpo.cluster.resources import ResourceError
from hpo.cluster.verdict import Answer, Finding, Node, judge

if TYPE_CHECKING:
    from results.files import Folder

KINDS = ("CPU", "GPU")
"""Ray's names of what a node has."""
PATIENCE = 60.0
"""Seconds that all nodes together have to answer; a new process takes some of them to start."""


def check_nodes(store: str, data: str | None, base: str | None, gpus_per_trial: float | None = None) -> list[str]:
    """Raise ResourceError if a node cannot run trials (`hpo.cluster.verdict.judge`); returns warnings about nodes."""
    head, answers = survey(store, data, base)
    found = [(answer.node.name, finding) for answer in answers for finding in judge(answer, head, gpus_per_trial)]
    problems = [(f"{name} {finding.what}", finding.remedy) for name, finding in found if finding.refuses]
    if problems:
        raise ResourceError(
            f"every machine of the cluster must be able to run trials, but {'; '.join(what for what, _ in problems)}. "
            f"To do: {'; '.join(dict.fromkeys(remedy for _, remedy in problems))}. `hpo doctor` checks all machines."
        )
    return [f"{name} {finding.what}: {finding.remedy}" for name, finding in found]


def diagnosis(
    store: str, data: str | None, base: str | None, gpus_per_trial: float | None = None, *, driver: bool
) -> tuple[list[tuple[Answer, list[Finding]]], dict[str, float]]:
    """Each node's answer with all findings, and the CPUs and GPUs of the cluster that nothing takes now. `driver`: with
    this machine as the driver's, which runs no trials; leave it out where it is the cluster's only node."""
    ray: Any = importlib.import_module("ray")
    free = ray.available_resources()
    head, answers = survey(store, data, base)
    if driver:
        answers.insert(0, Answer(Node(f"{host()} (driver)", 0.0, 0.0), head))
    return [(answer, judge(answer, head, gpus_per_trial)) for answer in answers], free


def survey(store: str, data: str | None, base: str | None) -> tuple[Facts, list[Answer]]:
    """What this machine found, and the answers of all nodes with CPUs; needs a connection to the cluster. A node that
    leaves the cluster meanwhile is left out.

    This process writes a token file into the store. Each node compares its content and writes a reply file beside it.
    Raises OSError if this machine cannot write the store.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray: Any = importlib.import_module("ray")
    nodes = able_nodes(ray.nodes())
    with _token(store, [*nodes, "driver"]) as (folder, secret):
        head = Facts.of(look(folder.path, secret, "driver", data, base))  # first: afterwards only the answers take time
        task = ray.remote(num_cpus=0, max_retries=0)(look)
        references = {}
        for node in nodes:
            on_node = NodeAffinitySchedulingStrategy(node, soft=False)
            reference = task.options(scheduling_strategy=on_node).remote(folder.path, secret, node, data, base)
            references[reference] = node
        answers = {node: _answer(nodes[node], reference) for node, reference in _arriving(references)}
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
    return {node["NodeID"]: Node(name(node), *(node["Resources"].get(kind, 0.0) for kind in KINDS)) for node in able}


def _arriving(references: dict[Any, str]) -> Iterator[tuple[str, Any]]:
    """Nodes and their references, each when its answer arrives; after PATIENCE, those without an answer."""
    ray: Any = importlib.import_module("ray")
    pending, end = list(references), time.monotonic() + PATIENCE
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=max(0.0, end - time.monotonic()))
        for reference in ready or pending:
            yield references[reference], reference
        if not ready:
            return


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
