"""Whether every machine of a running cluster reaches the files of a sweep, seen before any trial starts.

On a machine without the shared file system trials would train on other files or none, and leave their checkpoints where
nobody looks.
"""

from __future__ import annotations

import importlib
import uuid
from pathlib import Path
from typing import Any

from hpo.cluster.resources import ResourceError

PATIENCE = 60.0
"""Seconds for all machines to answer; a new process takes some of them."""


def check_nodes(store: str, data: str | None, base: str | None) -> None:
    """Raise ResourceError unless each machine that may run trials reads and writes the store, and has data and base."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray: Any = importlib.import_module("ray")
    folder = Path(store.removeprefix("file://")).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    word = uuid.uuid4().hex
    token = folder / f".reach-{word}"
    able = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0]
    nodes = {node["NodeID"]: str(node["NodeManagerHostname"]) for node in able}
    look = ray.remote(num_cpus=0, max_retries=0)(problem)
    told = []
    try:
        token.write_text(word)
        asked = {}
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            asked[node] = look.options(scheduling_strategy=there).remote(str(token), word, node, data, base)
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=PATIENCE)
        for node, reference in asked.items():
            what = _answer(reference)
            if what is None and not _reply(token, node).exists():
                what = f"writes into another {folder}"
            if what is not None:
                told.append(f"{nodes[node]} {what}")
    finally:
        for path in (token, *(_reply(token, node) for node in nodes)):
            path.unlink(missing_ok=True)
    if told:
        raise ResourceError(
            f"every machine of the cluster must reach the same files, but {'; '.join(told)}. Put --store and --data on "
            "a file system that all of them share, and install the same packages on each"
        )


def problem(token: str, word: str, node: str, data: str | None, base: str | None) -> str | None:
    """On a machine: what it lacks; None: nothing. Writes a file of its own beside the token."""
    from minbert.encoder.base import BaseEncoderError, find_base

    path = Path(token)
    try:
        if path.read_text() != word:
            return f"reads something else in {path.parent}"
        _reply(path, node).write_text(word)
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
    return token.with_name(f"{token.name}-{node}")


def _answer(reference: Any) -> str | None:
    import ray

    try:
        answer: str | None = ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"gives no answer within {PATIENCE:g} s"
    except Exception as error:  # noqa: BLE001  whatever keeps a machine from answering is what is told
        return f"cannot run this project: {str(error).strip().splitlines()[-1]}"
    return answer
