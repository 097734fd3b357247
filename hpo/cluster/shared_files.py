"""Check that every node of a running cluster can use the sweep's files, before any trial starts.

On a node without the shared file system, trials would find other data or none, and write their checkpoints to a folder
that the driver does not see.
"""

from __future__ import annotations

import importlib
import uuid
from pathlib import Path
from typing import Any

from hpo.cluster.resources import ResourceError

PATIENCE = 60.0
"""Seconds that all nodes together have to answer; a new process takes some of them to start."""


def check_nodes(store: str, data: str | None, base: str | None) -> None:
    """Raise ResourceError unless each node that may run trials reads and writes the store, and has data and base.

    The driver writes a token file into the store. Each node compares its content and writes a reply file beside it.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray: Any = importlib.import_module("ray")
    folder = Path(store.removeprefix("file://")).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    secret = uuid.uuid4().hex
    token = folder / f".reach-{secret}"
    able = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0]
    hosts = {node["NodeID"]: str(node["NodeManagerHostname"]) for node in able}
    task = ray.remote(num_cpus=0, max_retries=0)(problem)
    problems = []
    try:
        token.write_text(secret)
        references = {}
        for node in hosts:
            on_node = NodeAffinitySchedulingStrategy(node, soft=False)
            references[node] = task.options(scheduling_strategy=on_node).remote(str(token), secret, node, data, base)
        ray.wait(list(references.values()), num_returns=len(references), timeout=PATIENCE)
        for node, reference in references.items():
            answer = _answer(reference)
            if answer is None and not _reply(token, node).exists():
                answer = f"writes into another {folder}"
            if answer is not None:
                problems.append(f"{hosts[node]} {answer}")
    finally:
        for path in (token, *(_reply(token, node) for node in hosts)):
            path.unlink(missing_ok=True)
    if problems:
        raise ResourceError(
            f"every machine of the cluster must reach the same files, but {'; '.join(problems)}. Put --store and "
            "--data on a file system that all of them share, and install the same packages on each"
        )


def problem(token: str, secret: str, node: str, data: str | None, base: str | None) -> str | None:
    """Runs on a node: what the node lacks, as a part of a sentence; None: nothing. Writes the node's reply file."""
    from minbert.encoder.base import BaseEncoderError, find_base

    path = Path(token)
    try:
        if path.read_text() != secret:
            return f"reads something else in {path.parent}"
        _reply(path, node).write_text(secret)
    except OSError as error:
        return f"cannot use the store {path.parent}: {error.strerror}"
    if data is not None and not Path(data).is_dir():
        return f"has no folder {data}"
    try:
        find_base(base)
    except BaseEncoderError as error:
        return f"lacks the base encoder: {error}"
    return None


def _reply(token: Path, node: str) -> Path:
    """File that a node writes beside the token."""
    return token.with_name(f"{token.name}-{node}")


def _answer(reference: Any) -> str | None:
    """The result of `problem` on a node, or why there is none."""
    import ray

    try:
        answer: str | None = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"gives no answer within {PATIENCE:g} s"
    except Exception as error:  # noqa: BLE001  any error on the node is the answer
        return f"cannot run this project: {(str(error).strip() or type(error).__name__).splitlines()[-1]}"
    return answer
